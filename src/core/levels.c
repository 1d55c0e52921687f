/* levels: one injector per level.
 *
 * Invariant: the bit of a level is set in `used` before anything is pushed to it, and stays; so
 * whoever must see an item (park.md, life.c) sees its bit as well. Design: docs/design/sched.md
 */
#include "core/levels.h"

static uint32_t level_bit(unsigned level)
{
    return (uint32_t)1 << level;
}

int plait_levels_init(plait_levels_t *levels, const plait_alloc_t *alloc)
{
    plait_atomic_init(&levels->used, level_bit(PLAIT_LEVEL_NORMAL));
    for (unsigned level = 0; level < PLAIT_LEVELS; level++) {
        int result = plait_inject_init(&levels->queues[level], alloc);
        if (result != PLAIT_OK) {
            while (level-- > 0)
                plait_inject_fini(&levels->queues[level]);
            return result;
        }
    }
    return PLAIT_OK;
}

void plait_levels_fini(plait_levels_t *levels)
{
    for (unsigned level = 0; level < PLAIT_LEVELS; level++)
        plait_inject_fini(&levels->queues[level]);
}

int plait_levels_push_mpmc(plait_levels_t *levels, unsigned level, void *item)
{
    /* acquire: who sees the bit of another pusher passes it on with its own push */
    if (!(plait_atomic_load_acquire(&levels->used) & level_bit(level)))
        plait_atomic_or_seq_cst(&levels->used, level_bit(level));
    return plait_inject_push_mpmc(&levels->queues[level], item);
}

int plait_levels_pop_mpmc(plait_levels_t *levels, unsigned first, unsigned end, void **item)
{
    uint32_t used = plait_atomic_load_acquire(&levels->used); /* pairs with push */
    for (used = used >> first << first; used != 0; used &= used - 1) {
        unsigned level = (unsigned)__builtin_ctz(used);
        if (level >= end)
            break;
        if (plait_inject_pop_mpmc(&levels->queues[level], item) == PLAIT_OK)
            return PLAIT_OK;
    }
    return PLAIT_EMPTY;
}

bool plait_levels_is_empty(plait_levels_t *levels)
{
    uint32_t used = plait_atomic_load_acquire(&levels->used); /* pairs with push */
    for (; used != 0; used &= used - 1)
        if (!plait_inject_is_empty(&levels->queues[__builtin_ctz(used)]))
            return false;
    return true;
}
