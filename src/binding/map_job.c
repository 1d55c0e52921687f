/* map_job: streams, grains and jobs, and how a worker runs the items of a job.
 *
 * Invariant: every item of a job is answered by exactly one grain: in a list of values, alone with
 * its exception, or abandoned. Design: docs/design/map.md
 */
#include "binding/map_job.h"

/* ---- streams, grains, jobs ---- */

void grain_free(grain_t *grain)
{
    answer_clear(&grain->answer);
    free(grain);
}

void stream_release(stream_t *stream)
{
    if (plait_atomic_sub_acq_rel(&stream->references, 1) != 1)
        return;
    timer_end(&stream->timer);
    plait_link_t *link;
    if (plait_mailbox_take(&stream->grains, 0, &link) == PLAIT_OK)
        while (link != NULL) {
            grain_t *grain = (grain_t *)link;
            link = link->next;
            grain_free(grain);
        }
    free(stream);
}

stream_t *stream_new(void)
{
    stream_t *stream = malloc(sizeof *stream);
    if (stream == NULL)
        return NULL;
    plait_atomic_init(&stream->references, 1);
    plait_atomic_init(&stream->cancelled, 0);
    plait_atomic_init(&stream->expired, 0);
    plait_atomic_init(&stream->killed, 0);
    plait_timer_init(&stream->timer, NULL);
    plait_atomic_init(&stream->signal, NULL);
    stream->level = PLAIT_LEVEL_NORMAL;
    stream->retries = 0;
    stream->id = plait_task_next_id();
    plait_mailbox_init(&stream->grains);
    return stream;
}

void stream_tell(stream_t *stream)
{
    /* seq_cst: who waits stores the signal and then looks at what has arrived, see arrival() */
    if (plait_atomic_load_seq_cst(&stream->signal) == NULL)
        return;
    call_t *signal = plait_atomic_swap_seq_cst(&stream->signal, NULL);
    if (signal != NULL)
        call_signal(signal);
}

/* What did not end well after the deadline. */
static outcome_t late(stream_t *stream, outcome_t outcome)
{
    return outcome == OUTCOME_EXCEPTION   ? OUTCOME_LATE_EXCEPTION
           : outcome == OUTCOME_CANCELLED ? OUTCOME_EXPIRED
           : outcome == OUTCOME_DIED && plait_atomic_load_seq_cst(&stream->killed) ? OUTCOME_KILLED
                                                                                   : outcome;
}

void stream_send(stream_t *stream, grain_t *grain)
{
    if (plait_atomic_load_seq_cst(&stream->expired))
        grain->answer.outcome = late(stream, grain->answer.outcome);
    plait_mailbox_push(&stream->grains, &grain->link);
    stream_tell(stream);
}

static void job_destroy(plait_job_t *job)
{
    map_job_t *self = (map_job_t *)job;
    shipment_release(self->function);
    shipment_release(self->context);
    message_clear(&self->items);
    if (PyThreadState_GetUnchecked() != NULL) { /* as answer_clear */
        Py_CLEAR(self->callable);
        Py_CLEAR(self->variables);
        Py_CLEAR(self->objects);
    }
    stream_release(self->stream);
    free(self);
}

map_job_t *map_job_new(stream_t *stream, pool_core_t *core, uint64_t first, uint64_t count,
                       bool star)
{
    map_job_t *job = calloc(1, sizeof *job);
    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    plait_job_init(&job->job, count, &stream->cancelled, job_destroy);
    plait_atomic_add_relaxed(&stream->references, 1); /* relaxed: the caller holds one */
    job->job.id = stream->id;
    job->job.level = stream->level;
    job->stream = stream;
    job->core = core;
    job->first = first;
    job->star = star;
    job->items.root = plait_flat_const(PLAIT_FLAT_NONE);
    return job;
}

grain_t *grain_new(uint64_t low, uint64_t high)
{
    grain_t *grain = calloc(1, sizeof *grain);
    /* A grain is small and everything waits for it: without memory for it nothing can be reported
     * at all. */
    if (grain == NULL)
        Py_FatalError("plait: no memory to report a result");
    grain->low = low;
    grain->high = high;
    grain->answer.message.root = plait_flat_const(PLAIT_FLAT_NONE);
    return grain;
}

/* ---- the worker's side ---- */

static void send_list(map_job_t *job, uint64_t low, uint64_t high, PyObject *objects)
{
    if (low == high) {
        Py_DECREF(objects);
        return;
    }
    grain_t *grain = grain_new(job->first + low, job->first + high);
    grain->answer.object = objects;
    stream_send(job->stream, grain);
}

