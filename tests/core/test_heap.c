/* Tests of the heap: the owner's operations, and frees by other threads.
 * Design: docs/design/heap.md */
#include "heap_helpers.h"

#include <sys/resource.h>

/* ---- one owner ---- */

TEST(sizes_and_alignment)
{
    struct place place = open_place(256 * MIB, false);
    for (size_t size = 0; size < 300 * KIB; size += size < 9000 ? 1 : 997) {
        void *block = plait_heap_allocate_owner(place.heap, size);
        REQUIRE(block != NULL);
        size_t usable = plait_heap_block_size(place.region, block);
        CHECK(usable >= size);
        CHECK(size < 64 || usable <= size + size / 3 + SPAN);
        CHECK_EQ((uintptr_t)block % (size >= 64 ? 64 : 16), 0);
        CHECK(plait_heap_owns(place.heap, block));
        if (size >= 64)
            CHECK_EQ(plait_heap_block_size(place.region, (char *)block + 16), 0);
        if (size % 7 == 0) /* keep some, so that blocks lie everywhere in their spans */
            plait_heap_release_owner(place.heap, block);
    }
    CHECK(plait_heap_is_valid(place.heap));
    close_place(&place);
}

TEST(class_table)
{
    for (uint32_t i = 0; i < PLAIT__HEAP_CLASS_COUNT; i++) {
        const plait__heap_class_t *class_of_block = &plait__heap_classes[i];
        CHECK(i == 0 || class_of_block->block_size > plait__heap_classes[i - 1].block_size);
        CHECK_EQ(class_of_block->capacity, SPAN / class_of_block->block_size);
        for (uint64_t offset = 0; offset < SPAN; offset++)
            if (!CHECK_EQ(offset * class_of_block->reciprocal >> 32,
                          offset / class_of_block->block_size))
                return;
    }
    CHECK_EQ(plait__heap_classes[PLAIT__HEAP_CLASS_COUNT - 1].block_size, PLAIT__HEAP_SMALL_MAX);
}

static void run_shadow(size_t region_size, int slot_count, int steps)
{
    struct place place = open_place(region_size, false);
    struct slot *slots = calloc((size_t)slot_count, sizeof *slots);
    uint64_t random = test_random_start((uint64_t)slot_count);
    for (int i = 0; i < steps; i++) {
        shadow_step(place.heap, &slots[test_random_below(&random, (uint64_t)slot_count)], &random);
        if (i % 1000 == 0)
            CHECK(plait_heap_is_valid(place.heap));
        if (i % 7777 == 0)
            plait_heap_trim(place.heap);
    }
    uint64_t live = 0;
    for (int i = 0; i < slot_count; i++)
        live += slots[i].block != NULL;
    CHECK_EQ(stats_of(place.heap).blocks_live, live);
    for (int i = 0; i < slot_count; i++) {
        if (slots[i].block != NULL)
            CHECK(is_filled(slots[i].block, slots[i].size, slots[i].seed, slots[i].size));
        plait_heap_release_owner(place.heap, slots[i].block);
    }
    plait_heap_stats_t stats = stats_of(place.heap);
    CHECK_EQ(stats.blocks_live, 0);
    CHECK_EQ(stats.bytes_live, 0);
    plait_heap_trim(place.heap);
    CHECK_EQ(stats_of(place.heap).spans, 0);
    free(slots);
    close_place(&place);
}

TEST(random_operations_agree_with_a_shadow)
{
    run_shadow(256 * MIB, 700, test_scaled(60000));
}

TEST(random_operations_in_a_region_that_is_too_small)
{
    run_shadow(6 * MIB, 700, test_scaled(60000));
}

TEST(exhaustion_and_recovery)
{
    const size_t sizes[] = {16, 100, 3000, 32768, 32769, 65536, 300000, 5 * MIB};
    struct place place = open_place(16 * MIB, false);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t first_count = 0;
        for (int round = 0; round < 2; round++) {
            void **chain = NULL; /* each block names the one before */
            size_t count = 0;
            for (void **block; (block = plait_heap_allocate_owner(place.heap, sizes[i])) != NULL;
                 count++) {
                *block = chain;
                chain = block;
            }
            CHECK(count * sizes[i] > 15 * MIB / 2);
            if (round == 0)
                first_count = count;
            CHECK_EQ(count, first_count);
            CHECK(plait_heap_is_valid(place.heap));
            while (chain != NULL) {
                void **next = *chain;
                plait_heap_release_owner(place.heap, chain);
                chain = next;
            }
        }
    }
    CHECK(plait_heap_allocate_owner(place.heap, 17 * MIB) == NULL);
    CHECK(plait_heap_allocate_owner(place.heap, SIZE_MAX) == NULL);
    CHECK(plait_heap_allocate_owner(place.heap, SIZE_MAX - SPAN + 2) == NULL);
    close_place(&place);
}

