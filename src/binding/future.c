/* future: FutureBase, the C half of plait.Future.
 *
 * A future owns a reference to its call and asks the call's state word directly; decoding happens
 * in the thread that asks, once. What concurrent.futures itself wants of a future (a condition,
 * waiters, callbacks) is a *bridge* that plait._future makes when it is first asked for: only then
 * is the task watched, and the notifier publishes its end to the bridge. Design:
 * docs/design/future.md
 */
#include "binding/nested.h"

typedef struct future_object {
    PyObject_HEAD
    call_t *call;        /* a reference; NULL: failed before there was one */
    PyObject *value;     /* the decoded result, once asked for */
    PyObject *exception; /* the decoded exception, likewise */
    PyObject *bridge;    /* NULL until concurrent.futures or a callback wants one */
    unsigned decoding;   /* threads that read the call's answer at this moment */
} future_object;

static uint32_t state_of(future_object *self)
{
    return self->call == NULL ? PLAIT_TASK_DONE : plait_task_state(&self->call->task);
}

/* ---- life ---- */

PyObject *future_new(module_state *state, call_t *call)
{
    PyTypeObject *class = (PyTypeObject *)state->future_class;
    future_object *self = (future_object *)class->tp_alloc(class, 0);
    if (self == NULL) {
        if (call != NULL)
            plait_task_release(&call->task);
        return NULL;
    }
    self->call = call;
    if (call == NULL)
        self->exception = take_raised();
    return (PyObject *)self;
}

/* The object that a thread worker answered with and nobody has asked for yet; nobody but this future
 * uses it. NULL where there is none. */
static PyObject **undecoded(future_object *self)
{
    bool there = self->call != NULL && (plait_task_state(&self->call->task) & PLAIT_TASK_DONE);
    return there && self->call->answer.object != NULL ? &self->call->answer.object : NULL;
}

static int future_traverse(PyObject *object, visitproc visit, void *arg)
{
    future_object *self = (future_object *)object;
    PyObject **answer = undecoded(self);
    if (answer != NULL)
        Py_VISIT(*answer);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->value);
    Py_VISIT(self->exception);
    Py_VISIT(self->bridge);
    return 0;
}

static int future_clear(PyObject *object)
{
    future_object *self = (future_object *)object;
    PyObject **answer = undecoded(self);
    if (answer != NULL)
        Py_CLEAR(*answer);
    Py_CLEAR(self->value);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->bridge);
    return 0;
}

static void future_dealloc(PyObject *object)
{
    future_object *self = (future_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    future_clear(object);
    if (self->call != NULL)
        plait_task_release(&self->call->task);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- waiting ---- */

static PyObject *raise_from_module(const char *module_name, const char *class_name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, class_name);
    if (class != NULL)
        PyErr_SetNone(class);
    Py_XDECREF(class);
    Py_XDECREF(module);
    return NULL;
}

/* 0 once the future is final, -1 with an exception (TimeoutError, KeyboardInterrupt). */
static int wait_until_final(future_object *self, PyObject *timeout)
{
    if (plait_task_is_final(state_of(self)))
        return 0;
    int64_t deadline;
    if (raise_if_inherited(self->call->fork_count, "future") < 0 ||
        deadline_from_timeout(timeout, &deadline) < 0)
        return -1;
    for (int64_t since = 0;;) {
        int result;
        bool stepped;
        if (help_while_waiting(self->call->sched_id, &since, &stepped) < 0)
            return -1;
        if (plait_task_is_final(state_of(self)))
            return 0;
        if (stepped)
            continue;
        Py_BEGIN_ALLOW_THREADS
        result = plait_task_wait(&self->call->task, deadline_of_sleep(deadline));
        Py_END_ALLOW_THREADS
        if (result == PLAIT_OK)
            return 0;
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (result == PLAIT_TIMEOUT && plait_prim_now() >= deadline) {
            PyErr_SetNone(PyExc_TimeoutError);
            return -1;
        }
    }
}

/* Decodes the answer of a final future that was not cancelled, unless that is done already. Several
 * threads may be at it at once, since decoding may run Python code: the first to end counts. The
 * answer goes when nobody reads it any more. 0, or -1 with an exception that is the asker's own. */
static int settle(future_object *self, module_state *state)
{
    PyObject *value = NULL, *exception = NULL;
    int status = 0;
    Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
    if (self->value == NULL && self->exception == NULL) {
        self->decoding++;
        value = answer_decode(state, &self->call->answer, &exception);
        if (value != NULL || exception != NULL)
            status = 0;
        else if (PyErr_ExceptionMatches(PyExc_Exception))
            exception = take_raised(); /* what was sent back cannot be decoded here */
        else
            status = -1; /* Ctrl-C, or an interrupt */
        self->decoding--;
        if (status == 0 && self->value == NULL && self->exception == NULL) {
            self->value = Py_XNewRef(value);
            self->exception = Py_XNewRef(exception);
        }
        if (self->decoding == 0 && (self->value != NULL || self->exception != NULL))
            answer_clear(&self->call->answer);
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(value);
    Py_XDECREF(exception);
    return status;
}

static PyObject *argument_timeout(const char *name, PyObject *const *args, Py_ssize_t count,
                                  PyObject *names)
{
    Py_ssize_t keywords = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count + keywords > 1)
        return PyErr_Format(PyExc_TypeError, "%s() takes at most one argument, timeout", name);
    if (keywords == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)
        return PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", name,
                            PyTuple_GET_ITEM(names, 0));
    return count + keywords == 1 ? args[0] : Py_None;
}

