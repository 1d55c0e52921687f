/* Tests of core/sched: every task is run once or cancelled, every item run or abandoned once, every
 * scheduler ends, whatever races. The linker wraps malloc and plait_prim_thread_start
 * (tests/core/meson.build), so that both can be made to fail. A lost wake-up shows as a hang, which
 * alarm turns into a failure. */
#include "test.h"

#include "plait/sched.h"

#include <unistd.h>

enum { MILLISECOND = 1000000, WATCHDOG = 220 };

/* ---- failures to order ---- */

static atomic_int threads_left = INT32_MAX; /* how many more may start */
static atomic_int malloc_period;            /* every so many-th malloc fails; 0: none */
static atomic_int malloc_count;

int __real_plait_prim_thread_start(plait_prim_thread_t *thread, void (*run)(void *argument),
                                   void *argument, const char *name, size_t stack_size);
int __wrap_plait_prim_thread_start(plait_prim_thread_t *thread, void (*run)(void *argument),
                                   void *argument, const char *name, size_t stack_size);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

int __wrap_plait_prim_thread_start(plait_prim_thread_t *thread, void (*run)(void *argument),
                                   void *argument, const char *name, size_t stack_size)
{
    if (atomic_fetch_sub(&threads_left, 1) <= 0)
        return PLAIT_SYSTEM;
    return __real_plait_prim_thread_start(thread, run, argument, name, stack_size);
}

void *__wrap_malloc(size_t size)
{
    int period = atomic_load(&malloc_period);
    if (period != 0 && atomic_fetch_add(&malloc_count, 1) % period == 0)
        return NULL;
    return __real_malloc(size);
}

/* ---- a pool that counts ---- */

enum { POOL_WORKERS_MAX = 16 };

struct pool {
    plait_sched_t *sched;
    int64_t enter_time;  /* each worker takes so long to enter */
    unsigned fails_from; /* workers from this index on fail to enter */
    atomic_int entered, left, disposed;
    atomic_int paused; /* pauses not yet resumed, of all workers */
    atomic_int pauses;
    atomic_int rests_due; /* of what has run */
    atomic_int ran;       /* tasks */
    atomic_int alive;     /* tasks and jobs not yet destroyed */
    atomic_int decided;   /* tasks run, abandoned or cancelled, and destroyed */
};

static struct pool *pool_of(plait_worker_t *worker)
{
    return plait_sched_context(plait_worker_sched(worker));
}

static int pool_enter(plait_worker_t *worker)
{
    struct pool *pool = pool_of(worker);
    CHECK(plait_worker_current() == worker);
    CHECK(plait_worker_data(worker) == NULL);
    plait_worker_set_data(worker, pool);
    if (pool->enter_time > 0)
        test_sleep(pool->enter_time);
    atomic_fetch_add(&pool->entered, 1);
    return plait_worker_index(worker) >= pool->fails_from ? PLAIT_SYSTEM : PLAIT_OK;
}

static void pool_pause(plait_worker_t *worker)
{
    atomic_fetch_add(&pool_of(worker)->paused, 1);
    atomic_fetch_add(&pool_of(worker)->pauses, 1);
    CHECK(plait_worker_data(worker) == pool_of(worker));
    plait_worker_set_data(worker, NULL);
}

static void pool_resume(plait_worker_t *worker)
{
    atomic_fetch_sub(&pool_of(worker)->paused, 1);
    CHECK(plait_worker_data(worker) == NULL);
    plait_worker_set_data(worker, pool_of(worker));
}

static void pool_rest(plait_worker_t *worker)
{
    CHECK(atomic_fetch_sub(&pool_of(worker)->rests_due, 1) > 0);
}

static void pool_leave(plait_worker_t *worker)
{
    CHECK(plait_worker_data(worker) == pool_of(worker)); /* not paused */
    atomic_fetch_add(&pool_of(worker)->left, 1);
}

static void pool_dispose(void *context)
{
    struct pool *pool = context;
    CHECK_EQ(pool->entered, pool->left);
    CHECK_EQ(pool->paused, 0);
    CHECK_EQ(pool->rests_due, 0);
    atomic_fetch_add(&pool->disposed, 1); /* the pool may be gone after this */
}

/* ---- tasks ---- */

struct unit {
    plait_task_t task;
    struct pool *pool;
    void (*act)(plait_worker_t *worker, struct unit *unit);
    void *argument;
    atomic_int ran, abandoned;
    bool takes; /* see unit_take */
    bool own;   /* freed by destroy */
};

static void unit_destroy(plait_task_t *task)
{
    struct unit *unit = (struct unit *)task;
    struct pool *pool = unit->pool;
    uint32_t state = plait_task_state(task);
    if (plait_task_is_final(state)) {
        CHECK_EQ(unit->ran + unit->abandoned, (state & PLAIT_TASK_DONE) ? 1 : 0);
        atomic_fetch_add(&pool->decided, 1);
    } else {
        CHECK_EQ(unit->ran + unit->abandoned, 0);
    }
    if (unit->own)
        free(unit);
    atomic_fetch_sub(&pool->alive, 1);
}

static void unit_init(struct unit *unit, struct pool *pool,
                      void (*act)(plait_worker_t *worker, struct unit *unit))
{
    memset(unit, 0, sizeof *unit);
    unit->pool = pool;
    unit->act = act;
    plait_task_init(&unit->task, unit_destroy);
    atomic_fetch_add(&pool->alive, 1);
}

