/* Tests of core/park. A lost wake-up shows as a hang, which the watchdog (alarm) turns into a
 * failure. */
#include "counted_alloc.h" /* first: it sets the feature macros */

#include "core/deque.h"
#include "core/inject.h"
#include "core/park.h"

#include <unistd.h>

enum { MILLISECOND = 1000000 };

static int64_t soon(void)
{
    return plait_prim_now() + 2 * MILLISECOND;
}

TEST(init_refuses_numbers)
{
    plait_park_t park;
    struct counted counted;
    counted_init(&counted);
    CHECK_EQ(plait_park_init(&park, 0, &counted.alloc), PLAIT_INVALID);
    CHECK_EQ(plait_park_init(&park, PLAIT_PARK_WORKERS_MAX + 1, &counted.alloc), PLAIT_INVALID);
    atomic_store(&counted.fails, true);
    CHECK_EQ(plait_park_init(&park, 4, &counted.alloc), PLAIT_NOMEM);
    CHECK_EQ(counted.live, 0);
}

TEST(nobody_sleeps)
{
    plait_park_t park;
    REQUIRE(plait_park_init(&park, 3, &plait_alloc_system) == PLAIT_OK);
    CHECK(!plait_park_wake_one(&park));
    plait_park_wake_all(&park);
    CHECK_EQ(plait_park_sleepers(&park), 0);
    plait_park_fini(&park);
}

TEST(cancel_takes_back)
{
    plait_park_t park;
    REQUIRE(plait_park_init(&park, 2, &plait_alloc_system) == PLAIT_OK);
    plait_park_prepare_worker(&park, 1);
    CHECK_EQ(plait_park_sleepers(&park), 1);
    CHECK(plait_park_cancel_worker(&park, 1));
    CHECK_EQ(plait_park_sleepers(&park), 0);
    CHECK(!plait_park_wake_one(&park));
    plait_park_fini(&park);
}

TEST(timeout_takes_back)
{
    plait_park_t park;
    REQUIRE(plait_park_init(&park, 1, &plait_alloc_system) == PLAIT_OK);
    for (int i = 0; i < 3; i++) {
        plait_park_prepare_worker(&park, 0);
        CHECK_EQ(plait_park_wait_worker(&park, 0, soon()), PLAIT_TIMEOUT);
        CHECK_EQ(plait_park_sleepers(&park), 0);
        CHECK(!plait_park_wake_one(&park));
    }
    plait_park_fini(&park);
}

TEST(wake_before_wait_is_kept)
{
    plait_park_t park;
    REQUIRE(plait_park_init(&park, 1, &plait_alloc_system) == PLAIT_OK);
    plait_park_prepare_worker(&park, 0);
    CHECK(plait_park_wake_one(&park));
    CHECK(!plait_park_wake_one(&park));
    CHECK_EQ(plait_park_wait_worker(&park, 0, PLAIT_PRIM_FOREVER), PLAIT_OK);
    /* It is used up. */
    plait_park_prepare_worker(&park, 0);
    CHECK_EQ(plait_park_wait_worker(&park, 0, soon()), PLAIT_TIMEOUT);
    plait_park_fini(&park);
}

TEST(wakes_choose_different_workers)
{
    enum { WORKERS = 150 }; /* three masks */
    plait_park_t park;
    REQUIRE(plait_park_init(&park, WORKERS, &plait_alloc_system) == PLAIT_OK);
    for (unsigned i = 0; i < WORKERS; i++)
        plait_park_prepare_worker(&park, i);
    for (unsigned left = WORKERS; left > 0; left--) {
        CHECK_EQ(plait_park_sleepers(&park), left);
        CHECK(plait_park_wake_one(&park));
    }
    CHECK(!plait_park_wake_one(&park));
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_EQ(plait_park_wait_worker(&park, i, PLAIT_PRIM_FOREVER), PLAIT_OK);
    plait_park_fini(&park);
}

