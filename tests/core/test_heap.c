/* Tests of the heap: the owner's operations, frees by threads and processes, death, overwritten memory.
 * Design: docs/design/heap.md */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/heap_internal.h"
#include "plait/heap.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SPAN PLAIT__SPAN_SIZE

/* ---- helpers ---- */

struct place {
    plait_region_t *region;
    plait_heap_t *heap;
};

static struct place open_place(size_t size, bool shared) {
    struct place place = {NULL, NULL};
    if (plait_region_create(&place.region, size, shared) != PLAIT_OK ||
        plait_heap_create(&place.heap, place.region) != PLAIT_OK) {
        fprintf(stderr, "cannot make a region and a heap\n");
        abort();
    }
    return place;
}

static uint32_t count_claimed(const plait_region_t *region) {
    uint32_t count = 0;
    for (uint32_t span = region->first_span; span < region->span_count; span++)
        count += plait__region_is_claimed(region, span);
    return count;
}

static void close_place(struct place *place) {
    CHECK(plait_heap_is_valid(place->heap));
    plait_heap_close(place->heap);
    CHECK_EQ(count_claimed(place->region), 0);
    plait_region_close(place->region);
}

static plait_heap_stats_t stats_of(plait_heap_t *heap) {
    plait_heap_stats_t stats;
    plait_heap_stats(heap, &stats);
    return stats;
}

/* A pattern over the whole block that tells its seed and the place in it. */
static void fill(void *block, size_t size, uint64_t seed) {
    uint8_t *bytes = block;
    for (size_t i = 0; i < size; i += size > 4096 ? 509 : 1)
        bytes[i] = (uint8_t)(seed + i * 131);
    if (size > 0)
        bytes[size - 1] = (uint8_t)(seed + (size - 1) * 131);
}

static bool is_filled(const void *block, size_t size, uint64_t seed, size_t filled_size) {
    const uint8_t *bytes = block;
    for (size_t i = 0; i < size; i += filled_size > 4096 ? 509 : 1)
        if (bytes[i] != (uint8_t)(seed + i * 131))
            return false;
    return size == 0 || size < filled_size || bytes[size - 1] == (uint8_t)(seed + (size - 1) * 131);
}

/* Many small sizes, some middling, few large. */
static size_t random_size(uint64_t *random) {
    uint64_t kind = test_random_below(random, 100);
    if (kind < 60)
        return test_random_below(random, 300);
    if (kind < 85)
        return test_random_below(random, 5000);
    if (kind < 95)
        return test_random_below(random, 70 * KIB);
    return test_random_below(random, 600 * KIB);
}

