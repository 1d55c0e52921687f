/* output: what workers print comes out in whole lines, where their pool's maker prints.
 *
 * print() writes its parts one by one, and a stream mixes the parts of several threads. So the write
 * and flush of sys.stdout and sys.stderr are taken over, in the maker's interpreter and in those of
 * workers, by two methods that put lines together first: each worker's for itself, and those of all
 * other threads together, where the stream would have kept them back anyway. The stream stays what
 * it is; what is printed in a worker's interpreter is carried to the maker's by a visit (visit.c), so
 * it is there before its result, in order, and wherever the maker's streams lead at that moment.
 * Design: docs/design/output.md
 */
#include "binding/binding.h"

/* Characters that an interpreter worker collects before it visits its maker in the midst of a task. */
#define ENOUGH 8192

typedef struct lines_object {
    PyObject_HEAD
    /* const once made */
    PyObject *write, *flush; /* the stream's own; NULL where it is not to be used any more */
    int index;               /* STREAM_STDOUT or STREAM_STDERR */
    bool holds; /* no worker's: whether unfinished lines of other threads are kept back, too */
    bool eager; /* a worker's interpreter: whether each line is to be seen at once */
    worker_data_t *worker; /* there: whose interpreter it is, which outlives this; else NULL */
    /* Text files of several threads keep no order: what one thread has written may lie in what
     * another one, which waits, is about to hand on. So only one at a time may write. */
    PyThread_type_lock lock;      /* NULL for streams of other types */
    PLAIT_ATOMIC(uint64_t) owner; /* the thread that has the lock; 0 for none */
    uint32_t fork_count; /* when the lock was made; written by the one thread after a fork */
    /* guarded by the object's critical section */
    PyObject *open;    /* the unfinished line of all other threads, or NULL */
    PyObject *waiting; /* a worker's interpreter: a list of texts to be carried, or NULL */
    Py_ssize_t length; /* of them all */
} lines_object;

/* ---- lines ---- */

/* Whether what is written goes to the maker: not from a copy that a task has made of a child by fork,
 * which shares its streams but not its parent. */
static bool is_carried(const lines_object *self)
{
    return self->worker != NULL &&
           (self->write == NULL || self->worker->core->fork_count == plait_prim_fork_count());
}

/* Carries what waits to the maker, if this thread can. 0, or -1 with an exception. */
static int carry(lines_object *self, bool flush)
{
    PyObject *texts = NULL, *empty = NULL, *text = NULL, *arguments = NULL;
    int status = 0;
    if (!visit_can_be_made(self->worker))
        return 0;
    Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
    texts = self->waiting;
    self->waiting = NULL;
    self->length = 0;
    Py_END_CRITICAL_SECTION();
    if (texts == NULL && !flush)
        return 0;
    empty = PyUnicode_FromString("");
    text = texts == NULL || empty == NULL ? Py_XNewRef(empty) : PyUnicode_Join(empty, texts);
    if (text != NULL)
        arguments = Py_BuildValue("iOO", self->index, text, flush ? Py_True : Py_False);
    status = arguments == NULL ? -1 : visit_maker(self->worker, VISIT_WRITE, arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(text);
    Py_XDECREF(empty);
    Py_XDECREF(texts);
    return status;
}

/* Whether the lock was taken. Not if this thread has it already: a signal handler may print while
 * the main thread writes. */
static bool seize(lines_object *self)
{
    uint64_t me = PyThread_get_thread_ident();
    if (self->lock != NULL && self->fork_count != plait_prim_fork_count()) {
        self->lock = PyThread_allocate_lock(); /* the old one may be held by nobody */
        self->fork_count = plait_prim_fork_count();
        plait_atomic_store_relaxed(&self->owner, 0); /* relaxed: there is one thread only */
    }
    /* relaxed: only this thread ever writes its own number */
    if (self->lock == NULL || plait_atomic_load_relaxed(&self->owner) == me)
        return false;
    if (!PyThread_acquire_lock(self->lock, NOWAIT_LOCK)) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(self->lock, WAIT_LOCK);
        Py_END_ALLOW_THREADS
    }
    plait_atomic_store_relaxed(&self->owner, me);
    return true;
}

