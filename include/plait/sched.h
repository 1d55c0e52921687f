/* sched: a pool of workers that run tasks and ranges, stealing from each other.
 *
 * The scheduler knows nothing of what a worker is: a table of functions enters, runs and leaves. A
 * *task* is one call (plait/task.h). A *range* is a stretch of a job's items: a worker that runs
 * one first puts the upper half where others can steal it, and again, until what it keeps is one
 * grain, whose size follows from how long items take: there is no chunk size to guess. Protocol:
 * docs/design/sched.md
 */
#ifndef PLAIT_SCHED_H
#define PLAIT_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/alloc.h"
#include "plait/error.h"
#include "plait/levels.h"
#include "plait/task.h"

typedef struct plait_sched plait_sched_t;
typedef struct plait_worker plait_worker_t;
typedef struct plait_job plait_job_t;

/* What a worker is. Called on the worker's own thread unless said otherwise. */
typedef struct plait_worker_ops {
    /* Once, before anything else. PLAIT_OK, or an error: then this worker runs nothing, and the
     * scheduler is broken: it abandons every task, now and from now on. `leave` is called in either
     * case. */
    int (*enter)(plait_worker_t *worker);
    /* Once, after enter if that succeeded: calls loop(worker), in which everything below happens.
     * May be NULL, when there is nothing to put around it. */
    void (*surround)(plait_worker_t *worker, void (*loop)(plait_worker_t *worker));
    /* Runs a claimed task, writes its outcome, and returns it for the scheduler to complete. It may
     * have taken others (plait_worker_take): then it completes all but one, and returns that. */
    plait_task_t *(*run)(plait_worker_t *worker, plait_task_t *task);
    /* Runs items [low, high) of the job in order; returns how many it ran, at least 1. */
    uint64_t (*run_items)(plait_worker_t *worker, plait_job_t *job, uint64_t low, uint64_t high);
    /* After each task that is complete and each run_items: what nobody is to wait for. May be NULL:
     * then whoever has waited for a task finds its worker ready for the next one. */
    void (*rest)(plait_worker_t *worker);
    /* Around every sleep: gives up, and takes back, whatever must not be held while blocked. */
    void (*pause)(plait_worker_t *worker);
    void (*resume)(plait_worker_t *worker);
    /* Once, at the end. */
    void (*leave)(plait_worker_t *worker);
    /* A worker of a broken scheduler, entered or not: writes the outcome "the pool broke". */
    void (*abandon)(plait_sched_t *sched, plait_task_t *task);
    /* Any thread: items [low, high) will not run, since the job was cancelled or the scheduler
     * broke. */
    void (*abandon_items)(plait_sched_t *sched, plait_job_t *job, uint64_t low, uint64_t high);
    /* Any thread, once: nothing uses the scheduler's context any more. */
    void (*dispose)(void *context);
} plait_worker_ops_t;

typedef struct plait_sched_config {
    unsigned workers;              /* at most this many; started as work arrives */
    const plait_worker_ops_t *ops; /* outlives the scheduler */
    void *context;                 /* what the functions of ops find in plait_worker_context */
    const char *name;              /* of the threads; copied, 15 bytes are shown */
    size_t stack_size;             /* of each thread; 0: the system's default */
} plait_sched_config_t;

typedef PLAIT_ATOMIC(uint32_t) plait_job_flag_t;

/* A job of `count` items, the owner of its ranges; the binding embeds it. */
struct plait_job {
    PLAIT_ATOMIC(uint32_t) references;
    /* const after init */
    void (*destroy)(plait_job_t *job);
    uint64_t count;
    uint64_t id;                 /* no other job's; never 0 */
    unsigned level;              /* normal; may be changed before the submit */
    plait_job_flag_t *cancelled; /* of the owner's: several jobs may share one */
};

/* One reference, the caller's. `cancelled` is 0 and lives as long as the job. */
void plait_job_init(plait_job_t *job, uint64_t count, plait_job_flag_t *cancelled,
                    void (*destroy)(plait_job_t *job));
void plait_job_retain(plait_job_t *job);
void plait_job_release(plait_job_t *job);

