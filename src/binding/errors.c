/* errors: core codes -> Python exceptions, timeouts -> deadlines, exceptions -> messages and back.
 */
#include "binding/binding.h"

PyObject *raise_core_error(int code, const char *what)
{
    switch (code) {
    case PLAIT_NOMEM:
        return PyErr_NoMemory();
    case PLAIT_TIMEOUT:
        PyErr_SetNone(PyExc_TimeoutError);
        return NULL;
    case PLAIT_TOO_BIG:
        return PyErr_Format(PyExc_OverflowError, "%s: %s", what, plait_error_text(code));
    case PLAIT_CORRUPT:
    case PLAIT_INVALID:
        return PyErr_Format(PyExc_ValueError, "%s: %s", what, plait_error_text(code));
    case PLAIT_DEPTH:
        return PyErr_Format(PyExc_RecursionError, "%s: %s", what, plait_error_text(code));
    case PLAIT_SYSTEM:
        return PyErr_Format(PyExc_OSError, "%s: %s", what, plait_error_text(code));
    default:
        return PyErr_Format(PyExc_RuntimeError, "%s: %s", what, plait_error_text(code));
    }
}

/* ---- exceptions ---- */

PyObject *raise_deadline_exceeded(const char *text)
{
    PyObject *module = PyImport_ImportModule("plait._errors");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "DeadlineExceeded");
    if (class != NULL)
        PyErr_SetString(class, text);
    Py_XDECREF(class);
    Py_XDECREF(module);
    return NULL;
}

PyObject *take_raised(void)
{
    PyObject *exception = PyErr_GetRaisedException();
    if (exception == NULL) {
        PyErr_SetString(PyExc_SystemError, "a call failed without an exception");
        exception = PyErr_GetRaisedException();
    }
    return exception;
}

/* A tuple whose last item is the text, and whose others are None. Needs no memory of Python's. */
static void text_to_message(const char *text, size_t items, message_t *message)
{
    plait_flat_writer_t writer;
    plait_flat_value_t root, part;
    *message = (message_t){.root = plait_flat_const(PLAIT_FLAT_NONE)};
    if (plait_flat_writer_init(&writer, &plait_alloc_system, 0) != PLAIT_OK)
        return;
    int result = plait_flat_put_words(&writer, PLAIT_FLAT_TUPLE, items, items, &root);
    if (result == PLAIT_OK)
        result = plait_flat_put_text(&writer, PLAIT_FLAT_LATIN1, text, strlen(text), &part);
    if (result == PLAIT_OK) {
        plait_flat_set(&writer, root, items - 1, part);
        result = plait_flat_finish(&writer, root, 0, &message->bytes, &message->size);
    }
    if (result == PLAIT_OK)
        message->root = root;
    plait_flat_writer_fini(&writer);
}

void message_stand_in(const char *name, message_t *message)
{
    text_to_message(name, 2, message);
}

/* (pickle or None, text): see travel.dump_exception. */
void exception_to_message(module_state *state, message_t *message)
{
    PyObject *exception = take_raised();
    PyObject *travel = state_travel(state);
    PyObject *pair =
        travel == NULL ? NULL : PyObject_CallMethod(travel, "dump_exception", "(O)", exception);
    if (pair == NULL || encode_message(state, pair, message) < 0) {
        PyErr_Clear();
        message_stand_in(Py_TYPE(exception)->tp_name, message);
    }
    Py_XDECREF(pair);
    Py_DECREF(exception);
}

PyObject *exception_from_message(module_state *state, const message_t *message)
{
    PyObject *travel = state_travel(state);
    PyObject *pair = travel == NULL ? NULL : decode_message(state, message);
    PyObject *exception =
        pair == NULL ? NULL : PyObject_CallMethod(travel, "load_exception", "(O)", pair);
    Py_XDECREF(pair);
    return exception;
}

void core_failed(pool_core_t *core, module_state *state, const char *text)
{
    message_t message;
    if (state != NULL && PyErr_Occurred())
        exception_to_message(state, &message);
    else
        text_to_message(text, 1, &message);
    core_failed_by(core, &message);
}

void core_failed_by(pool_core_t *core, message_t *message)
{
    plait_prim_lock(&core->lock);
    bool first = core->failure.bytes == NULL;
    if (first)
        core->failure = *message;
    plait_prim_unlock(&core->lock);
    if (!first)
        message_clear(message);
}

/* ---- answers ---- */

void answer_clear(answer_t *answer)
{
    message_clear(&answer->message);
    /* Without a thread state nobody may touch a count: then the object is leaked rather than
     * corrupted. */
    if (answer->object != NULL && PyThreadState_GetUnchecked() != NULL)
        Py_CLEAR(answer->object);
}

