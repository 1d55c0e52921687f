/* reuse: workers' interpreters between two pools.
 *
 * Making an interpreter takes 12 to 17 ms, importing NumPy into it 100, and the images of its
 * extension modules stay when it ends. So one whose pool was shut down is kept for the next pool that
 * wants the same setup, byte by byte, once plait._reuse has emptied it of the last pool's. It is kept
 * without any thread state, as CPython's own _interpreters keeps them: a thread state belongs to a
 * thread, and goes with it. What a worker has of its own goes, too, but its worker_data stays where
 * it is, since objects of the interpreter point to it.
 *
 * Who may call: a worker's thread, for its own interpreter; reuse_end_all, any thread. The list is
 * this file's own: it belongs to no interpreter. Design: docs/design/workers.md
 */
#include "binding/reuse.h"

#include "binding/isolation.h"

typedef struct kept {
    struct kept *next;
    worker_data_t *data; /* with neither a pool nor a thread state */
    void *setup;         /* the bytes of its last pool's */
    size_t size;
} kept_t;

/* Guarded by lock. */
static plait_prim_lock_t lock;
static kept_t *newest;
static bool ended; /* the process is about to end: nothing is kept any more */

/* ---- the list ---- */

static bool fits(const kept_t *kept, const message_t *setup)
{
    return kept->size == setup->size && memcmp(kept->setup, setup->bytes, setup->size) == 0;
}

/* Takes the newest one out that has this setup; NULL: none. */
static kept_t *take(const message_t *setup)
{
    plait_prim_lock(&lock);
    kept_t **place = &newest;
    while (*place != NULL && !fits(*place, setup))
        place = &(*place)->next;
    kept_t *found = *place;
    if (found != NULL)
        *place = found->next;
    plait_prim_unlock(&lock);
    return found;
}

/* Takes the oldest one out if there are more than `limit`; NULL: not so many. */
static kept_t *take_oldest(unsigned limit)
{
    kept_t *found = NULL;
    plait_prim_lock(&lock);
    kept_t **place = &newest;
    for (unsigned count = 1; *place != NULL && found == NULL; count++) {
        if (count > limit && (*place)->next == NULL) {
            found = *place;
            *place = NULL;
        } else {
            place = &(*place)->next;
        }
    }
    plait_prim_unlock(&lock);
    return found;
}

/* False: nothing is kept any more. */
static bool put(kept_t *kept)
{
    plait_prim_lock(&lock);
    bool open = !ended;
    if (open) {
        kept->next = newest;
        newest = kept;
    }
    plait_prim_unlock(&lock);
    return open;
}

static void free_kept(kept_t *kept)
{
    free(kept->setup);
    free(kept);
}

unsigned reuse_count(void)
{
    unsigned count = 0;
    plait_prim_lock(&lock);
    for (const kept_t *kept = newest; kept != NULL; kept = kept->next)
        count++;
    plait_prim_unlock(&lock);
    return count;
}

bool reuse_after_fork(void)
{
    bool any = newest != NULL;
    lock.word = 0;
    newest = NULL; /* the parent's; what they own stays behind */
    ended = false;
    return any;
}

/* ---- ends ---- */

/* By a thread that is in no interpreter. */
static void end(kept_t *kept)
{
    worker_data_t *data = kept->data;
    free_kept(kept);
    data->thread_state = PyThreadState_New(data->interpreter);
    if (data->thread_state == NULL)
        return; /* it stays, as does the memory that there is not enough of */
    PyEval_RestoreThread(data->thread_state);
    worker_end_interpreter(data);
}

static void end_some(void *limit)
{
    kept_t *kept;
    while ((kept = take_oldest(*(const unsigned *)limit)) != NULL)
        end(kept);
}

/* Each takes as long to end as to import what it has, so all processors take part. */
static void end_in_parallel(unsigned count)
{
    unsigned none = 0, started = 0, most = (unsigned)plait_prim_cpu_count();
    plait_prim_thread_t *threads = calloc(count + 1, sizeof *threads);
    while (threads != NULL && started < count && started < most &&
           plait_prim_thread_start(&threads[started], end_some, &none, "plait-end", 0) == PLAIT_OK)
        started++;
    if (started == 0)
        end_some(&none);
    while (started > 0)
        plait_prim_thread_join(threads[--started]);
    free(threads);
}

void reuse_end_all(bool for_good)
{
    PyThreadState *own = PyEval_SaveThread();
    plait_prim_lock(&lock);
    ended = ended || for_good;
    plait_prim_unlock(&lock);
    end_in_parallel(reuse_count());
    PyEval_RestoreThread(own);
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

bool reuse_is_fit(worker_data_t *data)
{
    pool_core_t *core = data->core;
    if (core->keep == 0 || !data->entered || data->was_struck ||
        plait_sched_is_broken(core->sched) || plait_atomic_load_seq_cst(&core->interrupted))
        return false;
    return is_alone(data) && is_clean() && is_alone(data);
}

void reuse_keep(worker_data_t *data)
{
    const message_t *setup = &data->core->setup;
    unsigned limit = data->core->keep;
    kept_t *kept = calloc(1, sizeof *kept);
    void *copy = kept == NULL ? NULL : malloc(setup->size);
    if (copy == NULL) {
        free(kept);
        worker_end_interpreter(data);
        return;
    }
    *kept = (kept_t){.data = data, .setup = copy, .size = setup->size};
    memcpy(copy, setup->bytes, setup->size);
    data->abroad = true; /* nothing can be carried to a maker while there is none */
    PyThreadState_Clear(data->thread_state);
    PyThreadState_DeleteCurrent();
    data->thread_state = NULL;
    visit_end(data);
    data->core = NULL;
    if (!put(kept))
        end(kept);
    else
        end_some(&limit);
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
    kept_t *kept;
    while (core->keep > 0 && (kept = take(&core->setup)) != NULL) {
        worker_data_t *data = kept->data;
        PyThreadState *state = PyThreadState_New(data->interpreter);
        if (state == NULL) {
            if (!put(kept))
                free_kept(kept); /* it stays, as in end() */
            return false;
        }
        free_kept(kept);
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
