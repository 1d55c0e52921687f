/* Tests of the heap between processes: frees, death, and overwritten memory.
 * Design: docs/design/heap.md */
#include "heap_helpers.h"

#include <signal.h>
#include <unistd.h>

/* ---- other processes ---- */

/* What parent and child share besides the region: a block of it, named by its offset. */
struct ledger {
    _Atomic uint32_t started, done; /* frees begun and ended by the child */
    _Atomic uint32_t heap;
    uint32_t count;
    plait_offset_t blocks[];
};

static struct ledger *fill_ledger(struct place *place, uint32_t count, uint64_t *random)
{
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
static int free_ledger(int descriptor, size_t size, plait_offset_t at)
{
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

TEST(a_process_frees_what_the_parent_allocates)
{
    struct place place = open_place(64 * MIB, true);
    uint64_t random = test_random_start(3);
    struct ledger *ledger = fill_ledger(&place, 2000, &random);
    REQUIRE(ledger != NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(free_ledger(dup(plait_region_descriptor(place.region)),
                          plait_region_size(place.region),
                          plait_region_offset(place.region, ledger)));
    REQUIRE(child > 0);
    CHECK_EQ(wait_for(child), 0);
    plait__heap_collect(place.heap);
    CHECK_EQ(stats_of(place.heap).blocks_live, 1);
    CHECK(plait_heap_is_valid(place.heap));
    close_place(&place);
}

/* However the child dies, each block is free or is not, and all that are free come back. */
TEST(a_process_killed_while_it_frees)
{
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

/* The steps that a killed process may have left out: the next free beside it, or a sweep, finds the
 * block. */
TEST(a_free_without_its_hints)
{
    struct place place = open_place(16 * MIB, false);
    for (int steps = 1; steps <= 2; steps++)
        for (int swept = 0; swept < 2; swept++) {
            void *block = plait_heap_allocate_owner(place.heap, 3000);
            void *beside = plait_heap_allocate_owner(place.heap, 3000);
            uint64_t offset = plait_region_offset(place.region, block);
            plait__remote_set_t *remote = &place.region->spans[offset >> PLAIT__SPAN_SHIFT].remote;
            plait_atomic_or_acq_rel(
                &remote->words[0],
                UINT64_C(1) << (offset % SPAN / plait_heap_block_size(place.region, block)));
            if (steps == 2)
                plait_atomic_or_acq_rel(&remote->summary, UINT64_C(1));
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
TEST(a_heap_whose_owner_was_killed)
{
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

TEST(remote_free_refuses_what_is_no_block)
{
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
TEST(remote_double_free_is_harmless)
{
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
static int signal_of(void (*run)(struct place *place), struct place *place)
{
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        run(place);
        _exit(0);
    }
    return -wait_for(child);
}

static void *volatile victim;

static void free_twice(struct place *place)
{
    plait_heap_release_owner(place->heap, victim);
    plait_heap_release_owner(place->heap, victim);
}

static void free_inside(struct place *place)
{
    plait_heap_release_owner(place->heap, (char *)victim + 16);
}

static void free_elsewhere(struct place *place)
{
    plait_heap_release_owner(place->heap, &place);
}

static void resize_twice(struct place *place)
{
    plait_heap_release_owner(place->heap, victim);
    (void)plait_heap_resize_owner(place->heap, victim, 10);
}

TEST(the_owner_aborts_on_its_own_mistakes)
{
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

/* A wild process writes anything into the shared descriptions and blocks. Blocks may be lost or
 * handed out too early; every address stays inside the region and the owner's own books stay
 * right. */
TEST(garbage_in_shared_memory)
{
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
TEST(is_valid_notices)
{
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
