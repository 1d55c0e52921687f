/* pool_submit: calls and maps on their way to a pool's workers. */
#include "binding/pool.h"

#include "binding/nested.h"

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
    if (pool_is_remote(self->core)) /* it is asked with each call */
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

const char pool_submit_doc[] = PyDoc_STR(
    "submit($self, fn, /, *args, **kwargs)\n--\n\n"
    "Schedules fn(*args, **kwargs) on a worker and returns its Future.\n\n"
    "A function or argument that cannot travel to the worker makes the future fail, with an\n"
    "exception that names it. Raises RuntimeError after shutdown and BrokenPool when an\n"
    "initializer failed. Any thread.");

PyObject *pool_submit(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                      PyObject *names)
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
    if (pool_is_remote(self->core)) {
        call_options_t usual = {.level = PLAIT_LEVEL_NORMAL, .deadline = PLAIT_PRIM_FOREVER};
        return hand_over_remotely(state, self, call, &usual);
    }
    return hand_over(state, self, call, PLAIT_LEVEL_NORMAL);
}

const char pool_submit_with_doc[] =
    PyDoc_STR("_submit_with($self, options, fn, /, *args, **kwargs)\n--\n\n"
              "submit() under options, an Options of plait._options.");

PyObject *pool_submit_with(PyObject *object, PyTypeObject *type, PyObject *const *args,
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
    if (pool_is_remote(self->core))
        return hand_over_remotely(state, self, call, &options);
    call->retries = options.retries;
    call->sched_id = plait_sched_id(self->core->sched); /* the timer may look for it at once */
    int result = deadline_start(call, options.deadline);
    if (result == PLAIT_OK)
        return hand_over(state, self, call, options.level);
    plait_task_release(&call->task);
    return raise_core_error(result, "giving a call a deadline");
}

const char pool_map_doc[] = PyDoc_STR(
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

PyObject *pool_map(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                   PyObject *Py_UNUSED(names))
{
    pool_object *self = (pool_object *)object;
    module_state *state = state_of_type(type);
    if (count != 8)
        return PyErr_Format(PyExc_TypeError, "_map() takes eight arguments");
    map_options_t options = {
        .star = args[2] == Py_True, .ordered = args[3] == Py_True, .lazy = args[7] == Py_True};
    Py_ssize_t window = PyLong_AsSsize_t(args[5]);
    if (self->core != NULL && self->handle && pool_is_remote(self->core))
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

const char pool_place_with_doc[] =
    PyDoc_STR("_place_with($self, decide, /)\n--\n\n"
              "decide(fn) says whether fn's calls go to the pool that _elsewhere(fn) "
              "gives.");

PyObject *pool_place_with(PyObject *object, PyObject *decide)
{
    shipper_place_with(((pool_object *)object)->shipper, decide);
    Py_RETURN_NONE;
}
