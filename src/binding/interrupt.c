/* interrupt: stopping a call that a worker is running.
 *
 * The interrupter marks the call, looks which worker has it on top of its stack, visits that
 * worker's interpreter with a thread state of its own, and there sets an asynchronous exception.
 * Invariants: an exception is set only under the worker's lock while the call is the worker's
 * current one, and a worker that was struck takes back, under the same lock and when the call has
 * ended or is set aside, what has not been delivered: so no other call is ever struck. A call that
 * is set aside (it waits, and its worker helps meanwhile) raises for its mark when it is on top
 * again. A mark is used up by whoever raises for it. Design: docs/design/interrupt.md
 */
#include "binding/binding.h"

/* ---- the worker's side ---- */

static PyObject *interrupted_class(void)
{
    PyObject *module = PyImport_ImportModule("plait._errors");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "Interrupted");
    Py_XDECREF(module);
    return class;
}

/* A mark is used up by whoever raises for it: the worker here, or the interrupter in strike(). */
static bool use_mark(worker_data_t *data, call_t *call)
{
    return call != NULL && call != items_of(data) &&
           plait_atomic_load_seq_cst(&call->interrupted) != 0 &&
           plait_atomic_swap_seq_cst(&call->interrupted, 0) != 0;
}

/* Always -1. */
static int raise_interrupted(void)
{
    PyObject *class = interrupted_class();
    if (class != NULL)
        PyErr_SetNone(class);
    Py_XDECREF(class);
    return -1;
}

int raise_if_interrupted(worker_data_t *data)
{
    call_t *call = plait_atomic_load_relaxed(&data->current); /* relaxed: written by this thread */
    if (!use_mark(data, call) && !plait_atomic_load_seq_cst(&data->core->interrupted) &&
        !(call != NULL && data->service != NULL && service_is_interrupted(data)))
        return 0;
    return raise_interrupted();
}

int raise_if_interrupted_in_wait(worker_data_t *data)
{
    if (take_interrupt_back(data))
        return raise_interrupted();
    /* A child's interrupts all come by strike(), and its parent's number stays when one has. */
    return data->service != NULL ? 0 : raise_if_interrupted(data);
}

bool take_interrupt_back(worker_data_t *data)
{
    /* seq_cst: as in end_call */
    if (!plait_atomic_load_seq_cst(&data->struck))
        return false;
    plait_prim_lock(&data->lock);
    bool pending = PyThreadState_Get()->async_exc != NULL;
    PyThreadState_SetAsyncExc(data->thread_id, NULL);
    plait_atomic_store_seq_cst(&data->struck, 0);
    plait_prim_unlock(&data->lock);
    return pending;
}

call_t *set_call_aside(worker_data_t *data)
{
    call_t *call = begin_call(data, NULL);
    if (take_interrupt_back(data) && call != NULL && call != items_of(data))
        plait_atomic_store_seq_cst(&call->interrupted, 1); /* raised when it is current again */
    return call;
}

/* ---- the interrupter's side ---- */

/* In the worker's interpreter. `call` NULL: whatever the worker runs; `number` 0: whatever request of
 * the parent's that is. */
static void strike(worker_data_t *data, call_t *call, uint64_t number)
{
    PyObject *class = interrupted_class();
    if (class == NULL) {
        PyErr_Clear();
        return;
    }
    plait_prim_lock(&data->lock);
    /* Before the look: see take_interrupt_back. It may be set already, by one who came before. */
    uint32_t before = plait_atomic_swap_seq_cst(&data->struck, 1);
    call_t *current = plait_atomic_load_seq_cst(&data->current);
    /* The number after the call, which it is set before: it belongs to this call or a later one. */
    bool wanted = number == 0 || plait_atomic_load_seq_cst(&data->request) == number;
    if (wanted && (call != NULL ? current == call && use_mark(data, call) : current != NULL))
        PyThreadState_SetAsyncExc(data->thread_id, class);
    else
        plait_atomic_store_seq_cst(&data->struck, before);
    plait_prim_unlock(&data->lock);
    Py_DECREF(class);
}

