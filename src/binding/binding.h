/* binding: what the files of the binding share.
 *
 * Each interpreter that imports plait._plait has a module state of its own; nothing here is a
 * mutable C global. What several interpreters touch (tasks, messages, shipments, pools' shared
 * parts) is plain C memory under the core's atomics and holds no Python object of another
 * interpreter. The one exception, a thread worker's task, holds objects of the interpreter that
 * both its submitter and its worker run in.
 */
#ifndef PLAIT_BINDING_H
#define PLAIT_BINDING_H

#include "binding/call.h" /* first: it includes Python.h */
#include "binding/output.h"

/* ---- pool.c ---- */

typedef struct pool_object {
    PyObject_HEAD
    pool_core_t *core; /* NULL before __init__ */
    PyObject *module;  /* as long as the pool: at the exit its type may be cleared before it */
    shipper_t *shipper;
    bool handle;   /* whether it holds a handle of the scheduler */
    bool attached; /* found in a worker: its end is not the pool's end */
} pool_object;

/* 0, or -1 with an exception: not initialised, or made before a fork. */
int pool_check(pool_object *pool);

/* Waits until the workers of all pools that are gone have ended. 0, or -1 with an exception. */
int pool_join_orphans(module_state *state);

/* -1 with an exception in a child that has inherited a pool, a future or a map (`what`) from its parent. */
int raise_if_inherited(uint32_t fork_count, const char *what);

/* What a call or a map is submitted under. */
typedef struct call_options {
    unsigned level;
    int64_t deadline; /* PLAIT_PRIM_FOREVER: none */
    uint32_t retries; /* process kind: see call_t */
} call_options_t;

/* Sets the exception for what submitting answered. Always returns NULL. */
PyObject *raise_submit_error(module_state *state, pool_object *pool, int code);

extern PyType_Spec pool_spec;

/* ---- future.c ---- */

extern PyType_Spec future_spec;

/* A Future of the class that plait._future registered; takes over one reference to the call. A call
 * of NULL gives a future that failed already, with the exception that is being raised. */
PyObject *future_new(module_state *state, call_t *call);

/* The futures whose tasks the mailbox gave, to be published. A list; None when closed; NULL on an
 * exception. */
PyObject *future_take_finished(module_state *state);

/* ---- map.c ---- */

extern PyType_Spec map_spec;

typedef struct map_options {
    bool star, ordered;
    bool lazy;       /* take one block of the input now, and more when asked */
    int64_t timeout; /* when waiting for a result ends */
    uint64_t window; /* 0: the default limits */
    call_options_t call;
} map_options_t;

PyObject *map_start(module_state *state, pool_object *pool, PyObject *callable, PyObject *iterator,
                    const map_options_t *options);

uint64_t map_run_items(worker_data_t *data, plait_job_t *job, uint64_t low, uint64_t high);
void map_abandon_items(plait_sched_t *sched, plait_job_t *job, uint64_t low, uint64_t high);

/* ---- serve.c ---- */

/* In a process worker's child: does what its parent asks until it is told to end. None, or NULL with
 * an exception. */
PyObject *serve(void);

/* serve_template.c, in the process that children are copies of: makes copies until nobody needs any
 * more; true in each copy, which is a child yet to serve. */
bool template_serve(void);

/* In a process worker's child, on its main thread: the worker; else NULL. */
worker_data_t *serve_current(void);

/* What is finished of the present request, for the parent to find if this process dies. */
void service_note(struct service *service, uint64_t finished, size_t used);

/* Whether this process is to be interrupted in what it runs; says so once. */
bool service_use_interrupt(worker_data_t *data);
void service_put_interrupt_back(worker_data_t *data);

/* serve_nested.c, the main thread while a call waits: the parent has something of its pool run here, if
 * there is anything; `own`: only what this child has submitted. Whether there was. */
bool service_help(struct service *service, bool own);

/* An encoder that writes where the parent can find it; `full`: it had not enough room since. NULL
 * where it is in use already, by items that wait. */
kept_encoder_t *service_desk(struct service *service, bool **full);

/* ---- fork.c ---- */

/* Once per process is enough: prepares the child of every fork from now on. */
void watch_forks(void);

/* With a thread state. */
static inline bool is_in_main_interpreter(void)
{
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

/* ---- waiting ---- */

/* Seconds from a Python argument (None: never) to a core deadline. 0, or -1 with an exception. */
int deadline_from_timeout(PyObject *timeout, int64_t *deadline);

/* The worker whose thread this is, also in a process worker's child; or NULL. */
worker_data_t *worker_of_thread(void);

/* One step of a wait of the calling thread for something that `sched` may have to do: a worker of
 * it, and after a while of another, runs something else that is queued there, if there is anything,
 * and *stepped says so. *since: 0 at the beginning of the wait, and then this function's. 0, or -1
 * with an exception. */
int help_while_waiting(uint64_t sched_id, int64_t *since, bool *stepped);

/* The deadline of one sleep of a longer wait: signals that arrive between two sleeps are seen by
 * the next. */
int64_t deadline_of_sleep(int64_t deadline);

#endif
