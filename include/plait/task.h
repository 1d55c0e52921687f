/* task: one call that a worker runs once, and that any number of threads may wait for.
 *
 * A task is a few words that the binding embeds at the front of its own structure. Its state is a
 * futex word: completing it is one atomic operation, plus a wake-up where somebody waits, plus a
 * hand-over to the notifier where somebody asked to be told. Protocol: docs/design/task.md
 */
#ifndef PLAIT_TASK_H
#define PLAIT_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/error.h"
#include "plait/mailbox.h"
#include "prim/prim.h"

typedef struct plait_task plait_task_t;

/* Bits of plait_task.state; 0 is pending. */
enum {
    PLAIT_TASK_RUNNING = 1,   /* a worker has claimed it */
    PLAIT_TASK_DONE = 2,      /* its outcome is there to be read */
    PLAIT_TASK_CANCELLED = 4, /* it will never run */
    PLAIT_TASK_WAITED = 8,    /* a thread may sleep on the word */
    PLAIT_TASK_WATCHED = 16,  /* the notifier is to be told */
    PLAIT_TASK_EXPIRED = 32,  /* it will never run, since its deadline passed before it began */
    PLAIT_TASK_HELD = 64      /* a worker will claim it, unless it lets go of it */
};

struct plait_task {
    PLAIT_ATOMIC(uint32_t) state;
    PLAIT_ATOMIC(uint32_t) references;
    /* const after init: called by whoever drops the last reference */
    void (*destroy)(plait_task_t *task);
    /* written by the watcher before WATCHED is set, read by the completer after it saw WATCHED */
    plait_mailbox_t *notifier;
    plait_link_t link; /* in the notifier's mailbox */
};

/* A pending task with one reference, the caller's. */
void plait_task_init(plait_task_t *task, void (*destroy)(plait_task_t *task));

/* Any thread that holds a reference. The last release calls destroy. */
void plait_task_retain(plait_task_t *task);
void plait_task_release(plait_task_t *task);

/* Worker: takes the task to run it; false where it was cancelled or has expired (nothing is left to
 * do but release). */
bool plait_task_claim_worker(plait_task_t *task);

/* Worker: keeps the task from being cancelled or expiring until it claims it or lets go of it; false
 * where it was cancelled or has expired. */
bool plait_task_hold_worker(plait_task_t *task);

/* Whoever knows that the holder will not claim it: it is pending again. */
void plait_task_let_go(plait_task_t *task);

/* Worker, after it has written the outcome: publishes it (release; pairs with the acquire of
 * is_final and wait), wakes those who wait and tells the notifier. The worker's reference keeps the
 * task alive. */
void plait_task_complete_worker(plait_task_t *task);

/* Any thread: cancels a task that no worker has claimed or holds. True if it is cancelled now, by this call
 * or before; *first tells whether this call did it. */
bool plait_task_cancel(plait_task_t *task, bool *first);

/* Any thread that keeps the task alive meanwhile: makes a task that no worker has claimed or holds and
 * nobody has cancelled EXPIRED. True if this call did it. */
bool plait_task_expire(plait_task_t *task);

/* Any thread: the state's bits, with acquire order. */
uint32_t plait_task_state(plait_task_t *task);

static inline bool plait_task_is_final(uint32_t state)
{
    return (state & (PLAIT_TASK_DONE | PLAIT_TASK_CANCELLED | PLAIT_TASK_EXPIRED)) != 0;
}

/* Blocks until the task is final: PLAIT_OK, PLAIT_TIMEOUT, or PLAIT_INTERRUPTED (a signal handler
 * ran). */
int plait_task_wait(plait_task_t *task, int64_t deadline);

/* Any thread, at most one watcher per task: asks that the task be put, with a reference, into the
 * notifier's mailbox when it becomes final. False where it already is: then it will not be. The
 * mailbox must outlive the task's completion. */
bool plait_task_watch(plait_task_t *task, plait_mailbox_t *notifier);

/* A number that no other call in this process gets; never 0. Any thread. */
uint64_t plait_task_next_id(void);

/* The task whose link a mailbox gave. */
static inline plait_task_t *plait_task_of_link(plait_link_t *link)
{
    return (plait_task_t *)((char *)link - offsetof(plait_task_t, link));
}

#endif
