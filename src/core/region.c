/* region: one map of memory that heaps take spans from, addressed by offsets.
 *
 * Layout: header, bitmap of claimed spans, bitmap of pending spans, table of span descriptions;
 * then, from the next whole span on, the spans that heaps claim. All of it follows from the size
 * alone, so a process that opens a region compares the header and computes the rest. Claiming is
 * lock-free on the bitmap: there is no lock that a killed process could keep. Who may call what:
 * plait/region.h, core/region_span.h.
 * Design: docs/design/region.md
 */
#define PLAIT_UNIT "region"

#include "core/region_span.h"

#include <string.h>

#include "core/assert.h"
#include "plait/alloc.h"

#define REGION_MAGIC UINT64_C(0x315f6e6f69676572) /* "region_1" in memory, little-endian */

enum {
    REGION_VERSION = 1,
    LINE = PLAIT_PRIM_CACHE_LINE,
    CLAIM_TRIES = 1000, /* lost races before a region that others churn counts as full */
};

#define NO_SPAN UINT32_MAX
#define SPANS_MIN 2u                  /* one for the header, one to claim */
#define SPANS_MAX ((uint32_t)1 << 30) /* what plait__span_info can hold: 64 TiB */

struct plait__region_header {
    /* const after format */
    uint64_t magic;
    uint32_t version;
    uint32_t header_size;
    uint64_t size;
    uint32_t span_shift;
    uint32_t span_count;
    uint32_t first_span;
    uint32_t span_info_size;
    uint64_t claimed_at; /* offsets of the tables */
    uint64_t pending_at;
    uint64_t spans_at;
    /* written by any process: hints and counters that are harmless at any value */
    _Alignas(LINE) PLAIT_ATOMIC(uint32_t) search_from; /* below are hardly any free spans */
    PLAIT_ATOMIC(uint32_t) heaps;                      /* heaps made so far */
    uint8_t unused[LINE - 8];
};

_Static_assert(sizeof(struct plait__region_header) == 128, "part of the region's layout");
_Static_assert(offsetof(struct plait__region_header, size) == 16, "part of the region's layout");
_Static_assert(offsetof(struct plait__region_header, search_from) == 64, "part of the layout");
_Static_assert(sizeof(PLAIT_ATOMIC(uint64_t)) == 8, "an atomic word is a word");

/* ---- layout ---- */

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* The header that a region of so many spans must have. */
static struct plait__region_header layout_of(uint32_t span_count)
{
    uint64_t bitmap_size = round_up(((uint64_t)span_count + 63) / 64 * 8, LINE);
    struct plait__region_header header = {
        .magic = REGION_MAGIC,
        .version = REGION_VERSION,
        .header_size = sizeof header,
        .size = (uint64_t)span_count << PLAIT__SPAN_SHIFT,
        .span_shift = PLAIT__SPAN_SHIFT,
        .span_count = span_count,
        .span_info_size = sizeof(plait__span_t),
        .claimed_at = sizeof header,
    };
    header.pending_at = header.claimed_at + bitmap_size;
    header.spans_at = header.pending_at + bitmap_size;
    uint64_t end = header.spans_at + (uint64_t)span_count * sizeof(plait__span_t);
    header.first_span = (uint32_t)(round_up(end, PLAIT__SPAN_SIZE) >> PLAIT__SPAN_SHIFT);
    return header;
}

/* 0 where the size is out of range. */
static uint32_t spans_of_size(size_t size)
{
    if (size == 0 || size > (size_t)SPANS_MAX << PLAIT__SPAN_SHIFT)
        return 0;
    uint32_t count = (uint32_t)((size + PLAIT__SPAN_SIZE - 1) >> PLAIT__SPAN_SHIFT);
    return count < SPANS_MIN ? SPANS_MIN : count;
}

static void fill_handle(plait_region_t *region, const struct plait__region_header *layout)
{
    region->base = region->map.base;
    region->size = (size_t)layout->size;
    region->span_count = layout->span_count;
    region->first_span = layout->first_span;
    region->header = (struct plait__region_header *)(void *)region->base;
    region->claimed = (void *)(region->base + layout->claimed_at);
    region->pending = (void *)(region->base + layout->pending_at);
    region->spans = (void *)(region->base + layout->spans_at);
}

static uint64_t mask_of(uint32_t first_bit, uint32_t count)
{
    return (count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1) << first_bit;
}

/* Calls for the part of [first, end) that lies in the word of `first`; returns where the next
 * begins. */
