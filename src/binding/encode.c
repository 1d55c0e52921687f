/* encode: Python objects -> flat values.
 *
 * An object is encoded natively if it and all it holds are of exactly the types that the format
 * knows; otherwise the whole of it is one pickle (by value through cloudpickle where needed), so
 * that identity inside it is kept by one memo, never by two halves. Nothing is ever called on an
 * object that is encoded natively, not even its repr. Invariant: every object in the memo is kept
 * alive, so no address is used twice. Format: docs/format/flat.md. Design: docs/design/encoding.md
 */
#include "binding/encode_internal.h"

static int encode_deeper(encoder_t *encoder, PyObject *object, bool alone,
                         plait_flat_value_t *value);

void message_clear(message_t *message)
{
    bool in_block = message->bundle != NULL && message->bundle->has_message;
    if (message->bytes != NULL && !message->borrowed && !in_block)
        plait_alloc_system.release(plait_alloc_system.context, message->bytes);
    if (message->bundle != NULL && !message->bundle_borrowed)
        plait_bundle_free(message->bundle);
    *message = (message_t){.root = plait_flat_const(PLAIT_FLAT_NONE)};
}

/* ---- the encoder ---- */

void encoder_init(encoder_t *encoder, module_state *state)
{
    encoder->state = state;
    encoder->sharing = NULL;
    table_init(&encoder->memo);
    plait_flat_writer_init(&encoder->writer, &plait_alloc_system, 0); /* allocates nothing yet */
}

static void forget(encoder_t *encoder)
{
    size_t position = 0;
    uint64_t key, value;
    if (encoder->memo.count == 0)
        return;
    while (table_next(&encoder->memo, &position, &key, &value))
        Py_DECREF((PyObject *)(uintptr_t)key);
    table_clear(&encoder->memo);
}

void encoder_fini(encoder_t *encoder)
{
    forget(encoder);
    table_fini(&encoder->memo);
    plait_flat_writer_fini(&encoder->writer);
    if (encoder->sharing != NULL)
        sharing_end(encoder);
}

void encoder_reset(encoder_t *encoder)
{
    forget(encoder);
    if (encoder->sharing != NULL)
        sharing_reset(encoder);
    plait_flat_writer_reset(&encoder->writer);
}

encoder_t *encoder_take(kept_encoder_t *kept, encoder_t *spare)
{
    if (kept->taken) {
        encoder_init(spare, kept->encoder.state);
        if (kept->encoder.sharing != NULL)
            encoder_share(spare);
        return spare;
    }
    kept->taken = true;
    return &kept->encoder;
}

void encoder_give(kept_encoder_t *kept, encoder_t *encoder)
{
    if (encoder == &kept->encoder) {
        encoder_reset(encoder);
        kept->taken = false;
    } else {
        encoder_fini(encoder);
    }
}

static int put_failed(encoder_t *encoder, int result)
{
    if (encoder->sharing == NULL || sharing_refused(encoder->sharing) == 0)
        raise_core_error(result, "encoding a value");
    return -1;
}

int remember(encoder_t *encoder, PyObject *object, plait_flat_value_t value)
{
    if (!table_add(&encoder->memo, (uint64_t)(uintptr_t)object, value)) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(object);
    return 0;
}

/* ---- leaves ---- */

/* Most numbers are their own value, which takes neither a body nor the memo. */
static inline bool encode_immediate(PyObject *object, plait_flat_value_t *value)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyLong_Type && PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        Py_ssize_t number = PyUnstable_Long_CompactValue((PyLongObject *)object);
        *value = plait_flat_int(number);
        return plait_flat_int_fits(number);
    }
    return type == &PyFloat_Type && plait_flat_from_double(PyFloat_AS_DOUBLE(object), value);
}

static bool is_leaf(PyTypeObject *type)
{
    return type == &PyUnicode_Type || type == &PyBytes_Type || type == &PyByteArray_Type ||
           type == &PyComplex_Type;
}