/* Waits and decodes. 0, or -1 with an exception of the waiting itself (CancelledError among them).
 */
static int await_answer(future_object *self, PyTypeObject *type, PyObject *timeout)
{
    if (wait_until_final(self, timeout) < 0)
        return -1;
    if (state_of(self) & PLAIT_TASK_CANCELLED) {
        raise_from_module("concurrent.futures", "CancelledError");
        return -1;
    }
    return settle(self, state_of_type(type));
}

PyDoc_STRVAR(result_doc,
             "result($self, /, timeout=None)\n--\n\n"
             "The call's result, decoded in the calling thread; waits for it if need be.\n\n"
             "timeout: seconds, None for no limit. Raises TimeoutError when it passes,\n"
             "CancelledError if the call was cancelled, or what the call raised. Any thread.");

static PyObject *future_result(PyObject *object, PyTypeObject *type, PyObject *const *args,
                               Py_ssize_t count, PyObject *names)
{
    future_object *self = (future_object *)object;
    PyObject *timeout = argument_timeout("result", args, count, names);
    if (timeout == NULL || await_answer(self, type, timeout) < 0)
        return NULL;
    if (self->value != NULL)
        return Py_NewRef(self->value);
    PyErr_SetRaisedException(Py_NewRef(self->exception));
    return NULL;
}

PyDoc_STRVAR(exception_doc, "exception($self, /, timeout=None)\n--\n\n"
                            "What the call raised, or None; waits like result(). Any thread.");

static PyObject *future_exception(PyObject *object, PyTypeObject *type, PyObject *const *args,
                                  Py_ssize_t count, PyObject *names)
{
    future_object *self = (future_object *)object;
    PyObject *timeout = argument_timeout("exception", args, count, names);
    if (timeout == NULL || await_answer(self, type, timeout) < 0)
        return NULL;
    return Py_NewRef(self->exception == NULL ? Py_None : self->exception);
}

/* ---- state ---- */

static PyObject *future_get_bridge(PyObject *object, void *ignored);

/* What the parent says of a call that a process worker's child has submitted to it. */
static bool ask_parent(const call_t *call, unsigned what)
{
    return call->fork_count == plait_prim_fork_count() &&
           nested_ask(what, call->nested->number, 0) != 0;
}

static bool cancel_call(call_t *call, bool *first)
{
    *first = false;
    if (call->nested != NULL && !plait_task_is_final(plait_task_state(&call->task)) &&
        !ask_parent(call, ASK_CANCEL))
        return false;
    return call_cancel(call, first);
}

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Cancels the call unless a worker has begun it. True if it is cancelled. Any thread.");

