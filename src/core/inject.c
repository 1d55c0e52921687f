/* inject: the unbounded queue through which tasks enter a pool from outside.
 *
 * Invariants: pushers claim slots by moving tail.index, poppers by moving head.index; head never
 * passes tail. A claimed slot belongs to one pusher and one popper. A segment is freed by the
 * popper that is the last to be through with a slot of it; nobody touches a segment without having
 * claimed a slot there. Indices are 63 bits and never come back, so a swap that succeeds proves
 * that the segment read before it was the index's own.
 * Who may call: push, pop and is_empty any thread; init and fini one.
 * Design: docs/design/inject.md
 */
#include "core/inject.h"

#define STEP ((uint64_t)2)     /* one slot further, in an index */
#define FOLLOWED ((uint64_t)1) /* in head.index: tail is known to be beyond this segment */
#define SPINS_BEFORE_YIELD 64

static unsigned offset_of(uint64_t index)
{
    return (unsigned)((index / STEP) % PLAIT_INJECT_LAP);
}

static uint64_t lap_of(uint64_t index)
{
    return index / STEP / PLAIT_INJECT_LAP;
}

/* The turn of a segment counts as the first slot of the next, so that equal positions mean
 * empty. */
static uint64_t position_of(uint64_t index)
{
    uint64_t position = index / STEP;
    return position % PLAIT_INJECT_LAP == PLAIT_INJECT_SLOTS ? position + 1 : position;
}

/* Waits a moment for another thread that is between two steps: first hot, then giving the
 * processor away. */
static void pause_for_other(unsigned *spins)
{
    if (++*spins < SPINS_BEFORE_YIELD)
        plait_prim_relax();
    else
        plait_prim_yield();
}

/* ---- segments ---- */

/* An unused segment, or NULL. */
static plait_inject_segment_t *segment_create(plait_inject_t *queue)
{
    /* acq_rel: acquires what the segment's last user did to it (the swap in segment_retire). */
    plait_inject_segment_t *segment =
        plait_atomic_swap_acq_rel(&queue->spare, (plait_inject_segment_t *)NULL);
    if (segment)
        return segment;
    const plait_alloc_t *alloc = queue->alloc;
    segment = (plait_inject_segment_t *)alloc->allocate(alloc->context, sizeof *segment);
    if (!segment)
        return NULL;
    plait_atomic_init(&segment->next, (plait_inject_segment_t *)NULL);
    plait_atomic_init(&segment->taken, (uint32_t)0);
    for (unsigned i = 0; i < PLAIT_INJECT_SLOTS; i++)
        plait_atomic_init(&segment->slots[i], (void *)NULL);
    return segment;
}

/* Keeps an unused (or cleared) segment as the spare, or frees it where there is one already. */
static void segment_retire(plait_inject_t *queue, plait_inject_segment_t *segment)
{
    /* acq_rel: pairs with the swap in segment_create; acquires before the other is freed. */
    plait_inject_segment_t *other = plait_atomic_swap_acq_rel(&queue->spare, segment);
    if (other)
        queue->alloc->release(queue->alloc->context, other);
}

/* The popper is through with its slot; the last of all frees the segment. */
static void segment_leave(plait_inject_t *queue, plait_inject_segment_t *segment)
{
    /* acq_rel: the last popper's acquire pairs with the release of every other, so that they are
     * done with the segment before it is cleared. */
    if (plait_atomic_add_acq_rel(&segment->taken, (uint32_t)1) + 1 < PLAIT_INJECT_SLOTS)
        return;
    /* relaxed: this thread has the segment to itself; the swap in segment_retire publishes. */
    plait_atomic_store_relaxed(&segment->next, (plait_inject_segment_t *)NULL);
    plait_atomic_store_relaxed(&segment->taken, (uint32_t)0);
    for (unsigned i = 0; i < PLAIT_INJECT_SLOTS; i++)
        plait_atomic_store_relaxed(&segment->slots[i], (void *)NULL);
    segment_retire(queue, segment);
}

/* ---- life ---- */

int plait_inject_init(plait_inject_t *queue, const plait_alloc_t *alloc)
{
    queue->alloc = alloc;
    plait_atomic_init(&queue->spare, (plait_inject_segment_t *)NULL);
    plait_inject_segment_t *first = segment_create(queue);
    if (!first)
        return PLAIT_NOMEM;
    plait_atomic_init(&queue->head.index, (uint64_t)0);
    plait_atomic_init(&queue->head.segment, first);
    plait_atomic_init(&queue->tail.index, (uint64_t)0);
    plait_atomic_init(&queue->tail.segment, first);
    return PLAIT_OK;
}

void plait_inject_fini(plait_inject_t *queue)
{
    /* relaxed: nobody else uses the queue any more. */
    plait_inject_segment_t *segment = plait_atomic_load_relaxed(&queue->head.segment);
    while (segment) {
        plait_inject_segment_t *next = plait_atomic_load_relaxed(&segment->next);
        queue->alloc->release(queue->alloc->context, segment);
        segment = next;
    }
    queue->alloc->release(queue->alloc->context, plait_atomic_load_relaxed(&queue->spare));
}

