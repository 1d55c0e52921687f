/* heap_page: pages of small blocks, and collecting what others freed.
 *
 * Invariants of a page: a block is live, in the `free` stack, or at or above `fresh`; live +
 * free_count == fresh; the page is in its class's list of available pages exactly when live <
 * capacity. A block in the remote set is still live until it is collected. Owner only.
 * Design: docs/design/heap.md
 */
#define PLAIT_UNIT "heap"

#include "core/assert.h"
#include "core/heap_internal.h"

#include <string.h>

#define CLASS(size)                                                                                \
    {size, (uint32_t)(PLAIT__SPAN_SIZE / (size)),                                                  \
     (uint32_t)(((UINT64_C(1) << 32) + (size) - 1) / (size))},
const plait__heap_class_t plait__heap_classes[PLAIT__HEAP_CLASS_COUNT] = {
    PLAIT__HEAP_CLASSES(CLASS)};
#undef CLASS

/* ---- the available pages of a class ---- */

static void available_insert(plait_heap_t *heap, plait__page_t *page)
{
    plait__page_t **list = &heap->available[page->class_index];
    page->node.previous = NULL;
    page->node.next = *list != NULL ? &(*list)->node : NULL;
    if (*list != NULL)
        (*list)->node.previous = &page->node;
    *list = page;
}

static void available_remove(plait_heap_t *heap, plait__page_t *page)
{
    plait__node_t *previous = page->node.previous, *next = page->node.next;
    if (previous != NULL)
        previous->next = next;
    else
        heap->available[page->class_index] = next != NULL ? plait__page_of(next) : NULL;
    if (next != NULL)
        next->previous = previous;
}

/* ---- making and retiring pages ---- */

static plait__page_t *new_page(uint32_t class_index)
{
    const plait__heap_class_t *class_of_page = &plait__heap_classes[class_index];
    uint32_t words = plait__bitmap_words(class_of_page->capacity);
    size_t size = sizeof(plait__page_t) + words * sizeof(uint64_t) +
                  class_of_page->capacity * sizeof(uint16_t);
    plait__page_t *page = plait_alloc_system.allocate(plait_alloc_system.context, size);
    if (page == NULL)
        return NULL;
    memset(page, 0, sizeof *page + words * sizeof(uint64_t));
    page->class_index = class_index;
    page->block_size = class_of_page->block_size;
    page->capacity = class_of_page->capacity;
    page->reciprocal = class_of_page->reciprocal;
    page->free = (uint16_t *)(void *)(page->live_bits + words);
    return page;
}

bool plait__heap_add_page(plait_heap_t *heap, uint32_t class_index)
{
    plait__page_t *page = new_page(class_index);
    if (page == NULL)
        return false;
    plait__node_t *run = plait__heap_acquire_run(heap, 1);
    if (run == NULL || run->count != 1) { /* longer: there was no memory to split it */
        if (run != NULL)
            plait__heap_keep_run(heap, run);
        plait_alloc_system.release(plait_alloc_system.context, page);
        return heap->available[class_index] != NULL; /* the search may have freed a block */
    }
    uint32_t span = run->first;
    plait_alloc_system.release(plait_alloc_system.context, run);
    page->node.kind = PLAIT__NODE_PAGE;
    page->node.first = span;
    page->node.count = 1;
    page->base = plait__region_span_base(heap->region, span);
    plait__heap_use_run(heap, &page->node);
    plait__remote_reset_owner(&heap->region->spans[span].remote,
                              plait__bitmap_words(page->capacity));
    plait__span_store_info(heap->region, span,
                           plait__span_info(PLAIT__SPAN_PAGE, class_index, heap->id));
    available_insert(heap, page);
    return true;
}

void plait__heap_retire_page(plait_heap_t *heap, plait__page_t *page)
{
    plait__node_t *run =
        plait_alloc_system.allocate(plait_alloc_system.context, sizeof(plait__node_t));
    if (run == NULL)
        return; /* it stays an empty page: as good, for blocks of its class */
    run->kind = PLAIT__NODE_FREE;
    run->first = page->node.first;
    run->count = 1;
    available_remove(heap, page);
    plait_alloc_system.release(plait_alloc_system.context, page);
    plait__heap_release_run(heap, run);
}

/* ---- blocks ---- */

void plait__page_became_full(plait_heap_t *heap, plait__page_t *page)
{
    available_remove(heap, page);
}

