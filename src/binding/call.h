/* call: one submitted call, its answer, context and deadline; how it is interrupted. */
#ifndef PLAIT_BINDING_CALL_H
#define PLAIT_BINDING_CALL_H

#include "binding/worker.h" /* first: it includes Python.h */
#include "plait/task.h"
#include "plait/timer.h"

/* ---- call.c: one submitted call ---- */

typedef enum outcome {
    OUTCOME_VALUE,
    OUTCOME_EXCEPTION,
    OUTCOME_BROKEN,
    OUTCOME_CANCELLED,
    OUTCOME_DIED, /* the worker's process, see write_death */
    /* see deadline.c */
    OUTCOME_EXPIRED,        /* its deadline passed before it was begun */
    OUTCOME_LATE,           /* its deadline passed, then it returned something */
    OUTCOME_LATE_EXCEPTION, /* likewise, then it raised this */
    OUTCOME_KILLED          /* likewise, then its process was killed: as OUTCOME_DIED */
} outcome_t;

/* What a worker has to say: a message, or (thread kind) an object of the interpreter it shares with
 * the asker. */
typedef struct answer {
    outcome_t outcome;
    message_t message;
    PyObject *object;
} answer_t;

typedef struct call {
    plait_task_t task; /* first: the scheduler knows this part only */
    pool_kind kind;
    uint32_t retries;    /* process kind: how often it may yet be run again after a death */
    uint64_t sched_id;   /* of the scheduler it was submitted to */
    uint32_t fork_count; /* of its pool */
    PLAIT_ATOMIC(uint32_t) interrupted; /* 0, 1, or a proxy's MARK_SENT */
    struct deadline *deadline;          /* NULL: none */
    struct nested *nested;              /* NULL, or what nested.h says */
    answer_t answer;                    /* written by the worker before the task is done */
    PyObject
        *watcher; /* the Future to be published, a reference, while the notifier is asked for */
    union {
        struct { /* interpreter and process kind */
            shipment_t *function;
            shipment_t *context; /* NULL: no variable travels */
            message_t arguments;
        } flat;
        struct { /* thread kind: references of the submitter's interpreter */
            PyObject *callable;
            PyObject *keyword_names;
            PyObject *context; /* a copy of the submitter's; NULL: no variable is set */
            Py_ssize_t count;
        } direct;
    };
    uint64_t tail[]; /* thread kind: the arguments; else room for a small message */
} call_t;

static inline PyObject **call_arguments(call_t *call)
{
    return (PyObject **)(void *)call->tail;
}

call_t *call_new_flat(module_state *state, shipper_t *shipper, PyObject *callable,
                      PyObject *const *args, Py_ssize_t positional, PyObject *keyword_names);
call_t *call_new_direct(PyObject *callable, PyObject *const *args, Py_ssize_t positional,
                        PyObject *keyword_names);

/* The result of a generator function is the list of what it yields: run by the worker, as any other
 * function, instead of by whoever asks. Steals `result`, which may be NULL. */
static inline PyObject *run_generator(PyObject *result)
{
    if (result != NULL && PyGen_CheckExact(result))
        Py_SETREF(result, PySequence_List(result));
    return result;
}

/* Worker: runs it and writes its outcome. */
void call_run(worker_data_t *data, call_t *call);
void call_drop_arguments(call_t *call);

/* A flat call without function and arguments. NULL with an exception; the second needs no
 * interpreter and sets none. */
call_t *call_new_empty(void);
call_t *call_new_bare(void);

/* A call that nobody runs: it is done, with None, as soon as somebody says so. NULL with an
 * exception. */
call_t *call_new_signal(void);

/* Any thread, once: says so, and gives the reference up. */
void call_signal(call_t *call);

/* The answer as the asker's own objects: the value, or NULL with *exception set (a new reference,
 * not raised) or, where even that failed, with an exception raised. */
PyObject *answer_decode(module_state *state, const answer_t *answer, PyObject **exception);
void answer_clear(answer_t *answer);

/* Worker: the answer to what just raised. */
void answer_raised(worker_data_t *data, answer_t *answer);

/* Any thread, no interpreter needed: the answer of a broken pool. */
void answer_broken(pool_core_t *core, answer_t *answer);

/* Any thread: as plait_task_cancel, also where a worker has taken it ahead of those before it. */
bool call_cancel(call_t *call, bool *first);

/* An op of the scheduler, of every kind: a call that it does not run gets that answer. */
void call_abandon(plait_sched_t *sched, plait_task_t *task);

/* Makes an exception object out of the one that is being raised. New reference; never NULL. */
PyObject *take_raised(void);

/* Raised exception -> message that travels. Never fails: falls back to a plainer stand-in. */
void exception_to_message(module_state *state, message_t *message);

/* The other way: a new exception object, or NULL with an exception raised. */
PyObject *exception_from_message(module_state *state, const message_t *message);

/* Marks the pool as broken, once: by the exception that is being raised (which it clears; `state`
 * may be NULL where no interpreter could be had), or by a text. */
void core_failed(pool_core_t *core, module_state *state, const char *text);

/* Likewise, by a message that exception_to_message has made, which it takes over. */
void core_failed_by(pool_core_t *core, message_t *message);

/* A message for exception_from_message that stands for an exception of that name. Needs no
 * interpreter. */
void message_stand_in(const char *name, message_t *message);

/* ---- context.c: context variables ---- */

/* A copy of the calling thread's context, NULL if no variable is set in it. False with an
 * exception. */
