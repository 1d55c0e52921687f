/* heap_run: runs of free spans, split and merged, kept for a while, given back to the region.
 *
 * Invariants: no two FREE runs are adjacent; every FREE run is in the bin of its size and in the
 * list by age; `map` names it at its first and last span. The description in the region always
 * names a run that covers at least what the heap holds from there on, so that plait_heap_reclaim
 * finds everything even where the owner was killed in the middle. Owner only.
 * Design: docs/design/heap.md
 */
#define PLAIT_UNIT "heap"

#include "core/assert.h"
#include "core/heap_internal.h"

enum {
    KEEP_MIN = 64,        /* spans: 4 MiB are always worth keeping */
    EPOCH_RELEASES = 256, /* runs released before an old peak of use counts no more */
    BIN_LOOKS = 32,       /* runs looked at for the best fit */
};

static plait__node_t *new_node(void)
{
    return plait_alloc_system.allocate(plait_alloc_system.context, sizeof(plait__node_t));
}

static void delete_node(plait__node_t *node)
{
    plait_alloc_system.release(plait_alloc_system.context, node);
}

/* ---- lists of FREE runs ---- */

static uint32_t bin_of(uint32_t count)
{
    return 31 - (uint32_t)__builtin_clz(count);
}

static void bin_insert(plait_heap_t *heap, plait__node_t *node)
{
    plait__node_t **bin = &heap->bins[bin_of(node->count)];
    node->previous = NULL;
    node->next = *bin;
    if (*bin != NULL)
        (*bin)->previous = node;
    *bin = node;
}

static void bin_remove(plait_heap_t *heap, plait__node_t *node)
{
    if (node->previous != NULL)
        node->previous->next = node->next;
    else
        heap->bins[bin_of(node->count)] = node->next;
    if (node->next != NULL)
        node->next->previous = node->previous;
}

static void age_insert(plait_heap_t *heap, plait__node_t *node)
{
    node->newer = NULL;
    node->older = heap->newest;
    if (heap->newest != NULL)
        heap->newest->newer = node;
    else
        heap->oldest = node;
    heap->newest = node;
}

static void age_remove(plait_heap_t *heap, plait__node_t *node)
{
    if (node->newer != NULL)
        node->newer->older = node->older;
    else
        heap->newest = node->older;
    if (node->older != NULL)
        node->older->newer = node->newer;
    else
        heap->oldest = node->newer;
}

static void describe_held(plait_heap_t *heap, const plait__node_t *node)
{
    plait__span_store_info(heap->region, node->first,
                           plait__span_info(PLAIT__SPAN_HELD, node->count, heap->id));
}

static void describe_nothing(plait_heap_t *heap, uint32_t span)
{
    plait__span_store_info(heap->region, span, plait__span_info(PLAIT__SPAN_NONE, 0, 0));
}

static void free_insert(plait_heap_t *heap, plait__node_t *node)
{
    node->kind = PLAIT__NODE_FREE;
    heap->map[node->first] = node;
    heap->map[node->first + node->count - 1] = node;
    bin_insert(heap, node);
    age_insert(heap, node);
    heap->retained += node->count;
}

static void free_remove(plait_heap_t *heap, plait__node_t *node)
{
    heap->map[node->first] = NULL;
    heap->map[node->first + node->count - 1] = NULL;
    bin_remove(heap, node);
    age_remove(heap, node);
    heap->retained -= node->count;
}

/* ---- keep ---- */

static bool is_free_at(const plait_heap_t *heap, uint32_t span)
{
    const plait__node_t *node = heap->map[span]; /* one entry behind the last span is always NULL */
    return node != NULL && node->kind == PLAIT__NODE_FREE;
}