/* The stream's own write, or, without a text, its flush. */
static PyObject *call_stream(lines_object *self, PyObject *text)
{
    bool seized = seize(self);
    PyObject *result =
        text == NULL ? PyObject_CallNoArgs(self->flush) : PyObject_CallOneArg(self->write, text);
    if (seized) {
        plait_atomic_store_relaxed(&self->owner, 0); /* relaxed: as in seize */
        PyThread_release_lock(self->lock);
    }
    return result;
}

/* Has a text come out at once, or, in a worker's interpreter, soon. 0, or -1 with an exception. */
static int put_out(lines_object *self, PyObject *text)
{
    int status = -1;
    bool due = false;
    if (!is_carried(self)) {
        PyObject *result = call_stream(self, text);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
    if (self->waiting == NULL)
        self->waiting = PyList_New(0);
    if (self->waiting != NULL)
        status = PyList_Append(self->waiting, text);
    self->length += PyUnicode_GET_LENGTH(text);
    plait_atomic_store_relaxed(&self->worker->printed, 1); /* relaxed: see output_settle */
    due = self->eager || self->length >= ENOUGH;
    Py_END_CRITICAL_SECTION();
    return status == 0 && due ? carry(self, false) : status;
}

/* Adds to an unfinished line; what of it is complete then is *whole, a new reference or NULL. 0, or
 * -1 with an exception. */
static int add(PyObject **open, PyObject *text, PyObject **whole)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    Py_ssize_t cut = PyUnicode_FindChar(text, '\n', 0, length, -1) + 1;
    *whole = NULL;
    if (cut == 0 && length > 0) {
        PyObject *longer = *open == NULL ? Py_NewRef(text) : PyUnicode_Concat(*open, text);
        if (longer != NULL)
            Py_XSETREF(*open, longer);
        return longer == NULL ? -1 : 0;
    }
    PyObject *head = PyUnicode_Substring(text, 0, cut);
    PyObject *rest = cut == length ? NULL : PyUnicode_Substring(text, cut, length);
    if (head != NULL && *open != NULL)
        Py_SETREF(head, PyUnicode_Concat(*open, head));
    if (head == NULL || (rest == NULL && cut < length)) {
        Py_XDECREF(head);
        Py_XDECREF(rest);
        return -1;
    }
    if (cut > 0) {
        Py_XSETREF(*open, rest);
        *whole = head;
    } else {
        Py_DECREF(head);
    }
    return 0;
}

/* The worker that runs this thread, in the interpreter whose stream this is; or NULL. */
static worker_data_t *worker_here(const lines_object *self)
{
    if (self->worker != NULL)
        return visit_can_be_made(self->worker) ? self->worker : NULL;
    plait_worker_t *worker = plait_worker_current();
    worker_data_t *data = worker == NULL ? NULL : plait_worker_data(worker);
    return data != NULL && data->core->kind == KIND_THREAD &&
                   data->interpreter == PyInterpreterState_Get()
               ? data
               : NULL;
}

/* The unfinished line of the worker that runs this thread; NULL for any other thread. */
static open_line_t *line_of_worker(lines_object *self)
{
    worker_data_t *data = worker_here(self);
    if (data == NULL || data->leaving)
        return NULL;
    open_line_t *line = &data->lines[self->index];
    plait_atomic_store_relaxed(&data->printed, 1); /* relaxed: read by this thread */
    if (line->lines != (PyObject *)self) {         /* the stream was replaced */
        output_end_line(line);
        line->lines = Py_NewRef((PyObject *)self);
    }
    return line;
}

void output_end_line(open_line_t *line)
{
    lines_object *lines = (lines_object *)line->lines;
    PyObject *text = line->text;
    line->lines = line->text = NULL;
    if (lines == NULL)
        return;
    if (text != NULL && put_out(lines, text) < 0)
        PyErr_WriteUnraisable((PyObject *)lines);
    Py_XDECREF(text);
    Py_DECREF(lines);
}

void output_end(worker_data_t *data)
{
    PyObject *raised = PyErr_GetRaisedException();
    plait_atomic_store_relaxed(&data->printed, 0); /* relaxed: see output_settle */
    for (int index = 0; index < STREAM_COUNT; index++) {
        output_end_line(&data->lines[index]);
        if (data->carried[index] != NULL && carry((lines_object *)data->carried[index], false) < 0)
            PyErr_WriteUnraisable(data->carried[index]);
    }
    PyErr_SetRaisedException(raised);
}

