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

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "binding/compat.h"
#include "binding/table.h"
#include "core/block.h"
#include "plait/flat.h"
#include "plait/mailbox.h"
#include "plait/sched.h"
#include "plait/task.h"
#include "plait/timer.h"

/* ---- module.c: the state of one interpreter's module ---- */

/* Interned attribute names. */
enum {
    NAME_MODULE,
    NAME_QUALNAME,
    NAME_START,
    NAME_STOP,
    NAME_STEP,
    NAME_STDOUT,
    NAME_STDERR,
    NAME_COUNT
};

enum { STREAM_STDOUT, STREAM_STDERR, STREAM_COUNT };

typedef struct module_state {
    PyTypeObject *pool_type;         /* PoolBase */
    PyTypeObject *future_type;       /* FutureBase */
    PyTypeObject *map_type;          /* MapIterator */
    PyTypeObject *lines_type;        /* Lines, see output.c */
    PyTypeObject *view_type;         /* SharedBytes, see sharing.c */
    PyObject *future_class;          /* plait.Future, told by plait._future; NULL before */
    PyObject *broken_class;          /* plait.BrokenPool, likewise */
    PLAIT_ATOMIC(PyObject *) travel; /* the module plait._travel; NULL until needed */
    PyObject *foreign_types; /* dict: type -> int, what encode.c knows of types outside builtins */
    PyObject *names[NAME_COUNT];
    PyObject *sys;              /* the module */
    struct worker_data *worker; /* whose interpreter this is, which outlives it; or NULL */
    PLAIT_ATOMIC(PyObject *) streams[STREAM_COUNT]; /* taken over last; not held, only compared */
    plait_mailbox_t notifier;                       /* watched futures that became final */
    plait_prim_lock_t orphan_lock;
    plait_sched_t **orphans; /* handles of pools that are gone while their workers finish */
    size_t orphan_count;     /* guarded by orphan_lock, as the handles */
    /* see isolation.h; NULL but in workers' interpreters */
    struct home *home;
    struct plait_images *images;
    PyObject *single_phase; /* dict: (name, path) -> module: such a one is made once */
    size_t unfit_images;    /* of modules that declare no support of own-GIL interpreters */
} module_state;

extern struct PyModuleDef plait_module_def;

static inline module_state *state_of_module(PyObject *module)
{
    return (module_state *)PyModule_GetState(module);
}

/* The state of the module that made the type of `self` or a base of it; never NULL. */
module_state *state_of_type(PyTypeObject *type);

/* Imports plait._travel once: pickling by value, exceptions that travel. Borrowed; NULL with an
 * exception. */
PyObject *state_travel(module_state *state);

/* ---- errors.c ---- */

/* Sets the Python exception for a core code (< 0 or an outcome that the caller did not expect);
 * `what` says what was being done. Always returns NULL. */
PyObject *raise_core_error(int code, const char *what);

/* Likewise, plait.DeadlineExceeded. */
PyObject *raise_deadline_exceeded(const char *text);

/* ---- messages ---- */

/* One flat value that owns its message, if it needs one at all: an int or None is the root word
 * alone. */
typedef struct message {
    plait_flat_value_t root;
    void *bytes; /* NULL where root is not a REF; else from plait_alloc_system, unless borrowed */
    size_t size;
    bool borrowed;          /* the bytes belong to whatever holds this message */
    plait_bundle_t *bundle; /* the blocks that it lies in or refers to; NULL: none */
    bool bundle_borrowed;   /* likewise */
} message_t;

void message_clear(message_t *message);

/* ---- encode.c ---- */

typedef struct sharing sharing_t;

typedef struct encoder {
    module_state *state;
    plait_flat_writer_t writer;
    table_t memo;       /* object address -> value of its body; holds a reference to each */
    bool alone;         /* the object whose container is opened next cannot be met again */
    sharing_t *sharing; /* NULL: it does not share, see sharing.c */
} encoder_t;

void encoder_init(encoder_t *encoder, module_state *state);
void encoder_fini(encoder_t *encoder);
void encoder_reset(encoder_t *encoder);

/* One object: natively if all of it can be, else the whole of it as one pickle. 0, or -1 with an
 * exception that names the object. */
int encode_object(encoder_t *encoder, PyObject *object, plait_flat_value_t *value);

/* A call's arguments: a TUPLE of the keyword names' tuple (or None) and then all values. */
int encode_call(encoder_t *encoder, PyObject *const *args, Py_ssize_t positional,
                PyObject *keyword_names, plait_flat_value_t *value);