/* From calloc, which does not fail to order. */
static struct unit *unit_new(struct pool *pool,
                             void (*act)(plait_worker_t *worker, struct unit *unit))
{
    struct unit *unit = calloc(1, sizeof *unit);
    if (unit == NULL)
        abort();
    unit_init(unit, pool, act);
    unit->own = true;
    return unit;
}

static void unit_count(struct unit *unit)
{
    atomic_fetch_add(&unit->ran, 1);
    atomic_fetch_add(&unit->pool->ran, 1);
}

/* Takes some tasks ahead, of which it runs every other one and gives the rest back. */
static plait_task_t *unit_take(plait_worker_t *worker, plait_task_t *last)
{
    plait_task_t *next;
    for (int i = 0; i < 6 && (next = plait_worker_take(worker)) != NULL; i++) {
        if (i % 2 == 1) {
            CHECK_EQ(plait_worker_give_back(worker, next), PLAIT_OK);
        } else if (plait_task_hold_worker(next)) {
            CHECK(plait_task_claim_worker(next));
            plait_worker_complete(last);
            last = next;
            unit_count((struct unit *)last);
        } else {
            plait_task_release(next);
        }
    }
    return last;
}

static plait_task_t *unit_run(plait_worker_t *worker, plait_task_t *task)
{
    struct unit *unit = (struct unit *)task;
    CHECK(plait_worker_current() == worker);
    unit_count(unit);
    atomic_fetch_add(&unit->pool->rests_due, 1);
    if (unit->act != NULL)
        unit->act(worker, unit);
    return unit->takes ? unit_take(worker, task) : task;
}

static void unit_abandon(plait_sched_t *sched, plait_task_t *task)
{
    CHECK(plait_sched_is_broken(sched));
    atomic_fetch_add(&((struct unit *)task)->abandoned, 1);
}

/* Submits and gives the caller's reference up. */
static int unit_hand_over(struct unit *unit)
{
    int result = plait_sched_submit(unit->pool->sched, &unit->task);
    plait_task_release(&unit->task);
    return result;
}

/* ---- jobs ---- */

struct work {
    plait_job_t job;
    plait_job_flag_t cancelled;
    struct pool *pool;
    atomic_uchar *ran, *dropped; /* of each item: how often */
    atomic_uint_fast64_t ran_sum, dropped_sum;
    PLAIT_ATOMIC(uint32_t) done; /* a wait word: every item ran or was dropped */
    atomic_uint takers;          /* a bit of each worker that ran items */
    int64_t item_time;           /* each item takes so long */
    uint64_t stop;               /* run_items returns early after an item whose number divides */
    uint64_t cancel_at;          /* the item that cancels the job; UINT64_MAX: none */
};

static void work_destroy(plait_job_t *job)
{
    struct work *work = (struct work *)job;
    struct pool *pool = work->pool;
    for (uint64_t i = 0; i < job->count; i++)
        if (work->ran[i] + work->dropped[i] != (work->done != 0))
            CHECK_EQ(work->ran[i] + work->dropped[i], 1);
    free(work->ran);
    free(work->dropped);
    free(work);
    atomic_fetch_sub(&pool->alive, 1);
}

static struct work *work_new(struct pool *pool, uint64_t count)
{
    struct work *work = calloc(1, sizeof *work);
    if (work == NULL)
        abort();
    plait_job_init(&work->job, count, &work->cancelled, work_destroy);
    work->pool = pool;
    work->ran = calloc(count, sizeof *work->ran);
    work->dropped = calloc(count, sizeof *work->dropped);
    work->cancel_at = UINT64_MAX;
    if (work->ran == NULL || work->dropped == NULL)
        abort();
    atomic_fetch_add(&pool->alive, 1);
    return work;
}

static void work_count(struct work *work, atomic_uint_fast64_t *sum, uint64_t count)
{
    atomic_fetch_add(sum, count);
    if (atomic_load(&work->ran_sum) + atomic_load(&work->dropped_sum) == work->job.count) {
        plait_atomic_store_seq_cst(&work->done, 1);
        plait_prim_wake(&work->done, INT32_MAX, false);
    }
}

static uint64_t work_run_items(plait_worker_t *worker, plait_job_t *job, uint64_t low,
                               uint64_t high)
{
    struct work *work = (struct work *)job;
    uint64_t item = low;
    CHECK(low < high && high <= job->count);
    atomic_fetch_or(&work->takers, 1u << plait_worker_index(worker));
    atomic_fetch_add(&pool_of(worker)->rests_due, 1);
    do {
        atomic_fetch_add_explicit(&work->ran[item], 1, memory_order_relaxed);
        if (work->item_time > 0)
            test_sleep(work->item_time);
        if (item == work->cancel_at)
            plait_job_cancel(&work->cancelled);
        item++;
    } while (item < high && (work->stop == 0 || (item - 1) % work->stop != 0));
    work_count(work, &work->ran_sum, item - low);
    return item - low;
}

static void work_abandon_items(plait_sched_t *sched, plait_job_t *job, uint64_t low, uint64_t high)
{
    struct work *work = (struct work *)job;
    CHECK(low < high && high <= job->count);
    CHECK(plait_job_is_cancelled(job) || plait_sched_is_broken(sched));
    for (uint64_t item = low; item < high; item++)
        atomic_fetch_add_explicit(&work->dropped[item], 1, memory_order_relaxed);
    work_count(work, &work->dropped_sum, high - low);
}

