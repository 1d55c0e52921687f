/* Tests of core/timer: each function is called once, after its deadline and never before; what is
 * stopped is not called; whoever stops and waits may free. A lost wake-up shows as a hang, which
 * alarm turns into a failure. */
#include "test.h"

#include "core/timer_queue.h"

#include <sys/wait.h>
#include <unistd.h>

enum { MILLISECOND = 1000000, WATCHDOG = 120 };

static const int64_t FAR = INT64_C(3600) * 1000000000;

struct alarm_clock {
    plait_timer_t timer;
    int64_t deadline;
    atomic_int calls, early;
    atomic_int *order; /* a shared count, or NULL */
    int turn;          /* what it was when this one was called */
};

static void ring(plait_timer_t *timer)
{
    struct alarm_clock *clock = (struct alarm_clock *)timer;
    if (plait_prim_now() < clock->deadline)
        atomic_fetch_add(&clock->early, 1);
    if (clock->order != NULL)
        clock->turn = atomic_fetch_add(clock->order, 1);
    atomic_fetch_add(&clock->calls, 1);
    plait_timer_finish(timer);
}

static void set(struct alarm_clock *clock, int64_t in)
{
    memset(clock, 0, sizeof *clock);
    plait_timer_init(&clock->timer, ring);
    clock->deadline = plait_prim_now() + in;
}

static void make_idle(plait_timer_t *timer)
{
    while (!plait_timer_stop(timer))
        plait_timer_wait(timer);
}

static void await_calls(struct alarm_clock *clock, int calls)
{
    while (atomic_load(&clock->calls) < calls)
        test_sleep(MILLISECOND / 10);
    make_idle(&clock->timer); /* the function is through with it, too */
}

TEST(called_once_and_not_early)
{
    alarm(WATCHDOG);
    struct alarm_clock clock;
    set(&clock, 3 * MILLISECOND);
    CHECK_EQ(plait_timer_start(&clock.timer, clock.deadline), PLAIT_OK);
    await_calls(&clock, 1);
    test_sleep(3 * MILLISECOND);
    CHECK_EQ(clock.calls, 1);
    CHECK_EQ(clock.early, 0);
}

TEST(a_deadline_in_the_past_is_due_at_once)
{
    alarm(WATCHDOG);
    struct alarm_clock clock;
    set(&clock, -FAR);
    CHECK_EQ(plait_timer_start(&clock.timer, clock.deadline), PLAIT_OK);
    await_calls(&clock, 1);
}

TEST(stopped_is_not_called)
{
    struct alarm_clock clock;
    set(&clock, 5 * MILLISECOND);
    CHECK(plait_timer_stop(&clock.timer)); /* never started */
    CHECK_EQ(plait_timer_start(&clock.timer, clock.deadline), PLAIT_OK);
    CHECK(plait_timer_stop(&clock.timer));
    CHECK(plait_timer_stop(&clock.timer));
    test_sleep(10 * MILLISECOND);
    CHECK_EQ(clock.calls, 0);
}

TEST(an_earlier_deadline_is_not_slept_through)
{
    alarm(WATCHDOG);
    struct alarm_clock late, soon;
    set(&late, FAR);
    CHECK_EQ(plait_timer_start(&late.timer, late.deadline), PLAIT_OK);
    test_sleep(2 * MILLISECOND); /* the server sleeps for an hour */
    set(&soon, MILLISECOND);
    CHECK_EQ(plait_timer_start(&soon.timer, soon.deadline), PLAIT_OK);
    await_calls(&soon, 1);
    CHECK_EQ(late.calls, 0);
    CHECK(plait_timer_stop(&late.timer));
}

TEST(called_in_the_order_of_deadlines)
{
    enum { COUNT = 200 };
    static struct alarm_clock clocks[COUNT], stopped[COUNT];
    plait_timer_queue_t queue;
    atomic_int order;
    uint64_t random = test_random_start(1);
    int places[COUNT];
    plait_timer_queue_init(&queue, &plait_alloc_system);
    atomic_init(&order, 0);
    for (int i = 0; i < COUNT; i++)
        places[i] = i;
    for (int i = COUNT - 1; i > 0; i--) {
        int other = (int)test_random_below(&random, (uint64_t)i + 1), place = places[i];
        places[i] = places[other];
        places[other] = place;
    }
    for (int i = 0; i < COUNT; i++) { /* all due; others among them are taken out of the middle */
        set(&clocks[i], 0);
        set(&stopped[i], 0);
        clocks[i].order = &order;
        clocks[i].deadline = places[i];
        stopped[i].deadline = (int64_t)test_random_below(&random, COUNT);
        plait_timer_queue_start(&queue, &clocks[i].timer, clocks[i].deadline);
        plait_timer_queue_start(&queue, &stopped[i].timer, stopped[i].deadline);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(plait_timer_queue_stop(&queue, &stopped[(i * 7) % COUNT].timer));
    for (int i = 0; i < COUNT; i++)
        plait_timer_queue_serve(&queue);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(clocks[i].turn, places[i]);
        CHECK_EQ(stopped[i].calls, 0);
    }
    CHECK_EQ(queue.count, 0);
    plait_timer_queue_fini(&queue);
}

/* ---- functions that take their time, and start again ---- */

struct slow {
    plait_timer_t timer;
    atomic_int fired, may_end;
};

static void fire_slowly(plait_timer_t *timer)
{
    struct slow *slow = (struct slow *)timer;
    atomic_store(&slow->fired, 1); /* and ends later, by another thread */
}

