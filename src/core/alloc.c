/* alloc: the C library's allocator as a plait_alloc_t.
 *
 * Any thread. malloc aligns to 16 bytes on every system that plait runs on, as plait/alloc.h
 * promises.
 */
#include "plait/alloc.h"

#include <stdlib.h>

#include "prim/prim.h"

static void *expect_filling(void *block, size_t size)
{
    if (size >= PLAIT_PRIM_LARGE && block != NULL)
        plait_prim_expect_filling(block, size);
    return block;
}

static void *system_allocate(void *context, size_t size)
{
    (void)context;
    /* malloc(0) may return NULL, which means "no memory" here */
    return expect_filling(malloc(size != 0 ? size : 1), size);
}

static void *system_resize(void *context, void *block, size_t size)
{
    (void)context;
    /* realloc(block, 0) might free the block */
    return expect_filling(realloc(block, size != 0 ? size : 1), size);
}

static void system_release(void *context, void *block)
{
    (void)context;
    free(block);
}

_Static_assert(_Alignof(max_align_t) >= 16, "malloc aligns to less than plait/alloc.h promises");

const plait_alloc_t plait_alloc_system = {
    .context = NULL,
    .allocate = system_allocate,
    .resize = system_resize,
    .release = system_release,
};
