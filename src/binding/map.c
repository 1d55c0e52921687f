/* map: one function over many items, from the workers' side to the caller.
 *
 * The iterator takes items from its input in blocks (map_feed.c); a block is a job whose items the
 * scheduler divides among the workers as they go idle. A worker sends what it finished of a stretch of items
 * as one *grain*: a list of values, or one exception, with the place of the first item. All grains
 * of a map arrive in one mailbox; the iterator puts them in order, or not, and decodes item by
 * item. Items in flight are bounded by the window. Design: docs/design/map.md
 */
#include "binding/map.h"

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
    return self->heap_count > 0 && (!self->options.ordered || self->heap[0]->low == self->next);
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
    self->waiting_since = 0;
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

/* As the standard library's: an iterator that was begun and is given up cancels what it has not
 * given; one that was never begun lets everything run. */
static void give_up(map_object *self)
{
    if (self->begun)
        plait_job_cancel(&self->stream->cancelled);
    if (self->stream != NULL)
        stream_tell(self->stream); /* a task that waits finds the end */
    Py_CLEAR(self->input);
    Py_CLEAR(self->pool);
    drop_current(self);
    while (self->heap_count > 0)
        grain_free(self->heap[--self->heap_count]);
    self->next = self->taken;
}

static bool has_expired(const map_object *self)
{
    int64_t deadline = self->options.call.deadline;
    return deadline != PLAIT_PRIM_FOREVER && plait_prim_now() >= deadline;
}

/* Helps, or sleeps until something arrives. 0, or -1 with an exception. */
static int wait_for_grains(map_object *self)
{
    bool stepped;
    if (help_while_waiting(self->sched_id, &self->waiting_since, &stepped) < 0)
        return -1;
    int64_t timeout = self->options.timeout, deadline = self->options.call.deadline;
    int result =
        collect(self, stepped ? 0 : deadline_of_sleep(timeout < deadline ? timeout : deadline));
    if (result < 0 || PyErr_CheckSignals() < 0)
        return -1;
    if (result == PLAIT_TIMEOUT && plait_prim_now() >= timeout) {
        PyErr_SetNone(PyExc_TimeoutError);
        return -1;
    }
    return 0;
}

/* What a step towards the next value came to. */
enum { STEP_FAILED = -1, STEP_ENDED, STEP_FED, STEP_IDLE, STEP_READY };

/* Feeds one block, and opens the next grain if it has arrived. FAILED has an exception. */
static int step(map_object *self)
{
    bool fed = false, expired = has_expired(self);
    if (!expired && map_wants_more(self)) {
        if (map_feed(self) < 0)
            return STEP_FAILED;
        fed = true;
    }
    if (self->next == self->taken && self->input == NULL)
        return STEP_ENDED;
    if (!grain_is_due(self) && collect(self, 0) < 0)
        return STEP_FAILED;
    if (grain_is_due(self)) {
        open_current(self);
        return STEP_READY;
    }
    if (expired) {
        give_up(self);
        raise_deadline_exceeded("the deadline of the map passed before all its results were there");
        return STEP_FAILED;
    }
    return fed && map_wants_more(self) ? STEP_FED : STEP_IDLE;
}