static int encode_big_int(encoder_t *encoder, PyObject *object, int sign, plait_flat_value_t *value)
{
    PyObject *magnitude = sign < 0 ? PyNumber_Negative(object) : Py_NewRef(object);
    if (magnitude == NULL)
        return -1;
    int status = -1;
    unsigned char *bytes = NULL;
    PyObject *bits = PyObject_CallMethod(magnitude, "bit_length", NULL);
    size_t bit_count = bits == NULL ? (size_t)-1 : PyLong_AsSize_t(bits);
    Py_XDECREF(bits);
    if (bit_count == (size_t)-1 && PyErr_Occurred())
        goto done;
    size_t size = (bit_count + 7) / 8;
    bytes = PyMem_Malloc(size);
    if (bytes == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (long_to_bytes(magnitude, bytes, size) < 0)
        goto done;
    int result = plait_flat_put_bytes(&encoder->writer, PLAIT_FLAT_INT,
                                      sign < 0 ? PLAIT_FLAT_FLAG_NEGATIVE : 0, bytes, size, value);
    status = result == PLAIT_OK ? 0 : put_failed(encoder, result);
done:
    PyMem_Free(bytes);
    Py_DECREF(magnitude);
    return status;
}

static int encode_int(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0 && plait_flat_int_fits(number)) {
        *value = plait_flat_int(number);
        return 0;
    }
    return encode_big_int(encoder, object, overflow != 0 ? overflow : number < 0 ? -1 : 1, value);
}

static int encode_float(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    double number = PyFloat_AS_DOUBLE(object); /* a NaN whose bits look like a tag */
    int result =
        plait_flat_put_bytes(&encoder->writer, PLAIT_FLAT_FLOAT, 0, &number, sizeof number, value);
    return result == PLAIT_OK ? 0 : put_failed(encoder, result);
}

static inline int encode_ascii(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    int result = plait_flat_put_ascii(&encoder->writer, PyUnicode_1BYTE_DATA(object),
                                      (size_t)PyUnicode_GET_LENGTH(object), value);
    return result == PLAIT_OK ? 0 : put_failed(encoder, result);
}

static int encode_text(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    if (PyUnicode_IS_ASCII(object))
        return encode_ascii(encoder, object, value);
    unsigned kind = PyUnicode_KIND(object); /* 1, 2 or 4 */
    int result =
        plait_flat_put_text(&encoder->writer, kind < 4 ? kind : PLAIT_FLAT_UCS4,
                            PyUnicode_DATA(object), (size_t)PyUnicode_GET_LENGTH(object), value);
    return result == PLAIT_OK ? 0 : put_failed(encoder, result);
}

int encode_bytes(encoder_t *encoder, unsigned type, const void *data, Py_ssize_t size,
                 plait_flat_value_t *value)
{
    int result = plait_flat_put_bytes(&encoder->writer, type, 0, data, (size_t)size, value);
    return result == PLAIT_OK ? 0 : put_failed(encoder, result);
}

/* `references`: how many the object has if nothing in the graph but its container refers to it: one,
 * and those that callers hold meanwhile. Such an object cannot be met again, and is neither looked
 * up nor remembered. */
static inline int encode_value(encoder_t *encoder, PyObject *object, Py_ssize_t references,
                               plait_flat_value_t *value)
{
    if (encode_immediate(object, value))
        return 0;
    bool alone = has_references(object, references);
    if (alone && PyUnicode_CheckExact(object) && PyUnicode_IS_ASCII(object))
        return encode_ascii(encoder, object, value);
    return encode_deeper(encoder, object, alone, value);
}

/* ---- containers: reserved first and remembered, then filled, so that cycles end ---- */