void plait__heap_keep_run(plait_heap_t *heap, plait__node_t *node)
{
    heap->map[node->first] = NULL;
    if (is_free_at(heap, node->first - 1)) {
        plait__node_t *before = heap->map[node->first - 1];
        free_remove(heap, before);
        before->count += node->count;
        describe_held(heap, before);
        describe_nothing(heap, node->first);
        delete_node(node);
        node = before;
    }
    if (is_free_at(heap, node->first + node->count)) {
        plait__node_t *after = heap->map[node->first + node->count];
        free_remove(heap, after);
        node->count += after->count;
        describe_held(heap, node);
        describe_nothing(heap, after->first);
        delete_node(after);
    }
    describe_held(heap, node);
    free_insert(heap, node);
}

void plait__heap_use_run(plait_heap_t *heap, plait__node_t *node)
{
    heap->map[node->first] = node;
    plait__bit_set(heap->mine, node->first);
    heap->used += node->count;
    if (heap->used > heap->peak)
        heap->peak = heap->used;
}

/* As much as was in use lately at one time, since it may soon be again. */
static uint32_t keep_limit(const plait_heap_t *heap)
{
    uint32_t limit = heap->peak > heap->earlier_peak ? heap->peak : heap->earlier_peak;
    return limit > KEEP_MIN ? limit : KEEP_MIN;
}

void plait__heap_release_run(plait_heap_t *heap, plait__node_t *node)
{
    plait__bit_clear(heap->mine, node->first);
    heap->used -= node->count;
    plait__heap_keep_run(heap, node);
    if (++heap->releases == EPOCH_RELEASES) {
        heap->earlier_peak = heap->peak;
        heap->peak = heap->used;
        heap->releases = 0;
    }
    uint32_t limit = keep_limit(heap);
    /* Some more may gather, so that this is not done each time; but never less stays than the
     * limit, or a run as long as all that was in use would lose its end, and the next one find no
     * place. */
    if (heap->retained > limit + limit / 8)
        plait__heap_evict(heap, limit);
}

/* ---- evict ---- */

/* Gives the last `count` spans of a FREE run back. */
static void give_back(plait_heap_t *heap, plait__node_t *node, uint32_t count)
{
    uint32_t left = node->count - count;
    uint32_t first = node->first + left;
    if (left == 0) {
        free_remove(heap, node);
        delete_node(node);
        describe_nothing(heap, first);
    } else {
        heap->map[node->first + node->count - 1] = NULL;
        bin_remove(heap, node);
        node->count = left;
        bin_insert(heap, node);
        heap->map[node->first + left - 1] = node;
        heap->retained -= count;
        describe_held(heap, node);
    }
    for (uint32_t span = first; span < first + count; span++)
        plait__bit_clear(heap->held, span);
    plait__region_release_spans(heap->region, first, count);
}

void plait__heap_evict(plait_heap_t *heap, uint32_t keep)
{
    while (heap->retained > keep) {
        uint32_t excess = heap->retained - keep;
        plait__node_t *node = heap->oldest;
        give_back(heap, node, node->count < excess ? node->count : excess);
    }
}

/* ---- take ---- */

/* The best of the first few in the bin that could hold it, else any of the next bin that has
 * one. */
static plait__node_t *find_fit(const plait_heap_t *heap, uint32_t count)
{
    uint32_t bin = bin_of(count);
    plait__node_t *best = NULL;
    int looks = 0;
    for (plait__node_t *node = heap->bins[bin]; node != NULL && looks < BIN_LOOKS;
         node = node->next, looks++)
        if (node->count >= count && (best == NULL || node->count < best->count))
            best = node;
    while (best == NULL && ++bin < PLAIT__HEAP_BINS)
        best = heap->bins[bin];
    return best;
}

/* Whether this heap holds none of the spans. Where it does, the region handed out a span twice: its
 * bitmap was overwritten. */
static bool are_unknown(const plait_heap_t *heap, uint32_t first, uint32_t count)
{
    for (uint32_t span = first; span < first + count; span++)
        if (plait__bit_get(heap->held, span))
            return false;
    return true;
}

