/* A caller's allocator: how the core gets memory without knowing whose it is.
 *
 * Blocks are aligned to 16 bytes at least. All three functions may be called from any thread unless
 * the allocator's own documentation narrows that.
 */
#ifndef PLAIT_ALLOC_H
#define PLAIT_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plait_alloc {
    void *context;
    /* A block of `size` bytes, or NULL. The caller owns it. */
    void *(*allocate)(void *context, size_t size);
    /* Grows or shrinks a block, possibly moving it; `block` may be NULL. On NULL the old block
     * stays. */
    void *(*resize)(void *context, void *block, size_t size);
    /* Gives a block back; NULL is allowed. */
    void (*release)(void *context, void *block);
} plait_alloc_t;

/* The C library's malloc, realloc and free. */
extern const plait_alloc_t plait_alloc_system;

#ifdef __cplusplus
}
#endif
#endif