void plait__page_gained(plait_heap_t *heap, plait__page_t *page, bool was_full)
{
    if (was_full)
        available_insert(heap, page);
    if (page->live > 0)
        return;
    /* Untouched order again, which reads the memory forward. */
    page->fresh = 0;
    page->free_count = 0;
    /* One empty page of a class stays, so that a single block that comes and goes costs little. */
    if (page->node.previous != NULL || page->node.next != NULL)
        plait__heap_retire_page(heap, page);
}

/* ---- collecting ---- */

/* Takes a word of freed blocks into the page. Bits of blocks that are not live come from a block
 * that was freed twice, or from a process that went wild: they say nothing. */
static void absorb_word(plait__page_t *page, uint32_t word, uint64_t freed)
{
    freed &= page->live_bits[word];
    while (freed != 0) {
        plait__page_push_free(page, word * 64 + (uint32_t)__builtin_ctzll(freed));
        page->live--;
        freed &= freed - 1;
    }
}

static void collect_page(plait_heap_t *heap, plait__page_t *page)
{
    plait__remote_set_t *remote = &heap->region->spans[page->node.first].remote;
    uint32_t words = plait__bitmap_words(page->capacity);
    uint32_t live = page->live;
    uint64_t summary = plait__remote_take_summary_owner(remote);
    for (; summary != 0; summary &= summary - 1) {
        uint32_t word = (uint32_t)__builtin_ctzll(summary);
        if (word < words)
            absorb_word(page, word, plait__remote_take_word_owner(remote, word));
    }
    if (page->live != live)
        plait__page_gained(heap, page, live == page->capacity);
}

static void collect_large(plait_heap_t *heap, plait__node_t *node)
{
    plait__remote_set_t *remote = &heap->region->spans[node->first].remote;
    (void)plait__remote_take_summary_owner(remote);
    if ((plait__remote_take_word_owner(remote, 0) & 1) != 0)
        plait__heap_release_run(heap, node);
}

static void collect_span(plait_heap_t *heap, uint32_t span)
{
    plait__node_t *node = heap->map[span];
    PLAIT_ASSERT_ALWAYS(node != NULL && node->first == span);
    if (node->kind == PLAIT__NODE_PAGE)
        collect_page(heap, plait__page_of(node));
    else
        collect_large(heap, node);
}

void plait__heap_collect(plait_heap_t *heap)
{
    if (heap->used == 0)
        return;
    for (uint32_t word = heap->low / 64; word <= (heap->high - 1) / 64; word++) {
        /* Only this heap's bits are taken: others share the word. */
        uint64_t found = heap->mine[word];
        if (found != 0)
            found = plait__remote_take_pending_owner(&heap->region->pending[word], found);
        for (; found != 0; found &= found - 1)
            collect_span(heap, word * 64 + (uint32_t)__builtin_ctzll(found));
    }
}

static void sweep_page(plait_heap_t *heap, plait__page_t *page)
{
    plait__remote_set_t *remote = &heap->region->spans[page->node.first].remote;
    uint32_t words = plait__bitmap_words(page->capacity);
    uint32_t live = page->live;
    for (uint32_t word = 0; word < words; word++)
        absorb_word(page, word, plait__remote_sweep_word_owner(remote, word));
    if (page->live != live)
        plait__page_gained(heap, page, live == page->capacity);
}

void plait__heap_sweep(plait_heap_t *heap)
{
    if (heap->used == 0)
        return;
    for (uint32_t word = heap->low / 64; word <= (heap->high - 1) / 64; word++)
        for (uint64_t mine = heap->mine[word]; mine != 0; mine &= mine - 1) {
            plait__node_t *node = heap->map[word * 64 + (uint32_t)__builtin_ctzll(mine)];
            if (node->kind == PLAIT__NODE_PAGE)
                sweep_page(heap, plait__page_of(node));
            else
                collect_large(heap, node);
        }
}

plait__node_t *plait__heap_acquire_run(plait_heap_t *heap, uint32_t count)
{
    plait__node_t *run = plait__heap_take_run(heap, count);
    if (run != NULL)
        return run;
    plait__heap_sweep(heap);
    run = plait__heap_take_run(heap, count);
    if (run != NULL)
        return run;
    /* What is kept may lie beside free spans of the region, and make a long enough run with
     * them. */
    plait__heap_evict(heap, 0);
    return plait__heap_take_run(heap, count);
}
