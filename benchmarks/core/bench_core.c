/* Microbenchmarks of the core's deque, injector and park: nanoseconds for each operation, best of
 * several runs.
 *
 * Usage: bench_core [NAME ...]. Two-thread figures need two free processors to mean anything.
 */
#define _GNU_SOURCE 1

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/deque.h"
#include "core/inject.h"
#include "core/park.h"

enum { RUNS = 7, COUNT = 1000000, BATCH = 1000, WAKES = 20000 };

static char thing; /* every item points to it */

static void expect(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench_core: %s failed\n", what);
    abort();
}

/* A benchmark runs COUNT operations (or as many as it says) and returns nanoseconds for one. */
typedef double benchmark_t(void);

static double per_operation(int64_t start, double operations)
{
    return (double)(plait_prim_now() - start) / operations;
}

/* ---- deque ---- */

static void deque_start(plait_deque_t *deque)
{
    expect(plait_deque_init(deque, 2048, &plait_alloc_system) == PLAIT_OK, "init");
}

static double deque_push_pop(void)
{
    plait_deque_t deque;
    void *item;
    deque_start(&deque);
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i += BATCH) {
        for (int j = 0; j < BATCH; j++)
            expect(plait_deque_push_owner(&deque, &thing) == PLAIT_OK, "push");
        for (int j = 0; j < BATCH; j++)
            expect(plait_deque_pop_owner(&deque, &item) == PLAIT_OK, "pop");
    }
    double cost = per_operation(start, COUNT);
    plait_deque_fini(&deque);
    return cost;
}

static double deque_push_steal(void)
{
    plait_deque_t deque;
    void *item;
    deque_start(&deque);
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i += BATCH) {
        for (int j = 0; j < BATCH; j++)
            expect(plait_deque_push_owner(&deque, &thing) == PLAIT_OK, "push");
        for (int j = 0; j < BATCH; j++)
            expect(plait_deque_steal_thief(&deque, &item) == PLAIT_OK, "steal");
    }
    double cost = per_operation(start, COUNT);
    plait_deque_fini(&deque);
    return cost;
}

static double deque_pop_empty(void)
{
    plait_deque_t deque;
    void *item;
    deque_start(&deque);
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i++)
        expect(plait_deque_pop_owner(&deque, &item) == PLAIT_EMPTY, "pop");
    double cost = per_operation(start, COUNT);
    plait_deque_fini(&deque);
    return cost;
}

static double deque_steal_empty(void)
{
    plait_deque_t deque;
    void *item;
    deque_start(&deque);
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i++)
        expect(plait_deque_steal_thief(&deque, &item) == PLAIT_EMPTY, "steal");
    double cost = per_operation(start, COUNT);
    plait_deque_fini(&deque);
    return cost;
}

struct robbery {
    plait_deque_t deque;
    atomic_bool done;
};

static void *rob(void *argument)
{
    struct robbery *robbery = argument;
    void *item;
    while (!atomic_load_explicit(&robbery->done, memory_order_relaxed))
        if (plait_deque_steal_thief(&robbery->deque, &item) == PLAIT_EMPTY)
            plait_prim_relax();
    return NULL;
}

/* The owner's cost for a push and a pop while a thief is at it. */
static double deque_push_pop_robbed(void)
{
    struct robbery robbery;
    pthread_t thief;
    void *item;
    deque_start(&robbery.deque);
    atomic_init(&robbery.done, false);
    expect(pthread_create(&thief, NULL, rob, &robbery) == 0, "pthread_create");
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i += 4) {
        for (int j = 0; j < 4; j++)
            expect(plait_deque_push_owner(&robbery.deque, &thing) == PLAIT_OK, "push");
        for (int j = 0; j < 4; j++)
            plait_deque_pop_owner(&robbery.deque, &item);
    }
    double cost = per_operation(start, COUNT);
    atomic_store(&robbery.done, true);
    pthread_join(thief, NULL);
    plait_deque_fini(&robbery.deque);
    return cost;
}

/* ---- inject ---- */

static void inject_split(double *push, double *pop)
{
    plait_inject_t queue;
    void *item;
    int64_t pushing = 0, popping = 0;
    expect(plait_inject_init(&queue, &plait_alloc_system) == PLAIT_OK, "init");
    for (int i = 0; i < COUNT; i += BATCH) {
        int64_t start = plait_prim_now();
        for (int j = 0; j < BATCH; j++)
            expect(plait_inject_push_mpmc(&queue, &thing) == PLAIT_OK, "push");
        int64_t middle = plait_prim_now();
        for (int j = 0; j < BATCH; j++)
            expect(plait_inject_pop_mpmc(&queue, &item) == PLAIT_OK, "pop");
        pushing += middle - start;
        popping += plait_prim_now() - middle;
    }
    *push = (double)pushing / COUNT;
    *pop = (double)popping / COUNT;
    plait_inject_fini(&queue);
}

static double inject_push(void)
{
    double push, pop;
    inject_split(&push, &pop);
    return push;
}

static double inject_pop(void)
{
    double push, pop;
    inject_split(&push, &pop);
    return pop;
}