void output_leave(worker_data_t *data)
{
    output_end(data);
    data->leaving = true; /* what is printed from now on is carried when the stream is closed */
    for (int index = 0; index < STREAM_COUNT; index++)
        Py_CLEAR(data->carried[index]);
}

void output_end_all(worker_data_t *data)
{
    output_end(data);
    for (int index = 0; index < STREAM_COUNT; index++) {
        lines_object *lines = (lines_object *)data->carried[index];
        PyObject *text = lines == NULL ? NULL : lines->open; /* this thread is the only one */
        if (text == NULL)
            continue;
        lines->open = NULL;
        if (put_out(lines, text) < 0 || carry(lines, false) < 0)
            PyErr_WriteUnraisable((PyObject *)lines);
        Py_DECREF(text);
    }
}

void output_forget(worker_data_t *data)
{
    for (int index = 0; index < STREAM_COUNT; index++) {
        lines_object *lines = (lines_object *)data->carried[index];
        if (lines == NULL)
            continue;
        Py_CLEAR(lines->open);
        Py_CLEAR(lines->waiting);
        lines->length = 0;
    }
}

/* ---- the methods that streams get ---- */

static PyObject *lines_write(PyObject *object, PyObject *text)
{
    lines_object *self = (lines_object *)object;
    open_line_t *line = line_of_worker(self);
    PyObject *whole = NULL;
    int status = 0;
    if (!PyUnicode_Check(text)) {
        if (!is_carried(self))
            return PyObject_CallOneArg(self->write, text);
        return PyErr_Format(PyExc_TypeError, "write() argument must be str, not %.100s",
                            Py_TYPE(text)->tp_name);
    }
    if (line == NULL && (self->worker != NULL ? !is_carried(self) : !self->holds))
        return call_stream(self, text);
    if (line != NULL) {
        status = add(&line->text, text, &whole);
    } else {
        Py_BEGIN_CRITICAL_SECTION(object);
        status = add(&self->open, text, &whole);
        Py_END_CRITICAL_SECTION();
    }
    if (whole != NULL)
        status = put_out(self, whole);
    Py_XDECREF(whole);
    return status < 0 ? NULL : PyLong_FromSsize_t(PyUnicode_GET_LENGTH(text));
}

