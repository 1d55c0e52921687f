/* Tests of core/inject. As in test_deque.c the stresses note every item in a plain counter of
 * its own. */
#include "counted_alloc.h" /* first: it sets the feature macros */

#include "core/inject.h"

#include <unistd.h>

static void *fake(intptr_t number)
{
    return (void *)number;
}

static void check_pop(plait_inject_t *queue, intptr_t expected)
{
    void *item = NULL;
    CHECK_EQ(plait_inject_pop_mpmc(queue, &item), PLAIT_OK);
    CHECK(item == fake(expected));
}

static void check_empty(plait_inject_t *queue)
{
    void *item = NULL;
    CHECK(plait_inject_is_empty(queue));
    CHECK_EQ(plait_inject_pop_mpmc(queue, &item), PLAIT_EMPTY);
    CHECK(item == NULL);
}

TEST(first_in_first_out)
{
    enum { COUNT = 10 * PLAIT_INJECT_LAP };
    struct counted counted;
    plait_inject_t queue;
    counted_init(&counted);
    REQUIRE(plait_inject_init(&queue, &counted.alloc) == PLAIT_OK);
    check_empty(&queue);
    for (intptr_t i = 1; i <= COUNT; i++) {
        CHECK_EQ(plait_inject_push_mpmc(&queue, fake(i)), PLAIT_OK);
        CHECK(!plait_inject_is_empty(&queue));
    }
    for (intptr_t i = 1; i <= COUNT; i++) {
        CHECK(!plait_inject_is_empty(&queue));
        check_pop(&queue, i);
    }
    check_empty(&queue);
    plait_inject_fini(&queue);
    CHECK_EQ(counted.live, 0);
}

/* Every distance between the ends, at every place in a segment; segments are reused, not
 * allocated. */
TEST(ends_meet_everywhere)
{
    struct counted counted;
    plait_inject_t queue;
    counted_init(&counted);
    REQUIRE(plait_inject_init(&queue, &counted.alloc) == PLAIT_OK);
    intptr_t pushed = 0, popped = 0;
    for (int distance = 1; distance <= PLAIT_INJECT_SLOTS; distance++) {
        for (int i = 0; i < distance; i++)
            CHECK_EQ(plait_inject_push_mpmc(&queue, fake(++pushed)), PLAIT_OK);
        for (int i = 0; i < 200; i++) {
            CHECK_EQ(plait_inject_push_mpmc(&queue, fake(++pushed)), PLAIT_OK);
            check_pop(&queue, ++popped);
        }
        while (popped < pushed)
            check_pop(&queue, ++popped);
        check_empty(&queue);
    }
    CHECK(counted.calls <= 3);
    plait_inject_fini(&queue);
    CHECK_EQ(counted.live, 0);
}

TEST(fini_with_items)
{
    struct counted counted;
    counted_init(&counted);
    for (int items = 0; items <= 3 * PLAIT_INJECT_LAP; items++) {
        plait_inject_t queue;
        REQUIRE(plait_inject_init(&queue, &counted.alloc) == PLAIT_OK);
        for (intptr_t i = 1; i <= items; i++)
            CHECK_EQ(plait_inject_push_mpmc(&queue, fake(i)), PLAIT_OK);
        for (intptr_t i = 1; i <= items / 2; i++)
            check_pop(&queue, i);
        plait_inject_fini(&queue);
        CHECK_EQ(counted.live, 0);
    }
}

TEST(no_memory_leaves_it_intact)
{
    struct counted counted;
    plait_inject_t queue;
    counted_init(&counted);
    atomic_store(&counted.fails, true);
    CHECK_EQ(plait_inject_init(&queue, &counted.alloc), PLAIT_NOMEM);
    atomic_store(&counted.fails, false);
    REQUIRE(plait_inject_init(&queue, &counted.alloc) == PLAIT_OK);
    atomic_store(&counted.fails, true);
    intptr_t pushed = 0;
    while (plait_inject_push_mpmc(&queue, fake(pushed + 1)) == PLAIT_OK)
        pushed++;
    CHECK_EQ(pushed, PLAIT_INJECT_SLOTS - 1);
    CHECK_EQ(plait_inject_push_mpmc(&queue, fake(pushed + 1)), PLAIT_NOMEM);
    check_pop(&queue, 1);
    atomic_store(&counted.fails, false);
    CHECK_EQ(plait_inject_push_mpmc(&queue, fake(pushed + 1)), PLAIT_OK);
    CHECK_EQ(plait_inject_push_mpmc(&queue, fake(pushed + 2)), PLAIT_OK);
    for (intptr_t i = 2; i <= pushed + 2; i++)
        check_pop(&queue, i);
    check_empty(&queue);
    plait_inject_fini(&queue);
    CHECK_EQ(counted.live, 0);
}

