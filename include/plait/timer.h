/* timer: functions that are called when their time has come.
 *
 * One thread per process, started with the first timer, sleeps until the earliest deadline and
 * calls what is due. A timer lies in its owner's own structure; starting and stopping one is a lock
 * of a few instructions and a step in a heap. Whoever frees a timer stops it first, and waits if its
 * function is being called. Design: docs/design/timer.md
 */
#ifndef PLAIT_TIMER_H
#define PLAIT_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/error.h"
#include "prim/prim.h"

typedef struct plait_timer plait_timer_t;

/* Called once for each start whose deadline passes, on the timers' thread, which all of the process
 * share: it must not block. What takes longer it hands to another thread. It, or that thread, ends
 * by plait_timer_finish or by another plait_timer_start; until then the timer *fires*. */
typedef void plait_timer_function_t(plait_timer_t *timer);

struct plait_timer {
    plait_timer_function_t *function; /* const after init */
    size_t place;                     /* in the heap; guarded by the queue's lock */
    uint32_t fork_count;              /* of the process that it was started in */
    PLAIT_ATOMIC(uint32_t) state;     /* a wait word: idle, queued, firing */
};

/* Idle. */
void plait_timer_init(plait_timer_t *timer, plait_timer_function_t *function);

/* Any thread, on an idle timer, or while it fires in place of plait_timer_finish: has the function
 * called once the deadline has passed. PLAIT_OK, PLAIT_NOMEM, or PLAIT_SYSTEM (no thread); then the
 * timer stays what it was. Does not block. */
int plait_timer_start(plait_timer_t *timer, int64_t deadline);

/* Any thread: true if the timer is idle now, and its function neither runs nor will; false while it
 * fires. Does not block. */
bool plait_timer_stop(plait_timer_t *timer);

/* Any thread but the one that finishes it: blocks while the timer fires. Afterwards it may have been
 * started again: who wants it idle stops it, and waits, until stop says so. */
void plait_timer_wait(plait_timer_t *timer);

/* Whoever ends the firing, as the last use of the timer: it may be freed from now on. */
void plait_timer_finish(plait_timer_t *timer);

/* In the child of a fork, before anything else of this unit is used there: the parent's timers are
 * forgotten, as idle ones. */
void plait_timer_after_fork(void);

#endif
