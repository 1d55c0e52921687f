/* sched_internal: what the scheduler's files share. Included by src/core/sched*.c alone. Design:
 * docs/design/sched.md
 */
#ifndef PLAIT_CORE_SCHED_INTERNAL_H
#define PLAIT_CORE_SCHED_INTERNAL_H

#include "core/deque.h"
#include "core/levels.h"
#include "core/life.h"
#include "core/park.h"
#include "plait/sched.h"

#define PLAIT__SCHED_NAME_SIZE 16

struct plait_worker {
    /* const after init */
    plait_sched_t *sched;
    unsigned index;
    /* owner only */
    void *data;
    unsigned victim;
    bool announces; /* itself, as a task ends: it has no rest, and nothing waits below the task */
    bool announced; /* as one that is about to sleep */
    uint64_t grain_job;  /* the id of the last job of which it ran a range */
    uint64_t grain;      /* and what it learned there */
    int64_t grain_since; /* when it began with that job */
    /* bottom by the owner, top by thieves */
    plait_deque_t deque;
};

struct plait_sched {
    /* const after init */
    const plait_worker_ops_t *ops;
    void *context;
    unsigned capacity;
    size_t stack_size;
    char name[PLAIT__SCHED_NAME_SIZE];
    uint64_t id;
    plait_worker_t *workers;
    /* guarded by the registry's lock */
    plait_sched_t *next;
    /* starting a worker */
    plait_prim_lock_t lock;
    PLAIT_ATOMIC(uint32_t) started;   /* grows under lock, after the start */
    PLAIT_ATOMIC(uint32_t) stealable; /* grows under lock, before it: who may have items */
    /* set by a worker that could not enter */
    PLAIT_ATOMIC(uint32_t) broken;
    plait_life_t life;
    plait_levels_t levels;
    plait_park_t park;
};

/* ---- ranges (sched_range.c) ----
 *
 * An item of a queue is a pointer to a task, or to a range with the lowest bit set. Who takes an
 * item owns its reference to the task or job. */

typedef struct plait__range {
    plait_job_t *job; /* a reference */
    uint64_t low, high;
    uint64_t grain; /* how many items a worker that knows nothing of the job runs at first */
} plait__range_t;

static inline void *plait__item_of_range(plait__range_t *range)
{
    return (void *)((uintptr_t)range | 1);
}

/* NULL for a task. */
static inline plait__range_t *plait__range_of_item(void *item)
{
    return ((uintptr_t)item & 1) ? (plait__range_t *)((uintptr_t)item & ~(uintptr_t)1) : NULL;
}

/* All items of the job, with a reference of its own; NULL where memory is short. */
plait__range_t *plait__range_new(plait_job_t *job);
void plait__range_free(plait__range_t *range);

/* Runs one item of a queue. */
void plait__item_run_worker(plait_worker_t *worker, void *item);

static inline void plait__rest_worker(plait_worker_t *worker)
{
    if (worker->sched->ops->rest != NULL)
        worker->sched->ops->rest(worker);
}

/* Runs all of it but what it gives away, and frees it. */
void plait__range_run_worker(plait_worker_t *worker, plait__range_t *range);

/* Any thread: abandons all of it, cancels its job, and frees it. */
void plait__range_drain(plait_sched_t *sched, plait__range_t *range);

#endif
