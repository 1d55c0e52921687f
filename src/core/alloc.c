/* alloc: the C library's allocator as a plait_alloc_t.
 *
 * Any thread. malloc aligns to 16 bytes on every system that plait runs on, as plait/alloc.h
 * promises.
 */
#include "plait/alloc.h"

#include <stdlib.h>

static void *system_allocate(void *context, size_t size)
{
    (void)context;
    return malloc(size != 0 ? size
                            : 1); /* malloc(0) may return NULL, which means "no memory" here */
}

static void *system_resize(void *context, void *block, size_t size)
{
    (void)context;
    return realloc(block, size != 0 ? size : 1); /* realloc(block, 0) might free the block */
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
