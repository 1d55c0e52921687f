/* context: context variables, as the submitter sees them, in the worker that runs its call.
 *
 * A context holds an immutable map, so that a copy costs an allocation whatever is in it, and one in
 * which nothing is set costs a look. Each call runs in a context of its own: what it sets is gone
 * when it ends. Calls that bring no variables run in the thread state's own context as long as it has
 * none; from the first that leaves one behind on, in a working context, which is made anew after each
 * that has set something. Design: docs/design/context.md
 */
#include "binding/binding.h"

/* Of the calling thread, borrowed; NULL where it never had one. */
static PyObject *current_context(void)
{
    return PyThreadState_Get()->context; /* PyContext_CopyCurrent would make one to copy it */
}

static bool is_empty(PyObject *context)
{
    return PyMapping_Size(context) == 0;
}

bool context_capture(PyObject **copy)
{
    PyObject *context = current_context();
    *copy = NULL;
    if (context == NULL || is_empty(context))
        return true;
    *copy = PyContext_Copy(context);
    return *copy != NULL;
}

static PyObject *call_module(const char *function, PyObject *first, PyObject *second)
{
    PyObject *module = PyImport_ImportModule("plait._context");
    PyObject *result = NULL;
    if (module != NULL)
        result = PyObject_CallMethod(module, function, second == NULL ? "O" : "OO", first, second);
    Py_XDECREF(module);
    return result;
}

bool context_ship(module_state *state, shipper_t *shipper, shipment_t **shipment)
{
    PyObject *context = current_context();
    *shipment = NULL;
    if (context == NULL || is_empty(context))
        return true;
    PyObject *entries = call_module("dump", context, NULL);
    message_t message;
    if (entries == Py_None) {
        Py_DECREF(entries);
        return true;
    }
    if (entries != NULL && encode_message(state, entries, &message) == 0)
        *shipment = ship_context(shipper, &message);
    Py_XDECREF(entries);
    return *shipment != NULL;
}

/* ---- the worker ---- */

bool context_settle(worker_data_t *data)
{
    PyObject *context = current_context();
    if (context == NULL || is_empty(context))
        return true;
    data->base = PyContext_Copy(context);
    return data->base != NULL;
}

void context_end(worker_data_t *data)
{
    if (data->working != NULL && PyContext_Exit(data->working) < 0)
        PyErr_Clear();
    Py_CLEAR(data->working);
    Py_CLEAR(data->base);
    Py_CLEAR(data->sent);
}

PyObject *worker_context(worker_data_t *data, shipment_t *shipment)
{
    if (data->sent != NULL && data->sent_id == shipment->id)
        return PyContext_Copy(data->sent);
    PyObject *entries = decode_message(data->state, &shipment->message), *context = NULL;
    PyObject *pair = entries == NULL ? NULL : call_module("load", entries, NULL);
    int complete = 0;
    if (pair != NULL && PyArg_ParseTuple(pair, "Op", &context, &complete))
        context = PyContext_Copy(context);
    if (context != NULL && complete) {
        Py_XSETREF(data->sent, PyContext_Copy(context));
        data->sent_id = shipment->id;
    }
    Py_XDECREF(pair);
    Py_XDECREF(entries);
    return context;
}

/* An empty context below all further calls, in place of one that holds what a call has set. */
static bool renew(worker_data_t *data)
{
    PyObject *fresh = PyContext_New();
    bool left = fresh != NULL && (data->working == NULL || PyContext_Exit(data->working) == 0);
    if (left && PyContext_Enter(fresh) == 0) {
        Py_XSETREF(data->working, fresh);
        return true;
    }
    Py_XDECREF(fresh);
    return false;
}

bool context_enter_other(worker_data_t *data, PyObject *brought, PyObject **entered)
{
    *entered = brought;
    if (brought == NULL && data->base == NULL && data->helping == 0)
        return current_context() == data->working || renew(data);
    if (brought == NULL)
        *entered = data->base == NULL ? PyContext_New() : PyContext_Copy(data->base);
    else if (data->base != NULL)
        Py_SETREF(*entered, call_module("merge", data->base, brought));
    if (*entered != NULL && PyContext_Enter(*entered) == 0)
        return true;
    Py_CLEAR(*entered);
    return false;
}

void context_leave_other(worker_data_t *data, PyObject *entered)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (entered != NULL && PyContext_Exit(entered) < 0)
        PyErr_WriteUnraisable(entered);
    if (entered == NULL && (data->working == NULL || !is_empty(data->working)))
        renew(data);
    Py_XDECREF(entered);
    PyErr_SetRaisedException(raised);
}
