/* heap: an allocator inside a region, owned by one thread, into which any process may free.
 *
 * This file is the interface; heap_internal.h tells what the others hold. The owner's fast path
 * takes a block from, and puts it back to, a page's stack of block numbers; it reads nothing that
 * another process writes. Who may call what: plait/heap.h.
 * Design: docs/design/heap.md
 */
#define PLAIT_UNIT "heap"

#include "core/assert.h"
#include "core/heap_internal.h"

#include <string.h>

#if PLAIT_ASSERT_LEVEL >= 2
#define FILL_FREED(block, size)                                                                    \
    memset(block, 0xdf, size) /* so that a use after the release shows */
#else
#define FILL_FREED(block, size) ((void)0)
#endif

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- create, close ---- */

static void fill_classes(plait_heap_t *heap)
{
    uint32_t class_index = 0;
    for (uint32_t unit = 0; unit <= PLAIT__HEAP_SMALL_MAX / 64; unit++) {
        while (plait__heap_classes[class_index].block_size < unit * 64)
            class_index++;
        heap->class_of[unit] = (uint8_t)class_index;
    }
}

int plait_heap_create(plait_heap_t **heap_out, plait_region_t *region)
{
    /* A map and not malloc: the arrays are large, zero, and touched only where spans are held. */
    plait_prim_map_t memory;
    size_t map_size = ((size_t)region->span_count + 1) * sizeof(plait__node_t *);
    size_t bits_size = plait__bitmap_words(region->span_count) * sizeof(uint64_t);
    size_t structure_size = (sizeof(plait_heap_t) + 63) / 64 * 64;
    if (plait_prim_map_create(&memory, structure_size + map_size + 2 * bits_size, false) !=
        PLAIT_OK)
        return PLAIT_NOMEM;
    plait_heap_t *heap = memory.base;
    uint8_t *arrays = (uint8_t *)memory.base + structure_size;
    heap->memory = memory;
    heap->region = region;
    heap->base = region->base;
    heap->size = region->size;
    heap->id = plait__region_next_heap(region);
    heap->map = (plait__node_t **)(void *)arrays;
    heap->mine = (uint64_t *)(void *)(arrays + map_size);
    heap->held = (uint64_t *)(void *)(arrays + map_size + bits_size);
    fill_classes(heap);
    *heap_out = heap;
    return PLAIT_OK;
}

/* The next node at or after a span, in order; NULL behind the last. */
plait__node_t *plait__heap_node_from(const plait_heap_t *heap, uint32_t span)
{
    for (; span < heap->high; span++)
        if (heap->map[span] != NULL)
            return heap->map[span];
    return NULL;
}

void plait_heap_close(plait_heap_t *heap)
{
    if (heap == NULL)
        return;
    plait__node_t *node;
    for (uint32_t span = heap->low; (node = plait__heap_node_from(heap, span)) != NULL;) {
        uint32_t first = node->first, count = node->count;
        plait_alloc_system.release(plait_alloc_system.context,
                                   node); /* also where it begins a page */
        plait__span_store_info(heap->region, first, plait__span_info(PLAIT__SPAN_NONE, 0, 0));
        plait__region_release_spans(heap->region, first, count);
        span = first + count;
    }
    plait_prim_map_t memory = heap->memory; /* the heap lies in it */
    plait_prim_map_close(&memory);
}

uint32_t plait_heap_id(const plait_heap_t *heap)
{
    return heap->id;
}

/* How many spans from this one on a heap held, as far as the descriptions can be believed: a dying
 * process may have overwritten them, so a run ends before whatever another heap describes. */
static uint32_t reclaimable(const plait_region_t *region, uint32_t span, uint32_t heap_id)
{
    uint64_t info = plait__span_load_info(region, span);
    uint32_t kind = plait__span_kind(info);
    if (kind == PLAIT__SPAN_NONE || plait__span_heap(info) != heap_id)
        return 0;
    uint32_t count = kind == PLAIT__SPAN_PAGE ? 1 : plait__span_value(info);
    if (count > region->span_count - span)
        count = region->span_count - span;
    for (uint32_t i = 1; i < count; i++) {
        info = plait__span_load_info(region, span + i);
        if (plait__span_kind(info) != PLAIT__SPAN_NONE && plait__span_heap(info) != heap_id)
            return i;
    }
    return count > 0 ? count : 1;
}

void plait_heap_reclaim(plait_region_t *region, uint32_t heap_id)
{
    for (uint32_t span = region->first_span; span < region->span_count; span++) {
        if (!plait__region_is_claimed(region,
                                      span)) /* nor has its description been touched, mostly */
            continue;
        uint32_t count = reclaimable(region, span, heap_id);
        if (count == 0)
            continue;
        for (uint32_t i = 0; i < count; i++)
            plait__span_store_info(region, span + i, plait__span_info(PLAIT__SPAN_NONE, 0, 0));
        plait__region_release_spans(region, span, count);
        span += count - 1;
    }
}

