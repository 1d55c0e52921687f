/* reuse: workers' interpreters between two pools.
 *
 * Making an interpreter takes 12 to 17 ms, importing NumPy into it 100, and the images of its
 * extension modules stay when it ends. So one whose pool was shut down is kept for the next pool that
 * wants the same setup, byte by byte, once plait._reuse has emptied it of the last pool's. It is kept
 * without any thread state, as CPython's own _interpreters keeps them: a thread state belongs to a
 * thread, and goes with it. What a worker has of its own goes, too, but its worker_data stays where
 * it is, since objects of the interpreter point to it.
 *
 * Who may call: a worker's thread, for its own interpreter. Design: docs/design/workers.md
 */
#include "binding/reuse.h"

#include "binding/isolation.h"
#include "binding/kept.h"

#define PATIENCE INT64_C(100000000) /* with threads that are still inside, in ns */
#define NAP INT64_C(1000000)

typedef struct interpreter {
    kept_t kept;         /* first; the key is the setup of its last pool */
    worker_data_t *data; /* with neither a pool nor a thread state */
} interpreter_t;

static void free_interpreter(interpreter_t *interpreter)
{
    free(interpreter->kept.key);
    free(interpreter);
}

/* By a thread that is in no interpreter. */
static void end(kept_t *kept)
{
    interpreter_t *interpreter = (interpreter_t *)kept;
    worker_data_t *data = interpreter->data;
    free_interpreter(interpreter);
    data->thread_state = PyThreadState_New(data->interpreter);
    if (data->thread_state == NULL)
        return; /* it stays, as does the memory that there is not enough of */
    PyEval_RestoreThread(data->thread_state);
    worker_end_interpreter(data);
}

/* ---- keeping ---- */

/* plait._reuse.leave() says it, and leaves nothing of the pool's behind if so. */
static bool is_clean(void)
{
    PyObject *module = PyImport_ImportModule("plait._reuse");
    PyObject *clean = module == NULL ? NULL : PyObject_CallMethod(module, "leave", NULL);
    if (clean == NULL)
        PyErr_Clear();
    bool is = clean == Py_True;
    Py_XDECREF(clean);
    Py_XDECREF(module);
    return is;
}

/* Threads that a task has left behind, or native ones that are inside, go on with what it began. */
static bool is_alone(const worker_data_t *data)
{
    return PyInterpreterState_ThreadHead(data->interpreter) == data->thread_state &&
           PyThreadState_Next(data->thread_state) == NULL;
}

/* Threads of libraries let go of a task's objects a moment after it is done. If the interpreter ended
 * for that, its images would stay, and the next one make images of its own. */
static bool is_soon_alone(const worker_data_t *data)
{
    static const uint32_t never;
    int64_t deadline = plait_prim_now() + PATIENCE;
    while (!is_alone(data)) {
        int64_t now = plait_prim_now();
        if (now >= deadline)
            return false;
        Py_BEGIN_ALLOW_THREADS;
        plait_prim_wait(&never, 0, now + NAP, false);
        Py_END_ALLOW_THREADS;
    }
    return true;
}

bool reuse_is_clean(const worker_data_t *data)
{
    return !data->was_struck && is_soon_alone(data) && is_clean() && is_soon_alone(data);
}

bool reuse_is_fit(const worker_data_t *data)
{
    pool_core_t *core = data->core;
    return core->keep > 0 && data->entered && !plait_sched_is_broken(core->sched) &&
           !plait_atomic_load_seq_cst(&core->interrupted) && reuse_is_clean(data);
}

void reuse_keep(worker_data_t *data)
{
    const message_t *setup = &data->core->setup;
    unsigned limit = data->core->keep;
    interpreter_t *interpreter = calloc(1, sizeof *interpreter);
    void *key = interpreter == NULL ? NULL : malloc(setup->size);
    if (key == NULL) {
        free(interpreter);
        worker_end_interpreter(data);
        return;
    }
    memcpy(key, setup->bytes, setup->size);
    *interpreter = (interpreter_t){{.key = key, .size = setup->size, .end = end}, data};
    data->abroad = true; /* nothing can be carried to a maker while there is none */
    PyThreadState_Clear(data->thread_state);
    PyThreadState_DeleteCurrent();
    data->thread_state = NULL;
    visit_end(data);
    data->core = NULL;
    kept_put(KEPT_INTERPRETER, &interpreter->kept, limit);
}

/* ---- using again ---- */

/* Attached: what belongs to the interpreter stays, what belonged to the worker is new. */
static void begin_anew(worker_data_t *data, plait_worker_t *worker)
{
    const worker_data_t before = *data;
    *data = (worker_data_t){.core = plait_sched_context(plait_worker_sched(worker)),
                            .interpreter = before.interpreter,
                            .module = before.module,
                            .state = before.state,
                            .reused = true};
    memcpy(data->carried, before.carried, sizeof data->carried);
    table_init(&data->functions);
    plait_worker_set_data(worker, data);
}

bool reuse_take(plait_worker_t *worker)
{
    const pool_core_t *core = plait_sched_context(plait_worker_sched(worker));
    const message_t *setup = &core->setup;
    kept_t *kept;
    if (core->keep == 0)
        return false;
    while ((kept = kept_take(KEPT_INTERPRETER, setup->bytes, setup->size)) != NULL) {
        worker_data_t *data = ((interpreter_t *)kept)->data;
        PyThreadState *state = PyThreadState_New(data->interpreter);
        if (state == NULL) {
            kept_put(KEPT_INTERPRETER, kept, UINT_MAX);
            return false;
        }
        free_interpreter((interpreter_t *)kept);
        PyEval_RestoreThread(state);
        begin_anew(data, worker);
        output_forget(data);
        if (worker_find_state(data) == 0 && worker_resemble_maker(data) == 0)
            return true;
        PyErr_Clear(); /* it does not fit: a new one will */
        plait_worker_set_data(worker, NULL);
        worker_leave_pool(data);
        worker_end_interpreter(data);
    }
    return false;
}
