/* module: plait._plait, the same in every interpreter: multi-phase init, state of its own, no GIL
 * needed. */
#include "binding/binding.h"
#include "binding/isolation.h"
#include "binding/kept.h"
#include "core/template.h"

#include <unistd.h>

static const char *const name_texts[] = {
    [NAME_MODULE] = "__module__", [NAME_QUALNAME] = "__qualname__",
    [NAME_START] = "start",       [NAME_STOP] = "stop",
    [NAME_STEP] = "step",         [NAME_STDOUT] = "stdout",
    [NAME_STDERR] = "stderr",
};

module_state *state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &plait_module_def); /* borrowed */
    return state_of_module(module);
}

PyObject *state_travel(module_state *state)
{
    PyObject *known = plait_atomic_load_acquire(&state->travel); /* pairs with the exchange */
    if (known != NULL)
        return known;
    PyObject *imported = PyImport_ImportModule("plait._travel");
    if (imported == NULL || plait_atomic_cas_acq_rel(&state->travel, &known, imported))
        return imported;
    Py_DECREF(imported); /* another thread was first */
    return known;
}

/* ---- functions ---- */

PyDoc_STRVAR(register_doc,
             "_register(future_class, broken_class, /)\n--\n\n"
             "Tells which Python classes futures and broken pools' exceptions are made of.");

static PyObject *module_register(PyObject *module, PyObject *args)
{
    module_state *state = state_of_module(module);
    PyObject *future_class, *broken_class;
    if (!PyArg_ParseTuple(args, "OO", &future_class, &broken_class))
        return NULL;
    if (!PyType_Check(future_class) ||
        !PyType_IsSubtype((PyTypeObject *)future_class, state->future_type))
        return PyErr_Format(PyExc_TypeError, "expected a subclass of FutureBase");
    Py_XSETREF(state->future_class, Py_NewRef(future_class));
    Py_XSETREF(state->broken_class, Py_NewRef(broken_class));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_finished_doc,
             "_take_finished()\n--\n\n"
             "Waits for watched futures to end and returns them; None once closed.\n"
             "For the notifier's thread alone.");

static PyObject *module_take_finished(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return future_take_finished(state_of_module(module));
}

PyDoc_STRVAR(close_notifier_doc, "_close_notifier()\n--\n\nMakes _take_finished() return None.");

