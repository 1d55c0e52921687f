/* pool: PoolBase, the C half of plait.Pool.
 *
 * It owns the scheduler's handle and a shipper. After a fork the child's copy of a pool has no
 * workers: it refuses everything and never touches its scheduler, whose locks may be held by
 * threads that do not exist. In a process worker's child a pool of the parent has no scheduler here:
 * the parent is asked instead.
 */
#include "binding/nested.h"

/* Deep recursion in a worker must fail as it does in the main thread: with RecursionError. */
#define STACK_SIZE ((size_t)16 << 20)

/* ---- life ---- */

static bool forked(const pool_core_t *core)
{
    return core->fork_count != plait_prim_fork_count();
}

/* Whether it is a pool of the parent's, in a process worker's child. */
static bool is_remote(const pool_core_t *core)
{
    return core->sched == NULL;
}

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
    if (self->core == NULL || !self->handle || self->attached || forked(self->core))
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
        if (is_remote(self->core))
            free(self->core);
        else
            plait_sched_release(self->core->sched);
    } else if (self->core != NULL && self->handle && !forked(self->core)) {
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

static int open_initializer(pool_core_t *core, pool_object *self, module_state *state,
                            PyObject *initializer, PyObject *arguments)
{
    if (initializer == Py_None)
        return 0;
    if (core->kind == KIND_THREAD) {
        PyObject *functools = PyImport_ImportModule("functools");
        PyObject *partial = functools == NULL ? NULL : PyObject_GetAttrString(functools, "partial");
        PyObject *before = PyTuple_Pack(1, initializer);
        PyObject *all = before == NULL ? NULL : PySequence_Concat(before, arguments);
        if (partial != NULL && all != NULL)
            core->initializer = PyObject_CallObject(partial, all);
        Py_XDECREF(all);
        Py_XDECREF(before);
        Py_XDECREF(partial);
        Py_XDECREF(functools);
        return core->initializer == NULL ? -1 : 0;
    }
    core->initializer_shipment = ship(state, self->shipper, initializer);
    if (core->initializer_shipment == NULL)
        return -1;
    return encode_message(state, arguments, &core->initializer_arguments);
}

PyDoc_STRVAR(
    open_doc,
    "_open($self, kind, workers, prefix, setup, initializer, initargs, process, keep, /)\n--\n\n"
    "Makes the scheduler. kind: 'thread', 'interpreter' or 'process'. process: for that kind\n"
    "(the command that starts a child, as bytes; its environment likewise, () for this process's\n"
    "as it is now;\n"
    "how many tasks one child runs, 0 for any number; whether one that ran out of memory is\n"
    "replaced). keep: how many workers of its kind may be kept for later pools; 0 in\n"
    "all but the main interpreter. No worker is started yet.");

static pool_kind kind_of_name(const char *name)
{
    return strcmp(name, "thread") == 0        ? KIND_THREAD
           : strcmp(name, "interpreter") == 0 ? KIND_INTERPRETER
                                              : KIND_PROCESS;
}

/* Copies of a tuple's bytes, with NULL behind them, which need no interpreter. What was made is the
 * core's in any case. */
static int copy_strings(PyObject *tuple, char ***strings)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    char **copies = *strings = calloc((size_t)count + 1, sizeof *copies);
    for (Py_ssize_t index = 0; copies != NULL && index < count; index++) {
        const char *string = PyBytes_AsString(PyTuple_GET_ITEM(tuple, index));
        if (string == NULL)
            return -1;
        copies[index] = strdup(string);
        if (copies[index] == NULL)
            copies = NULL;
    }
    if (copies != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* This process's, likewise. */
static int copy_environment(char ***strings)
{
    size_t count = 0;
    while (environ != NULL && environ[count] != NULL)
        count++;
    char **copies = *strings = calloc(count + 1, sizeof *copies);
    for (size_t index = 0; copies != NULL && index < count; index++) {
        copies[index] = strdup(environ[index]);
        if (copies[index] == NULL)
            copies = NULL;
    }
    if (copies != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static int open_process(pool_core_t *core, PyObject *process)
{
    PyObject *program, *environment;
    unsigned long long tasks;
    int replaces;
    if (core->kind != KIND_PROCESS)
        return 0;
    if (!PyArg_ParseTuple(process, "O!O!Kp:_open", &PyTuple_Type, &program, &PyTuple_Type,
                          &environment, &tasks, &replaces))
        return -1;
    core->max_tasks = tasks;
    core->replaces = replaces;
    if (PyTuple_GET_SIZE(program) == 0) {
        PyErr_SetString(PyExc_TypeError, "expected a command as a tuple of bytes");
        return -1;
    }
    if (copy_strings(program, &core->program) < 0)
        return -1;
    return PyTuple_GET_SIZE(environment) == 0 ? copy_environment(&core->environment)
                                              : copy_strings(environment, &core->environment);
}

static PyObject *pool_open(PyObject *object, PyTypeObject *type, PyObject *const *args,
                           Py_ssize_t count, PyObject *Py_UNUSED(names))
{
    pool_object *self = (pool_object *)object;
    module_state *state = state_of_type(type);
    if (count != 8 || self->core != NULL)
        return PyErr_Format(PyExc_TypeError, "_open() takes eight arguments, once");
    const char *kind = PyUnicode_AsUTF8(args[0]), *prefix = PyUnicode_AsUTF8(args[2]);
    unsigned long workers = PyLong_AsUnsignedLong(args[1]);
    unsigned long keep = PyLong_AsUnsignedLong(args[7]);
    if (kind == NULL || prefix == NULL || PyErr_Occurred())
        return NULL;
    pool_core_t *core = calloc(1, sizeof *core);
    if (core == NULL)
        return PyErr_NoMemory();
    core->kind = kind_of_name(kind);
    core->keep = is_in_main_interpreter() ? (unsigned)keep : 0; /* which ends them at its exit */
    core->interpreter = PyInterpreterState_Get();
    core->maker = state;
    core->fork_count = plait_prim_fork_count();
    core->setup.root = core->initializer_arguments.root = plait_flat_const(PLAIT_FLAT_NONE);
    plait_sched_config_t config = {.workers = (unsigned)workers,
                                   .ops = core->kind == KIND_PROCESS ? &worker_process_ops
                                                                     : &worker_ops,
                                   .context = core,
                                   .name = prefix,
                                   .stack_size = STACK_SIZE};
    int result = plait_sched_create(&core->sched, &config);
    if (result != PLAIT_OK) {
        free(core);
        return raise_core_error(result, "making a pool");
    }
    self->module = Py_NewRef(PyType_GetModuleByDef(type, &plait_module_def));
    self->core = core; /* from here on dealloc cleans up */
    self->handle = true;
    core->name_prefix = strdup(prefix);
    if (core->name_prefix == NULL)
        return PyErr_NoMemory();
    self->shipper = shipper_new(state, core->kind == KIND_PROCESS);
    if (self->shipper == NULL || open_initializer(core, self, state, args[4], args[5]) < 0)
        return NULL;
    if (core->kind != KIND_THREAD && encode_message(state, args[3], &core->setup) < 0)
        return NULL;
    if (open_process(core, args[6]) < 0)
        return NULL;
    output_take_streams(state, false);
    Py_RETURN_NONE;
}

/* ---- submitting ---- */

PyObject *raise_submit_error(module_state *state, pool_object *pool, int code)
{
    if (plait_sched_is_broken(pool->core->sched)) {
        answer_t answer = {.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
        PyObject *exception;
        answer_broken(pool->core, &answer);
        answer_decode(state, &answer, &exception);
        answer_clear(&answer);
        if (exception != NULL)
            PyErr_SetRaisedException(exception);
        return NULL;
    }
    if (code == PLAIT_CLOSED)
        return PyErr_Format(PyExc_RuntimeError, "cannot schedule new futures after shutdown");
    return raise_core_error(code, "submitting a task (no thread could be started)");
}

/* Calls the method of the pool that `_elsewhere` gives for the function. */
static PyObject *call_elsewhere(PyObject *pool, PyObject *function, const char *name,
                                PyObject *const *args, size_t count, PyObject *names)
{
    PyObject *other = PyObject_CallMethod(pool, "_elsewhere", "O", function), *result = NULL;
    PyObject *method = other == NULL ? NULL : PyObject_GetAttrString(other, name);
    if (method != NULL)
        result = PyObject_Vectorcall(method, args, count, names);
    Py_XDECREF(method);
    Py_XDECREF(other);
    return result;
}

/* Submits elsewhere. `options`, if not NULL, stand before the function in the same array. */
static PyObject *submit_elsewhere(pool_object *self, PyObject *options, PyObject *const *args,
                                  Py_ssize_t count, PyObject *names)
{
    if (options == NULL)
        return call_elsewhere((PyObject *)self, args[0], "submit", args, (size_t)count, names);
    return call_elsewhere((PyObject *)self, args[0], "_submit_with", args - 1, (size_t)count + 1,
                          names);
}

/* Where there is no call: a future that fails with the exception, or what another pool makes of it. */
static PyObject *future_without_call(module_state *state, pool_object *self, PyObject *options,
                                     PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (!PyErr_Occurred())
        return submit_elsewhere(self, options, args, count, names);
    return PyErr_ExceptionMatches(PyExc_Exception) ? future_new(state, NULL) : NULL;
}

/* The call, ready to be run; NULL with an exception where something cannot travel, and without one
 * where it is not for this pool's workers. */
static call_t *make_call(module_state *state, pool_object *self, PyObject *const *args,
                         Py_ssize_t count, PyObject *names)
{
    if (self->core->kind == KIND_THREAD)
        return call_new_direct(args[0], args + 1, count - 1, names);
    call_t *call;
    Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
    call = call_new_flat(state, self->shipper, args[0], args + 1, count - 1, names);
    Py_END_CRITICAL_SECTION();
    return call;
}

/* 0, or -1 with the exception for a pool that takes no calls. */
static int check_open(module_state *state, pool_object *self)
{
    if (pool_check(self) < 0)
        return -1;
    if (is_remote(self->core)) /* it is asked with each call */
        return 0;
    if (plait_sched_is_closed(self->core->sched) || plait_sched_is_broken(self->core->sched)) {
        raise_submit_error(state, self, PLAIT_CLOSED);
        return -1;
    }
    return 0;
}

/* -2 .. 2, the greater the more urgent. */
static int level_from_priority(PyObject *priority, unsigned *level)
{
    long value = PyLong_AsLong(priority);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < -PLAIT_LEVEL_NORMAL || value > PLAIT_LEVEL_NORMAL) {
        PyErr_Format(PyExc_ValueError, "a priority is from %d to %d, not %ld", -PLAIT_LEVEL_NORMAL,
                     PLAIT_LEVEL_NORMAL, value);
        return -1;
    }
    *level = (unsigned)(PLAIT_LEVEL_NORMAL - value);
    return 0;
}

static int retries_from_int(PyObject *number, uint32_t *retries)
{
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < 0 || value > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "retries cannot be %ld", value);
        return -1;
    }
    *retries = (uint32_t)value;
    return 0;
}

/* An Options of plait._options: (priority, deadline in seconds from now or None, retries). */
static int options_from_tuple(PyObject *tuple, call_options_t *options)
{
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != 3) {
        PyErr_SetString(PyExc_TypeError, "expected a plait._options.Options");
        return -1;
    }
    if (deadline_from_timeout(PyTuple_GET_ITEM(tuple, 1), &options->deadline) < 0 ||
        retries_from_int(PyTuple_GET_ITEM(tuple, 2), &options->retries) < 0)
        return -1;
    return level_from_priority(PyTuple_GET_ITEM(tuple, 0), &options->level);
}

/* To the scheduler; the future of the call, whose reference is the caller's until then. */
static PyObject *hand_over(module_state *state, pool_object *self, call_t *call, unsigned level)
{
    call->sched_id = plait_sched_id(self->core->sched);
    call->fork_count = self->core->fork_count;
    plait_task_retain(
        &call->task); /* the future's; ours is dropped once the scheduler has its own */
    int result = plait_sched_submit_at(self->core->sched, &call->task, level);
    plait_task_release(&call->task);
    if (result == PLAIT_OK)
        return future_new(state, call);
    plait_task_release(&call->task);
    return raise_submit_error(state, self, result);
}

/* Likewise to a pool of the parent's. */
static PyObject *hand_over_remotely(module_state *state, pool_object *self, call_t *call,
                                    const call_options_t *options)
{
    int result = nested_submit(self->core, call, options);
    if (result == PLAIT_OK)
        return future_new(state, call);
    if (result == PLAIT_FULL) {
        PyObject *exception = NULL;
        Py_BEGIN_ALLOW_THREADS
        while (plait_task_wait(&call->task, PLAIT_PRIM_FOREVER) == PLAIT_INTERRUPTED)
            continue;
        Py_END_ALLOW_THREADS
        answer_decode(state, &call->answer, &exception);
        if (exception != NULL)
            PyErr_SetRaisedException(exception);
    } else if (result == PLAIT_CLOSED) {
        PyErr_SetString(PyExc_RuntimeError, "cannot schedule new futures after shutdown");
    } else if (result == PLAIT_INVALID) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this process is a worker, and can use the pools of its parent only while "
                        "it runs a task: a thread that goes on has to use a pool of its own");
    } else {
        raise_core_error(result, "submitting a task to a pool of the parent process");
    }
    plait_task_release(&call->task);
    return NULL;
}