TEST(resize)
{
    struct place place = open_place(64 * MIB, false);
    plait_heap_t *heap = place.heap;
    uint8_t *block = plait_heap_resize_owner(heap, NULL, 100);
    REQUIRE(block != NULL);
    fill(block, 100, 9);
    CHECK(plait_heap_resize_owner(heap, block, 110) == block); /* there is room */
    CHECK(plait_heap_resize_owner(heap, block, 70) == block);
    uint8_t *large = plait_heap_resize_owner(heap, block, 3 * MIB);
    REQUIRE(large != NULL);
    CHECK(is_filled(large, 100, 9, 100));
    fill(large, 3 * MIB, 10);
    for (size_t size = 3 * MIB; size < 40 * MIB; size += MIB) { /* nothing behind it: never moves */
        CHECK(plait_heap_resize_owner(heap, large, size) == large);
        CHECK(plait_heap_block_size(place.region, large) >= size);
    }
    CHECK(is_filled(large, 3 * MIB, 10, 3 * MIB));
    CHECK(plait_heap_resize_owner(heap, large, 100 * MIB) == NULL);
    CHECK(plait_heap_resize_owner(heap, large, SIZE_MAX) == NULL);
    CHECK(is_filled(large, 3 * MIB, 10, 3 * MIB));
    CHECK(plait_heap_resize_owner(heap, large, MIB) == large);
    CHECK_EQ(plait_heap_block_size(place.region, large), MIB);
    CHECK(plait_heap_resize_owner(heap, large, 2 * MIB) == large); /* from what is kept */
    void *blocker = plait_heap_allocate_owner(heap, 100 * KIB);
    CHECK(is_filled(large, MIB / 2, 10, 3 * MIB));
    uint8_t *small = plait_heap_resize_owner(heap, large, 50);
    REQUIRE(small != NULL);
    CHECK(small != large);
    CHECK(plait_heap_is_valid(heap));
    plait_heap_release_owner(heap, small);
    plait_heap_release_owner(heap, blocker);
    plait_heap_release_owner(heap, NULL);
    close_place(&place);
}

TEST(adaptor)
{
    struct place place = open_place(4 * MIB, false);
    plait_alloc_t alloc = plait_heap_alloc_owner(place.heap);
    char *block = alloc.allocate(alloc.context, 10);
    REQUIRE(block != NULL);
    CHECK(plait_heap_owns(place.heap, block));
    block = alloc.resize(alloc.context, block, 100000);
    REQUIRE(block != NULL);
    alloc.release(alloc.context, block);
    alloc.release(alloc.context, NULL);
    CHECK_EQ(stats_of(place.heap).blocks_live, 0);
    close_place(&place);
}

/* ---- memory use ---- */

static long page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

TEST(repeated_large_messages_do_not_fault)
{
    for (int shared = 0; shared < 2; shared++) {
        struct place place = open_place(512 * MIB, shared != 0);
        const size_t sizes[] = {MIB, 40 * MIB};
        for (size_t i = 0; i < 2; i++) {
            long before = 0;
            for (int round = 0; round < 20; round++) {
                void *block = plait_heap_allocate_owner(place.heap, sizes[i]);
                REQUIRE(block != NULL);
                for (size_t at = 0; at < sizes[i]; at += 4096)
                    ((volatile char *)block)[at] = 1;
                if (round % 2 == 0)
                    plait_heap_release_owner(place.heap, block);
                else
                    CHECK_EQ(plait_heap_release_remote(place.region, block), PLAIT_OK);
                if (round == 1)
                    before = page_faults();
            }
            CHECK(page_faults() - before < 200);
        }
        CHECK(stats_of(place.heap).spans <= 2 * 640 + 16);
        close_place(&place);
    }
}

