/* child: a process of our own that answers requests, and how its end is noticed.
 *
 * A small thread sleeps until the process has ended and then tells the channel, so that whoever
 * waits for the child hears of its death as of an answer: at once and without polling.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_CHILD_H
#define PLAIT_CORE_CHILD_H

#include "core/channel.h"

typedef struct plait_child {
    /* const while it lives */
    plait_prim_child_t process;
    plait_prim_thread_t watcher;
    /* see channel.h */
    plait_channel_t channel;
} plait_child_t;

/* How a child ended. */
typedef struct plait_child_death {
    int pid;
    plait_prim_end_t end;
    int number; /* exit status or signal */
} plait_child_death_t;

/* Starts `program` with `arguments`, which end with NULL, and an environment, as prim does; it finds its channel at
 * PLAIT_PRIM_CHILD_DESCRIPTOR. The calling thread must outlive the child, which is killed when it
 * ends. PLAIT_OK, or an error that leaves nothing. Blocks for as long as exec takes. */
int plait_child_start(plait_child_t *child, const char *program, const char *const *arguments,
                      const char *const *environment);

/* The starter: waits for the child's end, at most until the deadline and then kills it; says how it
 * ended, and gives back all that it used. */
void plait_child_end(plait_child_t *child, int64_t deadline, plait_child_death_t *death);

#endif