void interrupt_request(worker_data_t *data, uint64_t number)
{
    strike(data, NULL, number);
}

/* The visited worker cannot leave meanwhile, see leave_members. */
static void visit(worker_data_t *data, call_t *call)
{
    if (data->process != NULL) {
        interrupt_process(data, call);
        return;
    }
    if (data->interpreter == PyInterpreterState_Get()) {
        strike(data, call, 0);
        return;
    }
    PyThreadState *own = PyEval_SaveThread();
    PyThreadState *visitor = PyThreadState_New(data->interpreter);
    if (visitor != NULL) {
        PyEval_RestoreThread(visitor);
        strike(data, call, 0);
        PyThreadState_Clear(visitor);
        PyThreadState_DeleteCurrent();
    }
    PyEval_RestoreThread(own);
}

static worker_data_t *find_and_hold(pool_core_t *core, call_t *call)
{
    worker_data_t *found = NULL;
    plait_prim_lock(&core->lock);
    for (worker_data_t *data = core->members; data != NULL && found == NULL; data = data->next)
        if (plait_atomic_load_seq_cst(&data->current) == call)
            found = data;
    if (found != NULL)
        found->visitors++;
    plait_prim_unlock(&core->lock);
    return found;
}

static void let_go(pool_core_t *core, worker_data_t *data)
{
    plait_prim_lock(&core->lock);
    data->visitors--;
    plait_prim_unlock(&core->lock);
}

bool interrupt_call(call_t *call)
{
    if (plait_task_is_final(plait_task_state(&call->task)))
        return false;
    plait_atomic_store_seq_cst(&call->interrupted, 1);
    plait_sched_t *sched = plait_sched_find(call->sched_id);
    if (sched == NULL)
        return false;
    pool_core_t *core = plait_sched_context(sched);
    worker_data_t *data = find_and_hold(core, call);
    if (data != NULL) {
        visit(data, call);
        let_go(core, data);
    }
    plait_sched_release(sched);
    return true;
}

void interrupt_workers(pool_core_t *core)
{
    unsigned count = 0;
    /* first: a worker that is about to begin a call makes it current and then looks at this */
    plait_atomic_store_seq_cst(&core->interrupted, 1);
    plait_prim_lock(&core->lock);
    for (worker_data_t *data = core->members; data != NULL; data = data->next)
        count++;
    worker_data_t **held = count == 0 ? NULL : malloc(count * sizeof *held);
    count = 0;
    for (worker_data_t *data = core->members; held != NULL && data != NULL; data = data->next) {
        data->visitors++;
        held[count++] = data;
    }
    plait_prim_unlock(&core->lock);
    while (count > 0) {
        visit(held[--count], NULL);
        let_go(core, held[count]);
    }
    free(held);
}

/* ---- who can be visited ---- */

void join_members(worker_data_t *data)
{
    pool_core_t *core = data->core;
    plait_prim_lock(&core->lock);
    data->next = core->members;
    core->members = data;
    plait_prim_unlock(&core->lock);
}

void leave_members(worker_data_t *data)
{
    pool_core_t *core = data->core;
    plait_prim_lock(&core->lock);
    worker_data_t **link = &core->members;
    while (*link != NULL && *link != data)
        link = &(*link)->next;
    if (*link == data)
        *link = data->next;
    bool visited = data->visitors > 0;
    plait_prim_unlock(&core->lock);
    while (visited) { /* a visitor needs this interpreter's GIL for a moment */
        PyThreadState *own = data->thread_state == NULL ? NULL : PyEval_SaveThread();
        plait_prim_yield();
        if (own != NULL)
            PyEval_RestoreThread(own);
        plait_prim_lock(&core->lock);
        visited = data->visitors > 0;
        plait_prim_unlock(&core->lock);
    }
}