TEST(a_firing_timer_is_waited_for)
{
    alarm(WATCHDOG);
    struct slow slow = {.fired = 0};
    struct alarm_clock other;
    plait_timer_init(&slow.timer, fire_slowly);
    CHECK_EQ(plait_timer_start(&slow.timer, 0), PLAIT_OK);
    while (!atomic_load(&slow.fired))
        test_sleep(MILLISECOND / 10);
    CHECK(!plait_timer_stop(&slow.timer));
    set(&other, 0); /* nobody else waits meanwhile */
    CHECK_EQ(plait_timer_start(&other.timer, other.deadline), PLAIT_OK);
    await_calls(&other, 1);
    plait_timer_finish(&slow.timer);
    plait_timer_wait(&slow.timer);
    CHECK(plait_timer_stop(&slow.timer));
}

static void start_again(plait_timer_t *timer)
{
    struct alarm_clock *clock = (struct alarm_clock *)timer;
    if (atomic_fetch_add(&clock->calls, 1) < 4)
        CHECK_EQ(plait_timer_start(timer, plait_prim_now() + MILLISECOND), PLAIT_OK);
    else
        plait_timer_finish(timer);
}

TEST(a_function_starts_its_timer_again)
{
    alarm(WATCHDOG);
    struct alarm_clock clock;
    set(&clock, 0);
    plait_timer_init(&clock.timer, start_again);
    CHECK_EQ(plait_timer_start(&clock.timer, clock.deadline), PLAIT_OK);
    while (atomic_load(&clock.calls) < 5)
        test_sleep(MILLISECOND / 10);
    make_idle(&clock.timer);
    test_sleep(3 * MILLISECOND);
    CHECK_EQ(clock.calls, 5);
}

static void start_again_for_ever(plait_timer_t *timer)
{
    struct alarm_clock *clock = (struct alarm_clock *)timer;
    atomic_fetch_add(&clock->calls, 1);
    CHECK_EQ(plait_timer_start(timer, plait_prim_now()), PLAIT_OK);
}

TEST(a_timer_that_starts_itself_is_stopped)
{
    alarm(WATCHDOG);
    for (int round = 0; round < test_scaled(40); round++) {
        struct alarm_clock clock; /* its memory is used again at once */
        set(&clock, 0);
        plait_timer_init(&clock.timer, start_again_for_ever);
        CHECK_EQ(plait_timer_start(&clock.timer, clock.deadline), PLAIT_OK);
        while (atomic_load(&clock.calls) < 3)
            sched_yield();
        make_idle(&clock.timer);
        int calls = atomic_load(&clock.calls);
        memset(&clock, 0x5a, sizeof clock);
        CHECK(calls >= 3);
    }
}

/* ---- all at once ---- */

/* Many threads start and stop timers of their own, near and far, and free them at once. */
static void crowd_thread(int index, void *argument)
{
    atomic_int *rung = argument;
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < test_scaled(2000); i++) {
        struct alarm_clock *clock = malloc(sizeof *clock);
        if (clock == NULL)
            abort();
        set(clock, (int64_t)test_random_below(&random, 60000));
        CHECK_EQ(plait_timer_start(&clock->timer, clock->deadline), PLAIT_OK);
        if (test_random_below(&random, 3) == 0)
            await_calls(clock, 1);
        else if (test_random_below(&random, 2) == 0)
            test_sleep((int64_t)test_random_below(&random, 60000));
        make_idle(&clock->timer);
        CHECK(clock->calls <= 1);
        CHECK_EQ(clock->early, 0);
        atomic_fetch_add(rung, clock->calls);
        free(clock);
    }
}

TEST(many_threads_start_stop_and_free)
{
    alarm(WATCHDOG);
    atomic_int rung;
    atomic_init(&rung, 0);
    test_run_threads(4, crowd_thread, &rung);
    CHECK(rung > 0);
}

/* ---- forks, and short memory ---- */

#if !PLAIT_TSAN /* which ends a child that starts a thread after a fork of several */
TEST(a_child_has_timers_of_its_own)
{
    alarm(WATCHDOG);
    struct alarm_clock before, clock;
    set(&before, FAR);
    CHECK_EQ(plait_timer_start(&before.timer, before.deadline), PLAIT_OK);
    pid_t child = fork();
    if (child == 0) {
        alarm(WATCHDOG);
        plait_timer_after_fork();
        bool idle = plait_timer_stop(&before.timer);
        set(&clock, MILLISECOND);
        int started = plait_timer_start(&clock.timer, clock.deadline);
        await_calls(&clock, 1);
        _exit(idle && started == PLAIT_OK && clock.calls == 1 ? 0 : 1);
    }
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(plait_timer_stop(&before.timer));
    CHECK_EQ(before.calls, 0);
}
#endif

static void *no_memory(void *context, size_t size)
{
    return NULL;
}

static void *no_more_memory(void *context, void *block, size_t size)
{
    return NULL;
}

static void release_nothing(void *context, void *block) {}

TEST(without_memory_a_timer_stays_idle)
{
    const plait_alloc_t none = {NULL, no_memory, no_more_memory, release_nothing};
    plait_timer_queue_t queue;
    struct alarm_clock clock;
    set(&clock, 0);
    plait_timer_queue_init(&queue, &none);
    CHECK_EQ(plait_timer_queue_start(&queue, &clock.timer, clock.deadline), PLAIT_NOMEM);
    CHECK(plait_timer_queue_stop(&queue, &clock.timer));
    plait_timer_queue_fini(&queue);
}