static PyObject *lines_flush(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    lines_object *self = (lines_object *)object;
    open_line_t *line = line_of_worker(self);
    PyObject *text = NULL;
    if (line != NULL) {
        text = line->text;
        line->text = NULL;
    } else if (self->worker == NULL || is_carried(self)) {
        Py_BEGIN_CRITICAL_SECTION(object);
        text = self->open;
        self->open = NULL;
        Py_END_CRITICAL_SECTION();
    }
    int status = text == NULL ? 0 : put_out(self, text);
    Py_XDECREF(text);
    if (status < 0)
        return NULL;
    if (!is_carried(self))
        return call_stream(self, NULL);
    return carry(self, true) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *lines_write_whole(PyObject *object, PyObject *text)
{
    lines_object *self = (lines_object *)object;
    return put_out(self, text) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef lines_methods[] = {
    {"write", lines_write, METH_O,
     "write($self, text, /)\n--\n\nTakes a text; lines come out whole."},
    {"flush", lines_flush, METH_NOARGS, "flush($self, /)\n--\n\nAlso what is no whole line yet."},
    {"_write_whole", lines_write_whole, METH_O,
     "_write_whole($self, text, /)\n--\n\nWhole lines, past the unfinished one of this thread."},
    {NULL, NULL, 0, NULL},
};

static int lines_traverse(PyObject *object, visitproc visit, void *arg)
{
    lines_object *self = (lines_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->write);
    Py_VISIT(self->flush);
    return 0;
}

static int lines_clear(PyObject *object)
{
    lines_object *self = (lines_object *)object;
    Py_CLEAR(self->write);
    Py_CLEAR(self->flush);
    return 0;
}

static void lines_dealloc(PyObject *object)
{
    lines_object *self = (lines_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    lines_clear(object);
    Py_XDECREF(self->open);
    Py_XDECREF(self->waiting);
    if (self->lock != NULL)
        PyThread_free_lock(self->lock);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot lines_slots[] = {
    {Py_tp_doc, "Puts the lines of a stream together."},
    {Py_tp_methods, lines_methods},
    {Py_tp_traverse, lines_traverse},
    {Py_tp_clear, lines_clear},
    {Py_tp_dealloc, lines_dealloc},
    {0, NULL},
};

PyType_Spec lines_spec = {
    .name = "plait._plait.Lines",
    .basicsize = sizeof(lines_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lines_slots,
};

/* ---- taking streams over ---- */

/* Whether a stream's method is ours already. */
static bool is_ours(module_state *state, PyObject *method)
{
    return PyCFunction_Check(method) && PyCFunction_GetSelf(method) != NULL &&
           Py_IS_TYPE(PyCFunction_GetSelf(method), state->lines_type);
}

static int set_method(PyObject *stream, lines_object *lines, const char *name)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)lines, name);
    int status = method == NULL ? -1 : PyObject_SetAttrString(stream, name, method);
    Py_XDECREF(method);
    return status;
}

static bool is_text_file(PyObject *stream)
{
    return strcmp(Py_TYPE(stream)->tp_name, "_io.TextIOWrapper") == 0;
}

/* Whether the stream itself keeps an unfinished line back until it is flushed, as only text files do
 * that are not told otherwise (python -u). */
static bool holds_lines(PyObject *stream)
{
    if (!is_text_file(stream))
        return false;
    PyObject *through = PyObject_GetAttrString(stream, "write_through");
    bool holds = through == Py_False;
    Py_XDECREF(through);
    return holds;
}

/* `worker` NULL: not a worker's own. The new Lines, borrowed from the stream; NULL with an
 * exception, or if the stream has one. */
static lines_object *take_over(module_state *state, int index, PyObject *stream,
                               worker_data_t *worker)
{
    PyObject *write = PyObject_GetAttrString(stream, "write");
    PyObject *flush = write == NULL ? NULL : PyObject_GetAttrString(stream, "flush");
    lines_object *lines = NULL;
    if (flush != NULL && !is_ours(state, write))
        lines = (lines_object *)state->lines_type->tp_alloc(state->lines_type, 0);
    if (lines != NULL) {
        lines->index = index;
        lines->worker = worker;
        lines->holds = holds_lines(stream);
        bool used = worker == NULL || worker->core->kind == KIND_PROCESS;
        lines->write = used ? Py_NewRef(write) : NULL;
        lines->flush = used ? Py_NewRef(flush) : NULL;
        lines->lock = used && is_text_file(stream) ? PyThread_allocate_lock() : NULL;
        lines->fork_count = plait_prim_fork_count();
        bool set =
            set_method(stream, lines, "write") == 0 && set_method(stream, lines, "flush") == 0;
        Py_DECREF(lines);
        if (!set)
            lines = NULL;
    }
    Py_XDECREF(flush);
    Py_XDECREF(write);
    return lines;
}

void output_take_streams(module_state *state, bool again)
{
    PyObject *raised = PyErr_GetRaisedException();
    for (int index = 0; index < STREAM_COUNT; index++) {
        PyObject *stream = PyObject_GetAttr(state->sys, state->names[NAME_STDOUT + index]);
        /* relaxed: not followed; a new stream at an old one's address only has its lines mixed */
        bool known = again && plait_atomic_load_relaxed(&state->streams[index]) == stream;
        if (stream != NULL && stream != Py_None && !known) {
            take_over(state, index, stream, NULL);
            plait_atomic_store_relaxed(&state->streams[index], stream);
        }
        PyErr_Clear();
        Py_XDECREF(stream);
    }
    PyErr_SetRaisedException(raised);
}

int output_take_own_streams(worker_data_t *data, PyObject *eager)
{
    module_state *state = data->state;
    for (int index = 0; index < STREAM_COUNT; index++) {
        PyObject *stream = PyObject_GetAttr(state->sys, state->names[NAME_STDOUT + index]);
        lines_object *lines = NULL;
        if (stream != NULL && stream != Py_None)
            lines = take_over(state, index, stream, data);
        Py_XDECREF(stream); /* sys has it */
        if (PyErr_Occurred())
            return -1;
        if (lines == NULL)
            continue;
        lines->eager = PyTuple_Check(eager) && PyTuple_GET_SIZE(eager) == STREAM_COUNT &&
                       PyTuple_GET_ITEM(eager, index) == Py_True;
        data->carried[index] = Py_NewRef((PyObject *)lines);
    }
    return 0;
}
