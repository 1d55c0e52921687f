/* map_feed: from a map's input to the workers.
 *
 * Items are taken from the input in blocks, encoded as they are taken, and a block is handed over as
 * one job. What is in flight is bounded by the window. All of it runs in the thread that uses the
 * iterator. Design: docs/design/map.md
 */
#include "binding/map.h"

/* Blocks start small, so that workers begin early, and grow to this. */
#define LAST_BLOCK 16384

/* A slow input must not keep what it has given from the workers: a block older than this is sent,
 * in ns. */
#define BLOCK_TIME 1000000

/* Without a window of the caller's: at most so many items, and about so many bytes, are in flight.
 */
#define WINDOW_ITEMS (1 << 20)
#define WINDOW_BYTES (256.0 * 1024 * 1024)

uint64_t map_room(const map_object *self)
{
    uint64_t flying = self->taken - self->next;
    if (self->options.window > 0)
        return flying < self->options.window ? self->options.window - flying : 0;
    if (flying > 0 && self->bytes / (double)self->taken * (double)flying > WINDOW_BYTES)
        return 0;
    return flying < WINDOW_ITEMS ? WINDOW_ITEMS - flying : 0;
}

/* 1 with the next item, 0 at the input's end, -1 with what the input raised. */
static int take_item(map_object *self, PyObject **item)
{
    *item = Py_TYPE(self->input)->tp_iternext(self->input);
    if (*item == NULL) {
        bool raised = PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration);
        if (!raised)
            PyErr_Clear();
        Py_CLEAR(self->input);
        return raised ? -1 : 0;
    }
    if (!self->options.star || PyTuple_CheckExact(*item))
        return 1;
    Py_SETREF(*item, PySequence_Tuple(*item));
    return *item == NULL ? -1 : 1;
}

/* Whether a block of `count` items that was begun then should be sent though it is not full. */
static bool block_is_old(uint64_t count, int64_t began)
{
    return (count < 4 || count % 16 == 0) && plait_prim_now() - began > BLOCK_TIME;
}

static int submit_job(map_object *self, map_job_t *job)
{
    uint64_t count = job->job.count;
    self->bytes += (double)job->items.size;
    int result = plait_sched_submit_job(self->pool->core->sched, &job->job);
    plait_job_release(&job->job);
    if (result == PLAIT_OK) {
        self->taken += count;
        return 0;
    }
    raise_submit_error(self->state, self->pool, result);
    return -1;
}

/* An item that cannot travel fails at its own place. */
static void fail_locally(map_object *self)
{
    grain_t *grain = grain_new(self->taken, self->taken + 1);
    grain->answer.outcome = OUTCOME_EXCEPTION;
    grain->answer.object = take_raised();
    stream_send(self->stream, grain);
    self->taken++;
}

/* Ends the message of a block and hands its `count` items over. */
static int send_flat(map_object *self, encoder_t *encoder, plait_flat_value_t list, uint64_t count)
{
    map_job_t *job = count == 0 ? NULL
                                : map_job_new(self->stream, self->pool->core, self->taken, count,
                                              self->options.star);
    if (job == NULL) {
        encoder_reset(encoder);
        return count == 0 ? 0 : -1;
    }
    job->function = self->function;
    shipment_retain(self->function);
    job->context = self->context;
    if (job->context != NULL)
        shipment_retain(job->context);
    if (encoder_finish(encoder, list, &job->items) == 0)
        return submit_job(self, job);
    plait_job_release(&job->job);
    return -1;
}

/* Takes and encodes up to `limit` items. 0, or -1 with what the input raised; an item that cannot
 * travel leaves *unfit set to it and its exception raised. */