static void send_message(worker_data_t *data, map_job_t *job, uint64_t low, uint64_t high,
                         encoder_t *encoder, plait_flat_value_t list, bool on_desk)
{
    if (low == high)
        return;
    grain_t *grain = grain_new(job->first + low, job->first + high);
    if (encoder_finish(encoder, list, &grain->answer.message) < 0)
        answer_raised(data, &grain->answer);
    else
        grain->answer.message.borrowed = on_desk;
    stream_send(job->stream, grain);
}

static void send_raised(worker_data_t *data, map_job_t *job, uint64_t place)
{
    grain_t *grain = grain_new(job->first + place, job->first + place + 1);
    answer_raised(data, &grain->answer);
    stream_send(job->stream, grain);
}

/* Each item has a context of its own. */
static bool enter_context(worker_data_t *data, map_job_t *job, PyObject **entered)
{
    PyObject *brought = NULL;
    if (job->variables != NULL || job->context != NULL) {
        brought = job->variables != NULL ? PyContext_Copy(job->variables)
                                         : worker_context(data, job->context);
        if (brought == NULL)
            return false;
    }
    return context_enter(data, brought, entered);
}

static PyObject *apply(worker_data_t *data, map_job_t *job, PyObject *function, PyObject *item)
{
    PyObject *context;
    if (!enter_context(data, job, &context))
        return NULL;
    PyObject *result = run_generator(job->star ? PyObject_CallObject(function, item)
                                               : PyObject_CallOneArg(function, item));
    context_leave(data, context);
    return result;
}

/* What a worker runs items of, and what was current before. */
typedef struct items {
    uint64_t stream;
    plait_job_flag_t *expired;
    uint32_t struck;
    call_t *below;
} items_t;

/* None are current here: those of a stretch that waits are set aside. */
static items_t begin_items(worker_data_t *data, stream_t *stream)
{
    /* relaxed: written by this thread, but for `struck`, which others change for current items */
    items_t before = {.stream = plait_atomic_load_relaxed(&data->items),
                      .expired = data->items_expired,
                      .struck = plait_atomic_load_relaxed(&data->items_struck)};
    data->items_expired = &stream->expired;
    plait_atomic_store_seq_cst(&data->items_struck, 0);
    plait_atomic_store_seq_cst(&data->items, stream->id);
    before.below = begin_call(data, items_of(data));
    return before;
}

/* The call first: who still interrupts these items has done so by the end of end_call(). */
static void end_items(worker_data_t *data, const items_t *before)
{
    end_call(data, before->below);
    data->items_expired = before->expired;
    plait_atomic_store_seq_cst(&data->items_struck, before->struck);
    plait_atomic_store_seq_cst(&data->items, before->stream);
}

/* What must be there before the first item: the function and the items' message. */
static PyObject *prepare(worker_data_t *data, map_job_t *job, decoder_t *decoder,
                         plait_flat_body_t *items)
{
    PyObject *function = worker_function(data, job->function);
    if (function == NULL)
        return NULL;
    if (decoder_open(decoder, data->state, &job->items) == 0 &&
        decode_root(decoder, PLAIT_FLAT_LIST, items) == 0)
        return function;
    Py_DECREF(function);
    return NULL;
}

/* What `run_into` is given and gives back besides. */
typedef struct output {
    encoder_t *encoder;
    plait_flat_value_t list;
    bool *full;     /* whether the encoder's memory was too small; NULL where it has no bounds */
    PyObject *left; /* the result for which it was */
} output_t;

/* Puts one result into the list. 0, or -1 with an exception or with output->left. */
static int put_result(output_t *output, PyObject *result, size_t place)
{
    plait_flat_value_t value;
    if (encode_object(output->encoder, result, &value) == 0) {
        plait_flat_set(&output->encoder->writer, output->list, place, value);
        return 0;
    }
    if (output->full != NULL && *output->full) {
        PyErr_Clear();
        output->left = Py_NewRef(result);
    }
    return -1;
}

/* Flat kinds: runs items from `low` on, until `high` or one that fails, whose exception is then
 * raised unless its result is left; returns how many succeeded. What prepares them is not to be
 * interrupted, and an interrupt of the call below passes them by. */