static uint32_t word_part(uint32_t first, uint32_t end, uint64_t *mask)
{
    uint32_t word_end = (first / 64 + 1) * 64;
    uint32_t part_end = end < word_end ? end : word_end;
    *mask = mask_of(first % 64, part_end - first);
    return part_end;
}

/* Marks [first, end) as claimed for good. Only while nobody else knows the region. */
static void reserve(plait_region_t *region, uint32_t first, uint32_t end)
{
    while (first < end) {
        uint64_t mask;
        uint32_t word = first / 64;
        first = word_part(first, end, &mask);
        uint64_t old = plait_atomic_load_relaxed(&region->claimed[word]);
        plait_atomic_store_relaxed(&region->claimed[word], old | mask);
    }
}

/* ---- create, open, close ---- */

static bool header_matches(const struct plait__region_header *found,
                           const struct plait__region_header *wanted)
{
    return found->magic == wanted->magic && found->version == wanted->version &&
           found->header_size == wanted->header_size && found->size == wanted->size &&
           found->span_shift == wanted->span_shift && found->span_count == wanted->span_count &&
           found->first_span == wanted->first_span &&
           found->span_info_size == wanted->span_info_size &&
           found->claimed_at == wanted->claimed_at && found->pending_at == wanted->pending_at &&
           found->spans_at == wanted->spans_at;
}

int plait_region_create(plait_region_t **region_out, size_t size, bool shared)
{
    uint32_t span_count = spans_of_size(size);
    if (span_count == 0)
        return PLAIT_INVALID;
    plait_region_t *region =
        plait_alloc_system.allocate(plait_alloc_system.context, sizeof *region);
    if (region == NULL)
        return PLAIT_NOMEM;
    struct plait__region_header layout = layout_of(span_count);
    int code = plait_prim_map_create(&region->map, (size_t)layout.size, shared);
    if (code != PLAIT_OK)
        goto fail;
    fill_handle(region, &layout);
    /* The map is zero: bitmaps and span descriptions are empty as they are. */
    memcpy(region->header, &layout, offsetof(struct plait__region_header, search_from));
    plait_atomic_init(&region->header->search_from, layout.first_span);
    plait_atomic_init(&region->header->heaps, 0);
    reserve(region, 0, layout.first_span);
    reserve(region, span_count, (uint32_t)round_up(span_count, 64));
    *region_out = region;
    return PLAIT_OK;

fail:
    plait_alloc_system.release(plait_alloc_system.context, region);
    return code;
}

int plait_region_open(plait_region_t **region_out, int descriptor, size_t size)
{
    uint32_t span_count = spans_of_size(size);
    if (span_count == 0 || descriptor < 0)
        return PLAIT_INVALID;
    struct plait__region_header layout = layout_of(span_count);
    plait_region_t *region =
        plait_alloc_system.allocate(plait_alloc_system.context, sizeof *region);
    if (region == NULL)
        return PLAIT_NOMEM;
    int code = plait_prim_map_open(&region->map, descriptor, (size_t)layout.size);
    if (code != PLAIT_OK)
        goto fail_handle;
    fill_handle(region, &layout);
    code = PLAIT_CORRUPT;
    if (!header_matches(region->header, &layout))
        goto fail_map;
    *region_out = region;
    return PLAIT_OK;

fail_map:
    region->map.descriptor = -1; /* the caller keeps it */
    plait_prim_map_close(&region->map);
fail_handle:
    plait_alloc_system.release(plait_alloc_system.context, region);
    return code;
}

void plait_region_close(plait_region_t *region)
{
    if (region == NULL)
        return;
    plait_prim_map_close(&region->map);
    plait_alloc_system.release(plait_alloc_system.context, region);
}

/* ---- addresses ---- */

int plait_region_descriptor(const plait_region_t *region)
{
    return region->map.descriptor;
}

size_t plait_region_size(const plait_region_t *region)
{
    return region->size;
}

void *plait_region_at(const plait_region_t *region, plait_offset_t offset, size_t size)
{
    if (offset < (uint64_t)region->first_span << PLAIT__SPAN_SHIFT || offset > region->size ||
        size > region->size - offset)
        return NULL;
    return region->base + offset;
}

plait_offset_t plait_region_offset(const plait_region_t *region, const void *pointer)
{
    uintptr_t distance = (uintptr_t)pointer - (uintptr_t)region->base;
    return distance < region->size ? (plait_offset_t)distance : 0;
}

/* ---- spans ---- */

