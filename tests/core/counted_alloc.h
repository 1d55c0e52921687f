/* counted_alloc: an allocator for tests that counts, and that fails when told to. */
#ifndef PLAIT_TESTS_CORE_COUNTED_ALLOC_H
#define PLAIT_TESTS_CORE_COUNTED_ALLOC_H

#include "plait/alloc.h"
#include "test.h"

struct counted {
    plait_alloc_t alloc;
    atomic_long live;  /* blocks not yet released */
    atomic_long calls; /* of allocate that gave a block */
    atomic_bool fails;
};

static inline void *counted_allocate(void *context, size_t size)
{
    struct counted *counted = context;
    if (atomic_load(&counted->fails))
        return NULL;
    atomic_fetch_add(&counted->live, 1);
    atomic_fetch_add(&counted->calls, 1);
    return malloc(size);
}

static inline void *counted_resize(void *context, void *block, size_t size)
{
    struct counted *counted = context;
    if (atomic_load(&counted->fails))
        return NULL;
    if (block == NULL)
        return counted_allocate(context, size);
    return realloc(block, size);
}

static inline void counted_release(void *context, void *block)
{
    struct counted *counted = context;
    if (block != NULL)
        atomic_fetch_sub(&counted->live, 1);
    free(block);
}

static inline void counted_init(struct counted *counted)
{
    counted->alloc = (plait_alloc_t){
        .context = counted,
        .allocate = counted_allocate,
        .resize = counted_resize,
        .release = counted_release,
    };
    atomic_init(&counted->live, 0);
    atomic_init(&counted->calls, 0);
    atomic_init(&counted->fails, false);
}

#endif
