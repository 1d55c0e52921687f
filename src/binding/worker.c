/* worker: what a worker of each kind is, as the table of functions that the scheduler calls.
 *
 * A thread worker is a thread state in its maker's interpreter, an interpreter worker a thread
 * state in an interpreter of its own with a GIL of its own; both keep it for life, since making one
 * is dear, and give it up around every sleep. Neither ever touches another interpreter's object.
 * Design: docs/design/workers.md
 */
#include "binding/binding.h"
#include "binding/isolation.h"
#include "binding/reuse.h"

/* How often a worker does what tasks that run no bytecode would never be asked to do, in ns: let other threads
 * of its interpreter have the GIL, or, without one, free what has been let go of. Of the GIL longer than
 * CPython's switch interval of 5 ms: by then whoever waits has asked for it, and giving it up waits until it
 * is taken; else this worker would have it back before the other wakes, every time. */
#ifdef Py_GIL_DISABLED
#define TURN 1000000
#else
#define TURN 10000000
#endif

#define FUNCTIONS_LIMIT 256

/* ---- entering ---- */

worker_data_t *worker_data_new(plait_worker_t *worker)
{
    worker_data_t *data = calloc(1, sizeof *data);
    if (data == NULL)
        return NULL;
    data->core = plait_sched_context(plait_worker_sched(worker));
    table_init(&data->functions);
    plait_worker_set_data(worker, data);
    return data;
}

/* With a thread state: finds this interpreter's own module. */
int worker_find_state(worker_data_t *data)
{
    if (data->module == NULL)
        data->module = PyImport_ImportModule("plait._plait");
    if (data->module == NULL)
        return -1;
    data->state = state_of_module(data->module);
    encoder_init(&data->encoder.encoder, data->state);
    if (data->service != NULL)
        encoder_share(&data->encoder.encoder);
    data->interpreter = PyInterpreterState_Get();
    data->thread_state = PyThreadState_Get();
    data->thread_id = PyThread_get_thread_ident();
    join_members(data);
    return 0;
}

static int attach_thread(worker_data_t *data)
{
    data->thread_state = PyThreadState_New(data->core->interpreter);
    if (data->thread_state == NULL) {
        core_failed(data->core, NULL, "no memory for a thread state");
        return -1;
    }
    PyEval_RestoreThread(data->thread_state);
    return 0;
}

static int attach_interpreter(worker_data_t *data)
{
    PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads = 0,
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    PyStatus status = Py_NewInterpreterFromConfig(&data->thread_state, &config);
    if (PyStatus_Exception(status) || data->thread_state == NULL) {
        const char *text = status.err_msg;
        core_failed(data->core, NULL,
                    text != NULL ? text : "CPython could not create an interpreter");
        data->thread_state = NULL;
        return -1;
    }
    return 0;
}

