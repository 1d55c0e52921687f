/* Tests of core/deque. The stresses note every item in a plain (not atomic) counter of its own:
 * a lost item shows as 0, a duplicated one as 2, and an unordered hand-over as a data race under
 * ThreadSanitizer. */
#include "counted_alloc.h" /* first: it sets the feature macros */

#include "core/deque.h"

#include <unistd.h>

struct item {
    int number;
    int taken;
};

static void *fake(intptr_t number)
{
    return (void *)number;
}

TEST(init_refuses_odd_capacities)
{
    plait_deque_t deque;
    CHECK_EQ(plait_deque_init(&deque, 0, &plait_alloc_system), PLAIT_INVALID);
    CHECK_EQ(plait_deque_init(&deque, 3, &plait_alloc_system), PLAIT_INVALID);
    CHECK_EQ(plait_deque_init(&deque, (size_t)1 << 63, &plait_alloc_system), PLAIT_NOMEM);
}

TEST(empty)
{
    plait_deque_t deque;
    void *item = NULL;
    REQUIRE(plait_deque_init(&deque, 2, &plait_alloc_system) == PLAIT_OK);
    for (int i = 0; i < 5; i++) { /* popping an empty deque must not disturb its indices */
        CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_EMPTY);
        CHECK_EQ(plait_deque_steal_thief(&deque, &item), PLAIT_EMPTY);
        CHECK_EQ(plait_deque_size(&deque), 0);
    }
    CHECK(item == NULL);
    CHECK_EQ(plait_deque_push_owner(&deque, fake(7)), PLAIT_OK);
    CHECK_EQ(plait_deque_size(&deque), 1);
    CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_OK);
    CHECK(item == fake(7));
    CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_EMPTY);
    plait_deque_fini(&deque);
}

TEST(newest_for_owner_oldest_for_thief)
{
    plait_deque_t deque;
    void *item;
    REQUIRE(plait_deque_init(&deque, 8, &plait_alloc_system) == PLAIT_OK);
    for (intptr_t i = 1; i <= 5; i++)
        CHECK_EQ(plait_deque_push_owner(&deque, fake(i)), PLAIT_OK);
    CHECK_EQ(plait_deque_size(&deque), 5);
    const intptr_t pops[] = {5, 4, 3}, steals[] = {1, 2};
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(plait_deque_steal_thief(&deque, &item), PLAIT_OK);
        CHECK(item == fake(steals[i]));
    }
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_OK);
        CHECK(item == fake(pops[i]));
    }
    CHECK_EQ(plait_deque_size(&deque), 0);
    plait_deque_fini(&deque);
}

TEST(grows)
{
    enum { COUNT = 100000 };
    struct counted counted;
    plait_deque_t deque;
    void *item;
    counted_init(&counted);
    REQUIRE(plait_deque_init(&deque, 1, &counted.alloc) == PLAIT_OK);
    for (intptr_t i = 1; i <= COUNT; i++)
        CHECK_EQ(plait_deque_push_owner(&deque, fake(i)), PLAIT_OK);
    CHECK_EQ(plait_deque_size(&deque), COUNT);
    for (intptr_t i = 1; i <= COUNT / 2; i++) {
        CHECK_EQ(plait_deque_steal_thief(&deque, &item), PLAIT_OK);
        CHECK(item == fake(i));
    }
    for (intptr_t i = COUNT; i > COUNT / 2; i--) {
        CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_OK);
        CHECK(item == fake(i));
    }
    CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_EMPTY);
    plait_deque_fini(&deque);
    CHECK_EQ(counted.live, 0);
}

/* Indices go round the ring, and past 32 bits, without growing it. */
TEST(indices_wrap)
{
    struct counted counted;
    plait_deque_t deque;
    void *item;
    counted_init(&counted);
    REQUIRE(plait_deque_init(&deque, 4, &counted.alloc) == PLAIT_OK);
    int64_t start = ((int64_t)1 << 32) - 5000;
    plait_atomic_store_relaxed(&deque.top, start);
    plait_atomic_store_relaxed(&deque.bottom, start);
    deque.top_seen = start;
    intptr_t next = 1, oldest = 1;
    for (int i = 0; i < 10000; i++) {
        while (next - oldest < 4)
            CHECK_EQ(plait_deque_push_owner(&deque, fake(next++)), PLAIT_OK);
        CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_OK);
        CHECK(item == fake(--next));
        for (int steals = 0; steals <= i % 3; steals++) {
            CHECK_EQ(plait_deque_steal_thief(&deque, &item), PLAIT_OK);
            CHECK(item == fake(oldest++));
        }
    }
    CHECK_EQ(counted.calls, 1);
    plait_deque_fini(&deque);
    CHECK_EQ(counted.live, 0);
}