PyDoc_STRVAR(
    submit_doc,
    "submit($self, fn, /, *args, **kwargs)\n--\n\n"
    "Schedules fn(*args, **kwargs) on a worker and returns its Future.\n\n"
    "A function or argument that cannot travel to the worker makes the future fail, with an\n"
    "exception that names it. Raises RuntimeError after shutdown and BrokenPool when an\n"
    "initializer failed. Any thread.");

static PyObject *pool_submit(PyObject *object, PyTypeObject *type, PyObject *const *args,
                             Py_ssize_t count, PyObject *names)
{
    pool_object *self = (pool_object *)object;
    module_state *state = state_of_type(type);
    if (count < 1)
        return PyErr_Format(PyExc_TypeError,
                            "submit() missing 1 required positional argument: 'fn'");
    if (check_open(state, self) < 0)
        return NULL;
    call_t *call = make_call(state, self, args, count, names);
    if (call == NULL)
        return future_without_call(state, self, NULL, args, count, names);
    if (is_remote(self->core)) {
        call_options_t usual = {.level = PLAIT_LEVEL_NORMAL, .deadline = PLAIT_PRIM_FOREVER};
        return hand_over_remotely(state, self, call, &usual);
    }
    return hand_over(state, self, call, PLAIT_LEVEL_NORMAL);
}

