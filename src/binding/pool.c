/* pool: the life of a pool, and its end. */
#include "binding/pool.h"

#include "binding/nested.h"

/* ---- life ---- */

int raise_if_inherited(uint32_t fork_count, const char *what)
{
    if (fork_count == plait_prim_fork_count())
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "this %s belongs to the parent process, and the workers did not come along with "
                 "fork(): make a new pool in the child",
                 what);
    return -1;
}

int pool_check(pool_object *pool)
{
    if (pool->core == NULL || !pool->handle)
        PyErr_SetString(PyExc_RuntimeError, "the pool was not initialised");
    else
        return raise_if_inherited(pool->core->fork_count, "pool");
    return -1;
}

/* Whether the initializer's only reference is this pool's: not while a worker may still call it. One
 * that was started and has not entered counts as living; nobody starts another one of a pool that
 * cannot be reached. */
static bool owns_initializer(pool_object *self)
{
    if (self->core == NULL || !self->handle || self->attached || pool_is_forked(self->core))
        return false;
    unsigned living = plait_sched_living(self->core->sched);
    return plait_atomic_load_seq_cst(&self->core->entered) == living;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg)
{
    pool_object *self = (pool_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->module);
    if (owns_initializer(self))
        Py_VISIT(self->core->initializer);
    return 0;
}

/* A pool that is gone still finishes what was submitted; its handle is kept until that is so, for
 * the exit of the interpreter to wait for. False without memory. */
static bool add_orphan(module_state *state, plait_sched_t *sched)
{
    plait_prim_lock(&state->orphan_lock);
    size_t count = state->orphan_count + 1;
    plait_sched_t **orphans = PyMem_Realloc(state->orphans, count * sizeof *orphans);
    if (orphans != NULL) {
        orphans[count - 1] = sched;
        state->orphans = orphans;
        state->orphan_count = count;
    }
    plait_prim_unlock(&state->orphan_lock);
    return orphans != NULL;
}

/* Takes one out: any, or one whose workers have ended. NULL where there is none. */
static plait_sched_t *take_orphan(module_state *state, bool any)
{
    plait_sched_t *taken = NULL;
    plait_prim_lock(&state->orphan_lock);
    for (size_t index = 0; taken == NULL && index < state->orphan_count; index++)
        if (any || plait_sched_living(state->orphans[index]) == 0) {
            taken = state->orphans[index];
            state->orphans[index] = state->orphans[--state->orphan_count];
        }
    plait_prim_unlock(&state->orphan_lock);
    return taken;
}

