/* worker: what workers share, and what each has of its own. */
#ifndef PLAIT_BINDING_WORKER_H
#define PLAIT_BINDING_WORKER_H

#include "binding/message.h" /* first: it includes Python.h */

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
    char **template_program;          /* process kind: what starts their template; NULL: none */
    char **environment;               /* process kind: of all of these */
    uint64_t max_tasks;               /* process kind: of one child; 0: any number */
    bool replaces;                    /* process kind: a child that has run out of memory */
    message_t setup;                  /* what makes an interpreter resemble its maker */
    unsigned keep;                    /* how many workers may be kept after it: kept.h */
    shipment_t *initializer_shipment; /* not for threads; or NULL */
    message_t initializer_arguments;
    PyObject *initializer;              /* thread kind: a callable without arguments, or NULL */
    char *name_prefix;                  /* of the threads' names, UTF-8 */
    PLAIT_ATOMIC(uint32_t) interrupted; /* set once: what runs or still begins is interrupted */
    PLAIT_ATOMIC(uint32_t) drained;     /* set once: what no worker has begun is cancelled */
    /* guarded by template_lock */
    plait_prim_lock_t template_lock;
    struct plait_template *template; /* a reference; NULL: not yet */
    PLAIT_ATOMIC(uint32_t) entered;  /* workers that are past the initializer and have not left */
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
    int64_t turn;                    /* when this worker last took turns */
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

/* Any thread, after the scheduler was closed: plait_sched_drain, and the same for what workers have
 * taken ahead. */
void core_drain(pool_core_t *core);

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

#endif