/* ---- allocate ---- */

static uint32_t class_of_size(const plait_heap_t *heap, size_t size)
{
    if (size <= PLAIT__HEAP_FINE_MAX)
        return (uint32_t)((size - (size != 0)) / PLAIT__BLOCK_MIN);
    return heap->class_of[(size + 63) / 64];
}

static uint32_t spans_of_size(size_t size)
{
    return (uint32_t)((size + PLAIT__SPAN_SIZE - 1) >> PLAIT__SPAN_SHIFT);
}

static __attribute__((noinline)) void *allocate_large(plait_heap_t *heap, size_t size)
{
    if (size > heap->size)
        return NULL;
    plait__heap_collect(heap); /* the run that is wanted may just have been freed */
    plait__node_t *node = plait__heap_acquire_run(heap, spans_of_size(size));
    if (node == NULL)
        return NULL;
    node->kind = PLAIT__NODE_LARGE;
    plait__heap_use_run(heap, node);
    plait__remote_reset_owner(&heap->region->spans[node->first].remote, 1);
    plait__span_store_info(heap->region, node->first,
                           plait__span_info(PLAIT__SPAN_LARGE, node->count, heap->id));
    return plait__region_span_base(heap->region, node->first);
}

/* The fast path had no page with room. */
static __attribute__((noinline)) void *allocate_slowly(plait_heap_t *heap, uint32_t class_index)
{
    PLAIT_ASSERT_EXPENSIVE(plait__heap_is_valid_locally(heap));
    plait__heap_collect(heap);
    if (heap->available[class_index] == NULL && !plait__heap_add_page(heap, class_index))
        return NULL;
    return plait__page_take(heap, heap->available[class_index]);
}

void *plait_heap_allocate_owner(plait_heap_t *heap, size_t size)
{
    if (UNLIKELY(size > PLAIT__HEAP_SMALL_MAX))
        return allocate_large(heap, size);
    uint32_t class_index = class_of_size(heap, size);
    plait__page_t *page = heap->available[class_index];
    if (UNLIKELY(page == NULL))
        return allocate_slowly(heap, class_index);
    return plait__page_take(heap, page);
}

/* ---- find ---- */

/* A block of this heap, found by its address. */
struct found {
    plait__node_t *node; /* NULL: not the start of a live block */
    uint32_t index;      /* in a page */
    size_t size;         /* usable */
};

static inline struct found find_block(const plait_heap_t *heap, const void *block)
{
    struct found found = {NULL, 0, 0};
    size_t offset = (size_t)((uintptr_t)block - (uintptr_t)heap->base);
    if (UNLIKELY(offset >= heap->size))
        return found;
    plait__node_t *node = heap->map[offset >> PLAIT__SPAN_SHIFT];
    if (UNLIKELY(node == NULL))
        return found;
    uint32_t in_span = (uint32_t)(offset & (PLAIT__SPAN_SIZE - 1));
    if (node->kind == PLAIT__NODE_PAGE) {
        plait__page_t *page = plait__page_of(node);
        found.index = plait__page_find(page, in_span);
        found.size = page->block_size;
        found.node = found.index != PLAIT__NO_BLOCK ? node : NULL;
    } else if (node->kind == PLAIT__NODE_LARGE && in_span == 0) {
        found.node = node;
        found.size = (size_t)node->count << PLAIT__SPAN_SHIFT;
    }
    return found;
}

bool plait_heap_owns(const plait_heap_t *heap, const void *block)
{
    return find_block(heap, block).node != NULL;
}

/* ---- release ---- */

static void release_found(plait_heap_t *heap, struct found found)
{
    if (found.node->kind == PLAIT__NODE_PAGE)
        plait__page_put(heap, plait__page_of(found.node), found.index);
    else
        plait__heap_release_run(heap, found.node);
}

void plait_heap_release_owner(plait_heap_t *heap, void *block)
{
    if (block == NULL)
        return;
    struct found found = find_block(heap, block);
    /* Not of this heap, not a block's start, or freed already. */
    PLAIT_ASSERT_ALWAYS(found.node != NULL && "a live block of this heap");
    FILL_FREED(block, found.size);
    release_found(heap, found);
}

