/* template: a process of our own that has prepared something, and of which copies are made by fork: a
 * child that starts as one has it prepared, too, and shares the memory.
 *
 * It has one thread, so that a fork of it is safe. It answers over a socket, one question at a time.
 * Copies are its children, not this process's: it says how they ended, and they end with it, as it does
 * with this process.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_TEMPLATE_H
#define PLAIT_CORE_TEMPLATE_H

#include "core/watch.h"

/* ---- this process's side ---- */

typedef struct plait_template {
    plait_watch_t watch; /* first */
    PLAIT_ATOMIC(uint32_t) references;
    PLAIT_ATOMIC(uint32_t) ended;  /* a wait word: 1 when the process has */
    PLAIT_ATOMIC(uint32_t) served; /* 1 when it has answered something */
    plait_prim_lock_t lock;        /* for a question and its answer */
    int socket;
} plait_template_t;

/* Starts one, with a reference, the caller's: as plait_prim_child_start, and blocks for as long as exec
 * takes. It finds its socket at PLAIT_PRIM_CHILD_DESCRIPTOR. PLAIT_OK, or an error that leaves
 * nothing. */
int plait_template_start(plait_template_t **template, const char *program,
                         const char *const *arguments, const char *const *environment);

/* Any thread. The last release ends the process, and waits for that. */
void plait_template_retain(plait_template_t *template);
void plait_template_release(plait_template_t *template);

int plait_template_pid(const plait_template_t *template);

/* Whether the process has ended. Any thread, does not block. */
bool plait_template_has_ended(plait_template_t *template);

/* Whether it has ever been ready. Any thread, does not block. */
bool plait_template_has_served(plait_template_t *template);

/* Any thread with a reference: has a copy of the process made, which finds its end of a pair of sockets
 * at PLAIT_PRIM_CHILD_DESCRIPTOR, begins as plait_prim_child_start says, and is a child of the
 * template's. Blocks until the template is ready. PLAIT_OK; PLAIT_CLOSED: it has ended, or wrote
 * nonsense; PLAIT_UNSUPPORTED: it has threads and will never make one; PLAIT_NOMEM: not now. */
int plait_template_copy(plait_template_t *template, int socket, plait_prim_child_t *copy);

/* Any thread with a reference, once for each copy, after its end: as plait_prim_child_reap. */
plait_prim_end_t plait_template_reap(plait_template_t *template, int pid, int *number);

/* Any thread with a reference: waits for the process's end, at most until the deadline, 0 for none, and
 * then kills it; says how it ended. */
void plait_template_end(plait_template_t *template, int64_t deadline, plait_child_death_t *death);

/* ---- the template's side, its only thread ---- */

/* Early, once: ends with the process that has started it. False: that has ended, or nothing is heard
 * of it. */
bool plait_template_open(void);

/* Blocks until a copy is wanted, and answers what else is asked. PLAIT_OK with the socket that the copy
 * is to have; PLAIT_CLOSED: nobody needs it any more; PLAIT_INTERRUPTED. */
int plait_template_hear(int *socket);

/* After the fork: in the template, the copy's pid, negative where none could be made; in the copy. */
void plait_template_made(int socket, int pid);
void plait_template_become(int socket);

#endif