PyDoc_STRVAR(submit_with_doc, "_submit_with($self, options, fn, /, *args, **kwargs)\n--\n\n"
                              "submit() under options, an Options of plait._options.");

static PyObject *pool_submit_with(PyObject *object, PyTypeObject *type, PyObject *const *args,
                                  Py_ssize_t count, PyObject *names)
{
    pool_object *self = (pool_object *)object;
    module_state *state = state_of_type(type);
    call_options_t options;
    if (count < 2)
        return PyErr_Format(PyExc_TypeError,
                            "submit() missing 1 required positional argument: 'fn'");
    if (options_from_tuple(args[0], &options) < 0 || check_open(state, self) < 0)
        return NULL;
    call_t *call = make_call(state, self, args + 1, count - 1, names);
    if (call == NULL)
        return future_without_call(state, self, args[0], args + 1, count - 1, names);
    if (is_remote(self->core))
        return hand_over_remotely(state, self, call, &options);
    call->retries = options.retries;
    call->sched_id = plait_sched_id(self->core->sched); /* the timer may look for it at once */
    int result = deadline_start(call, options.deadline);
    if (result == PLAIT_OK)
        return hand_over(state, self, call, options.level);
    plait_task_release(&call->task);
    return raise_core_error(result, "giving a call a deadline");
}