/* 0 once the workers have ended, -1 with an exception. */
static int join(plait_sched_t *sched)
{
    for (int64_t since = 0;;) {
        int result;
        bool stepped;
        if (help_while_waiting(0, &since, &stepped) < 0) /* its own pool, not the one that ends */
            return -1;
        if (stepped)
            continue;
        Py_BEGIN_ALLOW_THREADS
        result = plait_sched_join(sched, deadline_of_sleep(PLAIT_PRIM_FOREVER));
        Py_END_ALLOW_THREADS
        if (result == PLAIT_OK)
            return 0;
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

int pool_join_orphans(module_state *state)
{
    plait_sched_t *sched;
    while ((sched = take_orphan(state, true)) != NULL) {
        if (join(sched) < 0) {
            add_orphan(state, sched);
            return -1;
        }
        plait_sched_release(sched);
    }
    return 0;
}

static void pool_dealloc(PyObject *object)
{
    pool_object *self = (pool_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    shipper_free(self->shipper);
    if (self->core != NULL && self->handle && self->attached) {
        if (pool_is_remote(self->core))
            free(self->core);
        else
            plait_sched_release(self->core->sched);
    } else if (self->core != NULL && self->handle && !pool_is_forked(self->core)) {
        plait_sched_close(self->core->sched);
        module_state *state = state_of_module(self->module);
        plait_sched_t *sched = self->core->sched;
        if (plait_sched_living(sched) == 0)
            plait_sched_release(sched);
        else
            add_orphan(state, sched); /* without memory the handle leaks, and nobody waits for it */
        while ((sched = take_orphan(state, false)) != NULL)
            plait_sched_release(sched);
    }
    Py_XDECREF(self->module);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- ending ---- */

PyDoc_STRVAR(close_doc, "_close($self, drain, /)\n--\n\n"
                        "No more submits; drain: cancel what no worker has begun.");

static PyObject *pool_close(PyObject *object, PyObject *drain)
{
    pool_object *self = (pool_object *)object;
    if (self->core == NULL || !self->handle || pool_is_forked(self->core))
        Py_RETURN_NONE;
    if (pool_is_remote(self->core)) {
        nested_ask(ASK_CLOSE, self->core->remote, drain == Py_True);
        Py_RETURN_NONE;
    }
    plait_sched_close(self->core->sched);
    if (drain == Py_True)
        core_drain(self->core);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(join_doc,
             "_join($self, /)\n--\n\n"
             "Waits until every worker has ended, after _close(). Not for workers themselves.");

/* Likewise, of a pool of the parent's. */
static int join_remotely(const pool_core_t *core)
{
    static const uint32_t nothing;
    worker_data_t *data = worker_of_thread();
    if (data != NULL && data->core->remote == core->remote)
        return 0;
    for (int64_t since = 0; nested_ask(ASK_LIVING, core->remote, 0) > 0;) {
        bool stepped;
        if (help_while_waiting(0, &since, &stepped) < 0 || PyErr_CheckSignals() < 0)
            return -1;
        if (stepped)
            continue;
        Py_BEGIN_ALLOW_THREADS
        plait_prim_wait(&nothing, 0, deadline_of_sleep(PLAIT_PRIM_FOREVER), false);
        Py_END_ALLOW_THREADS
    }
    return 0;
}

static PyObject *pool_join(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pool_object *self = (pool_object *)object;
    if (self->core == NULL || !self->handle || pool_is_forked(self->core))
        Py_RETURN_NONE;
    if (pool_is_remote(self->core))
        return join_remotely(self->core) < 0 ? NULL : Py_NewRef(Py_None);
    plait_worker_t *worker = plait_worker_current();
    if (worker != NULL && plait_worker_sched(worker) == self->core->sched)
        Py_RETURN_NONE; /* a task that shuts its own pool down cannot wait for itself */
    if (join(self->core->sched) < 0)
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(object);
    shipper_forget(self->shipper);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(interrupt_doc,
             "_interrupt($self, /)\n--\n\n"
             "Has Interrupted raised in whatever the workers still run, after _close(True).");

static PyObject *pool_interrupt(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pool_object *self = (pool_object *)object;
    if (self->core == NULL || !self->handle || pool_is_forked(self->core))
        Py_RETURN_NONE;
    if (pool_is_remote(self->core))
        nested_ask(ASK_STOP, self->core->remote, 0);
    else
        interrupt_workers(self->core);
    Py_RETURN_NONE;
}

static PyObject *pool_living(PyObject *object, void *Py_UNUSED(closure))
{
    pool_object *self = (pool_object *)object;
    bool mine = self->core != NULL && self->handle && !pool_is_forked(self->core);
    if (mine && pool_is_remote(self->core))
        return PyLong_FromUnsignedLongLong(nested_ask(ASK_LIVING, self->core->remote, 0));
    return PyLong_FromUnsignedLong(mine ? plait_sched_living(self->core->sched) : 0);
}

static PyObject *pool_id(PyObject *object, void *Py_UNUSED(closure))
{
    pool_object *self = (pool_object *)object;
    if (pool_check(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(
        pool_is_remote(self->core) ? self->core->remote : plait_sched_id(self->core->sched));
}

static PyMethodDef pool_methods[] = {
    {"_open", (PyCFunction)(void (*)(void))pool_open, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     pool_open_doc},
    {"_attach", (PyCFunction)(void (*)(void))pool_attach,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, pool_attach_doc},
    {"submit", (PyCFunction)(void (*)(void))pool_submit,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, pool_submit_doc},
    {"_submit_with", (PyCFunction)(void (*)(void))pool_submit_with,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, pool_submit_with_doc},
    {"_map", (PyCFunction)(void (*)(void))pool_map, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     pool_map_doc},
    {"_place_with", pool_place_with, METH_O, pool_place_with_doc},
    {"_close", pool_close, METH_O, close_doc},
    {"_interrupt", pool_interrupt, METH_NOARGS, interrupt_doc},
    {"_join", pool_join, METH_NOARGS, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_attributes[] = {
    {"_living", pool_living, NULL, "Workers that have started and not ended: a snapshot.", NULL},
    {"_id", pool_id, NULL, "The number that _attach() takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, "The C half of plait.Pool."},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_attributes},
    {0, NULL},
};

PyType_Spec pool_spec = {
    .name = "plait._plait.PoolBase",
    .basicsize = sizeof(pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = pool_slots,
};