/* ---- producers and consumers ---- */

enum { SIDE_MAX = 4 };

struct item {
    int producer;
    int number;
    int taken;
};

struct stress {
    plait_inject_t queue;
    struct item *items[SIDE_MAX];
    int producers;
    int count;         /* items of each producer */
    atomic_int popped; /* by all consumers */
};

static void produce(struct stress *stress, int producer)
{
    for (int i = 0; i < stress->count; i++) {
        struct item *item = &stress->items[producer][i];
        item->producer = producer;
        item->number = i;
        CHECK_EQ(plait_inject_push_mpmc(&stress->queue, item), PLAIT_OK);
    }
}

static void consume(struct stress *stress)
{
    int last[SIDE_MAX] = {-1, -1, -1, -1}; /* a producer's items come in its order */
    while (atomic_load(&stress->popped) < stress->producers * stress->count) {
        void *popped;
        if (plait_inject_pop_mpmc(&stress->queue, &popped) != PLAIT_OK) {
            sched_yield();
            continue;
        }
        struct item *item = popped;
        CHECK(item->number > last[item->producer]);
        last[item->producer] = item->number;
        item->taken++;
        atomic_fetch_add(&stress->popped, 1);
    }
}

static void stress_thread(int index, void *argument)
{
    struct stress *stress = argument;
    if (index < stress->producers)
        produce(stress, index);
    else
        consume(stress);
}

static void run_stress(int producers, int consumers, int count)
{
    struct counted counted;
    struct stress stress = {.producers = producers, .count = count};
    counted_init(&counted);
    REQUIRE(plait_inject_init(&stress.queue, &counted.alloc) == PLAIT_OK);
    for (int i = 0; i < producers; i++) {
        stress.items[i] = calloc((size_t)count, sizeof(struct item));
        REQUIRE(stress.items[i] != NULL);
    }
    alarm(200); /* a watchdog: kills the program where something hangs */
    test_run_threads(producers + consumers, stress_thread, &stress);
    alarm(0);
    check_empty(&stress.queue);
    for (int producer = 0; producer < producers; producer++) {
        for (int i = 0; i < count; i++)
            CHECK_EQ(stress.items[producer][i].taken, 1);
        free(stress.items[producer]);
    }
    plait_inject_fini(&stress.queue);
    CHECK_EQ(counted.live, 0);
}

TEST(stress_one_to_one)
{
    run_stress(1, 1, test_scaled(2000000));
}

TEST(stress_all_pairings)
{
    for (int producers = 1; producers <= SIDE_MAX; producers++)
        for (int consumers = 1; consumers <= SIDE_MAX; consumers++)
            run_stress(producers, consumers, test_scaled(100000));
}

/* Everybody pushes one and pops one: as many were pushed as were popped or more, so none hears
 * EMPTY. */
static void push_then_pop(int index, void *argument)
{
    struct stress *stress = argument;
    for (int i = 0; i < stress->count; i++) {
        struct item *item = &stress->items[index][i];
        void *popped;
        CHECK_EQ(plait_inject_push_mpmc(&stress->queue, item), PLAIT_OK);
        CHECK_EQ(plait_inject_pop_mpmc(&stress->queue, &popped), PLAIT_OK);
        ((struct item *)popped)->taken++;
    }
}

TEST(stress_never_empty)
{
    struct stress stress = {.producers = SIDE_MAX, .count = test_scaled(300000)};
    REQUIRE(plait_inject_init(&stress.queue, &plait_alloc_system) == PLAIT_OK);
    for (int i = 0; i < SIDE_MAX; i++)
        stress.items[i] = calloc((size_t)stress.count, sizeof(struct item));
    alarm(200);
    test_run_threads(SIDE_MAX, push_then_pop, &stress);
    alarm(0);
    check_empty(&stress.queue);
    for (int producer = 0; producer < SIDE_MAX; producer++) {
        for (int i = 0; i < stress.count; i++)
            CHECK_EQ(stress.items[producer][i].taken, 1);
        free(stress.items[producer]);
    }
    plait_inject_fini(&stress.queue);
}
