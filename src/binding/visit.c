/* visit: workers of other interpreters have something done by their pool's maker.
 *
 * What is printed and logged belongs to the maker's streams and handlers. An interpreter worker's
 * thread goes there itself, with a second thread state of its own, and comes back with what was
 * raised. A child process sends a letter, and its proxy goes: the child does not wait, but the
 * letter precedes the answer. Who may call: the worker's own thread. Design: docs/design/output.md
 */
#include "binding/process.h"

/* Functions of plait._maker. */
static const char *const functions[] = {[VISIT_WRITE] = "write", [VISIT_HANDLE] = "handle"};

bool visit_can_be_made(const worker_data_t *data)
{
    return data != NULL && !data->abroad && data->thread_id == PyThread_get_thread_ident() &&
           data->core->fork_count == plait_prim_fork_count();
}

/* ---- in the maker's interpreter ---- */

/* plait._maker.<function>(*arguments). 0, or -1 with an exception. */
static int call_maker(module_state *maker, visit_t visit, const message_t *arguments)
{
    PyObject *module = PyImport_ImportModule("plait._maker");
    PyObject *function = module == NULL ? NULL : PyObject_GetAttrString(module, functions[visit]);
    PyObject *all = function == NULL ? NULL : decode_message(maker, arguments);
    PyObject *result = all == NULL ? NULL : PyObject_CallObject(function, all);
    Py_XDECREF(result);
    Py_XDECREF(all);
    Py_XDECREF(function);
    Py_XDECREF(module);
    return result == NULL ? -1 : 0;
}

/* The thread is in no interpreter, before and after. What is raised becomes *failure, or, where that
 * is NULL, is reported. False without memory for a thread state. */
static bool make_visit(worker_data_t *data, visit_t visit, const message_t *arguments,
                       message_t *failure)
{
    if (data->visitor == NULL)
        data->visitor = PyThreadState_New(data->core->interpreter);
    if (data->visitor == NULL)
        return false;
    PyEval_RestoreThread(data->visitor);
    data->abroad = true;
    if (call_maker(data->core->maker, visit, arguments) < 0) {
        if (failure != NULL)
            exception_to_message(data->core->maker, failure);
        else
            PyErr_WriteUnraisable(NULL);
    }
    data->abroad = false;
    PyEval_SaveThread();
    return true;
}

void visit_for_child(worker_data_t *data, visit_t visit, const message_t *arguments)
{
    make_visit(data, visit, arguments, NULL); /* without memory nothing can be reported, either */
}

void visit_end(worker_data_t *data)
{
    if (data->visitor == NULL)
        return;
    PyEval_RestoreThread(data->visitor);
    PyThreadState_Clear(data->visitor);
    PyThreadState_DeleteCurrent();
    data->visitor = NULL;
}

/* ---- the worker ---- */

/* 0, or -1 with what was raised. */
static int visit_and_return(worker_data_t *data, visit_t visit, const message_t *arguments)
{
    message_t failure = {.root = plait_flat_const(PLAIT_FLAT_NONE)};
    PyThreadState *own = PyEval_SaveThread();
    bool made = make_visit(data, visit, arguments, &failure);
    PyEval_RestoreThread(own);
    if (!made) {
        PyErr_NoMemory();
        return -1;
    }
    if (failure.bytes == NULL)
        return 0;
    PyObject *error = data->leaving ? NULL : exception_from_message(data->state, &failure);
    message_clear(&failure);
    if (error != NULL)
        PyErr_SetRaisedException(error);
    return error != NULL || PyErr_Occurred() ? -1 : 0;
}

int visit_maker(worker_data_t *data, visit_t visit, PyObject *arguments)
{
    message_t message;
    module_state bare = {0}; /* the own one may be gone when the interpreter ends */
    int status = 0;
    if (encode_message(data->leaving ? &bare : data->state, arguments, &message) < 0)
        return -1;
    if (data->service != NULL)
        service_visit(data->service, visit, &message);
    else
        status = visit_and_return(data, visit, &message);
    message_clear(&message);
    return status;
}
