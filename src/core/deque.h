/* deque: the Chase-Lev work-stealing deque of pointers.
 *
 * One owner pushes and pops at the bottom, any number of thieves steal at the top. Unbounded: it
 * doubles.
 * Algorithm: Chase and Lev, SPAA 2005; memory orders: Le, Pop, Cohen, Zappa Nardelli, PPoPP 2013.
 * Protocol and proof: docs/design/deque.md, tests/model/deque.
 */
#ifndef PLAIT_CORE_DEQUE_H
#define PLAIT_CORE_DEQUE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/atomic.h"
#include "plait/alloc.h"
#include "plait/error.h"
#include "prim/prim.h"

typedef struct plait_deque plait_deque_t;

/* A ring of slots. Never changes size; a full one is replaced by one of twice the size that
 * holds the same items at the same indices. Replaced rings stay until fini, since a thief may
 * still read one. */
typedef struct plait_deque_ring {
    struct plait_deque_ring *older; /* const after init; the chain that fini frees */
    size_t mask;                    /* const after init; capacity - 1, capacity a power of two */
    PLAIT_ATOMIC(void *) slots[];   /* written by the owner, read by thieves */
} plait_deque_ring_t;

/* Padding, not alignment, keeps the groups on lines of their own, so that a deque may lie in any
 * block of a plait_alloc_t (16-byte aligned). Indices are signed and only `bottom` in a pop ever
 * goes back. */
struct plait_deque {
    /* Const after init. */
    const plait_alloc_t *alloc;

    char pad0[PLAIT_PRIM_CACHE_LINE];

    /* Written by whoever takes an item at the top: every thief, and the owner for the last item. */
    PLAIT_ATOMIC(int64_t) top;

    char pad1[PLAIT_PRIM_CACHE_LINE];

    /* Written by the owner, read by thieves. */
    PLAIT_ATOMIC(int64_t) bottom;
    PLAIT_ATOMIC(plait_deque_ring_t *) ring;

    /* Owner only: the newest value of top that the owner has read, so that a push seldom reads
     * top. */
    int64_t top_seen;

    char pad2[PLAIT_PRIM_CACHE_LINE];
};

/* `capacity`: a power of two to start with. `alloc` outlives the deque. PLAIT_OK, PLAIT_NOMEM, or
 * PLAIT_INVALID for a capacity that is no power of two. */
int plait_deque_init(plait_deque_t *deque, size_t capacity, const plait_alloc_t *alloc);

/* Frees the deque's memory, not the items. No other thread may use it any more. */
void plait_deque_fini(plait_deque_t *deque);

/* Owner only, does not block. PLAIT_OK or PLAIT_NOMEM (the item was not pushed). */
int plait_deque_push_owner(plait_deque_t *deque, void *item);

/* Owner only: whether the next push needs no memory. */
bool plait_deque_has_room_owner(plait_deque_t *deque);

/* Owner only, does not block. The newest item: PLAIT_OK, or PLAIT_EMPTY. */
int plait_deque_pop_owner(plait_deque_t *deque, void **item);

/* Any thread but the owner, does not block. The oldest item: PLAIT_OK, PLAIT_EMPTY, or
 * PLAIT_RETRY when another thread took it first; only PLAIT_EMPTY says that there was nothing to
 * steal. */
int plait_deque_steal_thief(plait_deque_t *deque, void **item);

/* A snapshot of how many items there are, exact only for an owner without thieves. Any thread. */
size_t plait_deque_size(plait_deque_t *deque);

#endif
