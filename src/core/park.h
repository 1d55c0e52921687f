/* park: how idle workers sleep and how producers wake them without a lock and without losing a
 * wake-up.
 *
 * A worker that finds nothing: prepare, look at every queue once more, then either cancel (found
 * something) or park. A producer: make the work visible, then wake. The Dekker-like pair (prepare's
 * announcement before the worker's last look; the producer's publication before its look at the
 * announcement) is why nothing is lost: docs/design/park.md, tests/model/park.
 */
#ifndef PLAIT_CORE_PARK_H
#define PLAIT_CORE_PARK_H

#include "core/atomic.h"
#include "plait/alloc.h"
#include "plait/error.h"
#include "prim/prim.h"

typedef struct plait_park plait_park_t;

#define PLAIT_PARK_MASKS 16
#define PLAIT_PARK_WORKERS_MAX (PLAIT_PARK_MASKS * 64)

/* One worker's place to sleep, on a cache line of its own. */
typedef struct plait_park_slot {
    /* Whether its worker is awake or asleep, which it says itself, or was chosen, as a producer says;
     * a wait word. */
    PLAIT_ATOMIC(uint32_t) state;
    char pad[PLAIT_PRIM_CACHE_LINE - sizeof(uint32_t)];
} plait_park_slot_t;

struct plait_park {
    /* Const after init. */
    const plait_alloc_t *alloc;
    plait_park_slot_t *slots;
    unsigned workers;
    unsigned masks; /* how many of `announced` are in use: 64 workers to a mask */

    char pad0[PLAIT_PRIM_CACHE_LINE];

    /* Written by workers and producers, read by every producer. Bit id % 64 of mask id / 64 is
     * set: worker id is about to sleep or sleeps, and no producer has chosen it yet. Who clears
     * the bit decides. */
    PLAIT_ATOMIC(uint64_t) announced[PLAIT_PARK_MASKS];

    char pad1[PLAIT_PRIM_CACHE_LINE];
};

/* For workers numbered 0 .. workers-1; `alloc` outlives it. PLAIT_OK, PLAIT_NOMEM, or
 * PLAIT_INVALID for no workers or more than PLAIT_PARK_WORKERS_MAX. */
int plait_park_init(plait_park_t *park, unsigned workers, const plait_alloc_t *alloc);

/* No other thread may use it any more: not even a producer on its way out of wake_one. */
void plait_park_fini(plait_park_t *park);

/* Worker `id` announces that it is about to sleep. After it, it must look at every queue once
 * more, or for a while, and then call exactly one of cancel and wait. */
void plait_park_prepare_worker(plait_park_t *park, unsigned id);

/* Found something after all; does not block. False where a producer had already chosen this worker:
 * it may be busy for long with what it found, and that may not be what the producer made visible. So
 * it must look whether anything is left in the queues, and then wake another one for that. */
bool plait_park_cancel_worker(plait_park_t *park, unsigned id);

/* Blocks until woken or the deadline: PLAIT_OK (look for work again; seldom for nothing),
 * PLAIT_TIMEOUT. Worker `id` only, after prepare. Afterwards the worker is not announced any
 * more. */
int plait_park_wait_worker(plait_park_t *park, unsigned id, int64_t deadline);

/* Any thread, after making work visible: wakes one sleeping (or preparing) worker if there is
 * one; returns whether it did. No system call where it does not sleep yet, and where nobody does: one
 * fence and one shared load (one for every 64 workers). Calls one after the other choose different
 * workers. */
bool plait_park_wake_one(plait_park_t *park);

/* Any thread: wakes every one that sleeps or prepares to. */
void plait_park_wake_all(plait_park_t *park);

/* A snapshot of how many sleep or prepare to. */
unsigned plait_park_sleepers(plait_park_t *park);

#endif
