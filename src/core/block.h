/* block: memory for large messages, written once by one process and read in place by others.
 *
 * A block is a draft while its one owner writes it, and final once it is sealed: then nobody can
 * change it, every process maps it privately, and it travels by its descriptor (wire.h). It goes with
 * its last reference in the last process; no name of it is anywhere. Blocks that a process holds can
 * be found by their addresses, so that what is a block's already need not be copied into another.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_BLOCK_H
#define PLAIT_CORE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/error.h"
#include "prim/prim.h"

/* From this size on, a message to another process lies in a block. */
#define PLAIT_BLOCK_LEAST ((size_t)256 << 10)

typedef struct plait_block {
    /* the owner's, and const once it is sealed, but for the map's descriptor: see is_listed */
    plait_prim_map_t map;
    PLAIT_ATOMIC(uint32_t) references;
    /* guarded by the list's lock */
    bool is_listed; /* keeps its descriptor, so that it can travel on */
    size_t lent;    /* some bytes before this offset are in use, see plait_block_lend */
    struct plait_block *next, **link;
} plait_block_t;

/* One that can be written, the caller's. PLAIT_NOMEM; PLAIT_FULL where the process has no descriptor
 * to spare. */
int plait_block_draft(plait_block_t **block, size_t size);

/* The owner: makes a draft so long at least, perhaps elsewhere; on failure it stays as it is. */
int plait_block_resize(plait_block_t *block, size_t size);

/* The owner: final from now on, cut to `size`, and mapped elsewhere. Gives it up on failure. */
int plait_block_seal(plait_block_t *block, size_t size);

/* The block behind a descriptor from another process, which is taken over whatever happens. Results
 * as plait_prim_sealed_open. */
int plait_block_open(plait_block_t **block, int descriptor);

/* Any thread. NULL is allowed. */
void plait_block_retain(plait_block_t *block);
void plait_block_release(plait_block_t *block);

/* A reference to a map of a final block in which nobody was lent these bytes before: its own, or if
 * somebody may have been, another. So who writes to what he was lent changes nobody else's. NULL
 * where there is no memory, or no descriptor, for another. Any thread. */
plait_block_t *plait_block_lend(plait_block_t *block, size_t offset, size_t size);

/* A reference to the final block that these bytes lie in, if there is one and this process has not
 * changed them in its map, and it can travel; else NULL. The bytes' owner keeps the block alive
 * meanwhile. Any thread. */
plait_block_t *plait_block_find(const void *at, size_t size);

/* In the child of a fork: what this process held stays mapped, but is not found any more. */
void plait_block_after_fork(void);

/* ---- the blocks of one message ---- */

#define PLAIT_BUNDLE_MAX 64

typedef struct plait_bundle {
    bool has_message; /* its bytes are the first block's */
    unsigned count;
    plait_block_t *blocks[];
} plait_bundle_t;

/* One for `count` blocks, all NULL; NULL without memory. */
plait_bundle_t *plait_bundle_new(unsigned count);

/* Gives it back with its references to blocks. NULL is allowed. */
void plait_bundle_free(plait_bundle_t *bundle);

#endif
