/* heap_check: statistics, and the walker that looks for broken invariants.
 *
 * Owner only.
 * Design: docs/design/heap.md
 */
#include "core/heap_internal.h"

/* ---- statistics ---- */

void plait_heap_stats(plait_heap_t *heap, plait_heap_stats_t *stats)
{
    *stats = (plait_heap_stats_t){0};
    plait__node_t *node;
    for (uint32_t span = heap->low; (node = plait__heap_node_from(heap, span)) != NULL;
         span = node->first + node->count) {
        stats->spans += node->count;
        if (node->kind == PLAIT__NODE_FREE) {
            stats->spans_retained += node->count;
        } else if (node->kind == PLAIT__NODE_LARGE) {
            stats->blocks_live++;
            stats->bytes_live += (uint64_t)node->count << PLAIT__SPAN_SHIFT;
        } else {
            const plait__page_t *page = plait__page_of(node);
            stats->blocks_live += page->live;
            stats->bytes_live += (uint64_t)page->live * page->block_size;
        }
    }
}

/* ---- is_valid ---- */

static bool is_listed(const plait__node_t *list, const plait__node_t *node)
{
    for (; list != NULL; list = list->next)
        if (list == node)
            return true;
    return false;
}

/* Whether the region says about a run what the heap knows. */
static bool is_described(const plait_heap_t *heap, const plait__node_t *node)
{
    uint32_t kind = PLAIT__SPAN_HELD, value = node->count;
    if (node->kind == PLAIT__NODE_PAGE) {
        kind = PLAIT__SPAN_PAGE;
        value = ((const plait__page_t *)(const void *)node)->class_index;
    } else if (node->kind == PLAIT__NODE_LARGE) {
        kind = PLAIT__SPAN_LARGE;
    }
    return plait__span_load_info(heap->region, node->first) ==
           plait__span_info(kind, value, heap->id);
}

/* Only live blocks of the run have been freed by others. */
static bool remote_set_is_valid(const plait_heap_t *heap, plait__node_t *node)
{
    plait__remote_set_t *remote = &heap->region->spans[node->first].remote;
    if (node->kind == PLAIT__NODE_FREE)
        return true;                     /* whatever is left there is reset before the next use */
    if (node->kind == PLAIT__NODE_LARGE) /* Relaxed, here and below: nobody frees now. */
        return (plait_atomic_load_relaxed(&remote->words[0]) & ~UINT64_C(1)) == 0;
    const plait__page_t *page = plait__page_of(node);
    for (uint32_t word = 0; word < plait__bitmap_words(page->capacity); word++)
        if ((plait_atomic_load_relaxed(&remote->words[word]) & ~page->live_bits[word]) != 0)
            return false;
    return true;
}

/* The free blocks are distinct, below `fresh`, and not live; so with the counts, none is
 * missing. */
static bool free_stack_is_valid(const plait__page_t *page)
{
    uint64_t seen[PLAIT__REMOTE_WORDS] = {0};
    for (uint32_t i = 0; i < page->free_count; i++) {
        uint32_t index = page->free[i];
        if (index >= page->fresh || plait__bit_get(seen, index) ||
            plait__bit_get(page->live_bits, index))
            return false;
        plait__bit_set(seen, index);
    }
    return true;
}

static bool page_is_valid(const plait_heap_t *heap, const plait__page_t *page)
{
    const plait__heap_class_t *class_of_page = &plait__heap_classes[page->class_index];
    const plait__page_t *available = heap->available[page->class_index];
    uint32_t live = 0;
    if (page->node.count != 1 || page->block_size != class_of_page->block_size ||
        page->capacity != class_of_page->capacity || page->fresh > page->capacity ||
        page->live + page->free_count != page->fresh)
        return false;
    for (uint32_t word = 0; word < plait__bitmap_words(page->capacity); word++)
        live += (uint32_t)__builtin_popcountll(page->live_bits[word]);
    if (live != page->live || !free_stack_is_valid(page))
        return false;
    return is_listed(available != NULL ? &available->node : NULL, &page->node) ==
           (page->live < page->capacity);
}

static bool free_run_is_valid(const plait_heap_t *heap, const plait__node_t *node)
{
    const plait__node_t *following = heap->map[node->first + node->count];
    if (heap->map[node->first + node->count - 1] != node)
        return false;
    if (following != NULL && following->kind == PLAIT__NODE_FREE)
        return false;
    return is_listed(heap->bins[31 - __builtin_clz(node->count)], node);
}

/* Its spans are held, and only its first is `mine`, if it is in use. */
static bool spans_are_noted(const plait_heap_t *heap, const plait__node_t *node)
{
    for (uint32_t i = 0; i < node->count; i++) {
        bool is_mine = i == 0 && node->kind != PLAIT__NODE_FREE;
        if (!plait__bit_get(heap->held, node->first + i) ||
            plait__bit_get(heap->mine, node->first + i) != is_mine)
            return false;
    }
    return true;
}

static bool node_is_valid(const plait_heap_t *heap, plait__node_t *node, uint32_t span)
{
    if (node->first != span || node->count == 0 || node->count > heap->high - span ||
        !spans_are_noted(heap, node))
        return false;
    switch (node->kind) {
    case PLAIT__NODE_PAGE:
        return page_is_valid(heap, plait__page_of(node));
    case PLAIT__NODE_LARGE:
        return true;
    case PLAIT__NODE_FREE:
        return free_run_is_valid(heap, node);
    }
    return false;
}

/* Every FREE run is in the list by age, both ways. */
static bool ages_are_valid(const plait_heap_t *heap, uint32_t runs)
{
    const plait__node_t *newer = NULL;
    uint32_t listed = 0;
    for (const plait__node_t *node = heap->newest; node != NULL; node = node->older, listed++) {
        if (node->newer != newer || node->kind != PLAIT__NODE_FREE || listed > runs)
            return false;
        newer = node;
    }
    return heap->oldest == newer && listed == runs;
}

bool plait__heap_is_valid_locally(const plait_heap_t *heap)
{
    uint32_t used = 0, retained = 0, held = 0, runs = 0;
    for (uint32_t span = heap->low; span < heap->high;) {
        plait__node_t *node = heap->map[span];
        if (node == NULL) {
            if (plait__bit_get(heap->held, span) || plait__bit_get(heap->mine, span))
                return false;
            span++;
            continue;
        }
        if (!node_is_valid(heap, node, span))
            return false;
        held += node->count;
        runs += node->kind == PLAIT__NODE_FREE;
        *(node->kind == PLAIT__NODE_FREE ? &retained : &used) += node->count;
        span += node->count;
    }
    return used == heap->used && retained == heap->retained && held == used + retained &&
           ages_are_valid(heap, runs);
}

bool plait_heap_is_valid(plait_heap_t *heap)
{
    if (!plait__heap_is_valid_locally(heap))
        return false;
    plait__node_t *node;
    for (uint32_t span = heap->low; (node = plait__heap_node_from(heap, span)) != NULL;
         span = node->first + node->count)
        if (!is_described(heap, node) || !remote_set_is_valid(heap, node))
            return false;
    return true;
}