void plait_heap_trim(plait_heap_t *heap)
{
    plait__heap_collect(heap);
    plait__heap_sweep(heap);
    for (uint32_t i = 0; i < PLAIT__HEAP_CLASS_COUNT; i++) {
        plait__page_t *page = heap->available[i];
        while (page != NULL) {
            plait__node_t *next = page->node.next;
            if (page->live == 0)
                plait__heap_retire_page(heap, page);
            page = next != NULL ? plait__page_of(next) : NULL;
        }
    }
    heap->peak = heap->earlier_peak = heap->used;
    plait__heap_evict(heap, 0);
}

/* ---- resize ---- */

/* Whether a block that is `usable` long serves `size` bytes without wasting more than half of
 * it. */
static bool fits_well(size_t usable, size_t size)
{
    return size <= usable && (size > usable / 2 || usable <= 64);
}

/* Tries to make a large block as long as `size` where it lies. */
static bool resize_large_in_place(plait_heap_t *heap, plait__node_t *node, size_t size)
{
    if (size <= PLAIT__HEAP_SMALL_MAX || size > heap->size)
        return false;
    uint32_t count = spans_of_size(size);
    if (count == node->count)
        return true;
    if (count < node->count)
        return plait__heap_shorten_run(heap, node, count);
    plait__heap_collect(heap); /* what follows may just have been freed */
    return plait__heap_extend_run(heap, node, count);
}

void *plait_heap_resize_owner(plait_heap_t *heap, void *block, size_t size)
{
    if (block == NULL)
        return plait_heap_allocate_owner(heap, size);
    struct found found = find_block(heap, block);
    PLAIT_ASSERT_ALWAYS(found.node != NULL && "a live block of this heap");
    if (found.node->kind == PLAIT__NODE_LARGE) {
        if (resize_large_in_place(heap, found.node, size))
            return block;
    } else if (fits_well(found.size, size)) {
        return block;
    }
    void *moved = plait_heap_allocate_owner(heap, size);
    if (moved == NULL)
        return size <= found.size ? block : NULL; /* to shrink never fails */
    memcpy(moved, block, size < found.size ? size : found.size);
    FILL_FREED(block, found.size);
    release_found(heap, found);
    return moved;
}

/* ---- from other threads and processes ---- */

/* What the region says about a block: shared memory that any process may have overwritten, read
 * once. */
struct shared_block {
    uint32_t span, index;
    size_t size; /* 0: not the start of a block */
};

static struct shared_block find_shared(const plait_region_t *region, const void *block)
{
    struct shared_block found = {0, 0, 0};
    uint64_t offset = plait_region_offset(region, block);
    uint32_t in_span = (uint32_t)(offset & (PLAIT__SPAN_SIZE - 1));
    found.span = (uint32_t)(offset >> PLAIT__SPAN_SHIFT);
    if (found.span < region->first_span) /* outside, or in the tables */
        return found;
    uint64_t info = plait__span_load_info(region, found.span);
    uint32_t value = plait__span_value(info);
    if (plait__span_kind(info) == PLAIT__SPAN_PAGE && value < PLAIT__HEAP_CLASS_COUNT) {
        const plait__heap_class_t *class_of_block = &plait__heap_classes[value];
        found.index = (uint32_t)((uint64_t)in_span * class_of_block->reciprocal >> 32);
        if (found.index < class_of_block->capacity &&
            found.index * class_of_block->block_size == in_span)
            found.size = class_of_block->block_size;
    } else if (plait__span_kind(info) == PLAIT__SPAN_LARGE && in_span == 0 &&
               value <= region->span_count - found.span) {
        found.size = (size_t)value << PLAIT__SPAN_SHIFT;
    }
    return found;
}

size_t plait_heap_block_size(plait_region_t *region, const void *block)
{
    return find_shared(region, block).size;
}

int plait_heap_release_remote(plait_region_t *region, void *block)
{
    if (block == NULL)
        return PLAIT_OK;
    struct shared_block found = find_shared(region, block);
    if (found.size == 0)
        return PLAIT_INVALID;
    plait__remote_put(&region->spans[found.span].remote, found.index,
                      &region->pending[found.span / 64], UINT64_C(1) << (found.span % 64));
    return PLAIT_OK;
}

/* ---- as a plait_alloc_t ---- */

static void *adaptor_allocate(void *context, size_t size)
{
    return plait_heap_allocate_owner(context, size);
}

static void *adaptor_resize(void *context, void *block, size_t size)
{
    return plait_heap_resize_owner(context, block, size);
}

static void adaptor_release(void *context, void *block)
{
    plait_heap_release_owner(context, block);
}

plait_alloc_t plait_heap_alloc_owner(plait_heap_t *heap)
{
    return (plait_alloc_t){
        .context = heap,
        .allocate = adaptor_allocate,
        .resize = adaptor_resize,
        .release = adaptor_release,
    };
}