TEST(wake_all_wakes_all)
{
    enum { WORKERS = 130 };
    plait_park_t park;
    REQUIRE(plait_park_init(&park, WORKERS, &plait_alloc_system) == PLAIT_OK);
    for (unsigned i = 0; i < WORKERS; i++)
        plait_park_prepare_worker(&park, i);
    plait_park_wake_all(&park);
    CHECK_EQ(plait_park_sleepers(&park), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        CHECK_EQ(plait_park_wait_worker(&park, i, PLAIT_PRIM_FOREVER), PLAIT_OK);
    plait_park_fini(&park);
}

TEST(cancel_tells_who_was_chosen)
{
    plait_park_t park;
    REQUIRE(plait_park_init(&park, 2, &plait_alloc_system) == PLAIT_OK);
    plait_park_prepare_worker(&park, 0);
    plait_park_prepare_worker(&park, 1);
    CHECK(plait_park_wake_one(&park)); /* chooses 0 */
    CHECK(!plait_park_cancel_worker(&park, 0));
    CHECK_EQ(plait_park_sleepers(&park), 1);
    CHECK(plait_park_wake_one(&park)); /* in its place */
    CHECK_EQ(plait_park_wait_worker(&park, 1, PLAIT_PRIM_FOREVER), PLAIT_OK);
    plait_park_fini(&park);
}

/* ---- two threads in turns: each sleeps until the other has moved the ball ---- */

struct ping_pong {
    plait_park_t park;
    atomic_int ball;
    int rounds;
};

static void play(int index, void *argument)
{
    struct ping_pong *game = argument;
    for (int round = index; round < game->rounds; round += 2) {
        while (atomic_load_explicit(&game->ball, memory_order_acquire) != round) {
            plait_park_prepare_worker(&game->park, (unsigned)index);
            if (atomic_load_explicit(&game->ball, memory_order_acquire) == round)
                plait_park_cancel_worker(&game->park, (unsigned)index);
            else
                plait_park_wait_worker(&game->park, (unsigned)index, PLAIT_PRIM_FOREVER);
        }
        atomic_store_explicit(&game->ball, round + 1, memory_order_release);
        plait_park_wake_one(&game->park);
    }
}

TEST(ping_pong)
{
    struct ping_pong game = {.rounds = test_scaled(200000)};
    REQUIRE(plait_park_init(&game.park, 2, &plait_alloc_system) == PLAIT_OK);
    alarm(200);
    test_run_threads(2, play, &game);
    alarm(0);
    CHECK_EQ(game.ball, game.rounds);
    plait_park_fini(&game.park);
}

/* ---- producers, and workers that sleep whenever they find nothing ---- */

enum { WORKERS_MAX = 4 };

struct crew {
    plait_park_t park;
    plait_inject_t queue;
    int producers;
    int count;   /* items of each producer */
    bool timed;  /* worker 0 sleeps with a short deadline */
    bool dawdle; /* producers wait now and then, so that all workers fall asleep */
    atomic_int taken;
    atomic_bool closed;
};

static void crew_produce(struct crew *crew, int index)
{
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < crew->count; i++) {
        CHECK_EQ(plait_inject_push_mpmc(&crew->queue, crew), PLAIT_OK);
        plait_park_wake_one(&crew->park);
        if (crew->dawdle && test_random_below(&random, 16) == 0)
            test_sleep((int64_t)test_random_below(&random, 50000));
    }
}

static bool crew_take(struct crew *crew)
{
    void *item;
    if (plait_inject_pop_mpmc(&crew->queue, &item) != PLAIT_OK)
        return false;
    if (atomic_fetch_add(&crew->taken, 1) + 1 == crew->producers * crew->count) {
        atomic_store_explicit(&crew->closed, true, memory_order_release);
        plait_park_wake_all(&crew->park);
    }
    return true;
}

static void crew_work(struct crew *crew, unsigned id)
{
    for (;;) {
        while (crew_take(crew)) {
        }
        plait_park_prepare_worker(&crew->park, id);
        bool closed = atomic_load_explicit(&crew->closed, memory_order_acquire);
        if (closed || !plait_inject_is_empty(&crew->queue)) {
            plait_park_cancel_worker(&crew->park, id);
            if (closed)
                return;
            continue;
        }
        int64_t deadline = crew->timed && id == 0 ? plait_prim_now() + 20000 : PLAIT_PRIM_FOREVER;
        plait_park_wait_worker(&crew->park, id, deadline);
    }
}

