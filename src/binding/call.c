/* call: one submitted call, from the submitter's arguments to the worker's answer.
 *
 * Ownership: a call owns its shipment, messages or references until its last reference is dropped;
 * a thread worker drops them as soon as it has run, so that arguments do not live as long as the
 * future. A small message lies in the call itself: first the arguments, and once they are decoded
 * the answer.
 */
#include "binding/nested.h"

#define FEW_ARGUMENTS 16

/* Bytes for a small message in a flat call. */
#define ROOM 192

static void drop_objects(call_t *call)
{
    for (Py_ssize_t index = 0; index < call->direct.count; index++)
        Py_DECREF(call_arguments(call)[index]);
    call->direct.count = 0;
    Py_CLEAR(call->direct.callable);
    Py_CLEAR(call->direct.keyword_names);
    Py_CLEAR(call->direct.context);
}

void call_drop_arguments(call_t *call)
{
    if (call->kind != KIND_THREAD) {
        shipment_release(call->flat.function);
        call->flat.function = NULL;
        if (call->flat.context != NULL)
            shipment_release(call->flat.context);
        call->flat.context = NULL;
        message_clear(&call->flat.arguments);
        return;
    }
    if (PyThreadState_GetUnchecked() != NULL) /* as answer_clear */
        drop_objects(call);
}

static void destroy(plait_task_t *task)
{
    call_t *call = (call_t *)task;
    call_drop_arguments(call);
    answer_clear(&call->answer);
    nested_free(call->nested);
    free(call);
}