int open_container(encoder_t *encoder, PyObject *object, unsigned type, size_t words, size_t length,
                   plait_flat_value_t *value)
{
    int result = plait_flat_put_words(&encoder->writer, type, words, length, value);
    if (result != PLAIT_OK)
        return put_failed(encoder, result);
    return encoder->alone ? 0 : remember(encoder, object, *value);
}

/* One item, which has so many references if nothing else in the graph refers to it. */
static inline int put_item(encoder_t *encoder, PyObject *item, Py_ssize_t references,
                           plait_flat_value_t container, size_t index)
{
    plait_flat_value_t value;
    int status = encode_value(encoder, item, references, &value);
    if (status == 0)
        plait_flat_set(&encoder->writer, container, index, value);
    return status;
}

int encode_item(encoder_t *encoder, PyObject *item, plait_flat_value_t container, size_t index)
{
    return put_item(encoder, item, 1, container, index);
}

static int encode_tuple(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    Py_ssize_t count = PyTuple_GET_SIZE(object);
    int status =
        open_container(encoder, object, PLAIT_FLAT_TUPLE, (size_t)count, (size_t)count, value);
    for (Py_ssize_t index = 0; status == 0 && index < count; index++)
        status = put_item(encoder, PyTuple_GET_ITEM(object, index), 1, *value, (size_t)index);
    return status;
}

static int raise_changed(PyObject *object)
{
    PyErr_Format(PyExc_RuntimeError, "a %s changed size while plait was encoding it",
                 Py_TYPE(object)->tp_name);
    return -1;
}

static int encode_list(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    Py_ssize_t count = PyList_GET_SIZE(object);
    int status =
        open_container(encoder, object, PLAIT_FLAT_LIST, (size_t)count, (size_t)count, value);
    for (Py_ssize_t index = 0; status == 0 && index < count; index++) {
#ifdef Py_GIL_DISABLED
        PyObject *item = PyList_GetItemRef(object, index);
        if (item == NULL) {
            PyErr_Clear();
            return raise_changed(object);
        }
        status = put_item(encoder, item, 2, *value, (size_t)index);
        Py_DECREF(item);
#else
        if (index >= PyList_GET_SIZE(object))
            return raise_changed(object);
        status = put_item(encoder, PyList_GET_ITEM(object, index), 1, *value, (size_t)index);
#endif
    }
    return status;
}

static int encode_set(encoder_t *encoder, PyObject *object, unsigned type,
                      plait_flat_value_t *value)
{
    PyObject *items = PySequence_List(object);
    if (items == NULL)
        return -1;
    Py_ssize_t count = PyList_GET_SIZE(items);
    int status = open_container(encoder, object, type, (size_t)count, (size_t)count, value);
    for (Py_ssize_t index = 0; status == 0 && index < count; index++)
        status = put_item(encoder, PyList_GET_ITEM(items, index), 2, *value, (size_t)index);
    Py_DECREF(items);
    return status;
}

/* One entry of a dictionary. Encoding the key can run Python code only if it is not a plain leaf,
 * and that code may take the item away. */
static int encode_entry(encoder_t *encoder, PyObject *key, PyObject *item, Py_ssize_t references,
                        plait_flat_value_t dict, size_t index)
{
    if (is_leaf(Py_TYPE(key)) || PyLong_CheckExact(key)) {
        int status = put_item(encoder, key, references, dict, index);
        return status == 0 ? put_item(encoder, item, references, dict, index + 1) : status;
    }
    Py_INCREF(key);
    Py_INCREF(item);
    int status = put_item(encoder, key, references + 1, dict, index);
    if (status == 0)
        status = put_item(encoder, item, references + 1, dict, index + 1);
    Py_DECREF(key);
    Py_DECREF(item);
    return status;
}