/* Attributes of sys, and what its functions set: `name` is that of an attribute or of a function. */
static int set_in_sys(PyObject *name, PyObject *value)
{
    const char *text = PyUnicode_AsUTF8(name);
    PyObject *known = text == NULL ? NULL : PySys_GetObject(text); /* borrowed */
    if (text == NULL || known == NULL || !PyCFunction_Check(known))
        return text == NULL ? -1 : PySys_SetObject(text, value);
    PyObject *done = PyObject_CallOneArg(known, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Before anything else, since importing anything of the maker's needs its sys.path. */
static int resemble_maker(PyObject *setup)
{
    PyObject *name, *value, *attributes = PyDict_GetItemString(setup, "sys"); /* borrowed */
    Py_ssize_t position = 0;
    while (attributes != NULL && PyDict_Next(attributes, &position, &name, &value))
        if (set_in_sys(name, value) < 0)
            return -1;
    return 0;
}

/* `argument` NULL: without one. */
static int call_module(const char *name, const char *function, PyObject *argument)
{
    PyObject *module = PyImport_ImportModule(name), *done = NULL;
    if (module != NULL)
        done = PyObject_CallMethod(module, function, argument == NULL ? NULL : "(O)", argument);
    Py_XDECREF(done);
    Py_XDECREF(module);
    return done == NULL ? -1 : 0;
}

/* Then what needs modules: see plait._resemble. */
static int resemble_further(worker_data_t *data, PyObject *setup)
{
    PyObject *eager = PyDict_GetItemString(setup, "eager"); /* both borrowed */
    PyObject *parts = PyDict_GetItemString(setup, "parts");
    data->state->worker = data;
    if (watch_finalizers(data) < 0 || (eager != NULL && output_take_own_streams(data, eager) < 0))
        return -1;
    return parts == NULL ? 0 : call_module("plait._resemble", "adopt", parts);
}

/* Own-GIL interpreters import what declares its support of them; the rest is made to fit. Without a
 * GIL, CPython refuses nothing, and no interpreter is used again. */
static int prepare_interpreter(const worker_data_t *data, PyObject *setup)
{
#ifdef Py_GIL_DISABLED
    (void)data;
    (void)setup;
    return 0;
#else
    PyObject *asked = PyDict_GetItemString(setup, "isolation"); /* borrowed */
    if (data->reused)
        return call_module("plait._reuse", "begin", NULL);
    if (call_module("plait._isolate", "install", asked == NULL ? Py_None : asked) < 0)
        return -1;
    return data->core->keep == 0 ? 0 : call_module("plait._reuse", "watch", NULL);
#endif
}

/* In a child that may be used again. */
static int prepare_process(const worker_data_t *data)
{
    if (data->reused)
        return call_module("plait._reuse", "begin", NULL);
    return data->core->keep == 0 ? 0 : call_module("plait._reuse", "watch_process", NULL);
}

int worker_resemble_maker(worker_data_t *data)
{
    module_state bare = {0}; /* enough to decode what only holds builtins */
    PyObject *setup = decode_message(&bare, &data->core->setup);
    int status =
        setup == NULL || resemble_maker(setup) < 0 ||
                (data->state == NULL && worker_find_state(data) < 0) ||
                (data->core->kind == KIND_INTERPRETER && prepare_interpreter(data, setup) < 0) ||
                (data->core->kind == KIND_PROCESS && prepare_process(data) < 0) ||
                resemble_further(data, setup) < 0
            ? -1
            : 0;
    Py_XDECREF(setup);
    return status;
}

/* Interpreter kind. One that came by value leaves its globals behind for other functions. */
static PyObject *call_initializer(worker_data_t *data, PyObject *function, PyObject *arguments)
{
    if (is_importable(data->state, function))
        return PyObject_CallObject(function, arguments);
    PyObject *module = PyImport_ImportModule("plait._initial");
    PyObject *result =
        module == NULL ? NULL : PyObject_CallMethod(module, "run", "OO", function, arguments);
    Py_XDECREF(module);
    return result;
}

int worker_run_initializer(worker_data_t *data)
{
    pool_core_t *core = data->core;
    PyObject *result;
    if (core->initializer != NULL) {
        result = PyObject_CallNoArgs(core->initializer);
    } else if (core->initializer_shipment != NULL) {
        PyObject *function = worker_function(data, core->initializer_shipment);
        PyObject *arguments =
            function == NULL ? NULL : decode_message(data->state, &core->initializer_arguments);
        result = arguments == NULL ? NULL : call_initializer(data, function, arguments);
        Py_XDECREF(arguments);
        Py_XDECREF(function);
    } else {
        return 0;
    }
    Py_XDECREF(result);
    return result == NULL || !context_settle(data) ? -1 : 0;
}

/* How threading sees a thread worker: it has not made it, and would take it for a daemon, as which
 * threads that its tasks start would die at the exit. */
static int introduce_thread(worker_data_t *data, plait_worker_t *worker)
{
    if (data->core->kind != KIND_THREAD)
        return 0;
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *thread =
        threading == NULL ? NULL : PyObject_CallMethod(threading, "current_thread", NULL);
    int status = thread == NULL ? -1 : PyObject_SetAttrString(thread, "_daemonic", Py_False);
    if (status == 0) {
        PyObject *name =
            PyUnicode_FromFormat("%s_%u", data->core->name_prefix, plait_worker_index(worker));
        status = name == NULL ? -1 : PyObject_SetAttrString(thread, "name", name);
        Py_XDECREF(name);
    }
    Py_XDECREF(thread);
    Py_XDECREF(threading);
    return status;
}

/* A thread state in the maker's interpreter, or an interpreter that is new. */
static int enter_new(plait_worker_t *worker)
{
    worker_data_t *data = worker_data_new(worker);
    if (data == NULL) {
        core_failed(plait_sched_context(plait_worker_sched(worker)), NULL,
                    "no memory for a worker");
        return PLAIT_NOMEM;
    }
    bool own = data->core->kind == KIND_INTERPRETER;
    if ((own ? attach_interpreter(data) : attach_thread(data)) < 0)
        return PLAIT_SYSTEM;
    if ((own ? worker_resemble_maker(data) : worker_find_state(data)) < 0) {
        core_failed(data->core, data->state, "the new interpreter could not be prepared");
        PyErr_Print();
        return PLAIT_SYSTEM;
    }
    return PLAIT_OK;
}

static int enter(plait_worker_t *worker)
{
    int result = reuse_take(worker) ? PLAIT_OK : enter_new(worker);
    if (result != PLAIT_OK)
        return result;
    worker_data_t *data = plait_worker_data(worker);
    if (introduce_thread(data, worker) < 0 || worker_run_initializer(data) < 0) {
        core_failed(data->core, data->state, "its initializer raised");
        output_settle(data);
        return PLAIT_SYSTEM;
    }
    output_settle(data);
    data->entered = true;
    plait_atomic_add_seq_cst(&data->core->entered, 1);
    return PLAIT_OK;
}

/* ---- leaving ---- */

/* All at once, since letting go of them may run code that uses the table. */
void worker_forget_functions(worker_data_t *data)
{
    table_t forgotten = data->functions;
    size_t position = 0;
    uint64_t id, function;
    table_init(&data->functions);
    while (table_next(&forgotten, &position, &id, &function))
        Py_DECREF((PyObject *)(uintptr_t)function);
    table_fini(&forgotten);
}

bool worker_leave_pool(worker_data_t *data)
{
    leave_members(data);
    deferred_end(data);
    worker_forget_functions(data);
    context_end(data);
    bool fit = reuse_is_fit(data);
    if (data->state != NULL)
        encoder_fini(&data->encoder.encoder);
    if (fit)
        output_end_all(data);
    else
        output_leave(data);
    return fit;
}

void worker_end_interpreter(worker_data_t *data)
{
    home_t *home = data->state == NULL ? NULL : data->state->home;
    for (int index = 0; index < STREAM_COUNT; index++)
        Py_CLEAR(data->carried[index]);
    Py_CLEAR(data->module);
    Py_EndInterpreter(data->thread_state);
    home_give(home);
    visit_end(data);
    free(data);
}

static void leave(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data == NULL)
        return;
    if (data->entered)
        plait_atomic_sub_seq_cst(&data->core->entered, 1);
    bool fit = data->thread_state != NULL && worker_leave_pool(data);
    if (data->thread_state == NULL) {
        free(data);
    } else if (fit) {
        plait_worker_set_data(worker, NULL); /* another worker may have it at once */
        reuse_keep(data);
        return;
    } else if (data->core->kind == KIND_INTERPRETER) {
        worker_end_interpreter(data);
    } else {
        Py_CLEAR(data->module);
        PyThreadState_Clear(data->thread_state);
        PyThreadState_DeleteCurrent();
        free(data);
    }
    plait_worker_set_data(worker, NULL);
}

/* ---- a frame to run in ---- */

/* C functions that look for the caller's frame (eval, warnings.warn, super) must find one, as they
 * do in any Python thread: the worker's whole work happens inside this one. */
static PyObject *loop_in_frame(PyObject *capsule, PyObject *Py_UNUSED(ignored))
{
    void (*loop)(plait_worker_t *) = NULL;
    void *address = PyCapsule_GetPointer(capsule, NULL);
    if (address == NULL)
        return NULL;
    memcpy(&loop, &(void *){PyCapsule_GetContext(capsule)}, sizeof loop);
    loop(address);
    Py_RETURN_NONE;
}

static void surround(plait_worker_t *worker, void (*loop)(plait_worker_t *worker))
{
    static PyMethodDef method = {"work", loop_in_frame, METH_NOARGS, NULL};
    void *loop_address;
    memcpy(&loop_address, &loop, sizeof loop_address);
    PyObject *capsule = PyCapsule_New(worker, NULL, NULL), *work = NULL, *globals = NULL,
             *code = NULL;
    if (capsule != NULL && PyCapsule_SetContext(capsule, loop_address) == 0)
        work = PyCFunction_New(&method, capsule);
    if (work != NULL)
        globals = Py_BuildValue("{sssO}", "__name__", "plait", "work", work);
    if (globals != NULL && PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) == 0)
        code = Py_CompileString("work()", "<plait worker>", Py_eval_input);
    worker_data_t *data = plait_worker_data(worker);
    data->globals = globals;
    data->pulse =
        globals == NULL ? NULL : Py_CompileString("None", "<plait worker>", Py_eval_input);
    PyObject *done = code == NULL ? NULL : PyEval_EvalCode(code, globals, globals);
    if (code == NULL) {
        PyErr_Clear();
        loop(worker); /* without memory for a frame, then without a frame */
    } else if (done == NULL) {
        PyErr_Clear(); /* an Interrupted that came when its call was over */
    }
    Py_CLEAR(data->pulse);
    data->globals = NULL;
    Py_XDECREF(done);
    Py_XDECREF(code);
    Py_XDECREF(globals);
    Py_XDECREF(work);
    Py_XDECREF(capsule);
}

