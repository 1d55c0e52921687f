/* inject: the unbounded multi-producer multi-consumer queue through which tasks enter a pool from
 * outside.
 *
 * First in, first out. No locks. A pop that has claimed a slot waits for the push that claimed the
 * same slot to store its item, and whoever comes at the turn of a segment waits for the one who
 * turns it: a few instructions of the other thread.
 * Protocol and proof: docs/design/inject.md, tests/model/inject.
 */
#ifndef PLAIT_CORE_INJECT_H
#define PLAIT_CORE_INJECT_H

#include <stddef.h>

#include "core/atomic.h"
#include "plait/alloc.h"
#include "plait/error.h"
#include "prim/prim.h"

typedef struct plait_inject plait_inject_t;

/* An index counts slots; every PLAIT_INJECT_LAP indices make one segment of one slot fewer. The
 * last index of a lap has no slot: an end that shows it is moving on to the next segment. */
#ifndef PLAIT_INJECT_LAP
#define PLAIT_INJECT_LAP 64
#endif
#define PLAIT_INJECT_SLOTS (PLAIT_INJECT_LAP - 1)

typedef struct plait_inject_segment {
    /* Written once per life by the pusher that took the last slot. */
    PLAIT_ATOMIC(struct plait_inject_segment *) next;

    /* Written by poppers: slots they are through with. Who brings it to PLAIT_INJECT_SLOTS
     * frees. */
    PLAIT_ATOMIC(uint32_t) taken;

    /* Each written once per life, by the pusher that claimed it; NULL until then. */
    PLAIT_ATOMIC(void *) slots[PLAIT_INJECT_SLOTS];
} plait_inject_segment_t;

/* One end of the queue. Moved by compare and swap on `index`; `segment` is the one that the
 * index lies in, written only by the thread that moved the index onto the last of its lap,
 * before it moves it off. */
typedef struct plait_inject_end {
    PLAIT_ATOMIC(uint64_t) index;
    PLAIT_ATOMIC(plait_inject_segment_t *) segment;
} plait_inject_end_t;

/* Padding, not alignment, keeps the groups on lines of their own, so that a queue may lie in any
 * block of a plait_alloc_t (16-byte aligned). */
struct plait_inject {
    /* Const after init. */
    const plait_alloc_t *alloc;

    char pad0[PLAIT_PRIM_CACHE_LINE];

    /* Written by poppers. Bit 0 of the index: a segment is known to follow; the count starts at
     * bit 1. */
    plait_inject_end_t head;

    char pad1[PLAIT_PRIM_CACHE_LINE];

    /* Written by pushers. The index's count starts at bit 1 as well; bit 0 is 0. */
    plait_inject_end_t tail;

    char pad2[PLAIT_PRIM_CACHE_LINE];

    /* Written by both, once in a segment's life: a free segment for the next push that needs
     * one. */
    PLAIT_ATOMIC(plait_inject_segment_t *) spare;

    char pad3[PLAIT_PRIM_CACHE_LINE];
};

/* `alloc` outlives the queue. PLAIT_OK or PLAIT_NOMEM. */
int plait_inject_init(plait_inject_t *queue, const plait_alloc_t *alloc);

/* Frees the queue's memory, not the items. No other thread may use it any more. */
void plait_inject_fini(plait_inject_t *queue);

/* Any thread. PLAIT_OK or PLAIT_NOMEM (the item was not pushed). `item` is not NULL. */
int plait_inject_push_mpmc(plait_inject_t *queue, void *item);

/* Any thread. The oldest item: PLAIT_OK, or PLAIT_EMPTY. */
int plait_inject_pop_mpmc(plait_inject_t *queue, void **item);

/* Any thread: a snapshot of whether an item is there. After a seq_cst fence (or in a thread that
 * pushed itself) it sees every push that came before in the order of seq_cst operations. */
bool plait_inject_is_empty(plait_inject_t *queue);

#endif
