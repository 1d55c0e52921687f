/* heap_internal: what the heap's files share. Not for anybody else.
 *
 *   heap.c        the interface: allocate, resize, release
 *   heap_page.c   pages of small blocks, collecting what others freed
 *   heap_run.c    runs of free spans: split, merged, kept for a while, given back
 *   heap_check.c  statistics, is_valid
 *
 * All of the owner's bookkeeping is memory of its own process, so nothing that another process
 * writes can lead it astray; the region holds the blocks, and per span one word of description and
 * the remote set. Everything here is called by the owner only.
 * Design: docs/design/heap.md
 */
#ifndef PLAIT_CORE_HEAP_INTERNAL_H
#define PLAIT_CORE_HEAP_INTERNAL_H

#include "core/region_span.h"
#include "plait/heap.h"

/* ---- size classes ---- */

/* Steps of a quarter of a power of two at most; above 8 KiB, the largest multiples of 64 that fit a
 * span 6, 5, 4, 3 and 2 times. */
/* clang-format off */
#define PLAIT__HEAP_CLASSES(X)                                                                     \
    X(16) X(32) X(48) X(64) X(128) X(192) X(256) X(320) X(384) X(448) X(512) X(640) X(768) X(896)  \
    X(1024) X(1280) X(1536) X(1792) X(2048) X(2560) X(3072) X(3584) X(4096) X(5120) X(6144)        \
    X(7168) X(8192) X(10880) X(13056) X(16384) X(21824) X(32768)
/* clang-format on */

enum {
    PLAIT__HEAP_CLASS_COUNT = 32,
    PLAIT__HEAP_SMALL_MAX = 32768, /* larger blocks are runs of whole spans */
    PLAIT__HEAP_FINE_MAX = 48,     /* up to here the classes are multiples of 16 */
    PLAIT__HEAP_BINS = 31,         /* of free runs, by the logarithm of their spans */
};

typedef struct plait__heap_class {
    uint32_t block_size;
    uint32_t capacity;   /* blocks in a page */
    uint32_t reciprocal; /* offset in a span * reciprocal >> 32 == offset / block_size */
} plait__heap_class_t;

extern const plait__heap_class_t plait__heap_classes[PLAIT__HEAP_CLASS_COUNT];

/* ---- the owner's bookkeeping ---- */

typedef enum plait__node_kind {
    PLAIT__NODE_PAGE = 1,  /* the first member of a plait__page_t */
    PLAIT__NODE_LARGE = 2, /* one live block */
    PLAIT__NODE_FREE = 3,  /* retained */
} plait__node_kind_t;

/* A run of spans that the heap holds. */
typedef struct plait__node {
    plait__node_kind_t kind;
    uint32_t first, count;               /* spans */
    struct plait__node *previous, *next; /* PAGE: in its class's available; FREE: in its bin */
    struct plait__node *newer, *older;   /* FREE: by when it was released */
} plait__node_t;

/* A span cut into blocks of one class. Blocks from `fresh` on were never handed out; those in
 * `free` were and came back. It is among the available pages of its class exactly when it is not
 * full. */
typedef struct plait__page {
    plait__node_t node;
    uint8_t *base;
    uint32_t class_index;
    uint32_t block_size, capacity, reciprocal; /* of the class */
    uint32_t live;                             /* handed out */
    uint32_t fresh;
    uint32_t free_count;
    uint16_t *free;       /* a stack of block numbers; behind live_bits */
    uint64_t live_bits[]; /* a bit a block: handed out, so far as the owner has seen */
} plait__page_t;

struct plait_heap {
    /* const after create */
    plait_region_t *region;
    uint8_t *base; /* of the region */
    size_t size;
    uint32_t id;
    plait_prim_map_t memory; /* which this structure and its arrays lie in */
    uint8_t class_of[PLAIT__HEAP_SMALL_MAX / 64 + 1]; /* by the size in units of 64, rounded up */
    /* written by the owner */
    plait__page_t *available[PLAIT__HEAP_CLASS_COUNT];
    plait__node_t **map; /* by span: PAGE and LARGE at their first, FREE at their first and last */
    uint64_t *mine;      /* a bit a span: first of a PAGE or a LARGE */
    uint64_t *held;      /* a bit a span: in any run of this heap */
    uint32_t low, high;  /* every span held so far lies in [low, high) */
    plait__node_t *bins[PLAIT__HEAP_BINS];
    plait__node_t *newest, *oldest; /* of the FREE ones */
    uint32_t used;                  /* spans in PAGE and LARGE */
    uint32_t retained;              /* spans in FREE */
    uint32_t peak, earlier_peak;    /* of `used`, in this epoch and the one before */
    uint32_t releases;              /* in this epoch */
};

static inline plait__page_t *plait__page_of(plait__node_t *node)
{
    return (plait__page_t *)(void *)node; /* its first member */
}