static void work_wait(struct work *work)
{
    while (plait_atomic_load_seq_cst(&work->done) == 0)
        plait_prim_wait(&work->done, 0, PLAIT_PRIM_FOREVER, false);
}

/* ---- opening and ending ---- */

static const plait_worker_ops_t ops = {
    .enter = pool_enter,
    .run = unit_run,
    .run_items = work_run_items,
    .rest = pool_rest,
    .pause = pool_pause,
    .resume = pool_resume,
    .leave = pool_leave,
    .abandon = unit_abandon,
    .abandon_items = work_abandon_items,
    .dispose = pool_dispose,
};

static void pool_open(struct pool *pool, unsigned workers)
{
    plait_sched_config_t config = {
        .workers = workers, .ops = &ops, .context = pool, .name = "test"};
    memset(pool, 0, sizeof *pool);
    pool->fails_from = UINT32_MAX;
    if (plait_sched_create(&pool->sched, &config) != PLAIT_OK)
        abort();
    alarm(WATCHDOG);
}

/* What must hold once join has returned, and after the release. */
static void pool_end_joined(struct pool *pool)
{
    CHECK_EQ(plait_sched_living(pool->sched), 0);
    CHECK_EQ(pool->entered, pool->left);
    CHECK_EQ(pool->disposed, 0);
    CHECK_EQ(pool->alive, 0);
    plait_sched_release(pool->sched);
    CHECK_EQ(pool->disposed, 1); /* by this thread: no worker holds the scheduler after join */
    alarm(0);
}

