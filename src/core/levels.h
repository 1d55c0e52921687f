/* levels: the queues through which work of different urgency enters a pool from outside.
 *
 * One injector (inject.h) per level, level 0 the most urgent. Levels that nobody has used cost a
 * look at one word. Design: docs/design/sched.md
 */
#ifndef PLAIT_CORE_LEVELS_H
#define PLAIT_CORE_LEVELS_H

#include "core/inject.h"
#include "plait/levels.h"

typedef struct plait_levels {
    plait_inject_t queues[PLAIT_LEVELS];
    /* Bit i: something was pushed to level i, once. Written by the first pusher of each level, read
     * by every search. */
    PLAIT_ATOMIC(uint32_t) used;
    char pad[PLAIT_PRIM_CACHE_LINE];
} plait_levels_t;

/* `alloc` outlives it. PLAIT_OK or PLAIT_NOMEM. */
int plait_levels_init(plait_levels_t *levels, const plait_alloc_t *alloc);

/* As plait_inject_fini. */
void plait_levels_fini(plait_levels_t *levels);

/* Any thread, as plait_inject_push_mpmc. */
int plait_levels_push_mpmc(plait_levels_t *levels, unsigned level, void *item);

/* Any thread: the oldest item of the most urgent level from `first` to before `end`: PLAIT_OK or
 * PLAIT_EMPTY. */
int plait_levels_pop_mpmc(plait_levels_t *levels, unsigned first, unsigned end, void **item);

/* Any thread, as the pop: whether there is anything to look for in other levels than the normal one.
 * False is what it costs a pool that does not use them. */
static inline bool plait_levels_are_used(plait_levels_t *levels)
{
    /* acquire: pairs with push */
    return plait_atomic_load_acquire(&levels->used) != (uint32_t)1 << PLAIT_LEVEL_NORMAL;
}

/* Any thread, as plait_inject_is_empty, for all levels. */
bool plait_levels_is_empty(plait_levels_t *levels);

#endif