/* Ends the message; the encoder can be used again. 0, or -1 with an exception. */
int encoder_finish(encoder_t *encoder, plait_flat_value_t root, message_t *message);

/* Likewise; a small message is copied to `room`, and the encoder keeps its block. */
int encoder_finish_into(encoder_t *encoder, plait_flat_value_t root, message_t *message, void *room,
                        size_t capacity);

/* An encoder that is kept from one use to the next. Encoding can run code that encodes: who finds
 * it taken gets the spare one instead, which lives for this use only. */
typedef struct kept_encoder {
    encoder_t encoder;
    bool taken;
} kept_encoder_t;

encoder_t *encoder_take(kept_encoder_t *kept, encoder_t *spare);
void encoder_give(kept_encoder_t *kept, encoder_t *encoder);

/* All of it in one: a message of its own for one object. */
int encode_message(module_state *state, PyObject *object, message_t *message);

/* ---- sharing.c ---- */

extern PyType_Spec view_spec;

/* After encoder_init: its messages go to another process and may lie in blocks. */
void encoder_share(encoder_t *encoder);

/* ---- decode.c ---- */

typedef struct decoder {
    module_state *state;
    plait_flat_reader_t reader;
    size_t budget;                /* see plait_flat_charge */
    const plait_bundle_t *bundle; /* the message's */
    table_t memo;                 /* offset of a shared body -> object; holds a reference to each */
    struct open_tuple *open;      /* shared tuples that are being filled, see decode.c */
    bool foreign;                 /* something in it was of no builtin type */
} decoder_t;

int decoder_open(decoder_t *decoder, module_state *state, const message_t *message);
void decoder_close(decoder_t *decoder);
PyObject *decode_value(decoder_t *decoder, plait_flat_value_t value);
PyObject *decode_message(module_state *state, const message_t *message);

/* The words of the message's root container, to be decoded one by one. 0, or -1 with an exception.
 */
int decode_root(decoder_t *decoder, unsigned type, plait_flat_body_t *body);

/* sharing.c. Whether a BUFFER is to be a view of its message's block, and that; a new reference, or
 * NULL with an exception. */
bool sharing_views(const decoder_t *decoder, const plait_flat_body_t *body);
PyObject *sharing_view(decoder_t *decoder, const plait_flat_body_t *body);

/* Likewise, the view that stands for a reference that the encoder has put instead of a BUFFER. */
PyObject *sharing_resolve(decoder_t *decoder, PyObject *reference);

/* ---- names.c: functions and classes by name ---- */

/* Whether a function or class can be found again by its module's and its own name. Leaves no
 * exception. */
bool is_importable(module_state *state, PyObject *object);

/* Imports the module and finds the qualified name in it. A new reference, or NULL with an
 * exception. */
PyObject *import_by_name(PyObject *module_name, PyObject *path);

/* ---- ship.c: functions on their way to workers of other interpreters ---- */

/* A callable as a message: made once, read by every worker, which keeps the callable it makes of
 * it. */
#define SHIPMENT_NAME 80

typedef struct shipment {
    PLAIT_ATOMIC(uint32_t) references;
    uint64_t id; /* unique in the process */
    message_t message;
    char name[SHIPMENT_NAME]; /* what to call it in messages, UTF-8 */
    bool elsewhere;           /* not for this pool's workers, see shipper_place_with */
} shipment_t;

void shipment_retain(shipment_t *shipment);
void shipment_release(shipment_t *shipment);

/* A pool's memory of what it has shipped, in one interpreter. */
typedef struct shipper shipper_t;
shipper_t *shipper_new(module_state *state,
                       bool share); /* to other processes; NULL with an exception */
void shipper_free(shipper_t *shipper);

/* For the arguments that travel with what it ships. */
kept_encoder_t *shipper_encoder(shipper_t *shipper);

/* `decide` is asked about each callable that is sent for the first time; where it says True, the
 * shipment is marked: its calls are not for this pool's workers. See plait._placement. */
void shipper_place_with(shipper_t *shipper, PyObject *decide);

/* Lets go of every callable and shipment. */
void shipper_forget(shipper_t *shipper);

/* The shipment of a callable: the one made earlier if nothing that it carries has changed. A new
 * reference, or NULL with an exception that names the callable. */
shipment_t *ship(module_state *state, shipper_t *shipper, PyObject *callable);

/* The shipment of what travels of a context, which takes the message over: the one made last if the
 * bytes are the same. A new reference, or NULL with an exception. */
shipment_t *ship_context(shipper_t *shipper, message_t *message);

