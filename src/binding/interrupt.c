/* interrupt: stopping a call that a worker is running.
 *
 * The interrupter marks the call, looks which worker has it on top of its stack, visits that
 * worker's interpreter with a thread state of its own, and there sets an asynchronous exception.
 * Invariants: an exception is set only under the worker's lock while the call is the worker's
 * current one, and a worker that was struck takes back, under the same lock and when the call has
 * ended or is set aside, what has not been delivered: so no other call is ever struck. A call that
 * is set aside (it waits, and its worker helps meanwhile) raises for its mark when it is on top
 * again. A mark is used up by whoever raises for it. What a finalizer swallows is set once more.
 * Design: docs/design/interrupt.md
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

/* Likewise for items: their mark is their stream's, and each worker uses it up by itself. */
static bool use_items_mark(worker_data_t *data)
{
    return plait_atomic_swap_seq_cst(&data->items_struck, 1) == 0;
}

int raise_if_interrupted(worker_data_t *data)
{
    call_t *call = plait_atomic_load_relaxed(&data->current); /* relaxed: written by this thread */
    bool marked = call != NULL && is_marked(data, call) &&
                  (call == items_of(data) ? use_items_mark(data) : use_mark(data, call));
    if (!marked && !plait_atomic_load_seq_cst(&data->core->interrupted) &&
        !(call != NULL && data->service != NULL && service_use_interrupt(data)))
        return 0;
    return raise_interrupted();
}

int raise_if_interrupted_in_wait(worker_data_t *data)
{
    return take_interrupt_back(data) ? raise_interrupted() : raise_if_interrupted(data);
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
    if (!take_interrupt_back(data) || call == NULL)
        return call;
    /* raised when it is current again */
    if (data->service != NULL)
        service_put_interrupt_back(data);
    else
        plait_atomic_store_seq_cst(call == items_of(data) ? &data->items_struck
                                                          : &call->interrupted,
                                   call != items_of(data));
    return call;
}

/* ---- the interrupter's side ---- */

bool worker_runs(worker_data_t *data, const target_t *target)
{
    call_t *current = plait_atomic_load_seq_cst(&data->current);
    if (target->call != NULL)
        return current == target->call;
    if (target->stream != 0)
        return current == items_of(data) &&
               plait_atomic_load_seq_cst(&data->items) == target->stream;
    /* The number after the call, which it is set before: it belongs to this call or a later one. */
    return current != NULL &&
           (target->request == 0 || plait_atomic_load_seq_cst(&data->request) == target->request);
}

/* Whether it runs it and has not been interrupted yet, and is to be now. */
static bool use_target(worker_data_t *data, const target_t *target)
{
    return worker_runs(data, target) && (target->call != NULL   ? use_mark(data, target->call)
                                         : target->stream != 0  ? use_items_mark(data)
                                         : target->request != 0 ? service_use_interrupt(data)
                                                                : true);
}

/* In the worker's interpreter. Whether it was hit. */
static bool strike(worker_data_t *data, const target_t *target)
{
    PyObject *class = interrupted_class();
    if (class == NULL) {
        PyErr_Clear();
        return false;
    }
    plait_prim_lock(&data->lock);
    /* Before the look: see take_interrupt_back. It may be set already, by one who came before. */
    uint32_t before = plait_atomic_swap_seq_cst(&data->struck, 1);
    bool hit = use_target(data, target);
    if (hit) {
        PyThreadState_SetAsyncExc(data->thread_id, class);
        data->was_struck = true;
    } else {
        plait_atomic_store_seq_cst(&data->struck, before);
    }
    plait_prim_unlock(&data->lock);
    Py_DECREF(class);
    return hit;
}

void interrupt_request(worker_data_t *data, uint64_t number)
{
    strike(data, &(target_t){.request = number});
}

/* The visited worker cannot leave meanwhile, see leave_members. */
static void visit(worker_data_t *data, const target_t *target)
{
    PyThreadState *own = PyThreadState_GetUnchecked(); /* NULL: a deadline's thread */
    if (data->process != NULL) {
        interrupt_process(data, target);
        return;
    }
    if (own != NULL && data->interpreter == PyInterpreterState_Get()) {
        strike(data, target);
        return;
    }
    if (own != NULL)
        PyEval_SaveThread();
    PyThreadState *visitor = PyThreadState_New(data->interpreter);
    if (visitor != NULL) {
        PyEval_RestoreThread(visitor);
        strike(data, target);
        PyThreadState_Clear(visitor);
        PyThreadState_DeleteCurrent();
    }
    if (own != NULL)
        PyEval_RestoreThread(own);
}

typedef void reach_t(worker_data_t *data, const target_t *target);

