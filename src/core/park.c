/* park: how idle workers sleep and how producers wake them.
 *
 * Invariants: a worker's bit in `announced` is set by that worker alone, in prepare, and cleared
 * once, by the worker itself or by one producer, which has then chosen it and sets its slot to CHOSEN.
 * A worker blocks only while its slot is ASLEEP, which it alone sets it to. A fence lies between the
 * announcement and the worker's last look, and one between a producer's publication and its look at
 * the announcements.
 * Who may call: see park.h.
 * Design: docs/design/park.md
 */
#include "core/park.h"

#define WORKERS_PER_MASK 64

/* What a slot's word says. */
enum { AWAKE, CHOSEN, ASLEEP };

static PLAIT_ATOMIC(uint64_t) *mask_of(plait_park_t *park, unsigned id)
{
    return &park->announced[id / WORKERS_PER_MASK];
}

static uint64_t bit_of(unsigned id)
{
    return (uint64_t)1 << (id % WORKERS_PER_MASK);
}

/* The announcements in a mask, read after everything that the caller did before
 * publication_fence. */
static uint64_t announced_in(plait_park_t *park, unsigned mask)
{
#if PLAIT_TSAN
    /* In place of the fences: two read-modify-writes of one word are ordered. If this one comes
     * first, prepare's reads from it and acquires the publication; otherwise it sees the
     * announcement. Not used outside TSan since it would write the line that all producers
     * share. */
    return plait_atomic_add_acq_rel(&park->announced[mask], (uint64_t)0);
#else
    return plait_atomic_load_relaxed(&park->announced[mask]); /* relaxed: the fence orders it */
#endif
}

/* Pairs with the fence in prepare: of a publication and an announcement, one side at least sees
 * the other's. */
static void publication_fence(void)
{
#if !PLAIT_TSAN
    plait_atomic_fence_seq_cst();
#endif
}

int plait_park_init(plait_park_t *park, unsigned workers, const plait_alloc_t *alloc)
{
    if (workers == 0 || workers > PLAIT_PARK_WORKERS_MAX)
        return PLAIT_INVALID;
    size_t size = workers * sizeof(plait_park_slot_t);
    park->slots = (plait_park_slot_t *)alloc->allocate(alloc->context, size);
    if (!park->slots)
        return PLAIT_NOMEM;
    park->alloc = alloc;
    park->workers = workers;
    park->masks = (workers + WORKERS_PER_MASK - 1) / WORKERS_PER_MASK;
    for (unsigned i = 0; i < park->masks; i++)
        plait_atomic_init(&park->announced[i], (uint64_t)0);
    for (unsigned i = 0; i < workers; i++)
        plait_atomic_init(&park->slots[i].state, (uint32_t)AWAKE);
    return PLAIT_OK;
}

void plait_park_fini(plait_park_t *park)
{
    park->alloc->release(park->alloc->context, park->slots);
}

/* ---- workers ---- */

void plait_park_prepare_worker(plait_park_t *park, unsigned id)
{
    /* relaxed: erases a stale choice only. A producer that chooses this worker from now on has seen
     * the bit below, so its swap comes after this store. */
    plait_atomic_store_relaxed(&park->slots[id].state, (uint32_t)AWAKE);
    /* acq_rel: the release is for that; the acquire pairs with the producers' clearing of bits. */
    plait_atomic_or_acq_rel(mask_of(park, id), bit_of(id));
#if !PLAIT_TSAN
    /* Pairs with publication_fence: the caller's last look comes after the announcement. */
    plait_atomic_fence_seq_cst();
#endif
}

/* Takes the announcement back; false where a producer has chosen the worker first. */
bool plait_park_cancel_worker(plait_park_t *park, unsigned id)
{
    /* acquire, both: where the bit is gone, pairs with the release in choose: the producer's
     * work is visible. The load spares the usual case of a woken worker a write to the shared
     * line. */
    if (!(plait_atomic_load_acquire(mask_of(park, id)) & bit_of(id)))
        return false;
    return plait_atomic_and_acq_rel(mask_of(park, id), ~bit_of(id)) & bit_of(id);
}

int plait_park_wait_worker(plait_park_t *park, unsigned id, int64_t deadline)
{
    plait_park_slot_t *slot = &park->slots[id];
    uint32_t awake = AWAKE;
    int outcome = PLAIT_OK;

    /* acquire, both: pairs with the release in notify. */
    if (plait_atomic_cas_acq_rel(&slot->state, &awake, (uint32_t)ASLEEP))
        while (outcome != PLAIT_TIMEOUT && plait_atomic_load_acquire(&slot->state) == ASLEEP)
            outcome = plait_prim_wait(&slot->state, ASLEEP, deadline, false);

    /* Set still after a timeout, or where a producer's choice of an earlier sleep came late. */
    bool chosen = !plait_park_cancel_worker(park, id);
    return outcome == PLAIT_TIMEOUT && !chosen ? PLAIT_TIMEOUT : PLAIT_OK;
}

/* ---- producers ---- */

static void notify(plait_park_t *park, unsigned id)
{
    /* acq_rel: the release pairs with the acquire in wait. */
    if (plait_atomic_swap_acq_rel(&park->slots[id].state, (uint32_t)CHOSEN) == ASLEEP)
        plait_prim_wake(&park->slots[id].state, 1, false);
}

static unsigned lowest(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits);
}

/* Chooses one worker of a mask: its number there, or -1. The lowest, so that a pool with little
 * to do keeps using the same few. */
static int choose(plait_park_t *park, unsigned mask)
{
    uint64_t seen = announced_in(park, mask);
    while (seen) {
        uint64_t bit = (uint64_t)1 << lowest(seen);
        /* acq_rel: the release pairs with cancel; the acquire with prepare's release. */
        seen = plait_atomic_and_acq_rel(&park->announced[mask], ~bit);
        if (seen & bit)
            return (int)lowest(bit);
    }
    return -1;
}

bool plait_park_wake_one(plait_park_t *park)
{
    publication_fence();
    for (unsigned mask = 0; mask < park->masks; mask++) {
        int chosen = choose(park, mask);
        if (chosen >= 0) {
            notify(park, mask * WORKERS_PER_MASK + (unsigned)chosen);
            return true;
        }
    }
    return false;
}

void plait_park_wake_all(plait_park_t *park)
{
    publication_fence();
    for (unsigned mask = 0; mask < park->masks; mask++) {
        uint64_t chosen = announced_in(park, mask);
        if (chosen) /* acq_rel: as in choose */
            chosen = plait_atomic_swap_acq_rel(&park->announced[mask], (uint64_t)0);
        for (; chosen; chosen &= chosen - 1)
            notify(park, mask * WORKERS_PER_MASK + lowest(chosen));
    }
}

unsigned plait_park_sleepers(plait_park_t *park)
{
    unsigned sleepers = 0;
    for (unsigned mask = 0; mask < park->masks; mask++) {
        uint64_t announced = plait_atomic_load_relaxed(&park->announced[mask]); /* a snapshot */
        sleepers += (unsigned)__builtin_popcountll(announced);
    }
    return sleepers;
}