static int wait_for(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- one owner ---- */

TEST(sizes_and_alignment) {
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

TEST(class_table) {
    for (uint32_t i = 0; i < PLAIT__HEAP_CLASS_COUNT; i++) {
        const plait__heap_class_t *class_of_block = &plait__heap_classes[i];
        CHECK(i == 0 || class_of_block->block_size > plait__heap_classes[i - 1].block_size);
        CHECK_EQ(class_of_block->capacity, SPAN / class_of_block->block_size);
        for (uint64_t offset = 0; offset < SPAN; offset++)
            if (!CHECK_EQ(offset * class_of_block->reciprocal >> 32, offset / class_of_block->block_size))
                return;
    }
    CHECK_EQ(plait__heap_classes[PLAIT__HEAP_CLASS_COUNT - 1].block_size, PLAIT__HEAP_SMALL_MAX);
}

struct slot {
    uint8_t *block;
    size_t size;
    uint64_t seed;
};

static void shadow_step(plait_heap_t *heap, struct slot *slot, uint64_t *random) {
    size_t size = random_size(random);
    if (slot->block == NULL) {
        slot->block = plait_heap_allocate_owner(heap, size);
        slot->size = slot->block != NULL ? size : 0;
    } else if (test_random_below(random, 3) == 0) {
        uint8_t *resized = plait_heap_resize_owner(heap, slot->block, size);
        if (resized == NULL)
            return;
        CHECK(is_filled(resized, size < slot->size ? size : slot->size, slot->seed, slot->size));
        slot->block = resized;
        slot->size = size;
    } else {
        CHECK(is_filled(slot->block, slot->size, slot->seed, slot->size));
        plait_heap_release_owner(heap, slot->block);
        slot->block = NULL;
        return;
    }
    if (slot->block != NULL) {
        slot->seed = test_random(random);
        fill(slot->block, slot->size, slot->seed);
    }
}

static void run_shadow(size_t region_size, int slot_count, int steps) {
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

TEST(random_operations_agree_with_a_shadow) {
    run_shadow(256 * MIB, 700, test_scaled(60000));
}

TEST(random_operations_in_a_region_that_is_too_small) {
    run_shadow(6 * MIB, 700, test_scaled(60000));
}

TEST(exhaustion_and_recovery) {
    const size_t sizes[] = {16, 100, 3000, 32768, 32769, 65536, 300000, 5 * MIB};
    struct place place = open_place(16 * MIB, false);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t first_count = 0;
        for (int round = 0; round < 2; round++) {
            void **chain = NULL; /* each block names the one before */
            size_t count = 0;
            for (void **block; (block = plait_heap_allocate_owner(place.heap, sizes[i])) != NULL; count++) {
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

TEST(resize) {
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

TEST(adaptor) {
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

static long page_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

TEST(repeated_large_messages_do_not_fault) {
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

TEST(memory_goes_back_when_use_falls) {
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

TEST(heaps_share_a_region) {
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

TEST(remote_frees_are_collected) {
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
TEST(remote_frees_end_exhaustion) {
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

struct letter {
    uint64_t seed;
    size_t size;
    uint8_t rest[];
};

static bool is_intact(const struct letter *letter) {
    return is_filled(letter->rest, letter->size, letter->seed, letter->size);
}

static void write_letters(struct exchange *exchange) {
    uint64_t random = test_random_start(99);
    for (int i = 0; i < exchange->rounds; i++) {
        size_t size = random_size(&random) / 2;
        struct letter *letter = plait_heap_allocate_owner(exchange->place.heap, sizeof *letter + size);
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

static void read_letters(struct exchange *exchange, uint64_t stream) {
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

static void exchange_letters(int index, void *argument) {
    if (index == 0)
        write_letters(argument);
    else
        read_letters(argument, (uint64_t)index);
}

static void run_exchange(size_t region_size, int rounds) {
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

TEST(threads_free_what_the_owner_allocates) {
    run_exchange(128 * MIB, test_scaled(60000));
}

TEST(threads_free_in_a_region_that_is_too_small) {
    run_exchange(2 * MIB, test_scaled(60000));
}

/* Every thread owns a heap, and frees what it finds from the others. */
struct market {
    plait_region_t *region;
    plait_heap_t *heaps[4];
    atomic_uintptr_t boxes[MAILBOXES];
    int rounds;
};

static void trade(int index, void *argument) {
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

TEST(many_heaps_trade_blocks) {
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

/* ---- other processes ---- */

/* What parent and child share besides the region: a block of it, named by its offset. */
struct ledger {
    _Atomic uint32_t started, done; /* frees begun and ended by the child */
    _Atomic uint32_t heap;
    uint32_t count;
    plait_offset_t blocks[];
};

static struct ledger *fill_ledger(struct place *place, uint32_t count, uint64_t *random) {
    struct ledger *ledger =
        plait_heap_allocate_owner(place->heap, sizeof *ledger + count * sizeof(plait_offset_t));
    if (ledger == NULL)
        return NULL;
    memset(ledger, 0, sizeof *ledger);
    ledger->count = count;
    for (uint32_t i = 0; i < count; i++) {
        size_t size = sizeof(struct letter) + test_random_below(random, i % 50 == 0 ? 200000 : 400);
        struct letter *letter = plait_heap_allocate_owner(place->heap, size);
        if (letter == NULL)
            return NULL;
        letter->seed = test_random(random);
        letter->size = size - sizeof *letter;
        fill(letter->rest, letter->size, letter->seed);
        ledger->blocks[i] = plait_region_offset(place->region, letter);
    }
    for (uint32_t i = count - 1; i > 0; i--) { /* the child frees in another order */
        uint32_t j = (uint32_t)test_random_below(random, i + 1);
        plait_offset_t swap = ledger->blocks[i];
        ledger->blocks[i] = ledger->blocks[j];
        ledger->blocks[j] = swap;
    }
    return ledger;
}

/* Frees all blocks of the ledger, seen through a map of its own. */
static int free_ledger(int descriptor, size_t size, plait_offset_t at) {
    plait_region_t *region;
    if (plait_region_open(&region, descriptor, size) != PLAIT_OK)
        return 2;
    struct ledger *ledger = plait_region_at(region, at, sizeof *ledger);
    if (ledger == NULL)
        return 3;
    for (uint32_t i = 0; i < ledger->count; i++) {
        struct letter *letter = plait_region_at(region, ledger->blocks[i], sizeof *letter);
        if (letter == NULL || !is_intact(letter))
            return 4;
        atomic_store(&ledger->started, i + 1);
        if (plait_heap_release_remote(region, letter) != PLAIT_OK)
            return 5;
        atomic_store(&ledger->done, i + 1);
    }
    plait_region_close(region);
    return 0;
}

TEST(a_process_frees_what_the_parent_allocates) {
    struct place place = open_place(64 * MIB, true);
    uint64_t random = test_random_start(3);
    struct ledger *ledger = fill_ledger(&place, 2000, &random);
    REQUIRE(ledger != NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(free_ledger(dup(plait_region_descriptor(place.region)), plait_region_size(place.region),
                          plait_region_offset(place.region, ledger)));
    REQUIRE(child > 0);
    CHECK_EQ(wait_for(child), 0);
    plait__heap_collect(place.heap);
    CHECK_EQ(stats_of(place.heap).blocks_live, 1);
    CHECK(plait_heap_is_valid(place.heap));
    close_place(&place);
}

/* However the child dies, each block is free or is not, and all that are free come back. */
TEST(a_process_killed_while_it_frees) {
    uint64_t random = test_random_start(4);
    for (int round = 0; round < test_scaled(150); round++) {
        struct place place = open_place(64 * MIB, true);
        struct ledger *ledger = fill_ledger(&place, 1500, &random);
        REQUIRE(ledger != NULL);
        pid_t child = fork();
        if (child == 0) {
            int code = free_ledger(dup(plait_region_descriptor(place.region)),
                                   plait_region_size(place.region),
                                   plait_region_offset(place.region, ledger));
            while (code == 0)
                pause();
            _exit(code);
        }
        REQUIRE(child > 0);
        uint32_t stop = (uint32_t)test_random_below(&random, 1500);
        while (atomic_load(&ledger->started) <= stop)
            if (round % 2 == 0) /* the owner collects meanwhile */
                plait_heap_release_owner(place.heap, plait_heap_allocate_owner(place.heap, 40000));
        kill(child, SIGKILL);
        CHECK_EQ(wait_for(child), -SIGKILL);
        plait_heap_trim(place.heap);
        uint64_t live = stats_of(place.heap).blocks_live - 1; /* the ledger */
        CHECK(live >= 1500 - atomic_load(&ledger->started));
        CHECK(live <= 1500 - atomic_load(&ledger->done));
        CHECK(plait_heap_is_valid(place.heap));
        close_place(&place);
    }
}

/* The steps that a killed process may have left out: the next free beside it, or a sweep, finds the block. */
TEST(a_free_without_its_hints) {
    struct place place = open_place(16 * MIB, false);
    for (int steps = 1; steps <= 2; steps++)
        for (int swept = 0; swept < 2; swept++) {
            void *block = plait_heap_allocate_owner(place.heap, 3000);
            void *beside = plait_heap_allocate_owner(place.heap, 3000);
            uint64_t offset = plait_region_offset(place.region, block);
            plait__remote_set_t *remote = &place.region->spans[offset >> PLAIT__SPAN_SHIFT].remote;
            plait_atomic_or_seq_cst(&remote->words[0],
                                    UINT64_C(1) << (offset % SPAN / plait_heap_block_size(place.region, block)));
            if (steps == 2)
                plait_atomic_or_seq_cst(&remote->summary, UINT64_C(1));
            plait__heap_collect(place.heap);
            CHECK(plait_heap_owns(place.heap, block));
            if (swept) {
                plait__heap_sweep(place.heap);
            } else {
                CHECK_EQ(plait_heap_release_remote(place.region, beside), PLAIT_OK);
                plait__heap_collect(place.heap);
            }
            CHECK(!plait_heap_owns(place.heap, block));
            CHECK_EQ(plait_heap_owns(place.heap, beside), swept != 0);
            if (swept)
                plait_heap_release_owner(place.heap, beside);
        }
    close_place(&place);
}

/* A heap of a process that dies is given back by its number. */
TEST(a_heap_whose_owner_was_killed) {
    uint64_t random = test_random_start(5);
    for (int round = 0; round < test_scaled(60); round++) {
        struct place place = open_place(64 * MIB, true);
        struct ledger *ledger = plait_heap_allocate_owner(place.heap, sizeof *ledger);
        REQUIRE(ledger != NULL);
        memset(ledger, 0, sizeof *ledger);
        pid_t child = fork();
        if (child == 0) {
            plait_heap_t *heap;
            static struct slot slots[300];
            uint64_t own_random = test_random_start((uint64_t)round);
            if (plait_heap_create(&heap, place.region) != PLAIT_OK)
                _exit(2);
            atomic_store(&ledger->heap, plait_heap_id(heap));
            for (;;)
                shadow_step(heap, &slots[test_random_below(&own_random, 300)], &own_random);
        }
        REQUIRE(child > 0);
        while (atomic_load(&ledger->heap) == 0)
            sched_yield();
        test_sleep((int64_t)test_random_below(&random, 5000000));
        kill(child, SIGKILL);
        CHECK_EQ(wait_for(child), -SIGKILL);
        uint64_t own = stats_of(place.heap).spans;
        plait_heap_reclaim(place.region, atomic_load(&ledger->heap));
        /* Spans that it was just claiming or giving back may be lost: those of one run. */
        CHECK(count_claimed(place.region) <= own + 256);
        CHECK(plait_heap_is_valid(place.heap));
        plait_heap_close(place.heap);
        plait_region_close(place.region);
    }
}

/* ---- what must be refused ---- */

TEST(remote_free_refuses_what_is_no_block) {
    struct place place = open_place(16 * MIB, false);
    plait_region_t *region = place.region;
    char *small = plait_heap_allocate_owner(place.heap, 100);
    char *large = plait_heap_allocate_owner(place.heap, 300 * KIB);
    char outside;
    CHECK_EQ(plait_heap_release_remote(region, &outside), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, region->base), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, region->spans), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, region->base + region->size), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, small + 16), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, large + 64), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, large + SPAN), PLAIT_INVALID);
    CHECK_EQ(plait_heap_release_remote(region, region->base + region->size - SPAN), PLAIT_INVALID);
    CHECK_EQ(plait_heap_block_size(region, &outside), 0);
    CHECK_EQ(plait_heap_block_size(region, large + SPAN), 0);
    CHECK(!plait_heap_owns(place.heap, small + 16));
    CHECK(!plait_heap_owns(place.heap, &outside));
    CHECK(!plait_heap_owns(place.heap, large + SPAN));
    CHECK(!plait_heap_owns(place.heap, region->base + region->size - SPAN));
    close_place(&place);
}

/* Freeing twice from afar says nothing, as long as the block is not handed out again. */
TEST(remote_double_free_is_harmless) {
    struct place place = open_place(16 * MIB, false);
    for (size_t size = 50; size < 200 * KIB; size *= 3) {
        void *block = plait_heap_allocate_owner(place.heap, size);
        void *other = plait_heap_allocate_owner(place.heap, size);
        CHECK_EQ(plait_heap_release_remote(place.region, block), PLAIT_OK);
        CHECK_EQ(plait_heap_release_remote(place.region, block), PLAIT_OK);
        plait__heap_collect(place.heap);
        (void)plait_heap_release_remote(place.region, block);
        plait__heap_collect(place.heap);
        CHECK(!plait_heap_owns(place.heap, block));
        CHECK(plait_heap_owns(place.heap, other));
        plait_heap_release_owner(place.heap, other);
        CHECK(plait__heap_is_valid_locally(place.heap));
    }
    plait_heap_close(place.heap);
    plait_region_close(place.region);
}

/* Runs in a child, and tells by which signal it died. */
static int signal_of(void (*run)(struct place *place), struct place *place) {
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        run(place);
        _exit(0);
    }
    return -wait_for(child);
}

static void *volatile victim;

static void free_twice(struct place *place) {
    plait_heap_release_owner(place->heap, victim);
    plait_heap_release_owner(place->heap, victim);
}

static void free_inside(struct place *place) {
    plait_heap_release_owner(place->heap, (char *)victim + 16);
}

static void free_elsewhere(struct place *place) {
    plait_heap_release_owner(place->heap, &place);
}

static void resize_twice(struct place *place) {
    plait_heap_release_owner(place->heap, victim);
    (void)plait_heap_resize_owner(place->heap, victim, 10);
}

TEST(the_owner_aborts_on_its_own_mistakes) {
    struct place place = open_place(16 * MIB, false);
    const size_t sizes[] = {64, 1000, 300 * KIB};
    for (size_t i = 0; i < 3; i++) {
        victim = plait_heap_allocate_owner(place.heap, sizes[i]);
        CHECK_EQ(signal_of(free_twice, &place), SIGABRT);
        CHECK_EQ(signal_of(free_inside, &place), SIGABRT);
        CHECK_EQ(signal_of(free_elsewhere, &place), SIGABRT);
        CHECK_EQ(signal_of(resize_twice, &place), SIGABRT);
    }
    close_place(&place);
}

/* A wild process writes anything into the shared descriptions and blocks. Blocks may be lost or handed out
 * too early; every address stays inside the region and the owner's own books stay right. */
TEST(garbage_in_shared_memory) {
    struct place place = open_place(8 * MIB, false);
    plait_region_t *region = place.region;
    uint64_t random = test_random_start(7);
    enum { BLOCKS = 200 };
    static uint8_t *blocks[BLOCKS];
    memset(blocks, 0, sizeof blocks);
    uint64_t *tables = (uint64_t *)(void *)(region->base + 64);
    size_t words = (size_t)(region->base + region->size - (uint8_t *)tables) / 8;
    size_t table_words =
        (size_t)((uint8_t *)(region->spans + region->span_count) - (uint8_t *)tables) / 8;
    for (int round = 0; round < test_scaled(40000); round++) {
        size_t limit = round % 4 == 0 ? words : table_words;
        tables[test_random_below(&random, limit)] = test_random(&random);
        uint8_t **slot = &blocks[test_random_below(&random, BLOCKS)];
        if (*slot != NULL && plait_heap_owns(place.heap, *slot))
            plait_heap_release_owner(place.heap, *slot);
        size_t size = random_size(&random) / 4;
        *slot = plait_heap_allocate_owner(place.heap, size);
        if (*slot != NULL) {
            CHECK(plait_region_at(region, plait_region_offset(region, *slot), size) == *slot);
            memset(*slot, 1, size);
        }
        void *anything = region->base + test_random_below(&random, region->size + 1000);
        (void)plait_heap_release_remote(region, anything);
        (void)plait_heap_block_size(region, anything);
        if (round % 500 == 0)
            CHECK(plait__heap_is_valid_locally(place.heap));
    }
    plait_heap_trim(place.heap);
    CHECK(plait__heap_is_valid_locally(place.heap));
    plait_heap_reclaim(region, 12345);
    plait_heap_close(place.heap);
    plait_region_close(region);
}

/* The walker sees what it is for. */
TEST(is_valid_notices) {
    struct place place = open_place(16 * MIB, false);
    void *block = plait_heap_allocate_owner(place.heap, 100);
    (void)plait_heap_allocate_owner(place.heap, 100);
    plait_heap_release_owner(place.heap, plait_heap_allocate_owner(place.heap, 300 * KIB));
    plait_heap_release_owner(place.heap, block);
    uint32_t span = (uint32_t)(plait_region_offset(place.region, block) >> PLAIT__SPAN_SHIFT);
    plait__page_t *page = plait__page_of(place.heap->map[span]);
    CHECK(plait_heap_is_valid(place.heap));
    page->live++;
    CHECK(!plait_heap_is_valid(place.heap));
    page->live--;
    page->free[0] ^= 1;
    CHECK(!plait_heap_is_valid(place.heap));
    page->free[0] ^= 1;
    plait__bit_set(place.heap->mine, place.heap->high - 1);
    CHECK(!plait_heap_is_valid(place.heap));
    plait__bit_clear(place.heap->mine, place.heap->high - 1);
    uint64_t info = plait__span_load_info(place.region, span);
    plait__span_store_info(place.region, span, info + 4);
    CHECK(!plait_heap_is_valid(place.heap));
    plait__span_store_info(place.region, span, info);
    CHECK_EQ(plait_heap_release_remote(place.region, block), PLAIT_OK); /* the second time */
    CHECK(!plait_heap_is_valid(place.heap));
    plait__heap_collect(place.heap);
    close_place(&place);
}
