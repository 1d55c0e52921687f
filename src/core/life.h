/* life: how a scheduler ends with nothing lost, and who frees it.
 *
 * Submitters push behind a *gate* that close shuts; workers count as *busy* unless they sleep. When
 * the gate is shut with nobody inside, the queue from outside is empty and nobody is busy, then
 * nothing is left and nothing can come: *finished*, and workers end. One word counts the *holders*,
 * the handles and the living workers: the last of them frees. Protocol: docs/design/sched.md,
 * tests/model/model_life.cpp
 */
#ifndef PLAIT_CORE_LIFE_H
#define PLAIT_CORE_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/atomic.h"
#include "core/levels.h"
#include "core/park.h"

typedef struct plait_life plait_life_t;

struct plait_life {
    /* Const after init. */
    plait_levels_t *queue;
    plait_park_t *park;

    /* Written by workers that fall asleep, wake or end, and once by whoever notices the end. */
    PLAIT_ATOMIC(uint32_t) busy;     /* workers that do not sleep; only they hold items */
    PLAIT_ATOMIC(uint32_t) finished; /* a wait word for join; 1 for good */
    PLAIT_ATOMIC(uint32_t) holders;  /* a wait word for join; handles and workers, see life.c */

    char pad0[PLAIT_PRIM_CACHE_LINE];

    /* Written by every submitter: 1 is closed, 2 for each that is inside. */
    PLAIT_ATOMIC(uint32_t) gate;

    char pad1[PLAIT_PRIM_CACHE_LINE];
};

/* Open, held by the handle alone. `queue` and `park` live as long. */
void plait_life_init(plait_life_t *life, plait_levels_t *queue, plait_park_t *park);

/* Submitter, with the handle or on a worker: true lets it push to the queue and start workers, and
 * then it must leave; false is closed. Neither blocks. */
bool plait_life_enter(plait_life_t *life);
void plait_life_leave(plait_life_t *life);

/* Any thread with the handle, more than once; does not block. */
void plait_life_close(plait_life_t *life);
bool plait_life_is_closed(plait_life_t *life);

/* Whoever took from the queue without being a worker, afterwards: it may have been the last. */
void plait_life_look(plait_life_t *life);

/* Submitter behind the gate: a worker is about to be started; or, afterwards, could not be. */
void plait_life_add_worker(plait_life_t *life);
void plait_life_drop_worker(plait_life_t *life);

/* Worker `id`, in place of plait_park_wait_worker: it holds no item and its deque is empty. */
void plait_life_sleep_worker(plait_life_t *life, unsigned id);

/* Any thread: whether workers are to end. */
bool plait_life_is_finished(plait_life_t *life);

/* Worker, at its end; the handle's owner, once. True: it was the last holder, and frees. */
bool plait_life_end_worker(plait_life_t *life);
bool plait_life_release(plait_life_t *life);

/* Any thread that keeps the memory from being freed: one more handle; false if the last holder has
 * gone. */
bool plait_life_retain(plait_life_t *life);

/* With the handle: blocks until finished with no worker left; after PLAIT_OK no worker touches the
 * scheduler any more. PLAIT_OK, PLAIT_TIMEOUT or PLAIT_INTERRUPTED. */
int plait_life_join(plait_life_t *life, int64_t deadline);

/* A snapshot of how many workers have been added and have not ended. Any thread. */
unsigned plait_life_workers(plait_life_t *life);

#endif