static call_t *call_new(pool_kind kind, size_t tail)
{
    call_t *call = malloc(sizeof *call + tail);
    if (call == NULL)
        return NULL;
    *call = (call_t){.kind = kind, .answer.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
    plait_task_init(&call->task, destroy);
    return call;
}

call_t *call_new_bare(void)
{
    call_t *call = call_new(KIND_PROCESS, ROOM);
    if (call != NULL)
        call->flat.arguments.root = plait_flat_const(PLAIT_FLAT_NONE);
    return call;
}

call_t *call_new_empty(void)
{
    call_t *call = call_new_bare();
    if (call == NULL)
        PyErr_NoMemory();
    return call;
}

call_t *call_new_flat(module_state *state, shipper_t *shipper, PyObject *callable,
                      PyObject *const *args, Py_ssize_t positional, PyObject *keyword_names)
{
    call_t *call = call_new_empty();
    if (call == NULL)
        return NULL;
    encoder_t spare;
    plait_flat_value_t root;
    call->flat.function = ship(state, shipper, callable);
    if (call->flat.function == NULL || call->flat.function->elsewhere)
        goto fail;
    if (positional > 0 || keyword_names != NULL) {
        encoder_t *encoder = encoder_take(shipper_encoder(shipper), &spare);
        int status = encode_call(encoder, args, positional, keyword_names, &root);
        if (status == 0)
            status = encoder_finish_into(encoder, root, &call->flat.arguments, call->tail, ROOM);
        encoder_give(shipper_encoder(shipper), encoder);
        if (status < 0)
            goto fail;
    }
    if (context_ship(state, shipper, &call->flat.context)) /* last: see _context.reduce */
        return call;
fail:
    plait_task_release(&call->task);
    return NULL;
}

call_t *call_new_direct(PyObject *callable, PyObject *const *args, Py_ssize_t positional,
                        PyObject *keyword_names)
{
    Py_ssize_t count = positional + (keyword_names == NULL ? 0 : PyTuple_GET_SIZE(keyword_names));
    call_t *call = call_new(KIND_THREAD, (size_t)count * sizeof(PyObject *));
    if (call == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    call->direct.callable = Py_NewRef(callable);
    call->direct.keyword_names = Py_XNewRef(keyword_names);
    call->direct.count = count;
    for (Py_ssize_t index = 0; index < count; index++)
        call_arguments(call)[index] = Py_NewRef(args[index]);
    if (context_capture(&call->direct.context))
        return call;
    plait_task_release(&call->task);
    return NULL;
}

call_t *call_new_signal(void)
{
    call_t *call = call_new(KIND_INTERPRETER, 0);
    if (call == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    call->flat.arguments.root = plait_flat_const(PLAIT_FLAT_NONE);
    call->fork_count = plait_prim_fork_count();
    return call;
}

void call_signal(call_t *call)
{
    if (plait_task_claim_worker(&call->task)) /* else who waits for it has given up */
        plait_task_complete_worker(&call->task);
    plait_task_release(&call->task);
}

/* ---- running ---- */

/* The context that a call brings, or the worker's. */
static bool enter_context(worker_data_t *data, call_t *call, PyObject **entered)
{
    PyObject *brought = NULL;
    if (call->kind == KIND_THREAD)
        brought = Py_XNewRef(call->direct.context);
    else if (call->flat.context != NULL &&
             (brought = worker_context(data, call->flat.context)) == NULL)
        return false;
    return context_enter(data, brought, entered);
}

/* The user's code, and nothing else: what surrounds it is not to be interrupted. */
static PyObject *call_function(worker_data_t *data, call_t *call, PyObject *function,
                               PyObject *const *arguments, size_t count, PyObject *keyword_names)
{
    PyObject *context, *result = NULL;
    if (!enter_context(data, call, &context))
        return NULL;
    call_t *below = begin_call(data, call);
    if (raise_if_interrupted(data) == 0)
        result = run_generator(PyObject_Vectorcall(function, arguments, count, keyword_names));
    end_call(data, below);
    context_leave(data, context);
    return result;
}

static PyObject *run_direct(worker_data_t *data, call_t *call)
{
    PyObject *keyword_names = call->direct.keyword_names;
    Py_ssize_t keywords = keyword_names == NULL ? 0 : PyTuple_GET_SIZE(keyword_names);
    return call_function(data, call, call->direct.callable, call_arguments(call),
                         (size_t)(call->direct.count - keywords), keyword_names);
}

/* items[0]: the keyword names or None; the rest: the values. */
static PyObject *call_with(worker_data_t *data, call_t *call, PyObject *function,
                           PyObject *const *items, size_t count)
{
    PyObject *keyword_names = items[0] == Py_None ? NULL : items[0];
    size_t keywords = keyword_names == NULL ? 0 : (size_t)PyTuple_GET_SIZE(keyword_names);
    return call_function(data, call, function, items + 1,
                         (count - 1 - keywords) | PY_VECTORCALL_ARGUMENTS_OFFSET, keyword_names);
}

static PyObject *call_natively(worker_data_t *data, call_t *call, PyObject *function,
                               decoder_t *decoder, const plait_flat_body_t *body)
{
    PyObject *few[FEW_ARGUMENTS], **items = few, *result = NULL;
    size_t count = body->words, done = 0;
    if (count > FEW_ARGUMENTS && (items = PyMem_Malloc(count * sizeof *items)) == NULL)
        return PyErr_NoMemory();
    while (done < count) {
        items[done] = decode_value(decoder, plait_flat_word(body, done));
        if (items[done] == NULL)
            goto done;
        done++;
    }
    result = call_with(data, call, function, items, count);
done:
    while (done > 0 && deferred_suits(decoder))
        deferred_add(data, items[--done]);
    while (done > 0)
        Py_DECREF(items[--done]);
    if (items != few)
        PyMem_Free(items);
    return result;
}

/* A call some of whose arguments are not native: one pickled tuple. */
static PyObject *call_pickled(worker_data_t *data, call_t *call, PyObject *function,
                              decoder_t *decoder)
{
    PyObject *all = decode_value(decoder, decoder->reader.root), *result = NULL;
    if (all != NULL && PyTuple_CheckExact(all) && PyTuple_GET_SIZE(all) > 0)
        result = call_with(data, call, function, PySequence_Fast_ITEMS(all),
                           (size_t)PyTuple_GET_SIZE(all));
    else if (all != NULL)
        PyErr_SetString(PyExc_ValueError, "malformed plait message: no arguments in it");
    Py_XDECREF(all);
    return result;
}

static PyObject *run_flat(worker_data_t *data, call_t *call)
{
    PyObject *function = worker_function(data, call->flat.function);
    if (function == NULL)
        return NULL;
    PyObject *result = NULL;
    decoder_t decoder;
    plait_flat_body_t body;
    if (!plait_flat_is_ref(call->flat.arguments.root)) {
        result = call_function(data, call, function, NULL, 0, NULL);
    } else if (decoder_open(&decoder, data->state, &call->flat.arguments) == 0) {
        if (plait_flat_get(&decoder.reader, decoder.reader.root, &body) == PLAIT_OK &&
            body.type == PLAIT_FLAT_TUPLE && body.words > 0)
            result = call_natively(data, call, function, &decoder, &body);
        else
            result = call_pickled(data, call, function, &decoder);
        decoder_close(&decoder);
    }
    Py_DECREF(function);
    return result;
}

/* The worker's own objects become the answer. Steals the result. */
static void answer_value(worker_data_t *data, call_t *call, PyObject *result)
{
    answer_t *answer = &call->answer;
    answer->outcome = OUTCOME_VALUE;
    if (data->core->kind == KIND_THREAD) {
        answer->object = result;
        return;
    }
    plait_flat_value_t root;
    encoder_t spare, *encoder = encoder_take(&data->encoder, &spare);
    int status = encode_object(encoder, result, &root);
    if (status == 0)
        status = encoder_finish_into(encoder, root, &answer->message, call->tail, ROOM);
    Py_DECREF(result);
    encoder_give(&data->encoder, encoder);
    if (status < 0)
        answer_raised(data, answer);
}

void call_run(worker_data_t *data, call_t *call)
{
    PyObject *result = call->kind == KIND_THREAD ? run_direct(data, call) : run_flat(data, call);
    output_settle(data);
    if (result != NULL)
        answer_value(data, call, result);
    else
        answer_raised(data, &call->answer);
    if (call->kind == KIND_THREAD)
        drop_objects(call);
    else
        call_drop_arguments(call);
    if (call->deadline != NULL)
        deadline_settle(call);
}

void call_abandon(plait_sched_t *sched, plait_task_t *task)
{
    answer_broken(plait_sched_context(sched), &((call_t *)task)->answer);
}