PyDoc_STRVAR(attach_doc,
             "_attach($self, id, process, kind, /)\n--\n\n"
             "Makes this the pool with that id of that process, which is this one, where it lives\n"
             "in another interpreter or runs the task that asks, or the one whose worker this is.\n"
             "Raises RuntimeError if it is gone, cannot be reached, or its workers share objects.");

/* As pool_attach, for a pool of the parent's. */
static int attach_remotely(pool_object *self, uint64_t id, long process, const char *kind)
{
    if (!nested_reaches(process)) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "the plait.Pool of another process serves that one and the processes of its "
            "workers, not this one: make one here");
        return -1;
    }
    self->core = calloc(1, sizeof *self->core);
    if (self->core == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->core->kind = kind_of_name(kind);
    self->core->remote = id;
    self->core->interpreter = PyInterpreterState_Get();
    self->core->fork_count = plait_prim_fork_count();
    return 0;
}

/* Likewise of this process. */
static int attach_here(pool_object *self, uint64_t id)
{
    plait_sched_t *sched = plait_sched_find(id);
    if (sched == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pool is gone");
        return -1;
    }
    self->core = plait_sched_context(sched);
    return 0;
}

static PyObject *pool_attach(PyObject *object, PyTypeObject *type, PyObject *const *args,
                             Py_ssize_t count, PyObject *Py_UNUSED(names))
{
    pool_object *self = (pool_object *)object;
    if (count != 3 || self->core != NULL)
        return PyErr_Format(PyExc_TypeError, "_attach() takes three arguments, once");
    uint64_t id = PyLong_AsUnsignedLongLong(args[0]);
    long process = PyLong_AsLong(args[1]);
    const char *kind = PyUnicode_AsUTF8(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if ((process == plait_prim_process_id() ? attach_here(self, id)
                                            : attach_remotely(self, id, process, kind)) < 0)
        return NULL;
    self->handle = self->attached = true;
    if (self->core->kind == KIND_THREAD &&
        (is_remote(self->core) || self->core->interpreter != PyInterpreterState_Get()))
        return PyErr_Format(PyExc_RuntimeError,
                            "a pool of threads serves its own interpreter only: "
                            "use kind='interpreter' to share a pool");
    self->shipper = shipper_new(state_of_type(type), self->core->kind == KIND_PROCESS);
    if (self->shipper == NULL)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    map_doc,
    "_map($self, fn, iterator, star, ordered, timeout, window, options, lazy, /)\n--\n\n"
    "An iterator over fn's results. window: items in flight at most; 0: bounded by memory. lazy:\n"
    "takes a block of the input now, and more when it is asked.");

/* By one call for each item, see plait._nested. */
static PyObject *map_remotely(PyObject *object, PyObject *const *args, size_t count)
{
    PyObject *all[9] = {object};
    PyObject *module = PyImport_ImportModule("plait._nested"), *class = NULL, *map = NULL;
    if (module != NULL)
        class = PyObject_GetAttrString(module, "Map");
    for (size_t index = 0; index < count; index++)
        all[index + 1] = args[index];
    if (class != NULL)
        map = PyObject_Vectorcall(class, all, count + 1, NULL);
    Py_XDECREF(class);
    Py_XDECREF(module);
    return map;
}

static PyObject *pool_map(PyObject *object, PyTypeObject *type, PyObject *const *args,
                          Py_ssize_t count, PyObject *Py_UNUSED(names))
{
    pool_object *self = (pool_object *)object;
    module_state *state = state_of_type(type);
    if (count != 8)
        return PyErr_Format(PyExc_TypeError, "_map() takes eight arguments");
    map_options_t options = {
        .star = args[2] == Py_True, .ordered = args[3] == Py_True, .lazy = args[7] == Py_True};
    Py_ssize_t window = PyLong_AsSsize_t(args[5]);
    if (self->core != NULL && self->handle && is_remote(self->core))
        return map_remotely(object, args, (size_t)count);
    if ((window == -1 && PyErr_Occurred()) || check_open(state, self) < 0 ||
        deadline_from_timeout(args[4], &options.timeout) < 0 ||
        options_from_tuple(args[6], &options.call) < 0)
        return NULL;
    options.window = (uint64_t)window;
    PyObject *results = map_start(state, self, args[0], args[1], &options);
    if (results != NULL || PyErr_Occurred())
        return results;
    return call_elsewhere(object, args[0], "_map", args, (size_t)count, NULL);
}

PyDoc_STRVAR(place_doc, "_place_with($self, decide, /)\n--\n\n"
                        "decide(fn) says whether fn's calls go to the pool that _elsewhere(fn) "
                        "gives.");

static PyObject *pool_place_with(PyObject *object, PyObject *decide)
{
    shipper_place_with(((pool_object *)object)->shipper, decide);
    Py_RETURN_NONE;
}

/* ---- ending ---- */

PyDoc_STRVAR(close_doc, "_close($self, drain, /)\n--\n\n"
                        "No more submits; drain: cancel what no worker has begun.");

static PyObject *pool_close(PyObject *object, PyObject *drain)
{
    pool_object *self = (pool_object *)object;
    if (self->core == NULL || !self->handle || forked(self->core))
        Py_RETURN_NONE;
    if (is_remote(self->core)) {
        nested_ask(ASK_CLOSE, self->core->remote, drain == Py_True);
        Py_RETURN_NONE;
    }
    plait_sched_close(self->core->sched);
    if (drain == Py_True)
        plait_sched_drain(self->core->sched);
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
    if (self->core == NULL || !self->handle || forked(self->core))
        Py_RETURN_NONE;
    if (is_remote(self->core))
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
    if (self->core == NULL || !self->handle || forked(self->core))
        Py_RETURN_NONE;
    if (is_remote(self->core))
        nested_ask(ASK_STOP, self->core->remote, 0);
    else
        interrupt_workers(self->core);
    Py_RETURN_NONE;
}

static PyObject *pool_living(PyObject *object, void *Py_UNUSED(closure))
{
    pool_object *self = (pool_object *)object;
    bool mine = self->core != NULL && self->handle && !forked(self->core);
    if (mine && is_remote(self->core))
        return PyLong_FromUnsignedLongLong(nested_ask(ASK_LIVING, self->core->remote, 0));
    return PyLong_FromUnsignedLong(mine ? plait_sched_living(self->core->sched) : 0);
}

static PyObject *pool_id(PyObject *object, void *Py_UNUSED(closure))
{
    pool_object *self = (pool_object *)object;
    if (pool_check(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(is_remote(self->core) ? self->core->remote
                                                             : plait_sched_id(self->core->sched));
}

static PyMethodDef pool_methods[] = {
    {"_open", (PyCFunction)(void (*)(void))pool_open, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     open_doc},
    {"_attach", (PyCFunction)(void (*)(void))pool_attach,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, attach_doc},
    {"submit", (PyCFunction)(void (*)(void))pool_submit,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, submit_doc},
    {"_submit_with", (PyCFunction)(void (*)(void))pool_submit_with,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, submit_with_doc},
    {"_map", (PyCFunction)(void (*)(void))pool_map, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     map_doc},
    {"_place_with", pool_place_with, METH_O, place_doc},
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
