/* child: a process of our own that answers requests, and how its end is noticed.
 *
 * Its watcher tells the channel when it has ended, so that whoever waits for the child hears of its
 * death as of an answer: at once and without polling. It ends with this process, so it may serve whom
 * it likes, one after another.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_CHILD_H
#define PLAIT_CORE_CHILD_H

#include "core/channel.h"
#include "core/template.h"

typedef struct plait_child {
    plait_watch_t watch; /* first */
    /* const while it lives; a reference, NULL where it was started by a command */
    plait_template_t *origin;
    /* see channel.h */
    plait_channel_t channel;
} plait_child_t;

/* Starts `program` with `arguments`, which end with NULL, and an environment, as prim does; it finds
 * its channel at PLAIT_PRIM_CHILD_DESCRIPTOR. PLAIT_OK, or an error that leaves nothing. Blocks for as
 * long as exec takes. The child stays where it is in memory. */
int plait_child_start(plait_child_t *child, const char *program, const char *const *arguments,
                      const char *const *environment);

/* Starts one that is a copy of the template's process: results as of plait_template_copy, or an error of
 * starting; blocks as that does. */
int plait_child_copy(plait_child_t *child, plait_template_t *origin);

/* Whether it has ended; then nothing is left of the process. Does not block. */
bool plait_child_has_ended(plait_child_t *child);

/* Its owner: waits for the child's end, at most until the deadline and then kills it; says how it
 * ended, and gives back all that it used. */
void plait_child_end(plait_child_t *child, int64_t deadline, plait_child_death_t *death);

#endif
