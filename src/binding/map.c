/* map: one function over many items.
 *
 * The iterator takes items from its input in blocks; a block is a job whose items the scheduler
 * divides among the workers as they go idle. A worker sends what it finished of a stretch of items
 * as one *grain*: a list of values, or one exception, with the place of the first item. All grains
 * of a map arrive in one mailbox; the iterator puts them in order, or not, and decodes item by
 * item. Items in flight are bounded by the window. Design: docs/design/map.md
 */
#include "binding/map_job.h"

/* Blocks start small, so that workers begin early, and grow. */
#define FIRST_BLOCK 64
#define LAST_BLOCK 16384

/* A slow input must not keep what it has given from the workers: a block older than this is sent,
 * in ns. */
#define BLOCK_TIME 1000000

/* Without a window of the caller's: at most so many items, and about so many bytes, are in flight.
 */
#define WINDOW_ITEMS (1 << 20)
#define WINDOW_BYTES (256.0 * 1024 * 1024)

typedef struct map_object {
    PyObject_HEAD
    pool_object *pool; /* NULL once the input is exhausted: a pool that is let go of then closes */
    uint64_t sched_id;
    uint32_t fork_count;
    module_state *state;
    PyObject *callable;
    PyObject *input;      /* NULL once exhausted */
    shipment_t *function; /* not for threads */
    stream_t *stream;
    bool star, ordered, begun;
    int64_t deadline;
    uint64_t window; /* 0: the default limits */
    uint64_t taken;  /* items taken from the input */
    uint64_t next;   /* items given to the caller */
    uint64_t block;  /* how large the next block may be */
    double bytes;    /* of all messages so far */
    /* grains that came before their turn: a binary heap by place */
    grain_t **heap;
    size_t heap_count, heap_capacity;
    /* the grain being given */
    grain_t *current;
    uint64_t position; /* in current */
    decoder_t decoder;
    plait_flat_body_t values;
    bool decoding;
} map_object;

/* ---- feeding: from the input to the workers ---- */

static uint64_t room(const map_object *self)
{
    uint64_t flying = self->taken - self->next;
    if (self->window > 0)
        return flying < self->window ? self->window - flying : 0;
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
    if (!self->star || PyTuple_CheckExact(*item))
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
    plait_mailbox_push(&self->stream->grains, &grain->link);
    self->taken++;
}

/* Ends the message of a block and hands its `count` items over. */
static int send_flat(map_object *self, encoder_t *encoder, plait_flat_value_t list, uint64_t count)
{
    map_job_t *job =
        count == 0 ? NULL
                   : map_job_new(self->stream, self->pool->core, self->taken, count, self->star);
    if (job == NULL) {
        encoder_reset(encoder);
        return count == 0 ? 0 : -1;
    }
    job->function = self->function;
    shipment_retain(self->function);
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
                                 (uint64_t)PyList_GET_SIZE(items), self->star);
    if (job == NULL)
        return -1;
    job->callable = Py_NewRef(self->callable);
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

/* One block. 0, or -1 with an exception. */
static int feed(map_object *self)
{
    uint64_t limit = room(self), before = self->taken;
    if (limit > self->block)
        limit = self->block;
    int status =
        self->pool->core->kind == KIND_THREAD ? feed_direct(self, limit) : feed_flat(self, limit);
    uint64_t next = (self->taken - before) * 2; /* not more room than such an input fills */
    self->block = next < FIRST_BLOCK ? FIRST_BLOCK : next > LAST_BLOCK ? LAST_BLOCK : next;
    if (self->input == NULL)
        Py_CLEAR(self->pool);
    return status;
}

/* Whether it is worth taking more from the input now: in steady state by the half window, not by
 * the item. */
static bool wants_more(const map_object *self)
{
    if (self->input == NULL)
        return false;
    uint64_t free = room(self);
    uint64_t window = self->window > 0 ? self->window : WINDOW_ITEMS;
    return free > 0 && (free >= self->block || free * 2 >= window || self->taken == self->next);
}

/* ---- the order of grains ---- */