static int fill_flat(map_object *self, encoder_t *encoder, plait_flat_value_t list, uint64_t limit,
                     uint64_t *count, bool *unfit)
{
    int64_t began = plait_prim_now();
    *unfit = false;
    for (*count = 0; *count < limit && !*unfit; ++*count) {
        PyObject *item;
        plait_flat_value_t value;
        int taken = take_item(self, &item);
        if (taken <= 0)
            return taken;
        *unfit = encode_object(encoder, item, &value) < 0;
        Py_DECREF(item);
        if (*unfit)
            break;
        plait_flat_set(&encoder->writer, list, (size_t)*count, value);
        if (block_is_old(*count, began))
            limit = *count + 1;
    }
    return 0;
}

static int feed_with(map_object *self, encoder_t *encoder, uint64_t limit)
{
    uint64_t count;
    bool unfit;
    plait_flat_value_t list;
    int result = plait_flat_put_words(&encoder->writer, PLAIT_FLAT_LIST, (size_t)limit,
                                      (size_t)limit, &list);
    if (result != PLAIT_OK) {
        raise_core_error(result, "encoding the items of a map");
        return -1;
    }
    int status = fill_flat(self, encoder, list, limit, &count, &unfit);
    PyObject *raised = PyErr_GetRaisedException();
    int sent = send_flat(self, encoder, list, count);
    if (sent == 0 && raised != NULL) {
        PyErr_SetRaisedException(raised);
        if (unfit && PyErr_GivenExceptionMatches(raised, PyExc_Exception))
            fail_locally(self);
        else
            status = -1;
    } else {
        Py_XDECREF(raised);
    }
    return sent < 0 ? -1 : status;
}

static int feed_flat(map_object *self, uint64_t limit)
{
    int status = -1;
    Py_BEGIN_CRITICAL_SECTION((PyObject *)self->pool);
    encoder_t spare, *encoder = encoder_take(shipper_encoder(self->pool->shipper), &spare);
    status = feed_with(self, encoder, limit);
    encoder_give(shipper_encoder(self->pool->shipper), encoder);
    Py_END_CRITICAL_SECTION();
    return status;
}

static int send_direct(map_object *self, PyObject *items)
{
    map_job_t *job = map_job_new(self->stream, self->pool->core, self->taken,
                                 (uint64_t)PyList_GET_SIZE(items), self->options.star);
    if (job == NULL)
        return -1;
    job->callable = Py_NewRef(self->callable);
    job->variables = Py_XNewRef(self->variables);
    job->objects = Py_NewRef(items);
    return submit_job(self, job);
}

static int feed_direct(map_object *self, uint64_t limit)
{
    int64_t began = plait_prim_now();
    uint64_t count = 0;
    int status = 0;
    PyObject *items = PyList_New((Py_ssize_t)limit), *item;
    if (items == NULL)
        return -1;
    while (count < limit && (status = take_item(self, &item)) > 0) {
        PyList_SET_ITEM(items, (Py_ssize_t)count, item);
        if (block_is_old(count++, began))
            break;
    }
    PyObject *raised = PyErr_GetRaisedException();
    cut_list(items, count);
    int sent = count > 0 ? send_direct(self, items) : 0;
    Py_DECREF(items);
    if (sent == 0 && raised != NULL)
        PyErr_SetRaisedException(raised);
    else
        Py_XDECREF(raised);
    return sent < 0 || status < 0 ? -1 : 0;
}

int map_feed(map_object *self)
{
    uint64_t limit = map_room(self), before = self->taken;
    if (limit > self->block)
        limit = self->block;
    int status =
        self->pool->core->kind == KIND_THREAD ? feed_direct(self, limit) : feed_flat(self, limit);
    uint64_t next = (self->taken - before) * 2; /* not more room than such an input fills */
    self->block = next < MAP_FIRST_BLOCK ? MAP_FIRST_BLOCK : next > LAST_BLOCK ? LAST_BLOCK : next;
    if (self->input == NULL)
        Py_CLEAR(self->pool);
    return status;
}

bool map_wants_more(const map_object *self)
{
    if (self->input == NULL)
        return false;
    uint64_t free = map_room(self);
    uint64_t window = self->options.window > 0 ? self->options.window : WINDOW_ITEMS;
    return free > 0 && (free >= self->block || free * 2 >= window || self->taken == self->next);
}