TEST(memory_goes_back_when_use_falls)
{
    struct place place = open_place(512 * MIB, false);
    void *block = plait_heap_allocate_owner(place.heap, 100 * MIB);
    REQUIRE(block != NULL);
    plait_heap_release_owner(place.heap, block);
    CHECK(stats_of(place.heap).spans_retained >= 1600);
    for (int i = 0; i < 1000; i++)
        plait_heap_release_owner(place.heap, plait_heap_allocate_owner(place.heap, MIB));
    CHECK(stats_of(place.heap).spans <= 64);
    plait_heap_release_owner(place.heap, plait_heap_allocate_owner(place.heap, 10));
    plait_heap_trim(place.heap);
    CHECK_EQ(stats_of(place.heap).spans, 0);
    CHECK_EQ(count_claimed(place.region), 0);
    close_place(&place);
}

TEST(heaps_share_a_region)
{
    struct place place = open_place(64 * MIB, false);
    plait_heap_t *other;
    REQUIRE(plait_heap_create(&other, place.region) == PLAIT_OK);
    CHECK(plait_heap_id(other) != plait_heap_id(place.heap));
    void *mine = plait_heap_allocate_owner(place.heap, 100);
    void *its = plait_heap_allocate_owner(other, 100);
    CHECK(plait_heap_owns(other, its) && !plait_heap_owns(other, mine));
    CHECK_EQ(plait_heap_release_remote(place.region, its), PLAIT_OK);
    plait_heap_trim(place.heap); /* leaves the other's hints alone */
    CHECK_EQ(stats_of(other).blocks_live, 1);
    plait_heap_trim(other);
    CHECK_EQ(stats_of(other).blocks_live, 0);
    for (int i = 0; i < 200; i++)
        REQUIRE(plait_heap_allocate_owner(other, 100 * KIB) != NULL);
    plait_heap_close(other);
    CHECK_EQ(count_claimed(place.region), stats_of(place.heap).spans);
    CHECK(plait_heap_allocate_owner(place.heap, 50 * MIB) != NULL);
    plait_heap_close(NULL);
    close_place(&place);
}

/* ---- frees by other threads ---- */

TEST(remote_frees_are_collected)
{
    struct place place = open_place(16 * MIB, false);
    enum { COUNT = 3000 };
    static void *blocks[COUNT];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < COUNT; i++) {
            blocks[i] = plait_heap_allocate_owner(place.heap, (size_t)(i % 50) * 40);
            REQUIRE(blocks[i] != NULL);
        }
        for (int i = 0; i < COUNT; i++)
            CHECK_EQ(plait_heap_release_remote(place.region, blocks[i]), PLAIT_OK);
        CHECK_EQ(stats_of(place.heap).blocks_live, COUNT);
        CHECK(plait_heap_is_valid(place.heap));
        plait__heap_collect(place.heap);
        CHECK_EQ(stats_of(place.heap).blocks_live, 0);
        CHECK(plait_heap_is_valid(place.heap));
    }
    CHECK_EQ(plait_heap_release_remote(place.region, NULL), PLAIT_OK);
    close_place(&place);
}

/* A full region becomes usable again by what others free, for the same and for other sizes. */
TEST(remote_frees_end_exhaustion)
{
    struct place place = open_place(4 * MIB, false);
    static void *blocks[100000];
    int count = 0;
    while ((blocks[count] = plait_heap_allocate_owner(place.heap, 64)) != NULL)
        count++;
    CHECK_EQ(plait_heap_release_remote(place.region, blocks[count / 2]), PLAIT_OK);
    CHECK(plait_heap_allocate_owner(place.heap, 64) == blocks[count / 2]);
    for (int i = 0; i < count; i++)
        CHECK_EQ(plait_heap_release_remote(place.region, blocks[i]), PLAIT_OK);
    CHECK(plait_heap_allocate_owner(place.heap, 3 * MIB) != NULL);
    close_place(&place);
}

enum { MAILBOXES = 64 };

/* One owner swaps fresh blocks into the boxes, the others take blocks out and free them. */
struct exchange {
    struct place place;
    atomic_uintptr_t boxes[MAILBOXES];
    atomic_bool finished;
    int rounds;
};

