/* heap: an allocator that lives inside a region, and works across processes.
 *
 * A heap belongs to one owner at a time: one thread, or several that take turns under a lock of
 * theirs. Only the owner allocates; the owner frees directly; any other thread of any process that
 * maps the region frees by setting a bit, which the owner collects when it runs short. A process
 * that dies while it frees has freed the block or has not; nobody ever waits for it.
 * Design: docs/design/heap.md
 */
#ifndef PLAIT_HEAP_H
#define PLAIT_HEAP_H

#include "plait/alloc.h"
#include "plait/region.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plait_heap plait_heap_t;

/* Makes a heap in the region. Several heaps may share one region: they take whole spans from it.
 * The handle is process-local memory owned by the caller until plait_heap_close. Any thread; does
 * not block. PLAIT_NOMEM: no memory for the handle. */
int plait_heap_create(plait_heap_t **heap, plait_region_t *region);

/* Gives every span of the heap back to the region: all its blocks die. Owner only; NULL is
 * allowed. */
void plait_heap_close(plait_heap_t *heap);

/* A number that tells the heap from every other one in its region, never 0. Any thread. */
uint32_t plait_heap_id(const plait_heap_t *heap);

/* Gives every span back that the heap with this number held: for the survivor of a process that
 * died with its heap open. Nobody may use that heap or its blocks any more. Any thread; does not
 * block. */
void plait_heap_reclaim(plait_region_t *region, uint32_t heap_id);

/* Owner only; none blocks. At least `size` bytes (0 counts as 1), aligned to 16, and to 64 from 64
 * bytes on; NULL when the region is full. Resizing may move the block; on NULL the old block stays
 * as it is; it works in place where the block or the memory behind it has room. NULL is allowed for
 * `block`. A block that is not a live one of this heap aborts: check one that another process names
 * with plait_heap_owns first. */
void *plait_heap_allocate_owner(plait_heap_t *heap, size_t size);
void *plait_heap_resize_owner(plait_heap_t *heap, void *block, size_t size);
void plait_heap_release_owner(plait_heap_t *heap, void *block);

/* Whether `block` is the start of a live block of this heap, as far as the owner has seen. Owner
 * only. */
bool plait_heap_owns(const plait_heap_t *heap, const void *block);

/* Frees a block of any heap in the region. Any thread of any process that maps the region; wait-
 * free. PLAIT_INVALID: not the start of a block, nothing was done. NULL is allowed. Freeing twice
 * goes unnoticed where the block has been handed out again meanwhile, and else does nothing. */
int plait_heap_release_remote(plait_region_t *region, void *block);

/* Usable bytes of a block; 0 where `block` is not the start of one. Any thread of any process. */
size_t plait_heap_block_size(plait_region_t *region, const void *block);

/* Collects what others freed, and gives all memory that holds no block back to the region and the
 * system. For an owner that goes idle. Owner only. */
void plait_heap_trim(plait_heap_t *heap);

typedef struct plait_heap_stats {
    uint64_t spans;          /* held from the region */
    uint64_t spans_retained; /* of these: free, kept for the next allocations */
    uint64_t blocks_live;    /* allocated and not yet freed, as far as the owner has seen */
    uint64_t bytes_live;     /* their usable sizes */
} plait_heap_stats_t;

/* Owner only; walks all spans. */
void plait_heap_stats(plait_heap_t *heap, plait_heap_stats_t *stats);

/* The heap as an allocator for code that takes one: its functions are the owner operations above,
 * and may only be called by the owner. Lives as long as the heap. */
plait_alloc_t plait_heap_alloc_owner(plait_heap_t *heap);

/* Walks every span and free list; false at the first broken invariant. Owner only, no thread
 * freeing. */
bool plait_heap_is_valid(plait_heap_t *heap);

#ifdef __cplusplus
}
#endif
#endif