static double inject_push_pop_in_turns(void)
{
    plait_inject_t queue;
    void *item;
    expect(plait_inject_init(&queue, &plait_alloc_system) == PLAIT_OK, "init");
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i++) {
        expect(plait_inject_push_mpmc(&queue, &thing) == PLAIT_OK, "push");
        expect(plait_inject_pop_mpmc(&queue, &item) == PLAIT_OK, "pop");
    }
    double cost = per_operation(start, COUNT);
    plait_inject_fini(&queue);
    return cost;
}

static void *inject_feed(void *argument)
{
    for (int i = 0; i < COUNT; i++)
        expect(plait_inject_push_mpmc(argument, &thing) == PLAIT_OK, "push");
    return NULL;
}

/* One thread pushes, one pops: time for an item to pass. */
static double inject_two_threads(void)
{
    plait_inject_t queue;
    pthread_t feeder;
    void *item;
    expect(plait_inject_init(&queue, &plait_alloc_system) == PLAIT_OK, "init");
    expect(pthread_create(&feeder, NULL, inject_feed, &queue) == 0, "pthread_create");
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT;) {
        if (plait_inject_pop_mpmc(&queue, &item) == PLAIT_OK)
            i++;
        else
            plait_prim_relax();
    }
    double cost = per_operation(start, COUNT);
    pthread_join(feeder, NULL);
    plait_inject_fini(&queue);
    return cost;
}

/* ---- park ---- */

static double park_wake_nobody(void)
{
    plait_park_t park;
    expect(plait_park_init(&park, 8, &plait_alloc_system) == PLAIT_OK, "init");
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i++)
        expect(!plait_park_wake_one(&park), "wake_one");
    double cost = per_operation(start, COUNT);
    plait_park_fini(&park);
    return cost;
}

static double park_prepare_cancel(void)
{
    plait_park_t park;
    expect(plait_park_init(&park, 8, &plait_alloc_system) == PLAIT_OK, "init");
    int64_t start = plait_prim_now();
    for (int i = 0; i < COUNT; i++) {
        plait_park_prepare_worker(&park, 3);
        plait_park_cancel_worker(&park, 3);
    }
    double cost = per_operation(start, COUNT);
    plait_park_fini(&park);
    return cost;
}

struct rally {
    plait_park_t park;
    atomic_int ball;
};

static void rally_play(struct rally *rally, int side)
{
    unsigned id = (unsigned)side;
    for (int turn = side; turn < 2 * WAKES; turn += 2) {
        while (atomic_load_explicit(&rally->ball, memory_order_acquire) != turn) {
            plait_park_prepare_worker(&rally->park, id);
            if (atomic_load_explicit(&rally->ball, memory_order_acquire) == turn)
                plait_park_cancel_worker(&rally->park, id);
            else
                plait_park_wait_worker(&rally->park, id, PLAIT_PRIM_FOREVER);
        }
        atomic_store_explicit(&rally->ball, turn + 1, memory_order_release);
        plait_park_wake_one(&rally->park);
    }
}

static void *rally_other_side(void *argument)
{
    rally_play(argument, 1);
    return NULL;
}

/* A hand-over between two threads that sleep at once: wake_one to the other's return from wait. */
static double park_hand_over(void)
{
    struct rally rally;
    pthread_t other;
    expect(plait_park_init(&rally.park, 2, &plait_alloc_system) == PLAIT_OK, "init");
    atomic_init(&rally.ball, 0);
    expect(pthread_create(&other, NULL, rally_other_side, &rally) == 0, "pthread_create");
    int64_t start = plait_prim_now();
    rally_play(&rally, 0);
    pthread_join(other, NULL);
    double cost = per_operation(start, 2.0 * WAKES);
    plait_park_fini(&rally.park);
    return cost;
}

static const struct {
    const char *name;
    benchmark_t *run;
    const char *what;
} benchmarks[] = {
    {"deque_push_pop", deque_push_pop, "one push and one pop, alone"},
    {"deque_push_steal", deque_push_steal, "one push and one steal, one thread"},
    {"deque_pop_empty", deque_pop_empty, "one pop of an empty deque"},
    {"deque_steal_empty", deque_steal_empty, "one steal from an empty deque"},
    {"deque_push_pop_robbed", deque_push_pop_robbed, "one push and one pop, a thief at work"},
    {"inject_push", inject_push, "one push, alone"},
    {"inject_pop", inject_pop, "one pop, alone"},
    {"inject_push_pop_in_turns", inject_push_pop_in_turns, "one push and one pop, alone"},
    {"inject_two_threads", inject_two_threads, "one item from thread to thread"},
    {"park_wake_nobody", park_wake_nobody, "one wake_one, nobody sleeps"},
    {"park_prepare_cancel", park_prepare_cancel, "one prepare and cancel"},
    {"park_hand_over", park_hand_over, "one wake-up of a sleeping thread"},
};

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++) {
        if (!is_wanted(benchmarks[i].name, argc, argv))
            continue;
        double best = benchmarks[i].run();
        for (int run = 1; run < RUNS; run++) {
            double cost = benchmarks[i].run();
            best = cost < best ? cost : best;
        }
        printf("%-26s %10.1f ns  %s\n", benchmarks[i].name, best, benchmarks[i].what);
        fflush(stdout);
    }
    return 0;
}
