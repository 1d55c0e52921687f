/* sched_range: jobs, and the ranges that their items are run in.
 *
 * Before a worker runs a stretch of a range, it splits the range in halves, and the upper ones go
 * to its own deque, until the stretch is all that is left in its hands: nothing waits out of the
 * thieves' reach. A stretch is one *grain*, a number of items that adapts to how long they take.
 * Invariant: every item of a job is in one range, which is in one queue or in the hands of one
 * thread, or it has been run or abandoned. Design: docs/design/sched.md
 */
#include "core/sched_internal.h"

#include <stdlib.h>

/* How many nanoseconds a grain should take: short at first, so that results come early and there is
 * something to steal; longer as a worker goes on with a job, since every grain wakes the receiver
 * of its results, which takes a processor from the workers. At most 1/GRAIN_SHARE of the time spent
 * on the job so far, which bounds what the last grain of all can make others wait. */
#define GRAIN_TIME_LEAST 100000
#define GRAIN_TIME_MOST 2000000
#define GRAIN_SHARE 16
#define GRAIN_LIMIT 16384

/* ---- jobs ---- */

void plait_job_init(plait_job_t *job, uint64_t count, plait_job_flag_t *cancelled,
                    void (*destroy)(plait_job_t *job))
{
    plait_atomic_init(&job->references, 1);
    job->destroy = destroy;
    job->count = count;
    job->level = PLAIT_LEVEL_NORMAL;
    job->id = plait_task_next_id();
    job->cancelled = cancelled;
}

void plait_job_retain(plait_job_t *job)
{
    plait_atomic_add_relaxed(&job->references, 1); /* relaxed: as plait_task_retain */
}

void plait_job_release(plait_job_t *job)
{
    if (plait_atomic_sub_acq_rel(&job->references, 1) == 1)
        job->destroy(job);
}

void plait_job_cancel(plait_job_flag_t *cancelled)
{
    plait_atomic_store_relaxed(cancelled, 1); /* relaxed: only a hint to stop, it orders nothing */
}

bool plait_job_is_cancelled(plait_job_t *job)
{
    return plait_atomic_load_relaxed(job->cancelled) != 0;
}

/* ---- ranges ---- */

static plait__range_t *range_new(plait_job_t *job, uint64_t low, uint64_t high, uint64_t grain)
{
    plait__range_t *range = malloc(sizeof *range);
    if (range == NULL)
        return NULL;
    plait_job_retain(job);
    *range = (plait__range_t){job, low, high, grain};
    return range;
}

plait__range_t *plait__range_new(plait_job_t *job)
{
    return range_new(job, 0, job->count, 1);
}

void plait__range_free(plait__range_t *range)
{
    plait_job_release(range->job);
    free(range);
}

/* Puts the upper half of the range into the worker's deque. False where memory is short. */
static bool split(plait_worker_t *worker, plait__range_t *range, uint64_t grain)
{
    uint64_t middle = range->low + (range->high - range->low) / 2;
    plait__range_t *upper = range_new(range->job, middle, range->high, grain);
    if (upper == NULL)
        return false;
    if (plait_deque_push_owner(&worker->deque, plait__item_of_range(upper)) != PLAIT_OK) {
        plait__range_free(upper);
        return false;
    }
    range->high = middle;
    plait_park_wake_one(&worker->sched->park);
    return true;
}

static int64_t grain_time(int64_t spent)
{
    int64_t share = spent / GRAIN_SHARE;
    return share < GRAIN_TIME_LEAST  ? GRAIN_TIME_LEAST
           : share > GRAIN_TIME_MOST ? GRAIN_TIME_MOST
                                     : share;
}

/* What a stretch of `count` items that took `time` teaches about the grain that should take
 * `wanted`. */
static uint64_t next_grain(uint64_t grain, uint64_t count, int64_t time, int64_t wanted)
{
    if (time > wanted * 2)
        return grain > 1 ? grain / 2 : 1;
    /* a short stretch may be quick only because it was short */
    if (time < wanted / 2 && count >= grain / 2 && grain < GRAIN_LIMIT)
        return grain * 2;
    return grain;
}

/* Runs what is more urgent than the job, if there is anything. */
static bool give_way(plait_worker_t *worker, const plait_job_t *job)
{
    void *item;
    bool gave = false;
    while (plait_levels_pop_mpmc(&worker->sched->levels, 0, job->level, &item) == PLAIT_OK) {
        plait__item_run_worker(worker, item);
        gave = true;
    }
    return gave;
}

void plait__range_run_worker(plait_worker_t *worker, plait__range_t *range)
{
    plait_sched_t *sched = worker->sched;
    int64_t before = plait_prim_now();
    if (worker->grain_job != range->job->id) {
        worker->grain_job = range->job->id;
        worker->grain_since = before;
        worker->grain = range->grain;
    }
    uint64_t grain = worker->grain;
    while (range->low < range->high) {
        if (give_way(worker, range->job))
            before = plait_prim_now();
        if (plait_job_is_cancelled(range->job) || plait_sched_is_broken(sched)) {
            sched->ops->abandon_items(sched, range->job, range->low, range->high);
            break;
        }
        while (range->high - range->low > grain && split(worker, range, grain))
            continue;
        uint64_t left = range->high - range->low; /* more than a grain where memory is short */
        uint64_t high = range->low + (left < grain ? left : grain);
        uint64_t count = sched->ops->run_items(worker, range->job, range->low, high);
        range->low += count;
        plait__rest_worker(worker);
        int64_t now = plait_prim_now();
        grain = next_grain(grain, count, now - before, grain_time(now - worker->grain_since));
        before = now;
    }
    if (worker->grain_job == range->job->id) /* gave way to no other job */
        worker->grain = grain;
    plait__range_free(range);
}

void plait__range_drain(plait_sched_t *sched, plait__range_t *range)
{
    plait_job_cancel(range->job->cancelled);
    sched->ops->abandon_items(sched, range->job, range->low, range->high);
    plait__range_free(range);
}
