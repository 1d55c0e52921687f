/* block: memory for large messages.
 *
 * Invariants: a block is in the list from when it is final until its last reference goes, if it
 * keeps its descriptor; so many keep theirs as leave the program most of what it may have. Who may
 * call: see block.h. Design: docs/design/process.md
 */
#include "core/block.h"

#include <stdlib.h>

/* What part of a process's descriptors blocks take at most. */
#define SHARE 4

/* The process's blocks: there is one address space. */
static plait_prim_lock_t lock;
static plait_block_t *listed;
static PLAIT_ATOMIC(uint32_t) descriptors; /* kept by blocks, drafts too */

static bool take_descriptor(void)
{
    int limit = plait_prim_descriptor_limit() / SHARE;
    /* Relaxed: only a number; who comes too late goes without. */
    if (plait_atomic_add_relaxed(&descriptors, 1u) < (uint32_t)limit)
        return true;
    plait_atomic_sub_acq_rel(&descriptors, 1u);
    return false;
}

static void give_descriptor(void)
{
    plait_atomic_sub_acq_rel(&descriptors, 1u);
}

static plait_block_t *block_new(void)
{
    plait_block_t *block = calloc(1, sizeof *block);
    if (block != NULL)
        plait_atomic_init(&block->references, 1);
    return block;
}

static void add_to_list(plait_block_t *block)
{
    plait_prim_lock(&lock);
    block->is_listed = true;
    block->next = listed;
    block->link = &listed;
    if (listed != NULL)
        listed->link = &block->next;
    listed = block;
    plait_prim_unlock(&lock);
}

static void take_from_list(plait_block_t *block)
{
    plait_prim_lock(&lock);
    if (block->is_listed) {
        *block->link = block->next;
        if (block->next != NULL)
            block->next->link = block->link;
        block->is_listed = false;
    }
    plait_prim_unlock(&lock);
}

int plait_block_draft(plait_block_t **made, size_t size)
{
    if (!take_descriptor())
        return PLAIT_FULL;
    plait_block_t *block = block_new();
    int result = block == NULL ? PLAIT_NOMEM : plait_prim_draft_create(&block->map, size);
    if (result == PLAIT_OK) {
        *made = block;
        return PLAIT_OK;
    }
    free(block);
    give_descriptor();
    return result;
}

int plait_block_resize(plait_block_t *block, size_t size)
{
    return plait_prim_draft_resize(&block->map, size);
}

int plait_block_seal(plait_block_t *block, size_t size)
{
    int result = plait_prim_draft_seal(&block->map, size);
    if (result == PLAIT_OK) {
        add_to_list(block);
    } else {
        free(block);
        give_descriptor();
    }
    return result;
}

int plait_block_open(plait_block_t **opened, int descriptor)
{
    plait_block_t *block = block_new();
    int result = block == NULL ? PLAIT_NOMEM : plait_prim_sealed_open(&block->map, descriptor);
    if (result != PLAIT_OK) {
        plait_prim_descriptor_close(descriptor);
        free(block);
        return result;
    }
    if (take_descriptor())
        add_to_list(block);
    else
        plait_prim_map_forget_descriptor(&block->map);
    *opened = block;
    return PLAIT_OK;
}

void plait_block_retain(plait_block_t *block)
{
    if (block != NULL)
        plait_atomic_add_relaxed(&block->references, 1); /* relaxed: the caller holds one */
}

void plait_block_release(plait_block_t *block)
{
    /* acq_rel: what others did with it comes before its end */
    if (block == NULL || plait_atomic_sub_acq_rel(&block->references, 1) != 1)
        return;
    take_from_list(block);
    if (block->map.descriptor >= 0)
        give_descriptor();
    plait_prim_map_close(&block->map);
    free(block);
}

plait_block_t *plait_block_lend(plait_block_t *block, size_t offset, size_t size)
{
    plait_prim_lock(&lock);
    bool first = offset >= block->lent;
    if (first)
        block->lent = offset + size;
    plait_prim_unlock(&lock);
    if (first) {
        plait_block_retain(block);
        return block;
    }
    int descriptor =
        block->map.descriptor < 0 ? -1 : plait_prim_descriptor_copy(block->map.descriptor);
    plait_block_t *another;
    if (descriptor < 0 || plait_block_open(&another, descriptor) != PLAIT_OK)
        return NULL;
    return another;
}

static bool holds(const plait_block_t *block, const void *at, size_t size)
{
    uintptr_t start = (uintptr_t)block->map.base, from = (uintptr_t)at;
    return from >= start && from - start <= block->map.size &&
           size <= block->map.size - (from - start);
}

plait_block_t *plait_block_find(const void *at, size_t size)
{
    plait_block_t *found;
    plait_prim_lock(&lock);
    for (found = listed; found != NULL && !holds(found, at, size); found = found->next)
        continue;
    /* One that holds the caller's bytes is held by their owner: it is not about to go. */
    plait_block_retain(found);
    plait_prim_unlock(&lock);
    if (found == NULL || plait_prim_sealed_is_unchanged(at, size))
        return found;
    plait_block_release(found);
    return NULL;
}

void plait_block_after_fork(void)
{
    lock.word = 0;
    for (plait_block_t *block = listed; block != NULL; block = block->next)
        block->is_listed = false;
    listed = NULL;
}

/* ---- bundles ---- */

plait_bundle_t *plait_bundle_new(unsigned count)
{
    plait_bundle_t *bundle = calloc(1, sizeof *bundle + count * sizeof(plait_block_t *));
    if (bundle != NULL)
        bundle->count = count;
    return bundle;
}

void plait_bundle_free(plait_bundle_t *bundle)
{
    for (unsigned index = 0; bundle != NULL && index < bundle->count; index++)
        plait_block_release(bundle->blocks[index]);
    free(bundle);
}