/* ---- running ---- */

static void pause_worker(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data != NULL && data->thread_state != NULL)
        PyEval_SaveThread();
}

static void resume_worker(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data != NULL && data->thread_state != NULL) {
        PyEval_RestoreThread(data->thread_state);
        data->turn = plait_prim_now();
        if (data->core->kind == KIND_THREAD && data->state != NULL)
            output_take_streams(data->state, true); /* they may have been replaced meanwhile */
    }
}

/* What the evaluation loop does for tasks that run bytecode, for those that run none. */
static inline void take_turns(plait_worker_t *worker, worker_data_t *data)
{
    if (plait_prim_now() - data->turn < TURN)
        return;
#ifdef Py_GIL_DISABLED
    /* By this thread, when it runs bytecode: objects it made that others let go of last, and every page of
     * objects that is free (CPython's quiescent-state-based reclamation). */
    PyObject *done = data->pulse == NULL ? NULL : PyEval_EvalCode(data->pulse, data->globals, NULL);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    data->turn = plait_prim_now();
#else
    pause_worker(worker);
    resume_worker(worker);
#endif
}

static plait_task_t *run(plait_worker_t *worker, plait_task_t *task)
{
    call_run(plait_worker_data(worker), (call_t *)task);
    return task;
}

static uint64_t run_items(plait_worker_t *worker, plait_job_t *job, uint64_t low, uint64_t high)
{
    return map_run_items(plait_worker_data(worker), job, low, high);
}

