/* deque: the Chase-Lev work-stealing deque.
 *
 * Invariants: items lie at indices top <= i < bottom, item i in slot i & mask of the ring. Only the
 * owner writes bottom, the ring and the slots. top only grows, by one at a time, always by compare
 * and swap: who moves it past an index owns that item. An item is taken at the bottom without a
 * swap only where top cannot reach it.
 * Who may call: see deque.h; one owner at a time, any number of thieves.
 * Design: docs/design/deque.md
 */
#include "core/deque.h"

static plait_deque_ring_t *ring_create(const plait_alloc_t *alloc, size_t capacity)
{
    if (capacity > (SIZE_MAX / 2 - sizeof(plait_deque_ring_t)) / sizeof(PLAIT_ATOMIC(void *)))
        return NULL;
    size_t size = sizeof(plait_deque_ring_t) + capacity * sizeof(PLAIT_ATOMIC(void *));
    plait_deque_ring_t *ring = (plait_deque_ring_t *)alloc->allocate(alloc->context, size);
    if (!ring)
        return NULL;
    ring->older = NULL;
    ring->mask = capacity - 1;
    /* A late thief may read a slot that was never filled; its swap then fails. */
    for (size_t i = 0; i < capacity; i++)
        plait_atomic_init(&ring->slots[i], (void *)NULL);
    return ring;
}

static PLAIT_ATOMIC(void *) *ring_slot(plait_deque_ring_t *ring, int64_t index)
{
    return &ring->slots[(size_t)index & ring->mask];
}

int plait_deque_init(plait_deque_t *deque, size_t capacity, const plait_alloc_t *alloc)
{
    if (capacity == 0 || (capacity & (capacity - 1)) != 0)
        return PLAIT_INVALID;
    plait_deque_ring_t *ring = ring_create(alloc, capacity);
    if (!ring)
        return PLAIT_NOMEM;
    deque->alloc = alloc;
    plait_atomic_init(&deque->top, (int64_t)0);
    plait_atomic_init(&deque->bottom, (int64_t)0);
    plait_atomic_init(&deque->ring, ring);
    deque->top_seen = 0;
    return PLAIT_OK;
}

void plait_deque_fini(plait_deque_t *deque)
{
    /* relaxed: nobody else uses the deque any more. */
    plait_deque_ring_t *ring = plait_atomic_load_relaxed(&deque->ring);
    while (ring) {
        plait_deque_ring_t *older = ring->older;
        deque->alloc->release(deque->alloc->context, ring);
        ring = older;
    }
}

/* Replaces the full ring by one of twice the size; NULL where memory is short, with nothing
 * changed. */
static plait_deque_ring_t *grow(plait_deque_t *deque, plait_deque_ring_t *ring, int64_t top,
                                int64_t bottom)
{
    plait_deque_ring_t *bigger = ring_create(deque->alloc, (ring->mask + 1) * 2);
    if (!bigger)
        return NULL;
    /* relaxed: the owner alone writes slots; the release below publishes the copies. */
    for (int64_t i = top; i < bottom; i++)
        plait_atomic_store_relaxed(ring_slot(bigger, i),
                                   plait_atomic_load_relaxed(ring_slot(ring, i)));
    bigger->older = ring;
    /* release: pairs with the acquire of ring in steal. */
    plait_atomic_store_release(&deque->ring, bigger);
    return bigger;
}

bool plait_deque_has_room_owner(plait_deque_t *deque)
{
    /* relaxed: the owner alone writes bottom and ring. */
    int64_t bottom = plait_atomic_load_relaxed(&deque->bottom);
    int64_t mask = (int64_t)plait_atomic_load_relaxed(&deque->ring)->mask;
    /* acquire: pairs with the thief's swap of top, so that the thief's read of the slot comes before
     * the slot is filled again. */
    if (bottom - deque->top_seen > mask)
        deque->top_seen = plait_atomic_load_acquire(&deque->top);
    return bottom - deque->top_seen <= mask;
}

