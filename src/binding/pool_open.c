/* pool_open: pools come into being, or are found again by a worker. */
#include "binding/pool.h"

#include "binding/nested.h"

/* Deep recursion in a worker must fail as it does in the main thread: with RecursionError. */
#define STACK_SIZE ((size_t)16 << 20)

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

const char pool_open_doc[] = PyDoc_STR(
    "_open($self, kind, workers, prefix, setup, initializer, initargs, process, keep, /)\n--\n\n"
    "Makes the scheduler. kind: 'thread', 'interpreter' or 'process'. process: for that kind\n"
    "(the command that starts a child, as bytes; one that starts their template, () for none; the\n"
    "environment of both likewise, () for this process's as it is now;\n"
    "how many tasks one child runs, 0 for any number; whether one that ran out of memory is\n"
    "replaced). keep: how many workers of its kind may be kept for later pools; 0 in\n"
    "all but the main interpreter. No worker is started yet.");

static pool_kind kind_of_name(const char *name)
{
    return strcmp(name, "thread") == 0        ? KIND_THREAD
           : strcmp(name, "interpreter") == 0 ? KIND_INTERPRETER
                                              : KIND_PROCESS;
}

/* Copies, with NULL behind them, which need no interpreter. What was made is the core's in any case. */
static int copy_strings(const char *const *strings, size_t count, char ***copies)
{
    char **made = *copies = calloc(count + 1, sizeof *made);
    for (size_t index = 0; made != NULL && index < count; index++) {
        made[index] = strdup(strings[index]);
        if (made[index] == NULL)
            made = NULL;
    }
    if (made != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* Likewise of a tuple's bytes. */
static int copy_tuple(PyObject *tuple, char ***copies)
{
    size_t count = (size_t)PyTuple_GET_SIZE(tuple);
    const char **strings = calloc(count + 1, sizeof *strings);
    if (strings == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int result = 0;
    for (size_t index = 0; result == 0 && index < count; index++) {
        strings[index] = PyBytes_AsString(PyTuple_GET_ITEM(tuple, (Py_ssize_t)index));
        result = strings[index] == NULL ? -1 : 0;
    }
    if (result == 0)
        result = copy_strings(strings, count, copies);
    free(strings);
    return result;
}

/* Likewise of this process's environment. */
static int copy_environment(char ***copies)
{
    size_t count = 0;
    while (environ != NULL && environ[count] != NULL)
        count++;
    return copy_strings((const char *const *)environ, count, copies);
}

static int open_process(pool_core_t *core, PyObject *process)
{
    PyObject *program, *template, *environment;
    unsigned long long tasks;
    int replaces;
    if (core->kind != KIND_PROCESS)
        return 0;
    if (!PyArg_ParseTuple(process, "O!O!O!Kp:_open", &PyTuple_Type, &program, &PyTuple_Type,
                          &template, &PyTuple_Type, &environment, &tasks, &replaces))
        return -1;
    core->max_tasks = tasks;
    core->replaces = replaces;
    if (PyTuple_GET_SIZE(program) == 0) {
        PyErr_SetString(PyExc_TypeError, "expected a command as a tuple of bytes");
        return -1;
    }
    if (copy_tuple(program, &core->program) < 0 ||
        (PyTuple_GET_SIZE(template) > 0 && copy_tuple(template, &core->template_program) < 0))
        return -1;
    return PyTuple_GET_SIZE(environment) == 0 ? copy_environment(&core->environment)
                                              : copy_tuple(environment, &core->environment);
}

PyObject *pool_open(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                    PyObject *Py_UNUSED(names))
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

const char pool_attach_doc[] = PyDoc_STR(
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

PyObject *pool_attach(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                      PyObject *Py_UNUSED(names))
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
        (pool_is_remote(self->core) || self->core->interpreter != PyInterpreterState_Get()))
        return PyErr_Format(PyExc_RuntimeError,
                            "a pool of threads serves its own interpreter only: "
                            "use kind='interpreter' to share a pool");
    self->shipper = shipper_new(state_of_type(type), self->core->kind == KIND_PROCESS);
    if (self->shipper == NULL)
        return NULL;
    Py_RETURN_NONE;
}