static inline uint32_t plait__bitmap_words(uint32_t bits)
{
    return (bits + 63) / 64;
}

static inline void plait__bit_set(uint64_t *bits, uint32_t index)
{
    bits[index / 64] |= (uint64_t)1 << (index % 64);
}

static inline void plait__bit_clear(uint64_t *bits, uint32_t index)
{
    bits[index / 64] &= ~((uint64_t)1 << (index % 64));
}

static inline bool plait__bit_get(const uint64_t *bits, uint32_t index)
{
    return (bits[index / 64] >> (index % 64) & 1) != 0;
}

/* ---- heap.c ---- */

/* The run that begins at this span or is the first behind it; NULL: there is none. `span` is not
 * inside a run. */
plait__node_t *plait__heap_node_from(const plait_heap_t *heap, uint32_t span);

/* ---- heap_run.c ---- */

/* A run of exactly `count` spans, or of more where there was no memory to split one; NULL: the
 * region has none. It is in no list, and no longer FREE. */
plait__node_t *plait__heap_take_run(plait_heap_t *heap, uint32_t count);

/* Makes a run FREE: merges it with its neighbours and keeps it. */
void plait__heap_keep_run(plait_heap_t *heap, plait__node_t *node);

/* The same, for a run that was in use; then gives back what is more than worth keeping. */
void plait__heap_release_run(plait_heap_t *heap, plait__node_t *node);

/* Notes that a run that was taken is in use. */
void plait__heap_use_run(plait_heap_t *heap, plait__node_t *node);

/* Makes a LARGE run longer without moving it; false where what follows is taken. */
bool plait__heap_extend_run(plait_heap_t *heap, plait__node_t *node, uint32_t count);

/* Makes a LARGE run shorter; false where there was no memory to do so. */
bool plait__heap_shorten_run(plait_heap_t *heap, plait__node_t *node, uint32_t count);

/* Gives the longest unused FREE runs back to the region until at most `keep` spans are retained. */
void plait__heap_evict(plait_heap_t *heap, uint32_t keep);

/* ---- heap_check.c ---- */

/* plait_heap_is_valid without what lies in shared memory, which may be broken by another
 * process. */
bool plait__heap_is_valid_locally(const plait_heap_t *heap);

/* ---- heap_page.c ---- */

/* Makes a page of the class available; false: no memory. */
bool plait__heap_add_page(plait_heap_t *heap, uint32_t class_index);

/* Gives the memory of an empty page back to the free runs. */
void plait__heap_retire_page(plait_heap_t *heap, plait__page_t *page);

/* What follows after an available page gave its last block away. */
void plait__page_became_full(plait_heap_t *heap, plait__page_t *page);

/* What follows after blocks of a page came back, that `was_full` before. The page may be gone
 * afterwards. */
void plait__page_gained(plait_heap_t *heap, plait__page_t *page, bool was_full);

/* Makes the freed blocks of the spans that are marked as pending the owner's again. */
void plait__heap_collect(plait_heap_t *heap);

/* The same for all spans, by the block bits alone: also finds what a killed process did not
 * announce. */
void plait__heap_sweep(plait_heap_t *heap);

/* Collect, then find or sweep for a run; NULL: the region is full. */
plait__node_t *plait__heap_acquire_run(plait_heap_t *heap, uint32_t count);

/* ---- the fast paths ---- */

/* Takes a block from an available page. */
static inline void *plait__page_take(plait_heap_t *heap, plait__page_t *page)
{
    uint32_t index = page->free_count > 0 ? page->free[--page->free_count] : page->fresh++;
    plait__bit_set(page->live_bits, index);
    if (++page->live == page->capacity)
        plait__page_became_full(heap, page);
    return page->base + (size_t)index * page->block_size;
}

/* The live block at this offset in the page, or PLAIT__NO_BLOCK. */
#define PLAIT__NO_BLOCK UINT32_MAX
static inline uint32_t plait__page_find(const plait__page_t *page, uint32_t offset)
{
    uint32_t index = (uint32_t)((uint64_t)offset * page->reciprocal >> 32);
    if (index * page->block_size != offset || index >= page->capacity ||
        !plait__bit_get(page->live_bits, index))
        return PLAIT__NO_BLOCK;
    return index;
}

static inline void plait__page_push_free(plait__page_t *page, uint32_t index)
{
    plait__bit_clear(page->live_bits, index);
    page->free[page->free_count++] = (uint16_t)index;
}

/* Puts a live block back. The page may be gone afterwards. */
static inline void plait__page_put(plait_heap_t *heap, plait__page_t *page, uint32_t index)
{
    plait__page_push_free(page, index);
    bool was_full = page->live-- == page->capacity;
    if (was_full || page->live == 0)
        plait__page_gained(heap, page, was_full);
}

#endif