/* Any thread: sets the flag; items of all its jobs that no worker has begun are abandoned. */
void plait_job_cancel(plait_job_flag_t *cancelled);
bool plait_job_is_cancelled(plait_job_t *job);

/* No thread is started yet. The caller owns the handle until plait_sched_release. */
int plait_sched_create(plait_sched_t **sched, const plait_sched_config_t *config);

/* Any thread: hands a task over; on PLAIT_OK the scheduler has taken a reference of its own.
 * PLAIT_CLOSED after close; PLAIT_NOMEM, PLAIT_SYSTEM (no thread could be started) leave the task
 * with the caller. */
int plait_sched_submit(plait_sched_t *sched, plait_task_t *task);

/* Likewise, at a level; what a worker submits to its own scheduler has none. */
int plait_sched_submit_at(plait_sched_t *sched, plait_task_t *task, unsigned level);

/* Any thread: hands all items of a job over, likewise. count >= 1. */
int plait_sched_submit_job(plait_sched_t *sched, plait_job_t *job);

/* Any thread, more than once: no more submits. Workers end when every task has run. */
void plait_sched_close(plait_sched_t *sched);

/* Any thread, a worker's too: cancels every queued task that no worker has begun, and every job of
 * which something is queued. Of what is submitted meanwhile it may miss some: close first. */
void plait_sched_drain(plait_sched_t *sched);

/* Blocks until, after close, every worker's thread has ended: PLAIT_OK, PLAIT_TIMEOUT or
 * PLAIT_INTERRUPTED. Not a worker of this scheduler. */
int plait_sched_join(plait_sched_t *sched, int64_t deadline);

/* Any thread, once, while no other thread uses the handle: gives it up, after close. Workers finish
 * what is queued, and the last one to end frees the scheduler and calls dispose; after a join that
 * returned PLAIT_OK it is this call that does. */
void plait_sched_release(plait_sched_t *sched);

/* A number that names this scheduler in the process for ever; never 0. Any thread. */
uint64_t plait_sched_id(const plait_sched_t *sched);

/* Any thread: one more handle, to be released, of the scheduler with this id; NULL if it is
 * gone. */
plait_sched_t *plait_sched_find(uint64_t id);

/* In the child of a fork, before anything else of the core is used there: forgets all schedulers,
 * whose threads did not come along and whose locks may be held by them. True if there were any;
 * their memory stays behind. */
bool plait_sched_after_fork(void);

/* A worker that cannot run anything any more: breaks the scheduler, as a failed enter does. */
void plait_sched_break(plait_sched_t *sched);

bool plait_sched_is_closed(plait_sched_t *sched);
bool plait_sched_is_broken(plait_sched_t *sched);

/* How many workers have been started and have not ended. Any thread; a snapshot. */
unsigned plait_sched_living(plait_sched_t *sched);

/* The worker whose thread this is, or NULL. */
plait_worker_t *plait_worker_current(void);

/* On the worker's thread, inside a task that waits for another: runs one item that is queued, if
 * there is one, and returns whether there was. `own`: only from the worker's own deque, newest
 * first. */
bool plait_worker_help(plait_worker_t *worker, bool own);

/* On the worker's thread, inside run: takes the task that it would run next out of the queues, unless
 * that is one to be stolen, or of a level below normal, or a range; NULL then. The caller has its
 * reference, and is to claim, complete or give it back; nobody else can find it meanwhile. */
plait_task_t *plait_worker_take(plait_worker_t *worker);

/* Likewise: puts a task that was taken where the worker finds it next, and others may steal it, and
 * has one of them look. PLAIT_OK, or PLAIT_NOMEM: the caller has it still. */
int plait_worker_give_back(plait_worker_t *worker, plait_task_t *task);

/* Likewise: the end of a task that was taken, claimed and run. */
void plait_worker_complete(plait_task_t *task);

plait_sched_t *plait_worker_sched(plait_worker_t *worker);
void *plait_sched_context(plait_sched_t *sched);
unsigned plait_worker_index(plait_worker_t *worker);

/* The binding's own pointer; only on the worker's thread. */
void *plait_worker_data(plait_worker_t *worker);
void plait_worker_set_data(plait_worker_t *worker, void *data);

#endif