TEST(no_memory_leaves_it_intact)
{
    struct counted counted;
    plait_deque_t deque;
    void *item;
    counted_init(&counted);
    atomic_store(&counted.fails, true);
    CHECK_EQ(plait_deque_init(&deque, 4, &counted.alloc), PLAIT_NOMEM);
    atomic_store(&counted.fails, false);
    REQUIRE(plait_deque_init(&deque, 4, &counted.alloc) == PLAIT_OK);
    for (intptr_t i = 1; i <= 4; i++)
        CHECK_EQ(plait_deque_push_owner(&deque, fake(i)), PLAIT_OK);
    atomic_store(&counted.fails, true);
    CHECK_EQ(plait_deque_push_owner(&deque, fake(5)), PLAIT_NOMEM);
    CHECK_EQ(plait_deque_size(&deque), 4);
    CHECK_EQ(plait_deque_steal_thief(&deque, &item), PLAIT_OK);
    CHECK(item == fake(1));
    CHECK_EQ(plait_deque_push_owner(&deque, fake(5)), PLAIT_OK); /* there is room again */
    for (intptr_t i = 5; i >= 2; i--) {
        CHECK_EQ(plait_deque_pop_owner(&deque, &item), PLAIT_OK);
        CHECK(item == fake(i));
    }
    plait_deque_fini(&deque);
    CHECK_EQ(counted.live, 0);
}

/* ---- an owner and thieves ---- */

struct stress {
    plait_deque_t deque;
    struct item *items;
    int count;
    int burst;        /* pushes in a row, at most */
    atomic_bool done; /* the owner has popped until empty */
};

static void note(struct item *item, int expected)
{
    if (expected >= 0)
        CHECK_EQ(item->number, expected);
    item->taken++;
}

static void own(struct stress *stress)
{
    uint64_t random = test_random_start(0);
    void *item;
    for (int pushed = 0; pushed < stress->count;) {
        int burst = 1 + (int)test_random_below(&random, (uint64_t)stress->burst);
        for (; burst > 0 && pushed < stress->count; burst--, pushed++) {
            stress->items[pushed].number = pushed;
            CHECK_EQ(plait_deque_push_owner(&stress->deque, &stress->items[pushed]), PLAIT_OK);
        }
        int pops = (int)test_random_below(&random, (uint64_t)stress->burst + 1);
        for (; pops > 0; pops--)
            if (plait_deque_pop_owner(&stress->deque, &item) == PLAIT_OK)
                note(item, -1);
    }
    while (plait_deque_pop_owner(&stress->deque, &item) == PLAIT_OK)
        note(item, -1);
    atomic_store(&stress->done, true);
}

static void thieve(struct stress *stress)
{
    int last = -1;
    while (!atomic_load(&stress->done)) {
        void *stolen;
        int result = plait_deque_steal_thief(&stress->deque, &stolen);
        if (result == PLAIT_OK) {
            struct item *item = stolen;
            CHECK(item->number > last);
            last = item->number;
            note(item, (int)(item - stress->items));
        } else if (result == PLAIT_EMPTY) {
            sched_yield();
        }
    }
}

static void stress_thread(int index, void *argument)
{
    if (index == 0)
        own(argument);
    else
        thieve(argument);
}

static void run_stress(int thieves, int count, size_t capacity, int burst)
{
    struct counted counted;
    struct stress stress = {.count = count, .burst = burst};
    counted_init(&counted);
    stress.items = calloc((size_t)count, sizeof *stress.items);
    REQUIRE(stress.items && plait_deque_init(&stress.deque, capacity, &counted.alloc) == PLAIT_OK);
    alarm(200); /* a watchdog: kills the program where something hangs */
    test_run_threads(thieves + 1, stress_thread, &stress);
    alarm(0);
    for (int i = 0; i < count; i++)
        CHECK_EQ(stress.items[i].taken, 1);
    plait_deque_fini(&stress.deque);
    CHECK_EQ(counted.live, 0);
    free(stress.items);
}

TEST(stress_one_thief)
{
    run_stress(1, test_scaled(2000000), 64, 32);
}

TEST(stress_four_thieves)
{
    run_stress(4, test_scaled(1000000), 64, 32);
}

/* The owner and the thieves meet at the last item nearly every time. */
TEST(stress_last_item)
{
    for (int thieves = 1; thieves <= 3; thieves++)
        run_stress(thieves, test_scaled(500000), 2, 1);
}

/* From one slot up, again and again, under theft. */
TEST(stress_growth)
{
    for (int round = 0; round < test_scaled(200); round++)
        run_stress(1 + round % 4, 3000, 1, 1000);
}