/* ---- worker.c ---- */

/* All but threads take flat messages instead of objects. */
typedef enum pool_kind { KIND_THREAD, KIND_INTERPRETER, KIND_PROCESS } pool_kind;

/* The part of a pool that workers share; lives until the last worker has ended. */
typedef struct pool_core {
    /* const once the pool is open */
    pool_kind kind;
    plait_sched_t *sched;
    PyInterpreterState *interpreter;  /* of the pool's maker */
    module_state *maker;              /* there */
    uint32_t fork_count;              /* when it was made */
    uint64_t remote;                  /* a child: the id of the pool in the parent; elsewhere 0 */
    char **program;                   /* process kind: what starts a child; its path first */
    char **environment;               /* process kind: of the children */
    uint64_t max_tasks;               /* process kind: of one child; 0: any number */
    bool replaces;                    /* process kind: a child that has run out of memory */
    message_t setup;                  /* what makes an interpreter resemble its maker */
    unsigned keep;                    /* how many workers may be kept after it: kept.h */
    shipment_t *initializer_shipment; /* not for threads; or NULL */
    message_t initializer_arguments;
    PyObject *initializer;              /* thread kind: a callable without arguments, or NULL */
    char *name_prefix;                  /* of the threads' names, UTF-8 */
    PLAIT_ATOMIC(uint32_t) interrupted; /* set once: what runs or still begins is interrupted */
    PLAIT_ATOMIC(uint32_t) entered; /* workers that are past the initializer and have not left */
    /* guarded by lock */
    plait_prim_lock_t lock;
    struct worker_data *members; /* the workers that have entered, linked by next */
    message_t failure;           /* what broke the pool, see failure_message; bytes NULL before */
} pool_core_t;

/* What a worker has printed of a line. */
typedef struct open_line {
    PyObject *lines; /* on what it will come out, see output.c; NULL: nothing was printed */
    PyObject *text;  /* NULL: nothing */
} open_line_t;

/* Large arguments of calls that are over, and what stays of earlier ones: see deferred.c. */
#define DEFERRED_LARGE ((size_t)64 << 10) /* bytes of a message */
#define DEFERRED_LIMIT 8
#define DEFERRED_KEPT 32

typedef struct deferred {
    PyObject *objects[DEFERRED_LIMIT];
    PyObject *kept[DEFERRED_KEPT];
    unsigned count, kept_count;
} deferred_t;

/* What one worker has of its own. */
typedef struct worker_data {
    /* const once it has entered */
    pool_core_t *core;
    module_state *state;
    PyObject *module; /* keeps the state alive */
    PyThreadState *thread_state;
    PyInterpreterState *interpreter;
    unsigned long thread_id; /* as Python's threading knows it */
    /* the worker's own */
    bool reused;       /* its interpreter has served another pool, see reuse.c */
    bool entered;      /* counted in the core's */
    table_t functions; /* shipment id -> callable */
    kept_encoder_t encoder;
    struct process *process;        /* process kind, in the parent: see proxy.h */
    struct service *service;        /* process kind, in the child: see serve.c */
    PLAIT_ATOMIC(uint64_t) request; /* likewise: the number of what runs */
    bool exhausted;                 /* likewise: something has raised MemoryError */
    unsigned helping;               /* how many waiting calls lie on its stack */
    deferred_t deferred;
    PyObject *working; /* see context.c: the context below all calls, empty between them, or NULL */
    PyObject *base;    /* what the initializer has set, or NULL */
    PyObject *sent;    /* not for threads: the context that arrived last, or NULL */
    uint64_t sent_id;
    open_line_t lines[STREAM_COUNT]; /* see output.c */
    PyObject *carried[STREAM_COUNT]; /* not for threads: the Lines of its own streams */
    PLAIT_ATOMIC(uint32_t) printed;  /* there may be something in them; any thread of its own */
    bool abroad;                     /* visiting the maker's interpreter, with `visitor` */
    bool leaving;                    /* its interpreter is about to end */
    PyThreadState *visitor;          /* not for threads; NULL before the first visit */
    int64_t turn;                    /* thread kind: when this worker last took turns */
    PyObject *pulse;                 /* code that does nothing, and its globals: see take_turns */
    PyObject *globals;
    /* see interrupt.c */
    PLAIT_ATOMIC(struct call *) current; /* written by the worker, read by interrupters */
    PLAIT_ATOMIC(uint32_t) struck;       /* an asynchronous exception may be under way */
    PLAIT_ATOMIC(uint64_t) items;        /* id of the stream whose items run, if items do */
    plait_job_flag_t *items_expired;     /* the worker's own: that stream's */
    PLAIT_ATOMIC(uint32_t) items_struck; /* they have been interrupted */
    plait_prim_lock_t lock;   /* asynchronous exceptions are set and taken back under it */
    bool was_struck;          /* guarded by lock: one was set, ever */
    struct worker_data *next; /* guarded by the pool's lock, as visitors */
    unsigned visitors;
} worker_data_t;