/* ---- push ---- */

/* The pusher that claimed the last slot moves the tail on to `next`. */
static void turn_tail(plait_inject_t *queue, plait_inject_segment_t *segment,
                      plait_inject_segment_t *next, uint64_t index)
{
    /* release, each: publishes next's cleared slots; index pairs with the loads of tail.index,
     * and next with the load in turn_head. Segment before index: see the invariants. */
    plait_atomic_store_release(&queue->tail.segment, next);
    plait_atomic_store_release(&queue->tail.index, index + 2 * STEP);
    plait_atomic_store_release(&segment->next, next);
}

int plait_inject_push_mpmc(plait_inject_t *queue, void *item)
{
    plait_inject_segment_t *next = NULL;
    unsigned spins = 0;

    for (;;) {
        /* acquire: pairs with turn_tail, so that the segment is not older than the index. */
        uint64_t index = plait_atomic_load_acquire(&queue->tail.index);
        plait_inject_segment_t *segment = plait_atomic_load_acquire(&queue->tail.segment);
        unsigned offset = offset_of(index);

        if (offset == PLAIT_INJECT_SLOTS) {
            pause_for_other(&spins);
            continue;
        }
        /* Who takes the last slot needs the next segment: had before the claim, so that nothing has
         * happened yet where memory is short. */
        if (offset + 1 == PLAIT_INJECT_SLOTS && !next) {
            next = segment_create(queue);
            if (!next)
                return PLAIT_NOMEM;
        }
        /* seq_cst: the push's place in the order that is_empty and an empty pop refer to. */
        if (!plait_atomic_cas_seq_cst(&queue->tail.index, &index, index + STEP)) {
            plait_prim_relax();
            continue;
        }
        if (offset + 1 == PLAIT_INJECT_SLOTS) {
            turn_tail(queue, segment, next, index);
            next = NULL;
        }
        /* release: pairs with the acquire in take; the pusher's last touch of the segment. */
        plait_atomic_store_release(&segment->slots[offset], item);
        if (next)
            segment_retire(queue, next);
        return PLAIT_OK;
    }
}

/* ---- pop ---- */

/* The popper that claimed the last slot moves the head on to the next segment. */
static void turn_head(plait_inject_t *queue, plait_inject_segment_t *segment, uint64_t index)
{
    unsigned spins = 0;
    plait_inject_segment_t *next;
    /* acquire: pairs with turn_tail. Its thread has claimed the slot already, so this ends. */
    while (!(next = plait_atomic_load_acquire(&segment->next)))
        pause_for_other(&spins);
    /* release, both: pairs with the loads in pop. */
    plait_atomic_store_release(&queue->head.segment, next);
    plait_atomic_store_release(&queue->head.index, (index & ~FOLLOWED) + 2 * STEP);
}

/* The item of a slot that the caller has claimed. */
static void *take(plait_inject_t *queue, plait_inject_segment_t *segment, unsigned offset)
{
    unsigned spins = 0;
    void *item;
    /* acquire: pairs with the release in push: what the item points to is visible. */
    while (!(item = plait_atomic_load_acquire(&segment->slots[offset])))
        pause_for_other(&spins);
    segment_leave(queue, segment);
    return item;
}

int plait_inject_pop_mpmc(plait_inject_t *queue, void **item)
{
    unsigned spins = 0;

    for (;;) {
        /* acquire: pairs with turn_head, so that the segment is not older than the index. */
        uint64_t index = plait_atomic_load_acquire(&queue->head.index);
        plait_inject_segment_t *segment = plait_atomic_load_acquire(&queue->head.segment);
        unsigned offset = offset_of(index);
        uint64_t claimed = index + STEP;

        if (offset == PLAIT_INJECT_SLOTS) {
            pause_for_other(&spins);
            continue;
        }
        if (!(index & FOLLOWED)) {
            /* seq_cst: sees every push that comes before in that order. */
            uint64_t tail = plait_atomic_load_seq_cst(&queue->tail.index);
            if (index / STEP == tail / STEP)
                return PLAIT_EMPTY;
            if (lap_of(index) != lap_of(tail))
                claimed |= FOLLOWED;
        }
        /* seq_cst: who swaps owns the slot. */
        if (!plait_atomic_cas_seq_cst(&queue->head.index, &index, claimed)) {
            plait_prim_relax();
            continue;
        }
        if (offset + 1 == PLAIT_INJECT_SLOTS)
            turn_head(queue, segment, index);
        *item = take(queue, segment, offset);
        return PLAIT_OK;
    }
}

bool plait_inject_is_empty(plait_inject_t *queue)
{
    /* seq_cst: see inject.h. Head first: it only grows and never passes tail, so equal positions
     * mean that the queue was empty when tail was read. */
    uint64_t head = plait_atomic_load_seq_cst(&queue->head.index);
    uint64_t tail = plait_atomic_load_seq_cst(&queue->tail.index);
    return position_of(head) == position_of(tail);
}
