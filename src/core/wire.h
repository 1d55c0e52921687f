/* wire: letters over a ring, a few numbers and up to two blobs of bytes of any size each.
 *
 * A letter is one record; blobs that are too large for that follow in pieces, of which the receiver
 * takes one away while the sender writes the next. Blobs that lie in blocks are not copied: their
 * descriptors, and those of other blocks that belong to a blob, go ahead over a socket.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_WIRE_H
#define PLAIT_CORE_WIRE_H

#include "core/block.h"
#include "core/ring.h"

enum { PLAIT_LETTER_WORDS = 8, PLAIT_LETTER_BLOBS = 2 };

/* A receiver asks for memory on its peer's word, so there is a bound on that. */
#define PLAIT_BLOB_MAX (UINT64_C(1) << 38)

typedef struct plait_blob {
    void *bytes; /* aligned to PLAIT_RING_ALIGNMENT where received; NULL: none */
    size_t size;
} plait_blob_t;

typedef struct plait_letter {
    uint32_t type; /* the user's; not UINT32_MAX and the one below it */
    uint64_t number;
    uint64_t words[PLAIT_LETTER_WORDS];
    plait_blob_t blobs[PLAIT_LETTER_BLOBS];
    plait_bundle_t *bundles[PLAIT_LETTER_BLOBS]; /* the blocks that belong to each; NULL: none */
    /* received: whose the blobs are */
    bool in_ring[PLAIT_LETTER_BLOBS];
    bool opened; /* a record is to be consumed */
} plait_letter_t;

/* The producer: sends it. Blobs and bundles stay the caller's and may go on return. Blocks while
 * there is no room; results as plait_ring_reserve_spsc with no deadline. PLAIT_INTERRUPTED only
 * before anything was sent. `socket`: what blocks go over; -1 where no letter has any. */
int plait_wire_send_spsc(plait_ring_t *ring, int socket, const plait_letter_t *letter);

/* The consumer: the next letter. `copy`: its blobs are blocks of their own, which a peer that is not
 * trusted cannot change any more, and which the caller may take away (setting bytes to NULL) to free
 * them; else small ones lie in the ring. PLAIT_NOMEM: a blob for which there was no memory; the
 * letter is lost. A bundle can be taken away likewise, together with a blob that lies in it, which
 * nobody can change. Other results as plait_ring_peek_spsc; PLAIT_INTERRUPTED and PLAIT_TIMEOUT only
 * before anything was received. */
int plait_wire_receive_spsc(plait_ring_t *ring, int socket, bool copy, int64_t deadline,
                            plait_letter_t *letter);

/* The consumer, before plait_wire_finish_spsc: gives the record back, so that the next one can be
 * received while this one's other blobs are still in use. Those that lie in the ring are gone. */
void plait_wire_leave_ring_spsc(plait_ring_t *ring, plait_letter_t *letter);

/* The consumer, once after each PLAIT_OK: gives back what is left of the letter. */
void plait_wire_finish_spsc(plait_ring_t *ring, plait_letter_t *letter);

#endif