static int encode_dict(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
#ifdef Py_GIL_DISABLED
    PyObject *items = PyDict_Copy(object); /* nobody else can change the copy meanwhile */
    if (items == NULL)
        return -1;
    const Py_ssize_t references = 2;
#else
    PyObject *items = object;
    const Py_ssize_t references = 1;
#endif
    Py_ssize_t count = PyDict_GET_SIZE(items), position = 0;
    size_t index = 0;
    int status =
        open_container(encoder, object, PLAIT_FLAT_DICT, (size_t)count * 2, (size_t)count, value);
    PyObject *key, *item;
    for (; status == 0 && PyDict_Next(items, &position, &key, &item); index += 2) {
        status = index < (size_t)count * 2
                     ? encode_entry(encoder, key, item, references, *value, index)
                     : raise_changed(object);
        if (status == 0 && PyDict_GET_SIZE(items) != count)
            status = raise_changed(object);
    }
    if (status == 0 && index != (size_t)count * 2)
        status = raise_changed(object);
#ifdef Py_GIL_DISABLED
    Py_DECREF(items);
#endif
    return status;
}

/* A container of `count` parts, each the result of an attribute of the object. */
static int encode_attributes(encoder_t *encoder, PyObject *object, unsigned type, const int *names,
                             size_t count, plait_flat_value_t *value)
{
    int status = open_container(encoder, object, type, count, count, value);
    for (size_t index = 0; status == 0 && index < count; index++) {
        PyObject *part = PyObject_GetAttr(object, encoder->state->names[names[index]]);
        if (part == NULL)
            return -1;
        status = encode_item(encoder, part, *value, index);
        Py_DECREF(part);
    }
    return status;
}

static int encode_global(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    if (!is_importable(encoder->state, object))
        return NOT_NATIVE;
    const int names[] = {NAME_MODULE, NAME_QUALNAME};
    return encode_attributes(encoder, object, PLAIT_FLAT_GLOBAL, names, 2, value);
}

/* ---- one value ---- */

static int encode_container(encoder_t *encoder, PyObject *object, PyTypeObject *type,
                            plait_flat_value_t *value)
{
    static const int slice_names[] = {NAME_START, NAME_STOP, NAME_STEP};
    if (type == &PyTuple_Type)
        return encode_tuple(encoder, object, value);
    if (type == &PyList_Type)
        return encode_list(encoder, object, value);
    if (type == &PyDict_Type)
        return encode_dict(encoder, object, value);
    if (type == &PySet_Type)
        return encode_set(encoder, object, PLAIT_FLAT_SET, value);
    if (type == &PyFrozenSet_Type)
        return encode_set(encoder, object, PLAIT_FLAT_FROZENSET, value);
    if (type == &PyRange_Type)
        return encode_attributes(encoder, object, PLAIT_FLAT_RANGE, slice_names, 3, value);
    if (type == &PySlice_Type)
        return encode_attributes(encoder, object, PLAIT_FLAT_SLICE, slice_names, 3, value);
    if (type == &PyFunction_Type || type == &PyCFunction_Type || PyType_Check(object))
        return encode_global(encoder, object, value);
    return encode_foreign(encoder, object, value);
}

/* Leaves that a second reference may lead to. */
static int encode_leaf(encoder_t *encoder, PyObject *object, PyTypeObject *type,
                       plait_flat_value_t *value)
{
    if (type == &PyUnicode_Type)
        return encode_text(encoder, object, value);
    if (type == &PyBytes_Type)
        return encode_bytes(encoder, PLAIT_FLAT_BYTES, PyBytes_AS_STRING(object),
                            PyBytes_GET_SIZE(object), value);
    if (type == &PyByteArray_Type)
        return encode_bytes(encoder, PLAIT_FLAT_BYTEARRAY, PyByteArray_AS_STRING(object),
                            PyByteArray_GET_SIZE(object), value);
    Py_complex number = PyComplex_AsCComplex(object);
    return encode_bytes(encoder, PLAIT_FLAT_COMPLEX, &number, sizeof number, value);
}

