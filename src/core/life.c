/* life: how a scheduler ends.
 *
 * Invariants: items enter the queue only from inside the gate; an item that has left the queue is
 * with a worker that counts as busy, or in such a worker's deque; `finished` is set once, while
 * nobody is inside the closed gate, the queue is empty and nobody is busy; no worker is added after
 * it. All changes and looks that this rests on are seq_cst, so that of several threads that each
 * bring one of the three about, the last one sees all three. Who may call: see life.h. Design:
 * docs/design/sched.md
 */
#include "core/life.h"

#define GATE_CLOSED 1u
#define GATE_ENTRY 2u

/* Handles in the low half of the word, workers in the high half. */
#define HOLDER_HANDLE 1u
#define HOLDER_WORKER 0x10000u

void plait_life_init(plait_life_t *life, plait_levels_t *queue, plait_park_t *park)
{
    life->queue = queue;
    life->park = park;
    plait_atomic_init(&life->busy, 0u);
    plait_atomic_init(&life->finished, 0u);
    plait_atomic_init(&life->holders, HOLDER_HANDLE);
    plait_atomic_init(&life->gate, 0u);
}

/* ---- noticing the end ---- */

void plait_life_look(plait_life_t *life)
{
    /* In this order: an item that the look at the queue misses is with a worker that has counted
     * itself as busy before it took it. */
    if (plait_atomic_load_seq_cst(&life->gate) != GATE_CLOSED ||
        !plait_levels_is_empty(life->queue) || plait_atomic_load_seq_cst(&life->busy) != 0)
        return;
    if (plait_atomic_swap_seq_cst(&life->finished, 1u) != 0)
        return;
    plait_park_wake_all(life->park);
    plait_prim_wake(&life->finished, INT32_MAX, false);
}

/* ---- the gate ---- */

void plait_life_leave(plait_life_t *life)
{
    if (plait_atomic_sub_seq_cst(&life->gate, GATE_ENTRY) & GATE_CLOSED)
        plait_life_look(life);
}

bool plait_life_enter(plait_life_t *life)
{
    if (!(plait_atomic_add_seq_cst(&life->gate, GATE_ENTRY) & GATE_CLOSED))
        return true;
    plait_life_leave(life);
    return false;
}

void plait_life_close(plait_life_t *life)
{
    plait_atomic_or_seq_cst(&life->gate, GATE_CLOSED);
    plait_life_look(life);
}

bool plait_life_is_closed(plait_life_t *life)
{
    return (plait_atomic_load_seq_cst(&life->gate) & GATE_CLOSED) != 0;
}

/* ---- workers ---- */

void plait_life_add_worker(plait_life_t *life)
{
    /* relaxed: the caller holds the handle or is a worker; starting the thread publishes it */
    plait_atomic_add_relaxed(&life->holders, HOLDER_WORKER);
    plait_atomic_add_seq_cst(&life->busy, 1u);
}

void plait_life_drop_worker(plait_life_t *life)
{
    plait_atomic_sub_seq_cst(&life->busy, 1u); /* the caller looks when it leaves the gate */
    plait_atomic_sub_release(&life->holders, HOLDER_WORKER); /* release: as in end_worker */
}

void plait_life_sleep_worker(plait_life_t *life, unsigned id)
{
    plait_atomic_sub_seq_cst(&life->busy, 1u);
    if (plait_life_is_closed(life))
        plait_life_look(life);
    plait_park_wait_worker(life->park, id, PLAIT_PRIM_FOREVER);
    plait_atomic_add_seq_cst(&life->busy, 1u); /* before it takes anything: see look */
}

bool plait_life_is_finished(plait_life_t *life)
{
    return plait_atomic_load_seq_cst(&life->finished) != 0;
}

/* ---- holders ---- */

bool plait_life_end_worker(plait_life_t *life)
{
    /* acq_rel, here and in release: every holder's use comes before the last one frees. The release
     * pairs with the acquire in join as well. */
    uint32_t before = plait_atomic_sub_acq_rel(&life->holders, HOLDER_WORKER);
    /* From here on the handle's owner may free `life`; the wake only uses its address. */
    if (before / HOLDER_WORKER == 1)
        plait_prim_wake(&life->holders, INT32_MAX, false);
    return before == HOLDER_WORKER;
}

bool plait_life_retain(plait_life_t *life)
{
    uint32_t seen = plait_atomic_load_acquire(&life->holders);
    while (seen != 0)
        if (plait_atomic_cas_acq_rel(&life->holders, &seen, seen + HOLDER_HANDLE))
            return true;
    return false;
}

bool plait_life_release(plait_life_t *life)
{
    return plait_atomic_sub_acq_rel(&life->holders, HOLDER_HANDLE) == HOLDER_HANDLE;
}

int plait_life_join(plait_life_t *life, int64_t deadline)
{
    int result = PLAIT_OK;
    /* First finished, since until then a submitter inside the gate may still add a worker. */
    while (result == PLAIT_OK && !plait_life_is_finished(life))
        result = plait_prim_wait(&life->finished, 0u, deadline, false);
    while (result == PLAIT_OK) {
        uint32_t seen = plait_atomic_load_acquire(&life->holders); /* pairs with end_worker */
        if (seen < HOLDER_WORKER)
            break;
        result = plait_prim_wait(&life->holders, seen, deadline, false);
    }
    return result;
}

unsigned plait_life_workers(plait_life_t *life)
{
    return plait_atomic_load_acquire(&life->holders) / HOLDER_WORKER; /* as in join */
}