int plait_deque_push_owner(plait_deque_t *deque, void *item)
{
    /* relaxed: the owner alone writes bottom and ring. */
    int64_t bottom = plait_atomic_load_relaxed(&deque->bottom);
    plait_deque_ring_t *ring = plait_atomic_load_relaxed(&deque->ring);

    if (!plait_deque_has_room_owner(deque)) {
        ring = grow(deque, ring, deque->top_seen, bottom);
        if (!ring)
            return PLAIT_NOMEM;
    }
    /* relaxed: the release of bottom publishes it. */
    plait_atomic_store_relaxed(ring_slot(ring, bottom), item);
    /* release: pairs with the load of bottom in steal; publishes the slot and what the item
     * points to. */
    plait_atomic_store_release(&deque->bottom, bottom + 1);
    return PLAIT_OK;
}

int plait_deque_pop_owner(plait_deque_t *deque, void **item)
{
    /* relaxed: the owner alone writes bottom and ring; top only grows, so a late value that says
     * empty is right. An empty deque thus costs no ordered store, and bottom never falls below
     * top for long. */
    int64_t bottom = plait_atomic_load_relaxed(&deque->bottom) - 1;
    if (bottom < plait_atomic_load_relaxed(&deque->top))
        return PLAIT_EMPTY;
    plait_deque_ring_t *ring = plait_atomic_load_relaxed(&deque->ring);

    /* seq_cst, both: with the two loads in steal. Either a thief sees the lowered bottom, or the
     * owner sees the top that the thief moved; otherwise both could take the same item. */
    plait_atomic_store_seq_cst(&deque->bottom, bottom);
    int64_t top = plait_atomic_load_seq_cst(&deque->top);

    if (top < bottom) {
        /* relaxed: the owner's own store */
        *item = plait_atomic_load_relaxed(ring_slot(ring, bottom));
        return PLAIT_OK;
    }
    int result = PLAIT_EMPTY;
    if (top == bottom) {
        /* The last item: the owner takes it at the top, against the thieves. */
        void *last = plait_atomic_load_relaxed(ring_slot(ring, bottom)); /* relaxed: as above */
        if (plait_atomic_cas_seq_cst(&deque->top, &top, top + 1)) {
            *item = last;
            result = PLAIT_OK;
        }
    }
    /* release: so that whatever bottom a thief reads, it pairs with the load in steal. */
    plait_atomic_store_release(&deque->bottom, bottom + 1);
    return result;
}

int plait_deque_steal_thief(plait_deque_t *deque, void **item)
{
    /* seq_cst, both and in this order: see pop. The load of bottom also acquires what push
     * released. */
    int64_t top = plait_atomic_load_seq_cst(&deque->top);
    int64_t bottom = plait_atomic_load_seq_cst(&deque->bottom);
    if (top >= bottom)
        return PLAIT_EMPTY;

    /* acquire: pairs with the release in grow. A ring newer than bottom holds the item as well,
     * unless top has moved on meanwhile, and then the swap fails. */
    plait_deque_ring_t *ring = plait_atomic_load_acquire(&deque->ring);
    /* relaxed: acquired through bottom */
    void *taken = plait_atomic_load_relaxed(ring_slot(ring, top));

    /* seq_cst: who swaps owns the item. The release in it pairs with the acquire of top in push. */
    if (!plait_atomic_cas_seq_cst(&deque->top, &top, top + 1))
        return PLAIT_RETRY;
    *item = taken;
    return PLAIT_OK;
}

size_t plait_deque_size(plait_deque_t *deque)
{
    /* seq_cst: so that after a seq_cst fence it sees every push from before it (park.md). */
    int64_t top = plait_atomic_load_seq_cst(&deque->top);
    int64_t bottom = plait_atomic_load_seq_cst(&deque->bottom);
    return bottom > top ? (size_t)(bottom - top) : 0;
}