static PyObject *module_close_notifier(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    plait_mailbox_close(&state_of_module(module)->notifier);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(after_fork_doc,
             "_after_fork()\n--\n\n"
             "In the child of a fork: forgets what belongs to the parent's threads.");

static PyObject *module_after_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of_module(module);
    plait_mailbox_init(&state->notifier);
    state->orphan_lock.word = 0;
    state->orphans = NULL; /* theirs; what they own stays behind */
    state->orphan_count = 0;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(join_orphans_doc,
             "_join_orphans()\n--\n\n"
             "Waits for the workers of pools that are gone; at the interpreter's exit.");

static PyObject *module_join_orphans(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (pool_join_orphans(state_of_module(module)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    end_kept_doc,
    "_end_kept(for_good, /)\n--\n\n"
    "Ends the interpreters and processes that are kept for later pools, and waits for it.\n"
    "for_good: none is kept from now on. Any thread of the main interpreter; in others it\n"
    "does nothing.");

static PyObject *module_end_kept(PyObject *Py_UNUSED(module), PyObject *for_good)
{
    if (is_in_main_interpreter())
        kept_end_all(for_good == Py_True);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(count_kept_doc,
             "_count_kept(kind, /)\n--\n\n"
             "How many are kept for later pools: of 'interpreter' or 'process'. Any thread.");

static PyObject *module_count_kept(PyObject *Py_UNUSED(module), PyObject *kind)
{
    bool interpreters =
        PyUnicode_Check(kind) && PyUnicode_CompareWithASCIIString(kind, "interpreter") == 0;
    return PyLong_FromUnsignedLong(kept_count(interpreters ? KEPT_INTERPRETER : KEPT_PROCESS));
}

PyDoc_STRVAR(environment_doc,
             "_environment()\n--\n\nThe process's environment as it is now: dict[bytes, bytes].");

static PyObject *module_environment(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *found = PyDict_New();
    for (char **entry = environ; found != NULL && entry != NULL && *entry != NULL; entry++) {
        const char *sign = strchr(*entry, '=');
        PyObject *name = sign == NULL ? NULL : PyBytes_FromStringAndSize(*entry, sign - *entry);
        PyObject *value = name == NULL ? NULL : PyBytes_FromString(sign + 1);
        /* Of a name that is there twice the first value holds, as for getenv. */
        if (value != NULL && PyDict_SetDefault(found, name, value) == NULL)
            Py_CLEAR(value);
        if (sign != NULL && value == NULL)
            Py_CLEAR(found);
        Py_XDECREF(value);
        Py_XDECREF(name);
    }
    return found;
}

PyDoc_STRVAR(serve_doc, "_serve()\n--\n\n"
                        "In the child of a process pool: serves its parent until told to end.");

static PyObject *module_serve(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return serve();
}

PyDoc_STRVAR(template_begin_doc,
             "_template_begin()\n--\n\n"
             "In the template of a process pool, first: False where its parent is gone already.");

static PyObject *module_template_begin(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(plait_template_open());
}

PyDoc_STRVAR(template_serve_doc,
             "_template_serve()\n--\n\n"
             "In the template: makes copies of this process until told to end. True in each copy,\n"
             "which is to call _serve(). The process must have no other thread.");

static PyObject *module_template_serve(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(template_serve());
}

PyDoc_STRVAR(cpu_count_doc,
             "cpu_count()\n--\n\n"
             "How many processors this process may use: the least of those online, its\n"
             "affinity mask, and its cgroup's quota rounded up. At least 1. Any thread.");

static PyObject *module_cpu_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(plait_prim_cpu_count());
}

PyDoc_STRVAR(encode_doc,
             "_encode(object, /)\n--\n\nThe object as a flat message, bytes. For tests and tools.");

static PyObject *module_encode(PyObject *module, PyObject *object)
{
    module_state *state = state_of_module(module);
    PyObject *pair = PyTuple_Pack(1, object);
    message_t message;
    if (pair == NULL)
        return NULL;
    int status = encode_message(state, pair, &message);
    Py_DECREF(pair);
    if (status < 0)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(message.bytes, (Py_ssize_t)message.size);
    message_clear(&message);
    return bytes;
}

PyDoc_STRVAR(
    decode_doc,
    "_decode(message, /)\n--\n\n"
    "The object that _encode() made the message of. Raises ValueError where the bytes are\n"
    "malformed. As safe as unpickling: not for messages from strangers.");

static PyObject *module_decode(PyObject *module, PyObject *bytes)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return NULL;
    void *copy = malloc((size_t)size + 1); /* aligned, as bytes need not be */
    if (copy == NULL)
        return PyErr_NoMemory();
    message_t message = {.bytes = memcpy(copy, data, (size_t)size), .size = (size_t)size};
    PyObject *root = decode_message(state_of_module(module), &message);
    message_clear(&message);
    if (root == NULL)
        return NULL;
    PyObject *object = NULL;
    if (PyTuple_CheckExact(root) && PyTuple_GET_SIZE(root) == 1)
        object = Py_NewRef(PyTuple_GET_ITEM(root, 0));
    else
        PyErr_SetString(PyExc_ValueError, "malformed plait message: not one that _encode() made");
    Py_DECREF(root);
    return object;
}

PyDoc_STRVAR(
    send_record_doc,
    "_send_record(record, /)\n--\n\n"
    "Has plait._maker.handle(*record) called by the interpreter that made this worker's pool.\n"
    "False, and nothing done, where this thread is not the worker's own.");

static PyObject *module_send_record(PyObject *module, PyObject *record)
{
    worker_data_t *worker = state_of_module(module)->worker;
    if (!visit_can_be_made(worker))
        Py_RETURN_FALSE;
    return visit_maker(worker, VISIT_HANDLE, record) < 0 ? NULL : Py_NewRef(Py_True);
}

static PyMethodDef module_methods[] = {
    {"_register", module_register, METH_VARARGS, register_doc},
    {"_take_finished", module_take_finished, METH_NOARGS, take_finished_doc},
    {"_close_notifier", module_close_notifier, METH_NOARGS, close_notifier_doc},
    {"_after_fork", module_after_fork, METH_NOARGS, after_fork_doc},
    {"_join_orphans", module_join_orphans, METH_NOARGS, join_orphans_doc},
    {"cpu_count", module_cpu_count, METH_NOARGS, cpu_count_doc},
    {"_end_kept", module_end_kept, METH_O, end_kept_doc},
    {"_count_kept", module_count_kept, METH_O, count_kept_doc},
    {"_environment", module_environment, METH_NOARGS, environment_doc},
    {"_serve", module_serve, METH_NOARGS, serve_doc},
    {"_template_begin", module_template_begin, METH_NOARGS, template_begin_doc},
    {"_template_serve", module_template_serve, METH_NOARGS, template_serve_doc},
    {"_send_record", module_send_record, METH_O, send_record_doc},
    {"_encode", module_encode, METH_O, encode_doc},
    {"_decode", module_decode, METH_O, decode_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- life ---- */

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static int module_exec(PyObject *module)
{
    module_state *state = state_of_module(module);
    watch_forks();
    if (PyModule_AddFunctions(module, isolation_methods) < 0)
        return -1;
    plait_mailbox_init(&state->notifier);
    state->foreign_types = PyDict_New();
    state->sys = PyImport_ImportModule("sys");
    if (state->foreign_types == NULL || state->sys == NULL)
        return -1;
    for (size_t index = 0; index < NAME_COUNT; index++) {
        state->names[index] = PyUnicode_InternFromString(name_texts[index]);
        if (state->names[index] == NULL)
            return -1;
    }
    state->pool_type = add_type(module, &pool_spec);
    state->future_type = add_type(module, &future_spec);
    state->map_type = add_type(module, &map_spec);
    state->lines_type = add_type(module, &lines_spec);
    state->view_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &view_spec, NULL);
    bool made = state->pool_type != NULL && state->future_type != NULL && state->map_type != NULL &&
                state->lines_type != NULL && state->view_type != NULL;
    return made ? 0 : -1;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = state_of_module(module);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->future_type);
    Py_VISIT(state->map_type);
    Py_VISIT(state->lines_type);
    Py_VISIT(state->view_type);
    Py_VISIT(state->sys);
    Py_VISIT(state->future_class);
    Py_VISIT(state->broken_class);
    Py_VISIT(plait_atomic_load_relaxed(&state->travel)); /* relaxed: the world is stopped */
    Py_VISIT(state->foreign_types);
    Py_VISIT(state->single_phase);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = state_of_module(module);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->future_type);
    Py_CLEAR(state->map_type);
    Py_CLEAR(state->lines_type);
    Py_CLEAR(state->view_type);
    Py_CLEAR(state->sys);
    Py_CLEAR(state->future_class);
    Py_CLEAR(state->broken_class);
    Py_XDECREF(plait_atomic_swap_acq_rel(&state->travel, NULL));
    Py_CLEAR(state->foreign_types);
    Py_CLEAR(state->single_phase);
    for (size_t index = 0; index < NAME_COUNT; index++)
        Py_CLEAR(state->names[index]);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
    PyMem_Free(state_of_module(module)->orphans);
    plait_images_free(state_of_module(module)->images);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef plait_module_def = {
    PyModuleDef_HEAD_INIT,          .m_name = "plait._plait",    .m_doc = "The C half of plait.",
    .m_size = sizeof(module_state), .m_methods = module_methods, .m_slots = module_slots,
    .m_traverse = module_traverse,  .m_clear = module_clear,     .m_free = module_free,
};

PyMODINIT_FUNC PyInit__plait(void); /* found by name */

PyMODINIT_FUNC PyInit__plait(void)
{
    return PyModuleDef_Init(&plait_module_def);
}