static PyObject *future_cancel(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    future_object *self = (future_object *)object;
    bool first;
    if (self->call == NULL || !cancel_call(self->call, &first))
        Py_RETURN_FALSE;
    PyObject *bridge = first ? future_get_bridge(object, NULL) : Py_None;
    if (first)
        Py_DECREF(bridge);
    if (bridge != Py_None) {
        PyObject *published = PyObject_CallMethod(object, "_publish", NULL);
        if (published == NULL)
            return NULL;
        Py_DECREF(published);
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(interrupt_doc,
             "interrupt($self, /)\n--\n\n"
             "Stops the call: cancels it if no worker has begun it, else has plait.Interrupted\n"
             "raised in it, as soon as it runs Python code. False if it has ended already.\n"
             "The worker lives on. Any thread.");

static PyObject *future_interrupt(PyObject *object, PyObject *ignored)
{
    future_object *self = (future_object *)object;
    PyObject *cancelled = future_cancel(object, ignored);
    if (cancelled != Py_False)
        return cancelled;
    Py_DECREF(cancelled);
    if (self->call != NULL && self->call->nested != NULL)
        return PyBool_FromLong(!plait_task_is_final(state_of(self)) &&
                               ask_parent(self->call, ASK_INTERRUPT));
    return PyBool_FromLong(self->call != NULL && interrupt_call(self->call));
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\nTrue if the call has ended or was cancelled.");

static PyObject *future_done(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(plait_task_is_final(state_of((future_object *)object)));
}

PyDoc_STRVAR(running_doc, "running($self, /)\n--\n\nTrue while a worker runs the call.");

static PyObject *future_running(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    future_object *self = (future_object *)object;
    uint32_t state = state_of(self);
    if (self->call != NULL && self->call->nested != NULL && !plait_task_is_final(state))
        return PyBool_FromLong(ask_parent(self->call, ASK_RUNNING));
    return PyBool_FromLong((state & PLAIT_TASK_RUNNING) && !plait_task_is_final(state));
}

PyDoc_STRVAR(cancelled_doc,
             "cancelled($self, /)\n--\n\nTrue if the call was cancelled before it began.");

static PyObject *future_cancelled(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong((state_of((future_object *)object) & PLAIT_TASK_CANCELLED) != 0);
}

PyDoc_STRVAR(help_doc,
             "_help($self, waited, /)\n--\n\n"
             "One step of a wait that has lasted so many seconds: a worker runs something of its\n"
             "pool. Whether it did.");

static PyObject *future_help(PyObject *object, PyObject *waited)
{
    future_object *self = (future_object *)object;
    double seconds = PyFloat_AsDouble(waited);
    int64_t since = plait_prim_now() - (int64_t)(seconds * 1e9);
    bool stepped = false;
    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    if (self->call != NULL && help_while_waiting(self->call->sched_id, &since, &stepped) < 0)
        return NULL;
    return PyBool_FromLong(stepped);
}

/* ---- the bridge ---- */

PyDoc_STRVAR(watch_doc,
             "_watch($self, bridge, /)\n--\n\n"
             "Gives the future its bridge, unless it has one, and asks that the notifier publish\n"
             "it. False if it had one already or is final.");

static PyObject *future_watch(PyObject *object, PyTypeObject *type, PyObject *const *args,
                              Py_ssize_t count, PyObject *Py_UNUSED(names))
{
    future_object *self = (future_object *)object;
    bool first;
    if (count != 1)
        return PyErr_Format(PyExc_TypeError, "_watch() takes one argument");
    Py_BEGIN_CRITICAL_SECTION(object);
    first = self->bridge == NULL;
    if (first)
        self->bridge = Py_NewRef(args[0]);
    Py_END_CRITICAL_SECTION();
    if (!first || self->call == NULL)
        Py_RETURN_FALSE;
    self->call->watcher = Py_NewRef(object);
    if (plait_task_watch(&self->call->task, &state_of_type(type)->notifier))
        Py_RETURN_TRUE;
    Py_CLEAR(self->call->watcher);
    Py_RETURN_FALSE;
}

static PyObject *future_get_bridge(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *bridge;
    Py_BEGIN_CRITICAL_SECTION(object);
    bridge = Py_XNewRef(((future_object *)object)->bridge);
    Py_END_CRITICAL_SECTION();
    return bridge == NULL ? Py_NewRef(Py_None) : bridge;
}

PyObject *future_take_finished(module_state *state)
{
    plait_link_t *link;
    int result;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = plait_mailbox_take(&state->notifier, PLAIT_PRIM_FOREVER, &link);
        Py_END_ALLOW_THREADS
    } while (result == PLAIT_INTERRUPTED);
    if (result != PLAIT_OK)
        Py_RETURN_NONE;
    PyObject *futures = PyList_New(0);
    while (link != NULL) {
        plait_link_t *next = link->next;
        call_t *call = (call_t *)plait_task_of_link(link);
        PyObject *future = call->watcher;
        call->watcher = NULL;
        if (futures != NULL && PyList_Append(futures, future) < 0)
            Py_CLEAR(futures);
        Py_DECREF(future);
        plait_task_release(&call->task);
        link = next;
    }
    return futures;
}

static PyMethodDef future_methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, result_doc},
    {"exception", (PyCFunction)(void (*)(void))future_exception,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, exception_doc},
    {"cancel", future_cancel, METH_NOARGS, cancel_doc},
    {"interrupt", future_interrupt, METH_NOARGS, interrupt_doc},
    {"done", future_done, METH_NOARGS, done_doc},
    {"running", future_running, METH_NOARGS, running_doc},
    {"cancelled", future_cancelled, METH_NOARGS, cancelled_doc},
    {"_help", future_help, METH_O, help_doc},
    {"_watch", (PyCFunction)(void (*)(void))future_watch,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, watch_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef future_attributes[] = {
    {"_bridge", future_get_bridge, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, "The C half of plait.Future; made by pools only."},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_attributes},
    {0, NULL},
};

PyType_Spec future_spec = {
    .name = "plait._plait.FutureBase",
    .basicsize = sizeof(future_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = future_slots,
};