static bool encode_constant(PyObject *object, plait_flat_value_t *value)
{
    unsigned which = object == Py_None             ? PLAIT_FLAT_NONE
                     : object == Py_False          ? PLAIT_FLAT_FALSE
                     : object == Py_True           ? PLAIT_FLAT_TRUE
                     : object == Py_Ellipsis       ? PLAIT_FLAT_ELLIPSIS
                     : object == Py_NotImplemented ? PLAIT_FLAT_NOT_IMPLEMENTED
                                                   : PLAIT_FLAT_CONST_COUNT;
    *value = plait_flat_const(which);
    return which != PLAIT_FLAT_CONST_COUNT;
}

/* What is neither a number nor a text that is alone. */
static __attribute__((noinline)) int encode_deeper(encoder_t *encoder, PyObject *object, bool alone,
                                                   plait_flat_value_t *value)
{
    PyTypeObject *type = Py_TYPE(object);
    if (encode_constant(object, value))
        return 0;
    if (type == &PyLong_Type)
        return encode_int(encoder, object, value);
    if (type == &PyFloat_Type)
        return encode_float(encoder, object, value);
    if (!alone && encoder->memo.count > 0 &&
        table_get(&encoder->memo, (uint64_t)(uintptr_t)object, value)) {
        plait_flat_mark_shared(&encoder->writer, *value);
        return 0;
    }
    if (is_leaf(type)) {
        int status = encode_leaf(encoder, object, type, value);
        return status == 0 && !alone ? remember(encoder, object, *value) : status;
    }
    if (Py_EnterRecursiveCall(" while encoding a value for another worker"))
        return -1;
    Py_INCREF(object); /* Python code that runs in between may drop it from its container */
    encoder->alone = alone;
    int status = encode_container(encoder, object, type, value);
    Py_DECREF(object);
    Py_LeaveRecursiveCall();
    return status;
}

/* ---- pickles ---- */

static int put_pickle_bytes(encoder_t *encoder, PyObject *bytes, plait_flat_value_t *value)
{
    return encode_bytes(encoder, PLAIT_FLAT_BYTES, PyBytes_AS_STRING(bytes),
                        PyBytes_GET_SIZE(bytes), value);
}

static int put_pickle_buffer(encoder_t *encoder, PyObject *pickle_buffer, plait_flat_value_t *value)
{
    PyObject *raw = PyObject_CallMethod(pickle_buffer, "raw", NULL);
    if (raw == NULL)
        return -1;
    Py_buffer view;
    int status = PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE);
    Py_DECREF(raw);
    if (status < 0)
        return -1;
    if (sharing_refer(encoder, &view, value)) {
        PyBuffer_Release(&view);
        return 0;
    }
    void *data = NULL;
    int result =
        plait_flat_put_buffer(&encoder->writer, view.readonly ? PLAIT_FLAT_FLAG_READONLY : 0,
                              (size_t)view.len, &data, value);
    if (result == PLAIT_OK && view.len > 0)
        sharing_copy(encoder, data, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return result == PLAIT_OK ? 0 : put_failed(encoder, result);
}

/* travel.dumps(object) -> (pickle, [PickleBuffer, ...]) */
static int encode_pickle(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    PyObject *travel = state_travel(encoder->state);
    PyObject *pair = travel == NULL ? NULL : PyObject_CallMethod(travel, "dumps", "(O)", object);
    if (pair == NULL)
        return -1;
    PyObject *buffers = PyTuple_GET_ITEM(pair, 1);
    size_t words = 1 + (size_t)PyList_GET_SIZE(buffers);
    int result = plait_flat_put_words(&encoder->writer, PLAIT_FLAT_PICKLE, words, words, value);
    int status = result == PLAIT_OK ? 0 : put_failed(encoder, result);
    plait_flat_value_t part;
    if (status == 0)
        status = put_pickle_bytes(encoder, PyTuple_GET_ITEM(pair, 0), &part);
    if (status == 0)
        plait_flat_set(&encoder->writer, *value, 0, part);
    for (size_t index = 1; status == 0 && index < words; index++) {
        PyObject *buffer = PyList_GET_ITEM(buffers, (Py_ssize_t)index - 1);
        status = put_pickle_buffer(encoder, buffer, &part);
        if (status == 0)
            plait_flat_set(&encoder->writer, *value, index, part);
    }
    Py_DECREF(pair);
    return status;
}

