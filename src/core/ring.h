/* ring: a queue of records in memory that two processes share, one producer and one consumer.
 *
 * A record is a few bytes with a type and a number of the producer's choice. Its payload lies in one
 * piece, aligned to PLAIT_RING_ALIGNMENT, and is written and read in place. Whoever finds no record,
 * or no room, sleeps on a word of the shared part.
 *
 * Neither side trusts the other: each keeps its own position in memory of its own, and what it reads
 * of the other's is checked before use. A peer that writes nonsense makes for PLAIT_CORRUPT, or for
 * records with nonsense in them, never for an access outside the ring. Since the peer can change a
 * record while it is read, a reader that does not trust it copies first and looks then.
 *
 * A peer that dies leaves nothing half done: a record is there when the tail has moved, or not at
 * all. That it died must be told to the other side, plait_ring_abandon.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_RING_H
#define PLAIT_CORE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/error.h"
#include "prim/prim.h"

#define PLAIT_RING_ALIGNMENT 16

/* The part in shared memory, all zero at first; the bytes lie elsewhere. Positions count bytes since
 * the beginning and never wrap. */
typedef struct plait_ring_shared {
    /* written by the producer */
    PLAIT_ATOMIC(uint64_t) tail;
    PLAIT_ATOMIC(uint32_t) room_wanted; /* a wait word: 1 while the producer may sleep on it */
    char pad0[PLAIT_PRIM_CACHE_LINE - 12];
    /* written by the consumer */
    PLAIT_ATOMIC(uint64_t) head;
    PLAIT_ATOMIC(uint32_t) data_wanted; /* likewise for the consumer */
    char pad1[PLAIT_PRIM_CACHE_LINE - 12];
} plait_ring_shared_t;

/* Before each payload. */
typedef struct plait_ring_head {
    uint32_t size; /* of the payload */
    uint32_t type;
    uint64_t number;
} plait_ring_head_t;

#ifndef PLAIT_MODEL
_Static_assert(sizeof(plait_ring_shared_t) == 2 * PLAIT_PRIM_CACHE_LINE, "two cache lines");
_Static_assert(sizeof(plait_ring_head_t) == PLAIT_RING_ALIGNMENT, "payloads are aligned");
#endif

/* Not for callers: what fills the end of the ring where the next record would not fit. */
#define PLAIT_RING_PADDING UINT32_MAX

/* One side's view, in its own memory; used by one thread at a time. */
typedef struct plait_ring {
    /* const after init */
    plait_ring_shared_t *shared;
    unsigned char *data;
    uint64_t capacity;
    /* set by whoever watches the peer, read by this side */
    PLAIT_ATOMIC(uint32_t) gone;
    /* this side's own */
    int64_t patience;  /* how long it may look before it sleeps, in ns; 0 until its owner sets it */
    uint64_t position; /* of the next record */
    uint64_t whole;    /* size of the record that is being written or read, with all that belongs */
    uint32_t vain;     /* how often in a row its patience was of no use */
    uint32_t hasty;    /* how many waits will go without */
} plait_ring_t;

typedef struct plait_ring_record {
    uint32_t type;
    uint32_t size;
    uint64_t number;
    void *payload; /* in the ring, until plait_ring_consume_spsc */
} plait_ring_record_t;

/* Both sides, each for itself. `data` is aligned to PLAIT_RING_ALIGNMENT; `capacity` is a power of
 * two. For shared memory that is fresh the positions are 0. */
void plait_ring_init(plait_ring_t *ring, plait_ring_shared_t *shared, void *data,
                     uint64_t capacity);

/* The largest payload that a ring takes. */
static inline size_t plait_ring_limit(const plait_ring_t *ring)
{
    return (size_t)(ring->capacity / 2 - sizeof(plait_ring_head_t));
}

/* The producer: room for a payload, which it then fills and commits. Blocks while there is none:
 * PLAIT_OK; PLAIT_CLOSED, the peer is gone; PLAIT_CORRUPT; PLAIT_TOO_BIG; PLAIT_TIMEOUT;
 * PLAIT_INTERRUPTED. */
int plait_ring_reserve_spsc(plait_ring_t *ring, uint32_t type, uint64_t number, size_t size,
                            int64_t deadline, void **payload);

/* The producer, after reserve: the consumer may have it. Does not block. */
void plait_ring_commit_spsc(plait_ring_t *ring);

/* The consumer: the next record, again and again the same one until it is consumed. Blocks while
 * there is none; results as above. What the peer left before it went comes before PLAIT_CLOSED. A
 * deadline of 0 never blocks. */
int plait_ring_peek_spsc(plait_ring_t *ring, int64_t deadline, plait_ring_record_t *record);

/* The consumer, after peek: gives the record's room back. Does not block. */
void plait_ring_consume_spsc(plait_ring_t *ring);

/* Any thread of this side, when the peer's process has ended: this side will not wait any more. */
void plait_ring_abandon(plait_ring_t *ring);

#endif