bool context_capture(PyObject **copy);

/* Likewise for workers of other interpreters: what of it can travel; NULL for nothing. */
bool context_ship(module_state *state, shipper_t *shipper, shipment_t **shipment);

/* The worker, after the initializer, and at its end. False with an exception. */
bool context_settle(worker_data_t *data);
void context_end(worker_data_t *data);

/* Not for threads: a context of its own for one call, made of what was sent. A new reference, or
 * NULL with an exception. */
PyObject *worker_context(worker_data_t *data, shipment_t *shipment);

bool context_enter_other(worker_data_t *data, PyObject *brought, PyObject **entered);
void context_leave_other(worker_data_t *data, PyObject *entered);

/* The worker, around a call, in the context that it brought (stolen), or NULL. False with an
 * exception. What raised in between is still raised after leaving. */
static inline bool context_enter(worker_data_t *data, PyObject *brought, PyObject **entered)
{
    *entered = NULL;
    return (brought == NULL && data->base == NULL && data->thread_state->context == NULL) ||
           context_enter_other(data, brought, entered);
}

static inline void context_leave(worker_data_t *data, PyObject *entered)
{
    if (data->thread_state->context != NULL)
        context_leave_other(data, entered);
}

/* ---- deadline.c ---- */

typedef struct deadline deadline_t;

/* Before the call is submitted: gives it a deadline, unless `time` is PLAIT_PRIM_FOREVER. PLAIT_OK,
 * PLAIT_NOMEM or PLAIT_SYSTEM. */
int deadline_start(call_t *call, int64_t time);

/* The worker that has run a call with a deadline and written its answer, before it completes it. */
void deadline_settle(call_t *call);

/* The owner of a timer: when it returns, the timer is idle. Attached or not. */
void timer_end(plait_timer_t *timer);

/* ---- interrupt.c ---- */

/* Any thread, with a thread state or without: has Interrupted raised in a call that runs; false if it
 * is final already. Blocks until the interpreter that runs it lets the caller in. */
bool interrupt_call(call_t *call);

/* Process kind, any thread: kills the process that runs the call, if one does. */
void kill_call(call_t *call);

/* Likewise for whatever workers run of a map's items, after the stream's `expired` was set. How many
 * workers that are. */
unsigned interrupt_items(uint64_t sched_id, uint64_t stream);
unsigned kill_items(uint64_t sched_id, uint64_t stream);
unsigned count_items(uint64_t sched_id, uint64_t stream); /* does nothing to them */

/* Has Interrupted raised in whatever the workers of a closed and drained pool still run. */
void interrupt_workers(pool_core_t *core);

/* What is to be interrupted: a call, the items of a stream, a request of the parent's, or, all zero,
 * whatever runs. */
typedef struct target {
    call_t *call;
    uint64_t stream, request;
} target_t;

/* Whether the worker runs it: of others a snapshot, unless they are held by their locks. */
bool worker_runs(worker_data_t *data, const target_t *target);

/* Process kind. The parent, any thread: has the worker's child interrupt the target, if it runs it;
 * or ends the child at once. */
void interrupt_process(worker_data_t *data, const target_t *target);
void kill_process(worker_data_t *data, const target_t *target);

/* The child, with a thread state: has Interrupted raised in the request, if that runs. */
void interrupt_request(worker_data_t *data, uint64_t number);

/* The worker, around a call: what was its current one before is `below`. */
static inline call_t *begin_call(worker_data_t *data, call_t *call)
{
    call_t *below = plait_atomic_load_relaxed(&data->current); /* relaxed: written by this thread */
    /* seq_cst: either the interrupter finds the call here, or the worker then finds its mark */
    plait_atomic_store_seq_cst(&data->current, call);
    return below;
}

/* After a change of the current call: takes back an exception that was set for the one before and
 * has not been delivered. Whether there was one. */
bool take_interrupt_back(worker_data_t *data);

static inline void end_call(worker_data_t *data, call_t *below)
{
    plait_atomic_store_seq_cst(&data->current, below);
    /* seq_cst: either the interrupter then sees the change, or its mark is seen here */
    if (plait_atomic_load_seq_cst(&data->struck))
        take_interrupt_back(data);
}

/* A worker's own interpreter: an interrupt that is raised in a finalizer, which can only report it,
 * is raised again after it. 0, or -1 with an exception. */
int watch_finalizers(worker_data_t *data);

/* The worker, before it runs other items on top of a call that waits: no call is current until
 * end_call() with the result. */
call_t *set_call_aside(worker_data_t *data);

/* What is current while the worker runs items of a map; not to be looked into. */
static inline call_t *items_of(worker_data_t *data)
{
    return (call_t *)(void *)data;
}

/* Whether a call that has just become current, or items that have, are to be interrupted. */
static inline bool is_marked(worker_data_t *data, call_t *current)
{
    return plait_atomic_load_seq_cst(current == items_of(data) ? data->items_expired
                                                               : &current->interrupted) != 0;
}

/* The worker, as it begins a call and where it goes on with one: -1 with Interrupted raised, or 0. */
int raise_if_interrupted(worker_data_t *data);

/* Likewise where a call waits and runs no bytecode: also for what was set to be raised by the next
 * bytecode. */
int raise_if_interrupted_in_wait(worker_data_t *data);

/* The worker, attached, before its first and after its last call. */
void join_members(worker_data_t *data);
void leave_members(worker_data_t *data);

#endif