/* ---- whole messages ---- */

int encode_object(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    size_t start = plait_flat_writer_mark(&encoder->writer);
    int status = encode_value(encoder, object, NEVER_ALONE, value);
    forget(encoder);
    if (status != NOT_NATIVE)
        return status;
    plait_flat_writer_rewind(&encoder->writer, start);
    return encode_pickle(encoder, object, value);
}

static int encode_call_natively(encoder_t *encoder, PyObject *const *args, Py_ssize_t count,
                                PyObject *keyword_names, plait_flat_value_t *value)
{
    size_t words = (size_t)count + 1;
    int result = plait_flat_put_words(&encoder->writer, PLAIT_FLAT_TUPLE, words, words, value);
    int status = result == PLAIT_OK ? 0 : put_failed(encoder, result);
    if (status == 0 && keyword_names != NULL)
        status = encode_item(encoder, keyword_names, *value, 0);
    for (Py_ssize_t index = 0; status == 0 && index < count; index++)
        status = put_item(encoder, args[index], NEVER_ALONE, *value, (size_t)index + 1);
    return status;
}

int encode_call(encoder_t *encoder, PyObject *const *args, Py_ssize_t positional,
                PyObject *keyword_names, plait_flat_value_t *value)
{
    size_t start = plait_flat_writer_mark(&encoder->writer);
    Py_ssize_t count = positional + (keyword_names == NULL ? 0 : PyTuple_GET_SIZE(keyword_names));
    if (count == 0) {
        *value = plait_flat_const(PLAIT_FLAT_NONE);
        return 0;
    }
    int status = encode_call_natively(encoder, args, count, keyword_names, value);
    forget(encoder);
    if (status != NOT_NATIVE)
        return status;
    plait_flat_writer_rewind(&encoder->writer, start);
    PyObject *all = PyTuple_New(count + 1);
    if (all == NULL)
        return -1;
    PyTuple_SET_ITEM(all, 0, Py_NewRef(keyword_names == NULL ? Py_None : keyword_names));
    for (Py_ssize_t index = 0; index < count; index++)
        PyTuple_SET_ITEM(all, index + 1, Py_NewRef(args[index]));
    status = encode_pickle(encoder, all, value);
    Py_DECREF(all);
    return status;
}

int encoder_finish_into(encoder_t *encoder, plait_flat_value_t root, message_t *message, void *room,
                        size_t capacity)
{
    *message = (message_t){.root = root};
    if (!plait_flat_is_ref(root))
        return 0;
    message->bytes = room;
    message->borrowed = true;
    int result = plait_flat_finish_into(&encoder->writer, root, 0, room, capacity, &message->size);
    if (result == PLAIT_FULL) {
        message->borrowed = false;
        result = plait_flat_finish(&encoder->writer, root, 0, &message->bytes, &message->size);
    }
    if (result == PLAIT_OK)
        return encoder->sharing == NULL ? 0 : sharing_finish(encoder, message);
    message->bytes = NULL;
    raise_core_error(result, "finishing a message");
    return -1;
}

int encoder_finish(encoder_t *encoder, plait_flat_value_t root, message_t *message)
{
    return encoder_finish_into(encoder, root, message, NULL, 0);
}

int encode_message(module_state *state, PyObject *object, message_t *message)
{
    encoder_t encoder;
    encoder_init(&encoder, state);
    plait_flat_value_t root;
    int status = encode_object(&encoder, object, &root);
    if (status == 0)
        status = encoder_finish(&encoder, root, message);
    encoder_fini(&encoder);
    return status;
}