static void rest(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data->core->kind != KIND_THREAD)
        deferred_free(data);
    take_turns(worker, data);
}

PyObject *worker_function(worker_data_t *data, shipment_t *shipment)
{
    uint64_t known;
    if (table_get(&data->functions, shipment->id, &known))
        return Py_NewRef((PyObject *)(uintptr_t)known);
    PyObject *function = decode_message(data->state, &shipment->message);
    if (function == NULL)
        return NULL;
    if (data->functions.count == FUNCTIONS_LIMIT) {
        if (data->helping > 0)
            return function; /* what waits below may use those that are kept */
        worker_forget_functions(data);
    }
    if (table_add(&data->functions, shipment->id, (uint64_t)(uintptr_t)function))
        Py_INCREF(function);
    return function;
}

/* ---- the end of a pool ---- */

/* An object of the maker's interpreter, which may be given up by a worker that has left it already. */
static void drop_initializer(pool_core_t *core)
{
    if (core->initializer == NULL)
        return;
    PyThreadState *own =
        PyThreadState_GetUnchecked() == NULL ? PyThreadState_New(core->interpreter) : NULL;
    if (own != NULL)
        PyEval_RestoreThread(own);
    Py_CLEAR(core->initializer);
    if (own != NULL) {
        PyThreadState_Clear(own);
        PyThreadState_DeleteCurrent();
    }
}

static void free_strings(char **strings)
{
    for (char **string = strings; string != NULL && *string != NULL; string++)
        free(*string);
    free(strings);
}

void worker_dispose(void *context)
{
    pool_core_t *core = context;
    drop_initializer(core);
    shipment_release(core->initializer_shipment);
    message_clear(&core->initializer_arguments);
    message_clear(&core->setup);
    message_clear(&core->failure);
    free_strings(core->program);
    free_strings(core->template_program);
    free_strings(core->environment);
    free(core->name_prefix);
    free(core);
}

const plait_worker_ops_t worker_ops = {
    .enter = enter,
    .surround = surround,
    .run = run,
    .run_items = run_items,
    .rest = rest,
    .pause = pause_worker,
    .resume = resume_worker,
    .leave = leave,
    .abandon = call_abandon,
    .abandon_items = map_abandon_items,
    .dispose = worker_dispose,
};