static void write_letters(struct exchange *exchange)
{
    uint64_t random = test_random_start(99);
    for (int i = 0; i < exchange->rounds; i++) {
        size_t size = random_size(&random) / 2;
        struct letter *letter =
            plait_heap_allocate_owner(exchange->place.heap, sizeof *letter + size);
        if (letter == NULL) {
            sched_yield();
            continue;
        }
        letter->seed = test_random(&random);
        letter->size = size;
        fill(letter->rest, size, letter->seed);
        struct letter *old = (struct letter *)atomic_exchange(
            &exchange->boxes[test_random_below(&random, MAILBOXES)], (uintptr_t)letter);
        if (old != NULL) {
            CHECK(is_intact(old));
            plait_heap_release_owner(exchange->place.heap, old);
        }
    }
    atomic_store(&exchange->finished, true);
}

static void read_letters(struct exchange *exchange, uint64_t stream)
{
    uint64_t random = test_random_start(stream);
    while (!atomic_load(&exchange->finished)) {
        struct letter *letter = (struct letter *)atomic_exchange(
            &exchange->boxes[test_random_below(&random, MAILBOXES)], 0);
        if (letter == NULL) {
            sched_yield();
            continue;
        }
        CHECK(is_intact(letter));
        CHECK_EQ(plait_heap_release_remote(exchange->place.region, letter), PLAIT_OK);
    }
}

static void exchange_letters(int index, void *argument)
{
    if (index == 0)
        write_letters(argument);
    else
        read_letters(argument, (uint64_t)index);
}

static void run_exchange(size_t region_size, int rounds)
{
    static struct exchange exchange;
    memset(&exchange, 0, sizeof exchange);
    exchange.place = open_place(region_size, false);
    exchange.rounds = rounds;
    test_run_threads(4, exchange_letters, &exchange);
    for (int i = 0; i < MAILBOXES; i++)
        CHECK_EQ(plait_heap_release_remote(exchange.place.region,
                                           (void *)atomic_load(&exchange.boxes[i])),
                 PLAIT_OK);
    plait__heap_collect(exchange.place.heap); /* without a sweep: no hint is missing */
    CHECK_EQ(stats_of(exchange.place.heap).blocks_live, 0);
    close_place(&exchange.place);
}

TEST(threads_free_what_the_owner_allocates)
{
    run_exchange(128 * MIB, test_scaled(60000));
}

TEST(threads_free_in_a_region_that_is_too_small)
{
    run_exchange(2 * MIB, test_scaled(60000));
}

/* Every thread owns a heap, and frees what it finds from the others. */
struct market {
    plait_region_t *region;
    plait_heap_t *heaps[4];
    atomic_uintptr_t boxes[MAILBOXES];
    int rounds;
};

static void trade(int index, void *argument)
{
    struct market *market = argument;
    plait_heap_t *heap = market->heaps[index];
    uint64_t random = test_random_start((uint64_t)index + 500);
    for (int i = 0; i < market->rounds; i++) {
        size_t size = random_size(&random) / 4;
        struct letter *letter = plait_heap_allocate_owner(heap, sizeof *letter + size);
        if (letter == NULL)
            continue;
        letter->seed = test_random(&random);
        letter->size = size;
        fill(letter->rest, size, letter->seed);
        struct letter *old = (struct letter *)atomic_exchange(
            &market->boxes[test_random_below(&random, MAILBOXES)], (uintptr_t)letter);
        if (old == NULL)
            continue;
        CHECK(is_intact(old));
        if (plait_heap_owns(heap, old))
            plait_heap_release_owner(heap, old);
        else
            CHECK_EQ(plait_heap_release_remote(market->region, old), PLAIT_OK);
    }
    CHECK(plait__heap_is_valid_locally(heap));
}

TEST(many_heaps_trade_blocks)
{
    static struct market market;
    memset(&market, 0, sizeof market);
    market.rounds = test_scaled(20000);
    REQUIRE(plait_region_create(&market.region, 64 * MIB, false) == PLAIT_OK);
    for (int i = 0; i < 4; i++)
        REQUIRE(plait_heap_create(&market.heaps[i], market.region) == PLAIT_OK);
    test_run_threads(4, trade, &market);
    for (int i = 0; i < MAILBOXES; i++)
        CHECK_EQ(plait_heap_release_remote(market.region, (void *)atomic_load(&market.boxes[i])),
                 PLAIT_OK);
    for (int i = 0; i < 4; i++) {
        plait__heap_collect(market.heaps[i]);
        CHECK_EQ(stats_of(market.heaps[i]).blocks_live, 0);
        CHECK(plait_heap_is_valid(market.heaps[i]));
        plait_heap_close(market.heaps[i]);
    }
    CHECK_EQ(count_claimed(market.region), 0);
    plait_region_close(market.region);
}