/* NULL with an exception, or without one at the end. */
static PyObject *next_value(map_object *self)
{
    self->begun = true;
    if (self->current == NULL && raise_if_inherited(self->fork_count, "map") < 0)
        return NULL;
    while (self->current == NULL) {
        int result = step(self);
        if (result <= STEP_ENDED || (result == STEP_IDLE && wait_for_grains(self) < 0))
            return NULL;
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

/* ---- without blocking, for coroutines ---- */

PyDoc_STRVAR(
    step_doc,
    "_step($self, /)\n--\n\n"
    "The next value, or the iterator itself if it is not there yet. Raises as next() does.");

static PyObject *step_value(map_object *self)
{
    bool stepped = true;
    self->begun = true;
    if (self->current == NULL && raise_if_inherited(self->fork_count, "map") < 0)
        return NULL;
    while (self->current == NULL) {
        int result = step(self);
        if (result == STEP_ENDED)
            PyErr_SetNone(PyExc_StopIteration);
        if (result <= STEP_ENDED)
            return NULL;
        if (result == STEP_READY)
            break;
        if (result == STEP_IDLE &&
            help_while_waiting(self->sched_id, &self->waiting_since, &stepped) < 0)
            return NULL;
        if (result == STEP_FED || !stepped)
            return Py_NewRef((PyObject *)self);
    }
    return give(self);
}

static PyObject *map_step(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(object);
    value = step_value((map_object *)object);
    Py_END_CRITICAL_SECTION();
    return value;
}

PyDoc_STRVAR(
    arrival_doc,
    "_arrival($self, /)\n--\n\n"
    "A Future that is done as soon as another _step() may get further; None if it may now.");

static PyObject *arrival(map_object *self)
{
    if (map_wants_more(self) || grain_is_due(self))
        Py_RETURN_NONE;
    call_t *signal = call_new_signal();
    if (signal == NULL)
        return NULL;
    plait_task_retain(&signal->task); /* the stream's */
    /* seq_cst: what is sent before this is seen by the look below, see stream_tell */
    call_t *before = plait_atomic_swap_seq_cst(&self->stream->signal, signal);
    if (before != NULL)
        call_signal(before);
    PyObject *future = future_new(self->state, signal);
    int collected = collect(self, 0);
    if (collected < 0)
        Py_CLEAR(future);
    else if (collected == PLAIT_OK || plait_atomic_load_seq_cst(&self->stream->expired))
        stream_tell(self->stream);
    return future;
}

static PyObject *map_arrival(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(object);
    future = arrival((map_object *)object);
    Py_END_CRITICAL_SECTION();
    return future;
}

/* ---- life ---- */

PyObject *map_start(module_state *state, pool_object *pool, PyObject *callable, PyObject *iterator,
                    const map_options_t *options)
{
    map_object *self = (map_object *)state->map_type->tp_alloc(state->map_type, 0);
    bool done;
    if (self == NULL)
        return NULL;
    self->pool = (pool_object *)Py_NewRef((PyObject *)pool);
    self->sched_id = plait_sched_id(pool->core->sched);
    self->fork_count = pool->core->fork_count;
    self->state = state;
    self->callable = Py_NewRef(callable);
    self->input = Py_NewRef(iterator);
    self->options = *options;
    self->block = MAP_FIRST_BLOCK;
    self->stream = stream_new();
    if (self->stream == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    self->stream->level = options->call.level;
    self->stream->retries = options->call.retries;
    int started = stream_start_deadline(self->stream, pool->core, options->call.deadline);
    if (started != PLAIT_OK) {
        raise_core_error(started, "giving a map a deadline");
        goto fail;
    }
    if (pool->core->kind != KIND_THREAD) {
        Py_BEGIN_CRITICAL_SECTION((PyObject *)pool);
        self->function = ship(state, pool->shipper, callable);
        done = self->function != NULL && !self->function->elsewhere &&
               context_ship(state, pool->shipper, &self->context);
        Py_END_CRITICAL_SECTION();
    } else {
        done = context_capture(&self->variables);
    }
    if (!done)
        goto fail;
    while (self->input != NULL && map_room(self) > 0 && !has_expired(self)) {
        if (map_feed(self) < 0)
            goto fail;
        if (options->lazy)
            break;
    }
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
    Py_VISIT(self->variables);
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
    Py_CLEAR(self->variables);
    Py_CLEAR(self->input);
    return 0;
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
    shipment_release(self->context);
    Py_CLEAR(self->variables);
    if (self->stream != NULL)
        stream_release(self->stream);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef map_methods[] = {
    {"close", map_close, METH_NOARGS, close_doc},
    {"_step", map_step, METH_NOARGS, step_doc},
    {"_arrival", map_arrival, METH_NOARGS, arrival_doc},
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