static void pool_close(struct pool *pool)
{
    plait_sched_close(pool->sched);
    CHECK(plait_sched_is_closed(pool->sched));
    CHECK_EQ(plait_sched_join(pool->sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
    pool_end_joined(pool);
}

/* ---- one thread outside ---- */

TEST(create_refuses_numbers)
{
    plait_sched_t *sched;
    plait_sched_config_t config = {.ops = &ops};
    CHECK_EQ(plait_sched_create(&sched, &config), PLAIT_INVALID);
    config.workers = 1 << 20;
    CHECK_EQ(plait_sched_create(&sched, &config), PLAIT_INVALID);
}

TEST(unused_ends)
{
    struct pool pool;
    pool_open(&pool, 4);
    CHECK_EQ(plait_sched_living(pool.sched), 0);
    CHECK(plait_worker_current() == NULL);
    CHECK(!plait_sched_is_closed(pool.sched));
    CHECK(!plait_sched_is_broken(pool.sched));
    pool_close(&pool);
    CHECK_EQ(pool.entered, 0);
}

TEST(join_before_close_times_out)
{
    struct pool pool;
    pool_open(&pool, 1);
    CHECK_EQ(plait_sched_join(pool.sched, plait_prim_now() + MILLISECOND), PLAIT_TIMEOUT);
    unit_hand_over(unit_new(&pool, NULL));
    CHECK_EQ(plait_sched_join(pool.sched, plait_prim_now() + MILLISECOND), PLAIT_TIMEOUT);
    pool_close(&pool);
}

TEST(runs_a_task)
{
    struct pool pool;
    struct unit unit;
    pool_open(&pool, 4);
    unit_init(&unit, &pool, NULL);
    CHECK_EQ(plait_sched_submit(pool.sched, &unit.task), PLAIT_OK);
    CHECK_EQ(plait_task_wait(&unit.task, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(unit.ran, 1);
    CHECK_EQ(plait_sched_living(pool.sched), 1); /* started as work arrives */
    plait_task_release(&unit.task);
    pool_close(&pool);
}

TEST(closed_refuses)
{
    struct pool pool;
    struct unit unit;
    pool_open(&pool, 2);
    plait_sched_close(pool.sched);
    plait_sched_close(pool.sched);
    unit_init(&unit, &pool, NULL);
    CHECK_EQ(plait_sched_submit(pool.sched, &unit.task), PLAIT_CLOSED);
    struct work *work = work_new(&pool, 3);
    CHECK_EQ(plait_sched_submit_job(pool.sched, &work->job), PLAIT_CLOSED);
    CHECK_EQ(unit.task.references, 1);
    CHECK_EQ(work->job.references, 1);
    plait_task_release(&unit.task);
    plait_job_release(&work->job);
    pool_close(&pool);
    CHECK_EQ(pool.decided, 0);
}

static void act_sleep(plait_worker_t *worker, struct unit *unit)
{
    test_sleep(2 * MILLISECOND);
}

TEST(queued_tasks_run_after_close)
{
    struct pool pool;
    pool_open(&pool, 2);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(unit_hand_over(unit_new(&pool, act_sleep)), PLAIT_OK);
    CHECK_EQ(plait_sched_living(pool.sched), 2);
    pool_close(&pool);
    CHECK_EQ(pool.decided, 20);
}

/* ---- many schedulers ---- */

TEST(thousand_joined)
{
    uint64_t random = test_random_start(1);
    for (int round = 0; round < test_scaled(1000); round++) {
        struct pool pool;
        pool_open(&pool, 1 + (unsigned)test_random_below(&random, 4));
        int count = (int)test_random_below(&random, 8);
        for (int i = 0; i < count; i++)
            CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_OK);
        if (test_random_below(&random, 2))
            test_sleep((int64_t)test_random_below(&random, 100000));
        pool_close(&pool);
        CHECK_EQ(pool.decided, count);
    }
}

TEST(thousand_released)
{
    enum { ROUNDS = 1000 };
    static struct pool pools[ROUNDS];
    uint64_t random = test_random_start(2);
    int rounds = test_scaled(ROUNDS), counts[ROUNDS];
    for (int round = 0; round < rounds && round < ROUNDS; round++) {
        struct pool *pool = &pools[round];
        pool_open(pool, 1 + (unsigned)test_random_below(&random, 4));
        counts[round] = (int)test_random_below(&random, 8);
        for (int i = 0; i < counts[round]; i++)
            CHECK_EQ(unit_hand_over(unit_new(pool, NULL)), PLAIT_OK);
        if (test_random_below(&random, 2))
            test_sleep((int64_t)test_random_below(&random, 100000));
        plait_sched_close(pool->sched);
        plait_sched_release(pool->sched); /* its workers, if any, end by themselves */
    }
    for (int round = 0; round < rounds && round < ROUNDS; round++) {
        while (atomic_load(&pools[round].disposed) == 0)
            sched_yield();
        CHECK_EQ(pools[round].disposed, 1);
        CHECK_EQ(pools[round].decided, counts[round]);
        CHECK_EQ(pools[round].alive, 0);
    }
    alarm(0);
}

/* ---- submitters, cancellers, close ---- */

struct crowd {
    struct pool pool;
    int submitters;
    int count; /* tasks of each */
    bool cancels;
    bool closes; /* while they submit */
    atomic_int accepted, refused;
};

static void crowd_submit(struct crowd *crowd, int index)
{
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < crowd->count; i++) {
        struct unit *unit = unit_new(&crowd->pool, NULL);
        bool first, cancel = crowd->cancels && test_random_below(&random, 2);
        int result = plait_sched_submit(crowd->pool.sched, &unit->task);
        CHECK(result == PLAIT_OK || (crowd->closes && result == PLAIT_CLOSED));
        atomic_fetch_add(result == PLAIT_OK ? &crowd->accepted : &crowd->refused, 1);
        if (cancel && result == PLAIT_OK)
            plait_task_cancel(&unit->task, &first);
        plait_task_release(&unit->task);
        if (test_random_below(&random, 64) == 0)
            test_sleep((int64_t)test_random_below(&random, 60000)); /* workers fall asleep */
    }
}

static void crowd_thread(int index, void *argument)
{
    struct crowd *crowd = argument;
    if (index < crowd->submitters) {
        crowd_submit(crowd, index);
        return;
    }
    if (crowd->closes)
        while (atomic_load(&crowd->accepted) < crowd->count / 2)
            sched_yield();
    else
        while (atomic_load(&crowd->accepted) < crowd->count * crowd->submitters)
            test_sleep(MILLISECOND);
    plait_sched_close(crowd->pool.sched);
    CHECK_EQ(plait_sched_join(crowd->pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(crowd->pool.entered, crowd->pool.left);
}

static void run_crowd(int submitters, unsigned workers, int count, bool cancels, bool closes)
{
    struct crowd crowd = {
        .submitters = submitters, .count = count, .cancels = cancels, .closes = closes};
    pool_open(&crowd.pool, workers);
    test_run_threads(submitters + 1, crowd_thread, &crowd);
    CHECK_EQ(crowd.accepted + crowd.refused, submitters * count);
    CHECK_EQ(crowd.pool.decided, crowd.accepted);
    pool_end_joined(&crowd.pool);
}

TEST(submitters)
{
    for (int submitters = 1; submitters <= 3; submitters++)
        for (unsigned workers = 1; workers <= 4; workers += submitters == 1 ? 1 : 3)
            run_crowd(submitters, workers, test_scaled(20000), false, false);
}

TEST(submitters_who_cancel)
{
    for (int submitters = 1; submitters <= 3; submitters++)
        run_crowd(submitters, 3, test_scaled(20000), true, false);
}

TEST(submitters_race_with_close)
{
    for (int round = 0; round < test_scaled(300); round++)
        run_crowd(1 + round % 3, 1 + (unsigned)round % 4, 1 + round % 50, round % 2, true);
}

/* ---- the first submit races with close and join: join must not miss the first worker ---- */

struct first_submit {
    struct pool pool;
    int delay; /* of the close, in spins */
    int accepted;
    int ran_at_join; /* the task may still be destroyed later, by the submitter */
};

static void first_thread(int index, void *argument)
{
    struct first_submit *first = argument;
    if (index == 0) {
        int result = unit_hand_over(unit_new(&first->pool, NULL));
        CHECK(result == PLAIT_OK || result == PLAIT_CLOSED);
        first->accepted = result == PLAIT_OK;
        return;
    }
    for (int spin = first->delay; spin > 0; spin--)
        plait_prim_relax();
    plait_sched_close(first->pool.sched);
    CHECK_EQ(plait_sched_join(first->pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(plait_sched_living(first->pool.sched), 0);
    first->ran_at_join = first->pool.ran;
}

TEST(first_submit_races_with_join)
{
    for (int round = 0; round < test_scaled(2000); round++) {
        struct first_submit first = {.delay = round % 100 * 20};
        pool_open(&first.pool, 2);
        test_run_threads(2, first_thread, &first);
        CHECK_EQ(first.ran_at_join, first.accepted);
        CHECK_EQ(first.pool.entered, first.accepted);
        pool_end_joined(&first.pool);
    }
}

/* ---- tasks that need each other: as many workers as tasks, up to the limit, however they race ---- */

struct meeting {
    struct pool pool;
    atomic_int present;
    int expected;
};

static void act_meet(plait_worker_t *worker, struct unit *unit)
{
    struct meeting *meeting = unit->argument;
    atomic_fetch_add(&meeting->present, 1);
    while (atomic_load(&meeting->present) < meeting->expected)
        test_sleep(MILLISECOND / 20);
}

static void meeting_thread(int index, void *argument)
{
    struct meeting *meeting = argument;
    struct unit *unit = unit_new(&meeting->pool, act_meet);
    unit->argument = meeting;
    CHECK_EQ(unit_hand_over(unit), PLAIT_OK);
}

TEST(tasks_that_meet)
{
    for (int round = 0; round < test_scaled(400); round++) {
        struct meeting meeting = {.expected = 2 + round % 3};
        pool_open(&meeting.pool, (unsigned)meeting.expected);
        if (round % 2)
            CHECK_EQ(unit_hand_over(unit_new(&meeting.pool, NULL)), PLAIT_OK);
        for (int again = 1; again <= 3; again++) {
            test_run_threads(meeting.expected, meeting_thread, &meeting);
            while (atomic_load(&meeting.pool.decided) < meeting.expected * again + round % 2)
                sched_yield();
            atomic_store(&meeting.present, 0);
        }
        pool_close(&meeting.pool);
    }
}

/* ---- tasks that are taken ahead ---- */

TEST(taken_ahead)
{
    for (int round = 0; round < test_scaled(200); round++) {
        struct pool pool;
        int count = 50 + round % 7;
        pool_open(&pool, 1 + (unsigned)round % 4);
        for (int i = 0; i < count; i++) {
            struct unit *unit = unit_new(&pool, NULL);
            unit->takes = true;
            CHECK_EQ(unit_hand_over(unit), PLAIT_OK);
            if (i % 20 == 10) { /* is left where it was */
                struct work *work = work_new(&pool, 3);
                CHECK_EQ(plait_sched_submit_job(pool.sched, &work->job), PLAIT_OK);
                plait_job_release(&work->job);
            }
        }
        pool_close(&pool);
        CHECK_EQ(pool.ran, count);
        CHECK_EQ(pool.decided, count);
    }
}

/* Takes the other task ahead, if nobody has it, gives it back, and waits for it. */
static void act_give_back(plait_worker_t *worker, struct unit *unit)
{
    plait_task_t *other = plait_worker_take(worker);
    if (other != NULL)
        CHECK_EQ(plait_worker_give_back(worker, other), PLAIT_OK);
    CHECK_EQ(plait_task_wait(unit->argument, PLAIT_PRIM_FOREVER), PLAIT_OK);
}

TEST(given_back_finds_another_worker)
{
    for (int round = 0; round < test_scaled(500); round++) {
        struct pool pool;
        struct unit other;
        pool_open(&pool, 2);
        if (round % 2)
            CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_OK); /* starts a worker */
        unit_init(&other, &pool, NULL);
        struct unit *first = unit_new(&pool, act_give_back);
        first->argument = &other.task;
        CHECK_EQ(unit_hand_over(first), PLAIT_OK);
        CHECK_EQ(plait_sched_submit(pool.sched, &other.task), PLAIT_OK);
        plait_sched_close(pool.sched);
        CHECK_EQ(plait_sched_join(pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
        CHECK_EQ(other.ran, 1);
        plait_task_release(&other.task);
        pool_end_joined(&pool);
    }
}

/* ---- tasks that submit tasks ---- */

enum { NEST_DEPTH = 12 };

static void act_nest(plait_worker_t *worker, struct unit *unit)
{
    intptr_t depth = (intptr_t)unit->argument;
    for (int i = 0; i < 2 && depth > 0; i++) {
        struct unit *child = unit_new(unit->pool, act_nest);
        child->argument = (void *)(depth - 1);
        int result = unit_hand_over(child);
        CHECK(result == PLAIT_OK || result == PLAIT_CLOSED);
    }
}

TEST(nested_submits)
{
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct pool pool;
        pool_open(&pool, workers);
        struct unit *root = unit_new(&pool, act_nest);
        root->argument = (void *)(intptr_t)NEST_DEPTH;
        CHECK_EQ(unit_hand_over(root), PLAIT_OK);
        while (atomic_load(&pool.decided) < (2 << NEST_DEPTH) - 1)
            test_sleep(MILLISECOND / 10);
        pool_close(&pool);
        CHECK_EQ(pool.decided, (2 << NEST_DEPTH) - 1);
    }
}

TEST(nested_submits_race_with_close)
{
    for (int round = 0; round < test_scaled(200); round++) {
        struct pool pool;
        pool_open(&pool, 1 + (unsigned)round % 4);
        struct unit *root = unit_new(&pool, act_nest);
        root->argument = (void *)(intptr_t)NEST_DEPTH;
        CHECK_EQ(unit_hand_over(root), PLAIT_OK);
        test_sleep(round * 3000 % 500000);
        pool_close(&pool);
    }
}

/* A worker waits for its child: another worker must take it from the first one's deque. */
static void act_wait_for_child(plait_worker_t *worker, struct unit *unit)
{
    struct unit child;
    unit_init(&child, unit->pool, NULL);
    CHECK_EQ(plait_sched_submit(unit->pool->sched, &child.task), PLAIT_OK);
    CHECK_EQ(plait_task_wait(&child.task, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(child.ran, 1);
    while (child.task.references > 1) /* the worker's; the child lies on this stack */
        sched_yield();
    plait_task_release(&child.task);
}

TEST(child_is_stolen)
{
    for (int round = 0; round < test_scaled(500); round++) {
        struct pool pool;
        pool_open(&pool, 2 + (unsigned)round % 3);
        CHECK_EQ(unit_hand_over(unit_new(&pool, act_wait_for_child)), PLAIT_OK);
        while (atomic_load(&pool.decided) < 2)
            sched_yield();
        pool_close(&pool);
    }
}

/* A worker of one scheduler hands work to another one. */
static void act_submit_elsewhere(plait_worker_t *worker, struct unit *unit)
{
    CHECK_EQ(unit_hand_over(unit_new(unit->argument, NULL)), PLAIT_OK);
}

TEST(submit_to_another_scheduler)
{
    struct pool first, second;
    pool_open(&first, 2);
    pool_open(&second, 2);
    for (int i = 0; i < 100; i++) {
        struct unit *unit = unit_new(&first, act_submit_elsewhere);
        unit->argument = &second;
        CHECK_EQ(unit_hand_over(unit), PLAIT_OK);
    }
    pool_close(&first);
    CHECK_EQ(first.decided, 100);
    pool_close(&second);
    CHECK_EQ(second.decided, 100);
}

/* The last handle may go while workers run, and even be given up by one of them. */
static void act_release_own(plait_worker_t *worker, struct unit *unit)
{
    while (!atomic_load((atomic_bool *)unit->argument)) /* the submitter still uses the handle */
        sched_yield();
    plait_sched_close(unit->pool->sched);
    plait_sched_release(unit->pool->sched);
}

TEST(released_by_its_own_worker)
{
    for (int round = 0; round < test_scaled(300); round++) {
        struct pool pool;
        pool_open(&pool, 1 + (unsigned)round % 3);
        for (int i = 0; i < round % 5; i++)
            CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_OK);
        atomic_bool submitted = false;
        struct unit *last = unit_new(&pool, act_release_own);
        last->argument = &submitted;
        CHECK_EQ(plait_sched_submit(pool.sched, &last->task), PLAIT_OK);
        plait_task_release(&last->task);
        atomic_store(&submitted, true);
        while (atomic_load(&pool.disposed) == 0)
            sched_yield();
        CHECK_EQ(pool.alive, 0);
        CHECK_EQ(pool.decided, round % 5 + 1);
    }
    alarm(0);
}

/* ---- drain ---- */

TEST(drain_cancels_what_is_queued)
{
    struct pool pool;
    struct unit units[50];
    pool_open(&pool, 2);
    for (int i = 0; i < 50; i++) {
        unit_init(&units[i], &pool, act_sleep);
        CHECK_EQ(plait_sched_submit(pool.sched, &units[i].task), PLAIT_OK);
    }
    plait_sched_close(pool.sched);
    plait_sched_drain(pool.sched);
    int ran = 0;
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(plait_task_wait(&units[i].task, PLAIT_PRIM_FOREVER), PLAIT_OK);
        ran += (plait_task_state(&units[i].task) & PLAIT_TASK_DONE) != 0;
    }
    CHECK(ran < 50);
    CHECK_EQ(plait_sched_join(pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
    for (int i = 0; i < 50; i++)
        plait_task_release(&units[i].task);
    pool_end_joined(&pool);
}

static void drain_thread(int index, void *argument)
{
    struct crowd *crowd = argument;
    if (index < crowd->submitters) {
        crowd_submit(crowd, index);
        return;
    }
    for (int i = 0; i < 10; i++)
        plait_sched_drain(crowd->pool.sched);
    plait_sched_close(crowd->pool.sched);
    plait_sched_drain(crowd->pool.sched);
    CHECK_EQ(plait_sched_join(crowd->pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
}

TEST(drain_races_with_all)
{
    for (int round = 0; round < test_scaled(300); round++) {
        struct crowd crowd = {.submitters = 2, .count = 1 + round % 200, .closes = true};
        pool_open(&crowd.pool, 1 + (unsigned)round % 4);
        test_run_threads(3, drain_thread, &crowd);
        CHECK_EQ(crowd.pool.decided, crowd.accepted);
        pool_end_joined(&crowd.pool);
    }
}

/* A worker drains the scheduler it belongs to, its own deque too. */
static void act_drain(plait_worker_t *worker, struct unit *unit)
{
    for (int i = 0; i < 20; i++) {
        int result = unit_hand_over(unit_new(unit->pool, NULL));
        CHECK(result == PLAIT_OK || result == PLAIT_CLOSED);
    }
    plait_sched_drain(unit->pool->sched);
}

TEST(drained_by_its_own_worker)
{
    for (int round = 0; round < test_scaled(200); round++) {
        struct pool pool;
        pool_open(&pool, 1 + (unsigned)round % 3);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(unit_hand_over(unit_new(&pool, act_drain)), PLAIT_OK);
        pool_close(&pool);
    }
}

/* ---- ranges ---- */

/* Hands a job over and gives the caller's reference up after it is done. */
static void run_work(struct work *work)
{
    CHECK_EQ(plait_sched_submit_job(work->pool->sched, &work->job), PLAIT_OK);
    work_wait(work);
    CHECK_EQ(work->ran_sum + work->dropped_sum, work->job.count);
    if (!plait_job_is_cancelled(&work->job) && !plait_sched_is_broken(work->pool->sched))
        CHECK_EQ(work->dropped_sum, 0);
    plait_job_release(&work->job);
}

TEST(range_of_every_size)
{
    struct pool pool;
    pool_open(&pool, 4);
    int step = 100 / test_scaled(100);
    for (int count = 1; count < 5000; count += step)
        run_work(work_new(&pool, (uint64_t)count));
    pool_close(&pool);
    CHECK(pool.entered <= 4);
}

TEST(range_of_a_million)
{
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct pool pool;
        pool_open(&pool, workers);
        run_work(work_new(&pool, 1000000));
        pool_close(&pool);
    }
}

TEST(range_that_stops_early)
{
    struct pool pool;
    pool_open(&pool, 3);
    for (uint64_t stop = 1; stop < 40; stop++) {
        struct work *work = work_new(&pool, 5000);
        work->stop = stop;
        run_work(work);
    }
    pool_close(&pool);
}

static int bits(unsigned mask)
{
    return __builtin_popcount(mask);
}

TEST(slow_items_are_spread)
{
    struct pool pool;
    pool_open(&pool, 4);
    for (int round = 0; round < 3; round++) {
        struct work *work = work_new(&pool, 200);
        work->item_time = MILLISECOND;
        plait_job_retain(&work->job);
        run_work(work);
        CHECK_EQ(bits(atomic_load(&work->takers)), 4);
        plait_job_release(&work->job);
    }
    pool_close(&pool);
}

/* No item may wait in the hands of a worker that runs another: each worker gets one of the four. */
TEST(few_slow_items_run_at_once)
{
    struct pool pool;
    pool_open(&pool, 4);
    struct work *work = work_new(&pool, 4);
    work->item_time = 200 * MILLISECOND;
    plait_job_retain(&work->job);
    run_work(work);
    CHECK_EQ(bits(atomic_load(&work->takers)), 4);
    plait_job_release(&work->job);
    pool_close(&pool);
}

static void run_cancelled(unsigned workers, uint64_t count, uint64_t cancel_at, int64_t item_time)
{
    struct pool pool;
    pool_open(&pool, workers);
    struct work *work = work_new(&pool, count);
    work->cancel_at = cancel_at;
    work->item_time = item_time;
    plait_job_retain(&work->job);
    run_work(work);
    if (item_time > 0)
        CHECK(work->dropped_sum > 0);
    plait_job_release(&work->job);
    pool_close(&pool);
}

TEST(cancelled_job_drops_the_rest)
{
    for (unsigned workers = 1; workers <= 4; workers++) {
        run_cancelled(workers, 100, 10, MILLISECOND / 4);
        for (uint64_t count = 1; count < 20000; count = count * 3 + 1)
            run_cancelled(workers, count, count / 4, 0);
    }
}

static void drain_jobs_thread(int index, void *argument)
{
    struct crowd *crowd = argument;
    if (index == 0) {
        for (int i = 0; i < crowd->count; i++) {
            struct work *work = work_new(&crowd->pool, 1 + (uint64_t)i * 37);
            int result = plait_sched_submit_job(crowd->pool.sched, &work->job);
            CHECK(result == PLAIT_OK || result == PLAIT_CLOSED);
            if (result == PLAIT_OK)
                work_wait(work);
            plait_job_release(&work->job);
        }
        return;
    }
    for (int i = 0; i < 20; i++) {
        test_sleep(30000);
        plait_sched_drain(crowd->pool.sched);
    }
    plait_sched_close(crowd->pool.sched);
    plait_sched_drain(crowd->pool.sched);
    CHECK_EQ(plait_sched_join(crowd->pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
}

TEST(drained_jobs_account_for_every_item)
{
    for (int round = 0; round < test_scaled(60); round++) {
        struct crowd crowd = {.count = 60};
        pool_open(&crowd.pool, 1 + (unsigned)round % 4);
        test_run_threads(2, drain_jobs_thread, &crowd);
        pool_end_joined(&crowd.pool);
    }
}

/* Several jobs, tasks and nested tasks at once. */
static void act_submit_job(plait_worker_t *worker, struct unit *unit)
{
    struct work *work = work_new(unit->pool, 500);
    int result = plait_sched_submit_job(unit->pool->sched, &work->job);
    CHECK(result == PLAIT_OK || result == PLAIT_CLOSED);
    plait_job_release(&work->job);
}

static void mix_thread(int index, void *argument)
{
    struct pool *pool = argument;
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < test_scaled(300); i++) {
        if (test_random_below(&random, 4) == 0)
            run_work(work_new(pool, 1 + test_random_below(&random, 3000)));
        else
            CHECK_EQ(unit_hand_over(unit_new(pool, i % 2 ? act_submit_job : NULL)), PLAIT_OK);
    }
}

TEST(jobs_and_tasks_mixed)
{
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct pool pool;
        pool_open(&pool, workers);
        test_run_threads(3, mix_thread, &pool);
        while (atomic_load(&pool.alive) > 0)
            sched_yield();
        pool_close(&pool);
    }
}

/* ---- sleeping ---- */

TEST(workers_sleep_and_wake)
{
    struct pool pool;
    pool_open(&pool, 3);
    for (int i = 0; i < test_scaled(200); i++) {
        CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_OK);
        test_sleep(300000);
    }
    CHECK(atomic_load(&pool.pauses) > 0);
    pool_close(&pool);
    CHECK_EQ(pool.paused, 0);
}

/* ---- broken ---- */

static void run_broken(unsigned workers, unsigned fails_from, int64_t enter_time)
{
    struct pool pool;
    struct unit units[20];
    pool_open(&pool, workers);
    pool.fails_from = fails_from;
    pool.enter_time = enter_time;
    struct work *work = work_new(&pool, 3000);
    for (int i = 0; i < 20; i++) {
        unit_init(&units[i], &pool, NULL);
        CHECK_EQ(plait_sched_submit(pool.sched, &units[i].task), PLAIT_OK);
        if (i == 10)
            CHECK_EQ(plait_sched_submit_job(pool.sched, &work->job), PLAIT_OK);
    }
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(plait_task_wait(&units[i].task, PLAIT_PRIM_FOREVER), PLAIT_OK);
        CHECK_EQ(units[i].ran + units[i].abandoned, 1);
        if (fails_from == 0 && workers == 1)
            CHECK_EQ(units[i].abandoned, 1);
        plait_task_release(&units[i].task);
    }
    work_wait(work);
    plait_job_release(&work->job);
    pool_close(&pool);
}

TEST(broken_abandons_everything)
{
    run_broken(1, 0, 0);
    run_broken(1, 0, 2 * MILLISECOND);
    run_broken(4, 0, MILLISECOND);
    for (int round = 0; round < test_scaled(100); round++)
        run_broken(2 + (unsigned)round % 3, 1, round % 2 * 100000);
}

TEST(broken_stays_broken)
{
    struct pool pool;
    pool_open(&pool, 1);
    pool.fails_from = 0;
    CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_OK);
    while (!plait_sched_is_broken(pool.sched))
        sched_yield();
    struct work *work = work_new(&pool, 100);
    CHECK_EQ(plait_sched_submit_job(pool.sched, &work->job), PLAIT_OK);
    work_wait(work);
    CHECK_EQ(work->dropped_sum, 100);
    plait_job_release(&work->job);
    pool_close(&pool);
}

/* ---- threads that cannot be started, memory that is short ---- */

TEST(no_thread_at_all)
{
    struct pool pool;
    struct unit unit;
    pool_open(&pool, 4);
    unit_init(&unit, &pool, NULL);
    struct work *work = work_new(&pool, 10);
    atomic_store(&threads_left, 0);
    CHECK_EQ(plait_sched_submit(pool.sched, &unit.task), PLAIT_SYSTEM);
    CHECK_EQ(plait_sched_submit_job(pool.sched, &work->job), PLAIT_SYSTEM);
    CHECK_EQ(plait_sched_living(pool.sched), 0);
    CHECK_EQ(unit.task.references, 1);
    atomic_store(&threads_left, INT32_MAX);
    CHECK_EQ(plait_sched_submit(pool.sched, &unit.task), PLAIT_OK);
    CHECK_EQ(plait_task_wait(&unit.task, PLAIT_PRIM_FOREVER), PLAIT_OK);
    plait_task_release(&unit.task);
    plait_job_release(&work->job);
    pool_close(&pool);
}

TEST(no_thread_then_closed)
{
    struct pool pool;
    pool_open(&pool, 4);
    atomic_store(&threads_left, 0);
    CHECK_EQ(unit_hand_over(unit_new(&pool, NULL)), PLAIT_SYSTEM);
    atomic_store(&threads_left, INT32_MAX);
    pool_close(&pool);
    CHECK_EQ(pool.entered, 0);
}

TEST(fewer_threads_than_wanted)
{
    for (int threads = 1; threads < 4; threads++) {
        struct pool pool;
        pool_open(&pool, 4);
        atomic_store(&threads_left, threads);
        struct work *work = work_new(&pool, 40);
        work->item_time = MILLISECOND / 2;
        run_work(work);
        CHECK_EQ(plait_sched_living(pool.sched), (unsigned)threads);
        atomic_store(&threads_left, INT32_MAX);
        pool_close(&pool);
        CHECK_EQ(pool.entered, threads);
    }
}

TEST(short_memory_loses_nothing)
{
    for (int period = 1; period < 12; period++) {
        struct pool pool;
        int accepted = 0;
        pool_open(&pool, 3);
        atomic_store(&malloc_period, period);
        for (int i = 0; i < 1000; i++) {
            int result = unit_hand_over(unit_new(&pool, i % 50 ? NULL : act_nest));
            CHECK(result == PLAIT_OK || result == PLAIT_NOMEM);
            accepted += result == PLAIT_OK;
        }
        for (int i = 0; i < 50; i++) {
            struct work *work = work_new(&pool, 2000);
            int result = plait_sched_submit_job(pool.sched, &work->job);
            CHECK(result == PLAIT_OK || result == PLAIT_NOMEM);
            if (result == PLAIT_OK)
                work_wait(work);
            plait_job_release(&work->job);
        }
        plait_sched_close(pool.sched);
        CHECK_EQ(plait_sched_join(pool.sched, PLAIT_PRIM_FOREVER), PLAIT_OK);
        atomic_store(&malloc_period, 0);
        CHECK_EQ(pool.decided, accepted);
        pool_end_joined(&pool);
    }
}

TEST(create_without_memory)
{
    for (int period = 1; period < 8; period++) {
        plait_sched_t *sched;
        struct pool pool = {0};
        plait_sched_config_t config = {.workers = 4, .ops = &ops, .context = &pool};
        atomic_store(&malloc_count, 1);
        atomic_store(&malloc_period, period);
        int result = plait_sched_create(&sched, &config);
        atomic_store(&malloc_period, 0);
        CHECK(result == PLAIT_NOMEM || (result == PLAIT_OK && period > 5));
        if (result == PLAIT_OK) {
            plait_sched_close(sched);
            plait_sched_release(sched);
            CHECK_EQ(pool.disposed, 1);
        }
    }
}