static int heap_push(map_object *self, grain_t *grain)
{
    if (self->heap_count == self->heap_capacity) {
        size_t capacity = self->heap_capacity == 0 ? 64 : self->heap_capacity * 2;
        grain_t **heap = PyMem_Realloc(self->heap, capacity * sizeof *heap);
        if (heap == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->heap = heap;
        self->heap_capacity = capacity;
    }
    size_t child = self->heap_count++;
    while (child > 0 && self->heap[(child - 1) / 2]->low > grain->low) {
        self->heap[child] = self->heap[(child - 1) / 2];
        child = (child - 1) / 2;
    }
    self->heap[child] = grain;
    return 0;
}

static grain_t *heap_pop(map_object *self)
{
    grain_t *top = self->heap[0], *last = self->heap[--self->heap_count];
    size_t parent = 0, child;
    while ((child = parent * 2 + 1) < self->heap_count) {
        if (child + 1 < self->heap_count && self->heap[child + 1]->low < self->heap[child]->low)
            child++;
        if (last->low <= self->heap[child]->low)
            break;
        self->heap[parent] = self->heap[child];
        parent = child;
    }
    self->heap[parent] = last;
    return top;
}

/* Moves what has arrived into the heap. PLAIT_OK, or what the mailbox answered; -1 with an
 * exception. */
static int collect(map_object *self, int64_t deadline)
{
    plait_link_t *link;
    int result;
    if (deadline == 0) {
        result = plait_mailbox_take(&self->stream->grains, 0, &link);
    } else {
        Py_BEGIN_ALLOW_THREADS
        result = plait_mailbox_take(&self->stream->grains, deadline, &link);
        Py_END_ALLOW_THREADS
    }
    if (result != PLAIT_OK)
        return result;
    while (link != NULL) {
        grain_t *grain = (grain_t *)link;
        link = link->next;
        if (heap_push(self, grain) < 0)
            return -1;
    }
    return PLAIT_OK;
}

static bool grain_is_due(const map_object *self)
{
    return self->heap_count > 0 && (!self->ordered || self->heap[0]->low == self->next);
}

/* ---- giving ---- */

static void drop_current(map_object *self)
{
    if (self->decoding)
        decoder_close(&self->decoder);
    self->decoding = false;
    if (self->current != NULL)
        grain_free(self->current);
    self->current = NULL;
}

/* Takes the next grain. A list that cannot be read fails all its items: a process that wrote nonsense
 * may have sent it. */
static void open_current(map_object *self)
{
    self->current = heap_pop(self);
    self->position = 0;
    answer_t *answer = &self->current->answer;
    if (answer->outcome != OUTCOME_VALUE || answer->object != NULL)
        return;
    self->decoding = decoder_open(&self->decoder, self->state, &answer->message) == 0;
    if (self->decoding && decode_root(&self->decoder, PLAIT_FLAT_LIST, &self->values) == 0) {
        if (self->values.words >= self->current->high - self->current->low)
            return;
        PyErr_SetString(PyExc_ValueError, "malformed plait message: too few results");
    }
    answer->outcome = OUTCOME_EXCEPTION;
    answer->object = take_raised();
}

/* What an item raised. A StopIteration would end the iteration in silence: as in a generator (PEP
 * 479) it becomes a RuntimeError. */
static void raise_at_place(PyObject *exception)
{
    if (exception == NULL)
        return; /* something else is being raised */
    if (!PyErr_GivenExceptionMatches(exception, PyExc_StopIteration)) {
        PyErr_SetRaisedException(exception);
        return;
    }
    PyErr_SetString(PyExc_RuntimeError, "the function of a map raised StopIteration");
    PyObject *error = PyErr_GetRaisedException();
    PyException_SetCause(error, exception);
    PyErr_SetRaisedException(error);
}

/* The next value of the current grain. NULL with what the item raised. */
static PyObject *give(map_object *self)
{
    answer_t *answer = &self->current->answer;
    uint64_t index = self->position++;
    PyObject *value = NULL;
    self->next++;
    if (answer->outcome != OUTCOME_VALUE) {
        PyObject *exception;
        answer_decode(self->state, answer, &exception);
        raise_at_place(exception);
        if (answer->outcome != OUTCOME_EXCEPTION &&
            answer->outcome != OUTCOME_DIED) { /* nothing more will come */
            Py_CLEAR(self->input);
            self->next = self->taken;
            self->position = self->current->high - self->current->low;
        }
    } else if (answer->object != NULL) {
        /* moved out of a list that is nobody else's: once given, a result is the caller's alone */
        value = PyList_GET_ITEM(answer->object, (Py_ssize_t)index);
        PyList_SET_ITEM(answer->object, (Py_ssize_t)index, Py_NewRef(Py_None));
    } else {
        value = decode_value(&self->decoder, plait_flat_word(&self->values, (size_t)index));
    }
    if (self->position == self->current->high - self->current->low)
        drop_current(self);
    return value;
}

/* Helps, or sleeps until something arrives. 0, or -1 with an exception. */
static int wait_for_grains(map_object *self)
{
    bool stepped;
    if (help_while_waiting(self->sched_id, &stepped) < 0)
        return -1;
    int result = collect(self, stepped ? 0 : deadline_of_sleep(self->deadline));
    if (result < 0 || PyErr_CheckSignals() < 0)
        return -1;
    if (result == PLAIT_TIMEOUT && plait_prim_now() >= self->deadline) {
        PyErr_SetNone(PyExc_TimeoutError);
        return -1;
    }
    return 0;
}

static PyObject *next_value(map_object *self)
{
    self->begun = true;
    if (self->current == NULL && raise_if_inherited(self->fork_count, "map") < 0)
        return NULL;
    while (self->current == NULL) {
        if (wants_more(self) && feed(self) < 0)
            return NULL;
        if (self->next == self->taken && self->input == NULL)
            return NULL;
        if (!grain_is_due(self) && collect(self, 0) < 0)
            return NULL;
        if (grain_is_due(self)) {
            open_current(self);
        } else if (!wants_more(self) && wait_for_grains(self) < 0) {
            return NULL;
        }
    }
    return give(self);
}

static PyObject *map_next(PyObject *object)
{
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(object);
    value = next_value((map_object *)object);
    Py_END_CRITICAL_SECTION();
    return value;
}

/* ---- life ---- */

PyObject *map_start(module_state *state, pool_object *pool, PyObject *callable, PyObject *iterator,
                    bool star, bool ordered, int64_t deadline, Py_ssize_t window)
{
    map_object *self = (map_object *)state->map_type->tp_alloc(state->map_type, 0);
    if (self == NULL)
        return NULL;
    self->pool = (pool_object *)Py_NewRef((PyObject *)pool);
    self->sched_id = plait_sched_id(pool->core->sched);
    self->fork_count = pool->core->fork_count;
    self->state = state;
    self->callable = Py_NewRef(callable);
    self->input = Py_NewRef(iterator);
    self->star = star;
    self->ordered = ordered;
    self->deadline = deadline;
    self->window = (uint64_t)window;
    self->block = FIRST_BLOCK;
    self->stream = stream_new();
    if (self->stream == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    if (pool->core->kind != KIND_THREAD) {
        Py_BEGIN_CRITICAL_SECTION((PyObject *)pool);
        self->function = ship(state, pool->shipper, callable);
        Py_END_CRITICAL_SECTION();
        if (self->function == NULL)
            goto fail;
    }
    while (self->input != NULL && room(self) > 0)
        if (feed(self) < 0)
            goto fail;
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static int map_traverse(PyObject *object, visitproc visit, void *arg)
{
    map_object *self = (map_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->pool);
    Py_VISIT(self->callable);
    Py_VISIT(self->input);
    if (self->current != NULL)
        Py_VISIT(self->current->answer.object);
    for (size_t index = 0; index < self->heap_count; index++)
        Py_VISIT(self->heap[index]->answer.object);
    return 0;
}

static int map_clear(PyObject *object)
{
    map_object *self = (map_object *)object;
    Py_CLEAR(self->callable);
    Py_CLEAR(self->input);
    return 0;
}

/* As the standard library's: an iterator that was begun and is given up cancels what it has not
 * given; one that was never begun lets everything run. */
static void give_up(map_object *self)
{
    if (self->begun)
        plait_job_cancel(&self->stream->cancelled);
    Py_CLEAR(self->input);
    Py_CLEAR(self->pool);
    drop_current(self);
    while (self->heap_count > 0)
        grain_free(self->heap[--self->heap_count]);
    self->next = self->taken;
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Gives up what is left, as letting go of the iterator does: it is at its end\n"
             "then. What no worker has begun is cancelled, if a result was asked for.");

static PyObject *map_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_CRITICAL_SECTION(object);
    give_up((map_object *)object);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static void map_dealloc(PyObject *object)
{
    map_object *self = (map_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    give_up(self);
    Py_CLEAR(self->callable);
    PyMem_Free(self->heap);
    shipment_release(self->function);
    if (self->stream != NULL)
        stream_release(self->stream);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef map_methods[] = {
    {"close", map_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot map_slots[] = {
    {Py_tp_doc, "An iterator over the results of Pool.map; one thread at a time."},
    {Py_tp_traverse, map_traverse},
    {Py_tp_clear, map_clear},
    {Py_tp_dealloc, map_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, map_next},
    {Py_tp_methods, map_methods},
    {0, NULL},
};

PyType_Spec map_spec = {
    .name = "plait._plait.MapIterator",
    .basicsize = sizeof(map_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = map_slots,
};