static uint64_t run_into(worker_data_t *data, map_job_t *job, output_t *output, uint64_t low,
                         uint64_t high)
{
    decoder_t decoder;
    plait_flat_body_t items;
    uint64_t index = low;
    PyObject *function = prepare(data, job, &decoder, &items);
    if (function == NULL)
        return 0;
    items_t before = begin_items(data, job->stream);
    for (bool go = raise_if_interrupted(data) == 0; go && index < high; index++) {
        PyObject *item = decode_value(&decoder, plait_flat_word(&items, (size_t)index));
        PyObject *result = item == NULL ? NULL : apply(data, job, function, item);
        Py_XDECREF(item);
        int status = result == NULL ? -1 : put_result(output, result, (size_t)(index - low));
        Py_XDECREF(result);
        if (status < 0)
            break;
        if (output->full != NULL)
            service_note(data->service, index + 1, output->encoder->writer.used);
    }
    end_items(data, &before);
    decoder_close(&decoder);
    Py_DECREF(function);
    return index - low;
}

/* A list for so many results. 0, or -1 with MemoryError. */
static int open_list(output_t *output, uint64_t count)
{
    if (plait_flat_put_words(&output->encoder->writer, PLAIT_FLAT_LIST, (size_t)count,
                             (size_t)count, &output->list) == PLAIT_OK)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* A result that was too large for an encoder with bounds. */
static void send_left(worker_data_t *data, map_job_t *job, uint64_t place, PyObject *left)
{
    grain_t *grain = grain_new(job->first + place, job->first + place + 1);
    encoder_t encoder;
    encoder_init(&encoder, data->state);
    if (data->service != NULL)
        encoder_share(&encoder);
    output_t output = {.encoder = &encoder};
    if (open_list(&output, 1) < 0 || put_result(&output, left, 0) < 0 ||
        encoder_finish(&encoder, output.list, &grain->answer.message) < 0)
        answer_raised(data, &grain->answer);
    encoder_fini(&encoder);
    Py_DECREF(left);
    stream_send(job->stream, grain);
}

static uint64_t run_flat(worker_data_t *data, map_job_t *job, uint64_t low, uint64_t high)
{
    output_t output = {0};
    encoder_t spare;
    kept_encoder_t *kept = data->service == NULL ? NULL : service_desk(data->service, &output.full);
    if (kept == NULL)
        kept = &data->encoder;
    output.encoder = encoder_take(kept, &spare);
    uint64_t count = high - low, done = 0;
    if (open_list(&output, count) == 0)
        done = run_into(data, job, &output, low, high);
    PyObject *exception = done < count && output.left == NULL ? take_raised() : NULL;
    output_settle(data);
    send_message(data, job, low, low + done, output.encoder, output.list, output.full != NULL);
    encoder_give(kept, output.encoder);
    if (done == count)
        return count;
    if (output.left != NULL) {
        send_left(data, job, low + done, output.left);
    } else {
        PyErr_SetRaisedException(exception);
        send_raised(data, job, low + done);
    }
    return done + 1;
}

/* Thread kind, likewise. */
static uint64_t run_direct(worker_data_t *data, map_job_t *job, uint64_t low, uint64_t high)
{
    PyObject *results = PyList_New((Py_ssize_t)(high - low));
    if (results == NULL) {
        send_raised(data, job, low);
        return 1;
    }
    uint64_t index = low;
    items_t before = begin_items(data, job->stream);
    for (bool go = raise_if_interrupted(data) == 0; go && index < high; index++) {
        /* borrowed: the job's list is nobody else's and keeps it */
        PyObject *result =
            apply(data, job, job->callable, PyList_GET_ITEM(job->objects, (Py_ssize_t)index));
        if (result == NULL)
            break;
        PyList_SET_ITEM(results, (Py_ssize_t)(index - low), result);
    }
    end_items(data, &before);
    PyObject *exception = index < high ? take_raised() : NULL;
    output_settle(data);
    cut_list(results, index - low);
    send_list(job, low, index, results);
    if (exception == NULL)
        return high - low;
    PyErr_SetRaisedException(exception);
    send_raised(data, job, index);
    return index - low + 1;
}

uint64_t map_run_items(worker_data_t *data, plait_job_t *base, uint64_t low, uint64_t high)
{
    map_job_t *job = (map_job_t *)base;
    return data->core->kind == KIND_THREAD ? run_direct(data, job, low, high)
                                           : run_flat(data, job, low, high);
}

void map_abandon_items(plait_sched_t *sched, plait_job_t *base, uint64_t low, uint64_t high)
{
    map_job_t *job = (map_job_t *)base;
    grain_t *grain = grain_new(job->first + low, job->first + high);
    if (plait_sched_is_broken(sched))
        answer_broken(job->core, &grain->answer);
    else
        grain->answer.outcome = OUTCOME_CANCELLED;
    stream_send(job->stream, grain);
}
