/* heap: an allocator that lives inside a region, and works across processes.
 *
 * A heap belongs to one owner at a time: one thread, or several that take turns under a lock of theirs. Only
 * the owner allocates; the owner frees directly; any other thread of any process that maps the region frees
 * through a lock-free list that the owner empties when it runs short. A process that dies while it frees
 * loses at most the block it was freeing; nobody ever waits for it.
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

/* Makes a heap in the region. Several heaps may share one region: they take whole spans from it. The handle
 * is process-local memory owned by the caller until plait_heap_close. */
int plait_heap_create(plait_heap_t **heap, plait_region_t *region);

/* Gives every span of the heap back to the region: all its blocks die. */
void plait_heap_close(plait_heap_t *heap);

/* Owner only. At least `size` bytes, aligned to 16, and to 64 from 64 bytes on; NULL when the region is
 * full. */
void *plait_heap_allocate_owner(plait_heap_t *heap, size_t size);
void *plait_heap_resize_owner(plait_heap_t *heap, void *block, size_t size);
void plait_heap_release_owner(plait_heap_t *heap, void *block);

/* Any thread of any process that maps the region; lock-free. */
void plait_heap_release_remote(plait_region_t *region, void *block);

/* Usable bytes of a block. */
size_t plait_heap_block_size(plait_region_t *region, const void *block);

typedef struct plait_heap_stats {
    uint64_t spans;       /* held from the region */
    uint64_t blocks_live; /* allocated and not yet freed, as far as the owner has seen */
    uint64_t bytes_live;
} plait_heap_stats_t;

void plait_heap_stats(plait_heap_t *heap, plait_heap_stats_t *stats);

/* Walks every span and free list; false at the first broken invariant. Owner only, no thread freeing. */
bool plait_heap_is_valid(plait_heap_t *heap);

#ifdef __cplusplus
}
#endif
#endif
