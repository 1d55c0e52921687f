/* watch: a thread that has a process started, sleeps until it has ended, reaps it, and tells.
 *
 * The system kills a process with the thread that started it, so the thread lives as long as the
 * process, and the process ends with this one, whatever ends that.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_WATCH_H
#define PLAIT_CORE_WATCH_H

#include "core/atomic.h"
#include "prim/prim.h"

/* How a process ended. */
typedef struct plait_child_death {
    int pid;
    plait_prim_end_t end;
    int number; /* exit status or signal */
} plait_child_death_t;

typedef struct plait_watch plait_watch_t;

/* What the thread does, of the user's. */
typedef struct plait_watch_ops {
    /* Starts watch->process; `how` is the starter's. PLAIT_OK, or an error that leaves nothing. */
    int (*start)(plait_watch_t *watch, void *how);
    /* The process has ended: how. Nothing may be left of it. */
    plait_prim_end_t (*reap)(plait_watch_t *watch, int *number);
    /* Last: watch->death says how. */
    void (*tell)(plait_watch_t *watch);
} plait_watch_ops_t;

/* Part of what is watched, and stays where it is in memory. */
struct plait_watch {
    /* const while it lives */
    plait_prim_child_t process;
    plait_prim_thread_t thread;
    const plait_watch_ops_t *ops;
    /* the thread's, until it tells */
    plait_child_death_t death;
};

/* Blocks until `start` is done, and answers what that did; PLAIT_NOMEM or PLAIT_SYSTEM without a
 * thread. */
int plait_watch_start(plait_watch_t *watch, const plait_watch_ops_t *ops, void *how);

/* Any thread: waits for the process's end, at most until the deadline, 0 for none, and then kills it. */
void plait_watch_await(const plait_watch_t *watch, int64_t deadline);

/* Its owner, once: likewise; says how it ended, and gives back what it used. */
void plait_watch_end(plait_watch_t *watch, int64_t deadline, plait_child_death_t *death);

/* What starts a process by plait_prim_child_start. */
typedef struct plait_command {
    const char *program;
    const char *const *arguments, *const *environment;
    int socket; /* the process's, copied */
} plait_command_t;

/* Ops for such a process; `how` is the command. */
int plait_watch_run(plait_watch_t *watch, void *how);
plait_prim_end_t plait_watch_reap(plait_watch_t *watch, int *number);

#endif