/* Notes spans as held by this heap. */
static void hold(plait_heap_t *heap, uint32_t first, uint32_t count)
{
    for (uint32_t span = first; span < first + count; span++)
        plait__bit_set(heap->held, span);
    if (heap->low == heap->high)
        heap->low = heap->high = first;
    if (first < heap->low)
        heap->low = first;
    if (first + count > heap->high)
        heap->high = first + count;
}

static plait__node_t *claim_run(plait_heap_t *heap, uint32_t count)
{
    plait__node_t *node = new_node();
    if (node == NULL)
        return NULL;
    if (plait__region_claim_spans(heap->region, count, &node->first) != PLAIT_OK ||
        !are_unknown(heap, node->first, count)) {
        delete_node(node); /* spans that were handed out twice are better lost than used */
        return NULL;
    }
    node->count = count;
    hold(heap, node->first, count);
    describe_held(heap, node);
    return node;
}

/* Cuts [first + count, end) off, as a FREE run; false: no memory. */
static bool split_off(plait_heap_t *heap, plait__node_t *node, uint32_t count)
{
    plait__node_t *rest = new_node();
    if (rest == NULL)
        return false;
    rest->first = node->first + count;
    rest->count = node->count - count;
    describe_held(heap,
                  rest); /* before the first part is described as shorter: see the invariants */
    node->count = count;
    plait__heap_keep_run(heap, rest);
    return true;
}

plait__node_t *plait__heap_take_run(plait_heap_t *heap, uint32_t count)
{
    plait__node_t *node = find_fit(heap, count);
    if (node == NULL)
        return claim_run(heap, count);
    free_remove(heap, node);
    if (node->count > count && split_off(heap, node, count))
        describe_held(heap, node);
    return node;
}

/* ---- longer and shorter ---- */

static void describe_large(plait_heap_t *heap, const plait__node_t *node)
{
    plait__span_store_info(heap->region, node->first,
                           plait__span_info(PLAIT__SPAN_LARGE, node->count, heap->id));
}

/* Takes [from, from + count) off the FREE run that begins there; false: there is none as long. */
static bool take_following(plait_heap_t *heap, uint32_t from, uint32_t count)
{
    if (!is_free_at(heap, from) || heap->map[from]->count < count)
        return false;
    plait__node_t *node = heap->map[from];
    if (node->count > count) {
        free_remove(heap, node);
        node->first += count;
        node->count -= count;
        describe_held(heap, node);
        describe_nothing(heap, from);
        free_insert(heap, node);
        return true;
    }
    free_remove(heap, node);
    delete_node(node);
    describe_nothing(heap, from);
    return true;
}

bool plait__heap_extend_run(plait_heap_t *heap, plait__node_t *node, uint32_t count)
{
    uint32_t end = node->first + node->count;
    uint32_t more = count - node->count;
    uint32_t kept = is_free_at(heap, end) ? heap->map[end]->count : 0;
    if (kept < more) {
        /* What the heap keeps does not do: the region's spans behind it may be free. */
        if (plait__region_claim_spans_at(heap->region, end + kept, more - kept) != PLAIT_OK)
            return false;
        if (!are_unknown(heap, end + kept, more - kept))
            return false;
        hold(heap, end + kept, more - kept);
    }
    uint32_t from_kept = kept < more ? kept : more;
    node->count = count;
    describe_large(heap, node);
    if (from_kept > 0)
        (void)take_following(heap, end, from_kept); /* it is as long: `kept` says so */
    heap->used += more;
    if (heap->used > heap->peak)
        heap->peak = heap->used;
    return true;
}

bool plait__heap_shorten_run(plait_heap_t *heap, plait__node_t *node, uint32_t count)
{
    uint32_t less = node->count - count;
    if (!split_off(heap, node, count))
        return false;
    describe_large(heap, node);
    heap->used -= less;
    return true;
}