void answer_raised(worker_data_t *data, answer_t *answer)
{
    answer->outcome = OUTCOME_EXCEPTION;
    if (data->core->kind == KIND_THREAD)
        answer->object = take_raised();
    else {
        data->exhausted |= PyErr_ExceptionMatches(PyExc_MemoryError);
        exception_to_message(data->state, &answer->message);
    }
}

void answer_broken(pool_core_t *core, answer_t *answer)
{
    answer->outcome = OUTCOME_BROKEN;
    plait_prim_lock(&core->lock);
    message_t *failure = &core->failure;
    void *copy = failure->bytes == NULL ? NULL : malloc(failure->size);
    if (copy != NULL)
        answer->message = (message_t){.root = failure->root,
                                      .bytes = memcpy(copy, failure->bytes, failure->size),
                                      .size = failure->size};
    plait_prim_unlock(&core->lock);
}

/* BrokenPool("..."), caused by what broke it. */
static PyObject *broken_exception(module_state *state, const message_t *failure)
{
    PyObject *cause =
        failure->bytes == NULL ? Py_NewRef(Py_None) : exception_from_message(state, failure);
    PyObject *class = state->broken_class == NULL ? PyExc_RuntimeError : state->broken_class;
    if (cause == NULL)
        return NULL;
    PyObject *exception = PyObject_CallFunction(class, "O", cause);
    if (exception != NULL && PyExceptionInstance_Check(cause))
        PyException_SetCause(exception, cause);
    else
        Py_DECREF(cause);
    return exception;
}

/* WorkerDied(task, pid, signal, status, corrupt), with less where memory was short. */
static PyObject *died_exception(module_state *state, const message_t *death)
{
    PyObject *parts = decode_message(state, death);
    if (parts != NULL && !PyTuple_Check(parts))
        Py_SETREF(parts, PyTuple_New(0));
    PyObject *module = parts == NULL ? NULL : PyImport_ImportModule("plait._pool");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "WorkerDied");
    PyObject *exception = class == NULL ? NULL : PyObject_CallObject(class, parts);
    Py_XDECREF(class);
    Py_XDECREF(module);
    Py_XDECREF(parts);
    return exception;
}

/* DeadlineExceeded(text), caused by what the call raised or what became of its process. */
static PyObject *deadline_exception(module_state *state, const answer_t *answer)
{
    const char *text = "the deadline of the call passed while it ran";
    PyObject *cause = NULL;
    if (answer->outcome == OUTCOME_EXPIRED) {
        text = "the deadline of the call passed before a worker began it";
    } else if (answer->outcome == OUTCOME_LATE_EXCEPTION) {
        cause = answer->object != NULL ? Py_NewRef(answer->object)
                                       : exception_from_message(state, &answer->message);
    } else if (answer->outcome == OUTCOME_KILLED) {
        text = "the deadline of the call passed, and it went on when it was interrupted: its "
               "worker process was killed";
        cause = died_exception(state, &answer->message);
    }
    PyErr_Clear(); /* a cause that cannot be had is left out */
    raise_deadline_exceeded(text);
    PyObject *exception = PyErr_GetRaisedException();
    if (cause != NULL && PyExceptionInstance_Check(cause))
        PyException_SetCause(exception, cause);
    else
        Py_XDECREF(cause);
    return exception;
}

PyObject *answer_decode(module_state *state, const answer_t *answer, PyObject **exception)
{
    *exception = NULL;
    switch (answer->outcome) {
    case OUTCOME_VALUE:
        return answer->object != NULL ? Py_NewRef(answer->object)
                                      : decode_message(state, &answer->message);
    case OUTCOME_EXCEPTION:
        *exception = answer->object != NULL ? Py_NewRef(answer->object)
                                            : exception_from_message(state, &answer->message);
        return NULL;
    case OUTCOME_BROKEN:
        *exception = broken_exception(state, &answer->message);
        return NULL;
    case OUTCOME_DIED:
        *exception = died_exception(state, &answer->message);
        return NULL;
    case OUTCOME_EXPIRED:
    case OUTCOME_LATE:
    case OUTCOME_LATE_EXCEPTION:
    case OUTCOME_KILLED:
        *exception = deadline_exception(state, answer);
        return NULL;
    case OUTCOME_CANCELLED: {
        PyObject *module = PyImport_ImportModule("concurrent.futures");
        *exception = module == NULL ? NULL : PyObject_CallMethod(module, "CancelledError", NULL);
        Py_XDECREF(module);
        return NULL;
    }
    }
    Py_UNREACHABLE();
}