static uint32_t trailing_zeros(uint64_t word)
{
    return word == 0 ? 64 : (uint32_t)__builtin_ctzll(word);
}

/* The first of `count` adjacent spans in [from, to) that look free, or NO_SPAN. */
static uint32_t find_free(const plait_region_t *region, uint32_t from, uint32_t to, uint32_t count)
{
    uint32_t free_so_far = 0;
    for (uint32_t at = from; at < to;) {
        uint32_t left = 64 - at % 64;
        /* Relaxed: only a look; the claim decides. */
        uint64_t word = plait_atomic_load_relaxed(&region->claimed[at / 64]) >> (at % 64);
        uint32_t step = trailing_zeros((word & 1) != 0 ? ~word : word);
        step = step < left ? step : left;
        free_so_far = (word & 1) != 0 ? 0 : free_so_far + step;
        at += step;
        if (free_so_far >= count)
            return at - free_so_far;
    }
    return NO_SPAN;
}

/* Clears the bits. Release: the caller's use of the spans comes before the next claim. */
static void unclaim(plait_region_t *region, uint32_t first, uint32_t end)
{
    while (first < end) {
        uint64_t mask;
        uint32_t word = first / 64;
        first = word_part(first, end, &mask);
        plait_atomic_and_acq_rel(&region->claimed[word], ~mask);
    }
}

/* Sets the bits of `mask`, if none is set. Acquire: pairs with the release in unclaim. */
static bool claim_word(PLAIT_ATOMIC(uint64_t) *word, uint64_t mask)
{
    uint64_t seen = plait_atomic_load_relaxed(word); /* the compare-and-swap decides */
    while ((seen & mask) == 0)
        if (plait_atomic_cas_acq_rel(word, &seen, seen | mask))
            return true;
    return false;
}

int plait__region_claim_spans_at(plait_region_t *region, uint32_t first, uint32_t count)
{
    if (count == 0 || first < region->first_span || first >= region->span_count ||
        count > region->span_count - first)
        return PLAIT_FULL;
    for (uint32_t at = first, end = first + count; at < end;) {
        uint64_t mask;
        uint32_t next = word_part(at, end, &mask);
        if (!claim_word(&region->claimed[at / 64], mask)) {
            unclaim(region, first, at);
            return PLAIT_FULL;
        }
        at = next;
    }
    return PLAIT_OK;
}

/* The hint, made safe: any process may have written anything. */
static uint32_t search_start(const plait_region_t *region)
{
    uint32_t from = plait_atomic_load_relaxed(&region->header->search_from);
    return from >= region->first_span && from < region->span_count ? from : region->first_span;
}

int plait__region_claim_spans(plait_region_t *region, uint32_t count, uint32_t *first)
{
    if (count == 0 || count > region->span_count - region->first_span)
        return PLAIT_FULL;
    for (int i = 0; i < CLAIM_TRIES; i++) {
        uint32_t from = search_start(region);
        uint32_t found = find_free(region, from, region->span_count, count);
        if (found == NO_SPAN) /* the hint may be too high: once more over everything */
            found = find_free(region, region->first_span, region->span_count, count);
        if (found == NO_SPAN)
            return PLAIT_FULL;
        if (plait__region_claim_spans_at(region, found, count) != PLAIT_OK)
            continue; /* another was faster: look again */
        /* Only a search for one span shows that all below are taken. Relaxed: a hint. */
        if (count == 1)
            plait_atomic_store_relaxed(&region->header->search_from, found);
        *first = found;
        return PLAIT_OK;
    }
    return PLAIT_FULL;
}

void plait__region_release_spans(plait_region_t *region, uint32_t first, uint32_t count)
{
    PLAIT_ASSERT_ALWAYS(first >= region->first_span && first < region->span_count &&
                        count <= region->span_count - first);
    /* When the system refuses, the memory stays in use by a span that is free: correct, only
     * larger. */
    (void)plait_prim_map_discard(&region->map, (size_t)first << PLAIT__SPAN_SHIFT,
                                 (size_t)count << PLAIT__SPAN_SHIFT);
    unclaim(region, first, first + count);
    /* Relaxed, and not atomic with the above: a hint. */
    if (first < plait_atomic_load_relaxed(&region->header->search_from))
        plait_atomic_store_relaxed(&region->header->search_from, first);
}

uint32_t plait__region_next_heap(plait_region_t *region)
{
    uint32_t number;
    do /* Relaxed: only the value counts. */
        number = plait_atomic_add_relaxed(&region->header->heaps, 1) + 1;
    while (number == 0);
    return number;
}
