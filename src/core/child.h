/* child: a process of our own that answers requests, and how its end is noticed.
 *
 * A small thread of its own starts it, sleeps until the process has ended, reaps it, and tells the
 * channel, so that whoever waits for the child hears of its death as of an answer: at once and without
 * polling. The system kills a child with the thread that started it, so one may serve whom it likes,
 * one after another: it ends with this process, whatever ends that.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_CHILD_H
#define PLAIT_CORE_CHILD_H

#include "core/channel.h"

/* How a child ended. */
typedef struct plait_child_death {
    int pid;
    plait_prim_end_t end;
    int number; /* exit status or signal */
} plait_child_death_t;

typedef struct plait_child {
    /* const while it lives */
    plait_prim_child_t process;
    plait_prim_thread_t watcher;
    /* see channel.h */
    plait_channel_t channel;
    /* the watcher's, until it has ended */
    plait_child_death_t death;
} plait_child_t;

/* Starts `program` with `arguments`, which end with NULL, and an environment, as prim does; it finds
 * its channel at PLAIT_PRIM_CHILD_DESCRIPTOR. PLAIT_OK, or an error that leaves nothing. Blocks for as
 * long as exec takes. The child stays where it is in memory. */
int plait_child_start(plait_child_t *child, const char *program, const char *const *arguments,
                      const char *const *environment);

/* Whether it has ended; then nothing is left of the process. Does not block. */
bool plait_child_has_ended(plait_child_t *child);

/* Its owner: waits for the child's end, at most until the deadline and then kills it; says how it
 * ended, and gives back all that it used. */
void plait_child_end(plait_child_t *child, int64_t deadline, plait_child_death_t *death);

#endif