/* The workers that run the target, held, so that none of them leaves. To be freed. */
static worker_data_t **hold_workers(pool_core_t *core, const target_t *target, unsigned *count)
{
    *count = 0;
    plait_prim_lock(&core->lock);
    for (worker_data_t *data = core->members; data != NULL; data = data->next)
        *count += worker_runs(data, target);
    worker_data_t **held = *count == 0 ? NULL : malloc(*count * sizeof *held);
    unsigned room = held == NULL ? 0 : *count;
    *count = 0;
    for (worker_data_t *data = core->members; data != NULL && *count < room; data = data->next)
        if (worker_runs(data, target)) {
            data->visitors++;
            held[(*count)++] = data;
        }
    plait_prim_unlock(&core->lock);
    return held;
}

/* Calls `reach`, unless it is NULL, for the workers that run the target; how many there are. */
static unsigned reach_workers(pool_core_t *core, const target_t *target, reach_t *reach)
{
    unsigned count;
    worker_data_t **held = hold_workers(core, target, &count);
    for (unsigned index = 0; index < count; index++) {
        if (reach != NULL)
            reach(held[index], target);
        plait_prim_lock(&core->lock);
        held[index]->visitors--;
        plait_prim_unlock(&core->lock);
    }
    free(held);
    return count;
}

/* Likewise where the scheduler may be gone: then false. *count may be NULL. */
static bool reach_pool(uint64_t sched_id, const target_t *target, reach_t *reach, unsigned *count)
{
    unsigned reached = 0;
    plait_sched_t *sched = plait_sched_find(sched_id);
    if (sched != NULL) {
        reached = reach_workers(plait_sched_context(sched), target, reach);
        plait_sched_release(sched);
    }
    if (count != NULL)
        *count = reached;
    return sched != NULL;
}

bool interrupt_call(call_t *call)
{
    if (plait_task_is_final(plait_task_state(&call->task)))
        return false;
    plait_atomic_store_seq_cst(&call->interrupted, 1);
    return reach_pool(call->sched_id, &(target_t){.call = call}, visit, NULL);
}

void kill_call(call_t *call)
{
    reach_pool(call->sched_id, &(target_t){.call = call}, kill_process, NULL);
}

unsigned interrupt_items(uint64_t sched_id, uint64_t stream)
{
    unsigned count;
    reach_pool(sched_id, &(target_t){.stream = stream}, visit, &count);
    return count;
}

unsigned kill_items(uint64_t sched_id, uint64_t stream)
{
    unsigned count;
    reach_pool(sched_id, &(target_t){.stream = stream}, kill_process, &count);
    return count;
}

unsigned count_items(uint64_t sched_id, uint64_t stream)
{
    unsigned count;
    reach_pool(sched_id, &(target_t){.stream = stream}, NULL, &count);
    return count;
}

void interrupt_workers(pool_core_t *core)
{
    /* first: a worker that is about to begin a call makes it current and then looks at this */
    plait_atomic_store_seq_cst(&core->interrupted, 1);
    reach_workers(core, &(target_t){0}, visit);
}

/* ---- interrupts that hit a finalizer ---- */

static bool is_interrupt(PyObject *unraisable)
{
    PyObject *raised = PyObject_GetAttrString(unraisable, "exc_type");
    PyObject *class = interrupted_class();
    bool is = class != NULL && raised == class;
    PyErr_Clear();
    Py_XDECREF(class);
    Py_XDECREF(raised);
    return is;
}

PyDoc_STRVAR(
    report_unraisable_doc,
    "_report_unraisable(unraisable, /)\n--\n\n"
    "The sys.unraisablehook of a worker's own interpreter. An Interrupted that was raised in\n"
    "a finalizer is raised again after it; all else goes to sys.__unraisablehook__.");

/* In C, so that no interrupt is delivered in here. What it hits is what the worker runs. */
static PyObject *report_unraisable(PyObject *module, PyObject *unraisable)
{
    worker_data_t *data = state_of_module(module)->worker;
    if (data != NULL && data->thread_id == PyThread_get_thread_ident() &&
        is_interrupt(unraisable) && strike(data, &(target_t){0}))
        Py_RETURN_NONE;
    PyObject *usual = PySys_GetObject("__unraisablehook__"); /* borrowed */
    if (usual == NULL)
        Py_RETURN_NONE; /* the interpreter ends */
    return PyObject_CallOneArg(usual, unraisable);
}

int watch_finalizers(worker_data_t *data)
{
    static PyMethodDef method = {"_report_unraisable", report_unraisable, METH_O,
                                 report_unraisable_doc};
    PyObject *hook = PyCFunction_New(&method, data->module);
    int status =
        hook == NULL ? -1 : PyObject_SetAttrString(data->state->sys, "unraisablehook", hook);
    Py_XDECREF(hook);
    return status;
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