extern const plait_worker_ops_t worker_ops;         /* thread and interpreter kind */
extern const plait_worker_ops_t worker_process_ops; /* see proxy.h */

/* The steps of a worker's beginning, and what ends a pool's shared part; also for proxy_child.c
 * and serve.c. NULL, or -1 with an exception, where they fail. */
worker_data_t *worker_data_new(plait_worker_t *worker);
int worker_find_state(worker_data_t *data);
int worker_resemble_maker(worker_data_t *data);
int worker_run_initializer(worker_data_t *data); /* and settles what it has set */
void worker_forget_functions(worker_data_t *data);

/* The steps of its end. The first: what it has of the pool goes; whether its interpreter can serve
 * another one (reuse_keep). The second, for own interpreters, frees the data, too. */
bool worker_leave_pool(worker_data_t *data);
void worker_end_interpreter(worker_data_t *data);
void worker_dispose(void *context);

/* The callable of a shipment in this worker. A new reference, or NULL.
 */
PyObject *worker_function(worker_data_t *data, shipment_t *shipment);

/* ---- deferred.c ---- */

/* Whether the arguments that it has made are worth it, and may be freed later. */
static inline bool deferred_suits(const decoder_t *decoder)
{
    return decoder->reader.size >= DEFERRED_LARGE && !decoder->foreign;
}

/* Steals the argument, and frees it now or later. */
void deferred_add(worker_data_t *data, PyObject *argument);

void deferred_free_added(worker_data_t *data);

/* Frees what was added, if anything; between two tasks, so that nobody waits for it. */
static inline void deferred_free(worker_data_t *data)
{
    if (data->deferred.count > 0)
        deferred_free_added(data);
}

/* Frees all. */
void deferred_end(worker_data_t *data);

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
void message_stand_in(const char *text, message_t *message);

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

/* ---- output.c: what workers print, and visits to the maker ---- */

extern PyType_Spec lines_spec;

/* Has sys.stdout and sys.stderr of this interpreter put lines together, if they do not yet; `again`:
 * only streams that are not those of the last time. A stream that does not let its methods be
 * replaced stays as it is. Leaves exceptions alone. */
void output_take_streams(module_state *state, bool again);

/* Likewise in a worker's own interpreter, with all output carried to the maker; eager: (bool, bool),
 * whether each line is to be seen at once. 0, or -1 with an exception. */
int output_take_own_streams(worker_data_t *data, PyObject *eager);

/* The worker, before the outcome of a call can be seen: what it has printed comes out. */
void output_end(worker_data_t *data);

/* At its end. */
void output_leave(worker_data_t *data);

/* At the end of its pool, if its interpreter does not end; and before the next one, when what was
 * printed in between has nowhere to go. */
void output_end_all(worker_data_t *data);
void output_forget(worker_data_t *data);

void output_end_line(open_line_t *line);

static inline void output_settle(worker_data_t *data)
{
    /* relaxed: what other threads print may as well wait for the end of the next task */
    if (plait_atomic_load_relaxed(&data->printed))
        output_end(data);
}

/* ---- visit.c: what a worker of another interpreter has its maker do ---- */

/* plait._maker.write(index, text, flush) and .handle(attributes, pickled). */
typedef enum { VISIT_WRITE, VISIT_HANDLE, VISIT_COUNT } visit_t;

/* Whether this thread is that worker's, in its own interpreter. `data` may be NULL. */
bool visit_can_be_made(const worker_data_t *data);

/* Such a thread: has it done, with a tuple of arguments that encode_message takes. What is raised
 * comes back from an interpreter worker's visit, and is reported in the maker's process where the
 * worker is a child. 0, or -1 with an exception. Blocks while others have the maker's GIL. */
int visit_maker(worker_data_t *data, visit_t visit, PyObject *arguments);

/* A proxy, in no interpreter: has it done for its child. */
void visit_for_child(worker_data_t *data, visit_t visit, const message_t *arguments);

/* The worker's or proxy's thread, in no interpreter, at its end. */
void visit_end(worker_data_t *data);

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
