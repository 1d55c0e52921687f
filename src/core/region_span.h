/* region_span: how a region hands whole spans to heaps. Internal to region.c and the heap's files.
 *
 * Everything in the map may be overwritten by a process that went wild: what decides about an
 * address (base, sizes, counts, where the tables are) is read from `struct plait_region`, which is
 * memory of this process, and a value from the map is used as an index only after a check against
 * it.
 * Design: docs/design/region.md
 */
#ifndef PLAIT_CORE_REGION_SPAN_H
#define PLAIT_CORE_REGION_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "core/remote_set.h"
#include "plait/region.h"
#include "prim/prim.h"

#define PLAIT__SPAN_SHIFT 16
#define PLAIT__SPAN_SIZE ((size_t)1 << PLAIT__SPAN_SHIFT)
#define PLAIT__BLOCK_MIN 16 /* the smallest block: 64 words of 64 bits cover a span */

/* What a span begins, in plait__span_t.info. */
enum {
    PLAIT__SPAN_NONE = 0,  /* nothing: free, or inside a run that begins further down */
    PLAIT__SPAN_PAGE = 1,  /* a page of small blocks; value: the size class */
    PLAIT__SPAN_LARGE = 2, /* one large block; value: its spans */
    PLAIT__SPAN_HELD = 3,  /* a free run that a heap keeps; value: its spans */
};

/* The shared part of a span's description; the rest is private to the heap's owner. */
typedef struct plait__span {
    /* written by the owner before it hands a block out, read by any process */
    PLAIT_ATOMIC(uint64_t) info; /* kind: 2 bits, value: 30 bits, heap: 32 bits */
    /* written by any process */
    plait__remote_set_t remote;
    uint8_t unused[48]; /* to whole cache lines */
} plait__span_t;

_Static_assert(PLAIT__SPAN_SIZE / PLAIT__BLOCK_MIN <= (size_t)64 * PLAIT__REMOTE_WORDS,
               "a bit for each block of a span");
_Static_assert(sizeof(plait__span_t) == 576, "part of the region's layout");
_Static_assert(offsetof(plait__span_t, remote) == 8, "part of the region's layout");

typedef struct plait__region_header plait__region_header_t;

struct plait_region {
    /* const after create or open; memory of this process */
    plait_prim_map_t map;
    uint8_t *base;
    size_t size;         /* whole spans */
    uint32_t span_count; /* of the whole region */
    uint32_t first_span; /* the first that can be claimed; below it are the header and the tables */
    plait__region_header_t *header;
    PLAIT_ATOMIC(uint64_t) *claimed; /* a bit a span: it belongs to a heap, or to the header */
    PLAIT_ATOMIC(uint64_t) *pending; /* a bit a span: look into its remote set */
    plait__span_t *spans;
};

static inline uint64_t plait__span_info(uint32_t kind, uint32_t value, uint32_t heap)
{
    return (uint64_t)kind | (uint64_t)value << 2 | (uint64_t)heap << 32;
}

static inline uint32_t plait__span_kind(uint64_t info)
{
    return (uint32_t)(info & 3);
}

static inline uint32_t plait__span_value(uint64_t info)
{
    return (uint32_t)(info >> 2) & 0x3fffffffu;
}

static inline uint32_t plait__span_heap(uint64_t info)
{
    return (uint32_t)(info >> 32);
}

/* Relaxed: whoever looks at the span of a block got the block after the owner stored the
 * information, by whatever handed it over. */
static inline uint64_t plait__span_load_info(const plait_region_t *region, uint32_t span)
{
    return plait_atomic_load_relaxed(&region->spans[span].info);
}

static inline void plait__span_store_info(plait_region_t *region, uint32_t span, uint64_t info)
{
    plait_atomic_store_relaxed(&region->spans[span].info, info);
}

static inline void *plait__region_span_base(const plait_region_t *region, uint32_t span)
{
    return region->base + ((size_t)span << PLAIT__SPAN_SHIFT);
}

/* Whether anybody has claimed the span, at this moment. Relaxed: only a look. */
static inline bool plait__region_is_claimed(const plait_region_t *region, uint32_t span)
{
    return (plait_atomic_load_relaxed(&region->claimed[span / 64]) >> (span % 64) & 1) != 0;
}

/* Claims `count` adjacent spans for the caller. PLAIT_OK or PLAIT_FULL. Any thread of any process;
 * lock-free. A process killed inside leaves at most these spans claimed by nobody. */
int plait__region_claim_spans(plait_region_t *region, uint32_t count, uint32_t *first);

/* Claims exactly [first, first + count). PLAIT_OK or PLAIT_FULL. As plait__region_claim_spans. */
int plait__region_claim_spans_at(plait_region_t *region, uint32_t first, uint32_t count);

/* Gives claimed spans back, and their pages to the system. Any thread of any process; lock-free. */
void plait__region_release_spans(plait_region_t *region, uint32_t first, uint32_t count);

/* A number for a new heap, never 0. Any thread of any process. */
uint32_t plait__region_next_heap(plait_region_t *region);

#endif