static void crew_thread(int index, void *argument)
{
    struct crew *crew = argument;
    if (index < crew->producers)
        crew_produce(crew, index);
    else
        crew_work(crew, (unsigned)(index - crew->producers));
}

static void run_crew(int producers, int workers, int count, bool timed, bool dawdle)
{
    struct crew crew = {.producers = producers, .count = count, .timed = timed, .dawdle = dawdle};
    REQUIRE(plait_park_init(&crew.park, WORKERS_MAX, &plait_alloc_system) == PLAIT_OK);
    REQUIRE(plait_inject_init(&crew.queue, &plait_alloc_system) == PLAIT_OK);
    alarm(200);
    test_run_threads(producers + workers, crew_thread, &crew);
    alarm(0);
    CHECK_EQ(crew.taken, producers * count);
    CHECK_EQ(plait_park_sleepers(&crew.park), 0);
    plait_inject_fini(&crew.queue);
    plait_park_fini(&crew.park);
}

TEST(crew_all_pairings)
{
    for (int producers = 1; producers <= 3; producers++)
        for (int workers = 1; workers <= WORKERS_MAX; workers++)
            run_crew(producers, workers, test_scaled(50000), false, false);
}

TEST(crew_asleep_most_of_the_time)
{
    for (int producers = 1; producers <= 2; producers++)
        for (int workers = 1; workers <= WORKERS_MAX; workers++)
            run_crew(producers, workers, test_scaled(6000), false, true);
}

TEST(crew_with_deadlines)
{
    for (int workers = 1; workers <= 3; workers++)
        run_crew(2, workers, test_scaled(6000), true, true);
}

/* ---- k items wake k workers: each keeps its item until all have one ---- */

struct meeting {
    plait_park_t park;
    plait_deque_t deque;
    int workers;
    int rounds;
    atomic_int generation; /* the round that items belong to */
    atomic_int present;    /* workers that hold an item of this round */
};

static void meet(struct meeting *meeting, unsigned id)
{
    for (int round = 1; round <= meeting->rounds; round++) {
        void *item;
        int result;
        bool chosen = false;
        while ((result = plait_deque_steal_thief(&meeting->deque, &item)) != PLAIT_OK) {
            if (result == PLAIT_RETRY)
                continue;
            plait_park_prepare_worker(&meeting->park, id);
            if (plait_deque_size(&meeting->deque) > 0)
                chosen |= !plait_park_cancel_worker(&meeting->park, id);
            else
                plait_park_wait_worker(&meeting->park, id, PLAIT_PRIM_FOREVER);
        }
        if (chosen && plait_deque_size(&meeting->deque) > 0)
            plait_park_wake_one(&meeting->park);
        atomic_fetch_add(&meeting->present, 1);
        while (atomic_load(&meeting->generation) == round) /* busy with it */
            sched_yield();
    }
}

static void call_meetings(struct meeting *meeting)
{
    for (int round = 1; round <= meeting->rounds; round++) {
        atomic_store(&meeting->present, 0);
        atomic_store(&meeting->generation, round);
        for (int i = 0; i < meeting->workers; i++) {
            CHECK_EQ(plait_deque_push_owner(&meeting->deque, meeting), PLAIT_OK);
            plait_park_wake_one(&meeting->park);
        }
        while (atomic_load(&meeting->present) < meeting->workers)
            sched_yield();
        atomic_store(&meeting->generation, round + 1);
    }
}

static void meeting_thread(int index, void *argument)
{
    struct meeting *meeting = argument;
    if (index == 0)
        call_meetings(meeting);
    else
        meet(meeting, (unsigned)index - 1);
}

TEST(as_many_wake_as_were_called)
{
    for (int workers = 1; workers <= 4; workers++) {
        struct meeting meeting = {.workers = workers, .rounds = test_scaled(5000)};
        REQUIRE(plait_park_init(&meeting.park, (unsigned)workers, &plait_alloc_system) == PLAIT_OK);
        REQUIRE(plait_deque_init(&meeting.deque, 2, &plait_alloc_system) == PLAIT_OK);
        alarm(200);
        test_run_threads(workers + 1, meeting_thread, &meeting);
        alarm(0);
        plait_deque_fini(&meeting.deque);
        plait_park_fini(&meeting.park);
    }
}
