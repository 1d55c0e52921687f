/* decode: flat values -> Python objects.
 *
 * The bytes are not trusted: every body is looked up through plait_flat_get, which checks it, and a
 * message can make the decoder build no more bodies than it has room for. What a body's type
 * promises about its parts (a DATE's three integers) is checked by the constructor that gets them.
 * A message can name any importable class and hold a pickle: reading one from a stranger is as safe
 * as unpickling, no safer. Format: docs/format/flat.md. Design: docs/design/encoding.md
 */
#include "binding/binding.h"

static PyObject *corrupt(const char *what)
{
    PyErr_Format(PyExc_ValueError, "malformed plait message: %s", what);
    return NULL;
}

int decoder_open(decoder_t *decoder, module_state *state, const message_t *message)
{
    decoder->state = state;
    decoder->open = NULL;
    decoder->foreign = false;
    table_init(&decoder->memo);
    decoder->budget = 0;
    decoder->bundle = message->bundle;
    if (message->bytes == NULL) {
        decoder->reader = (plait_flat_reader_t){.size = sizeof(plait_flat_header_t), /* no bodies */
                                                .root = message->root};
        return 0;
    }
    int result = plait_flat_open(&decoder->reader, message->bytes, message->size);
    if (result != PLAIT_OK) {
        corrupt("its header");
        return -1;
    }
    decoder->budget = decoder->reader.size;
    return 0;
}

void decoder_close(decoder_t *decoder)
{
    size_t position = 0;
    uint64_t key, value;
    while (table_next(&decoder->memo, &position, &key, &value))
        Py_DECREF((PyObject *)(uintptr_t)value);
    table_fini(&decoder->memo);
}

/* Keeps a shared body's object for the values that refer to it later. Steals nothing. */
static int remember(decoder_t *decoder, plait_flat_value_t value, unsigned flags, PyObject *object)
{
    if (object == NULL || !(flags & PLAIT_FLAT_FLAG_SHARED))
        return 0;
    if (!table_add(&decoder->memo, value, (uint64_t)(uintptr_t)object)) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(object);
    return 0;
}

/* ---- leaves ---- */

static PyObject *decode_big_int(const plait_flat_body_t *body)
{
    PyObject *magnitude = long_from_bytes(body->bytes, body->byte_count);
    if (magnitude == NULL || !(body->flags & PLAIT_FLAT_FLAG_NEGATIVE))
        return magnitude;
    PyObject *number = PyNumber_Negative(magnitude);
    Py_DECREF(magnitude);
    return number;
}

/* More than one character: single ones are the interpreter's own. */
static inline PyObject *decode_ascii(const plait_flat_body_t *body)
{
    if (!plait_flat_is_ascii(body))
        return corrupt("its text");
    PyObject *text = PyUnicode_New((Py_ssize_t)body->length, 127);
    if (text != NULL)
        memcpy(PyUnicode_1BYTE_DATA(text), body->bytes, body->byte_count);
    return text;
}

static inline bool is_ascii(const plait_flat_body_t *body)
{
    return body->type == PLAIT_FLAT_STR && body->flags <= PLAIT_FLAT_FLAG_SHARED &&
           body->length > 1;
}

static PyObject *decode_text(const plait_flat_body_t *body)
{
    static const int kinds[] = {PyUnicode_1BYTE_KIND, PyUnicode_1BYTE_KIND, PyUnicode_2BYTE_KIND,
                                PyUnicode_4BYTE_KIND};
    unsigned width = body->flags >> PLAIT_FLAT_WIDTH_SHIFT & 3;
    if (is_ascii(body))
        return decode_ascii(body);
    if (width == PLAIT_FLAT_UCS4 && plait_flat_check_text(body) != PLAIT_OK)
        return corrupt("its text");
    return PyUnicode_FromKindAndData(kinds[width], body->bytes, (Py_ssize_t)body->length);
}

static PyObject *decode_number(const plait_flat_body_t *body)
{
    double parts[2] = {0, 0};
    memcpy(parts, body->bytes, body->byte_count);
    return body->type == PLAIT_FLAT_FLOAT ? PyFloat_FromDouble(parts[0])
                                          : PyComplex_FromDoubles(parts[0], parts[1]);
}

static void copy_bytes(void *room, const plait_flat_body_t *body)
{
    if (body->byte_count >= PLAIT_PRIM_LARGE)
        plait_prim_expect_filling(room, body->byte_count);
    memcpy(room, body->bytes, body->byte_count);
}

static PyObject *decode_bytes(const plait_flat_body_t *body)
{
    if (body->byte_count < PLAIT_PRIM_LARGE) /* the shortest are the interpreter's own */
        return PyBytes_FromStringAndSize((const char *)body->bytes, (Py_ssize_t)body->byte_count);
    PyObject *object = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)body->byte_count);
    if (object != NULL)
        copy_bytes(PyBytes_AS_STRING(object), body);
    return object;
}

static PyObject *decode_bytearray(const plait_flat_body_t *body)
{
    PyObject *object = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)body->byte_count);
    if (object != NULL)
        copy_bytes(PyByteArray_AS_STRING(object), body);
    return object;
}

/* ---- containers ---- */

static PyObject *decode_ref(decoder_t *decoder, plait_flat_value_t value);

/* A shared tuple that is being filled, as long as nothing that can change lies between it and what
 * is being decoded now. No program can make a tuple that reaches itself through immutable objects
 * alone; hashing one would never end. */
typedef struct open_tuple {
    plait_flat_value_t value;
    struct open_tuple *next;
} open_tuple_t;

static bool is_open(const decoder_t *decoder, plait_flat_value_t value)
{
    for (const open_tuple_t *tuple = decoder->open; tuple != NULL; tuple = tuple->next)
        if (tuple->value == value)
            return true;
    return false;
}

static inline PyObject *decode_word(decoder_t *decoder, const plait_flat_body_t *body, size_t index)
{
    plait_flat_value_t value = plait_flat_word(body, index);
    if (plait_flat_is_int(value))
        return PyLong_FromLongLong(plait_flat_to_int(value));
    return plait_flat_is_ref(value) ? decode_ref(decoder, value) : decode_value(decoder, value);
}

static PyObject *decode_tuple(decoder_t *decoder, plait_flat_value_t value,
                              const plait_flat_body_t *body)
{
    bool shared = (body->flags & PLAIT_FLAT_FLAG_SHARED) != 0;
    open_tuple_t open = {value, decoder->open};
    PyObject *tuple = PyTuple_New((Py_ssize_t)body->words);
    if (tuple == NULL)
        return NULL;
    /* A malformed message can have an unfinished tuple looked into: then it finds None, not
     * NULL. */
    for (size_t index = 0; shared && index < body->words; index++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)index, Py_NewRef(Py_None));
    int status = remember(decoder, value, body->flags, tuple);
    if (shared)
        decoder->open = &open;
    for (size_t index = 0; status == 0 && index < body->words; index++) {
        PyObject *item = decode_word(decoder, body, index);
        if (item != NULL)
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)index, item);
        status = item == NULL ? -1 : 0;
    }
    decoder->open = open.next;
    if (status < 0)
        Py_CLEAR(tuple);
    return tuple;
}

/* Cycles through lists, and through the values of dictionaries, are fine. */
static PyObject *decode_list(decoder_t *decoder, plait_flat_value_t value,
                             const plait_flat_body_t *body)
{
    open_tuple_t *open = decoder->open;
    PyObject *list = PyList_New((Py_ssize_t)body->words);
    if (list == NULL || remember(decoder, value, body->flags, list) < 0)
        goto fail;
    decoder->open = NULL;
    for (size_t index = 0; index < body->words; index++) {
        PyObject *item = decode_word(decoder, body, index);
        if (item == NULL)
            goto fail;
        PyList_SET_ITEM(list, (Py_ssize_t)index, item);
    }
    decoder->open = open;
    return list;
fail:
    decoder->open = open;
    Py_XDECREF(list);
    return NULL;
}

static PyObject *decode_set(decoder_t *decoder, plait_flat_value_t value,
                            const plait_flat_body_t *body)
{
    PyObject *set = body->type == PLAIT_FLAT_SET ? PySet_New(NULL) : PyFrozenSet_New(NULL);
    if (set == NULL)
        return NULL;
    for (size_t index = 0; index < body->words; index++) {
        PyObject *item = decode_word(decoder, body, index);
        int status = item == NULL ? -1 : PySet_Add(set, item);
        Py_XDECREF(item);
        if (status < 0)
            goto fail;
    }
    if (remember(decoder, value, body->flags, set) < 0)
        goto fail;
    return set;
fail:
    Py_DECREF(set);
    return NULL;
}

static PyObject *decode_dict(decoder_t *decoder, plait_flat_value_t value,
                             const plait_flat_body_t *body)
{
    open_tuple_t *open = decoder->open;
    PyObject *dict = PyDict_New();
    if (dict == NULL || remember(decoder, value, body->flags, dict) < 0)
        goto fail;
    for (size_t index = 0; index + 1 < body->words; index += 2) {
        PyObject *key = decode_word(decoder, body, index);
        decoder->open = NULL;
        PyObject *item = key == NULL ? NULL : decode_word(decoder, body, index + 1);
        decoder->open = open;
        int status = item == NULL ? -1 : PyDict_SetItem(dict, key, item);
        Py_XDECREF(key);
        Py_XDECREF(item);
        if (status < 0)
            goto fail;
    }
    return dict;
fail:
    Py_XDECREF(dict);
    return NULL;
}

/* The parts of a small body as a tuple, for a constructor to check. */
static PyObject *decode_parts(decoder_t *decoder, const plait_flat_body_t *body)
{
    return decode_tuple(decoder, 0,
                        &(plait_flat_body_t){.bytes = body->bytes, .words = body->words});
}

/* ---- what lives in modules ---- */

static PyObject *call_named(const char *module_name, const char *name, PyObject *arguments,
                            PyObject *keywords)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *callable = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    PyObject *result = callable == NULL ? NULL : PyObject_Call(callable, arguments, keywords);
    Py_XDECREF(callable);
    Py_XDECREF(module);
    return result;
}

static PyObject *decode_time(PyObject *parts)
{
    int overflow;
    long long left = PyLong_AsLongLongAndOverflow(PyTuple_GET_ITEM(parts, 0), &overflow);
    if (left == -1 && PyErr_Occurred())
        return NULL;
    if (overflow != 0 || left < 0 || left >= INT64_C(86400000000))
        return corrupt("a time outside the day");
    int microsecond = (int)(left % 1000000), second = (int)(left / 1000000 % 60);
    int minute = (int)(left / 60000000 % 60), hour = (int)(left / INT64_C(3600000000));
    PyObject *arguments =
        Py_BuildValue("(iiiiO)", hour, minute, second, microsecond, PyTuple_GET_ITEM(parts, 2));
    PyObject *keywords = Py_BuildValue("{sO}", "fold", PyTuple_GET_ITEM(parts, 1));
    PyObject *result = arguments == NULL || keywords == NULL
                           ? NULL
                           : call_named("datetime", "time", arguments, keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    return result;
}

static PyObject *decode_datetime(PyObject *parts)
{
    PyObject *module = PyImport_ImportModule("datetime");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "datetime");
    PyObject *result = class == NULL
                           ? NULL
                           : PyObject_CallMethod(class, "combine", "OO", PyTuple_GET_ITEM(parts, 0),
                                                 PyTuple_GET_ITEM(parts, 1));
    Py_XDECREF(class);
    Py_XDECREF(module);
    return result;
}

/* timezone(offset) without a name, timezone.utc for no offset at all: as the constructor's caller
 * wrote it. */
static PyObject *decode_timezone(PyObject *parts)
{
    PyObject *name = PyTuple_GET_ITEM(parts, 1);
    PyObject *arguments = PyTuple_GetSlice(parts, 0, name == Py_None ? 1 : 2);
    PyObject *result =
        arguments == NULL ? NULL : call_named("datetime", "timezone", arguments, NULL);
    Py_XDECREF(arguments);
    return result;
}

static PyObject *decode_uuid(const plait_flat_body_t *body)
{
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords =
        Py_BuildValue("{sy#}", "bytes", (const char *)body->bytes, (Py_ssize_t)body->byte_count);
    PyObject *result = arguments == NULL || keywords == NULL
                           ? NULL
                           : call_named("uuid", "UUID", arguments, keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    return result;
}

static PyObject *decode_from_parts(decoder_t *decoder, const plait_flat_body_t *body)
{
    PyObject *parts = decode_parts(decoder, body);
    if (parts == NULL)
        return NULL;
    PyObject *result = NULL;
    switch (body->type) {
    case PLAIT_FLAT_RANGE:
        result = PyObject_CallObject((PyObject *)&PyRange_Type, parts);
        break;
    case PLAIT_FLAT_SLICE:
        result = PyObject_CallObject((PyObject *)&PySlice_Type, parts);
        break;
    case PLAIT_FLAT_DATE:
        result = call_named("datetime", "date", parts, NULL);
        break;
    case PLAIT_FLAT_TIMEDELTA:
        result = call_named("datetime", "timedelta", parts, NULL);
        break;
    case PLAIT_FLAT_TIME:
        result = decode_time(parts);
        break;
    case PLAIT_FLAT_DATETIME:
        result = decode_datetime(parts);
        break;
    case PLAIT_FLAT_TIMEZONE:
        result = decode_timezone(parts);
        break;
    case PLAIT_FLAT_DECIMAL:
        result = call_named("decimal", "Decimal", parts, NULL);
        break;
    case PLAIT_FLAT_GLOBAL:
        result = import_by_name(PyTuple_GET_ITEM(parts, 0), PyTuple_GET_ITEM(parts, 1));
        break;
    case PLAIT_FLAT_ENUM:
        result = PyObject_GetAttr(PyTuple_GET_ITEM(parts, 0), PyTuple_GET_ITEM(parts, 1));
        break;
    default:
        corrupt("a body of a reserved type");
    }
    Py_DECREF(parts);
    return result;
}

/* ---- pickles ---- */

static PyObject *decode_pickle(decoder_t *decoder, const plait_flat_body_t *body)
{
    PyObject *travel = state_travel(decoder->state);
    decoder->foreign = true;
    PyObject *parts = travel == NULL || body->words == 0 ? NULL : decode_parts(decoder, body);
    if (parts == NULL)
        return PyErr_Occurred() ? NULL : corrupt("an empty pickle");
    PyObject *buffers = PyTuple_GetSlice(parts, 1, PyTuple_GET_SIZE(parts));
    for (Py_ssize_t index = 0; buffers != NULL && index < PyTuple_GET_SIZE(buffers); index++) {
        PyObject *reference = PyTuple_GET_ITEM(buffers, index);
        if (!PyTuple_Check(reference))
            continue;
        PyObject *view = sharing_resolve(decoder, reference);
        if (view == NULL) {
            Py_CLEAR(buffers);
        } else {
            PyTuple_SET_ITEM(buffers, index, view); /* a new tuple, nobody else's */
            Py_DECREF(reference);
        }
    }
    PyObject *result = buffers == NULL ? NULL
                                       : PyObject_CallMethod(travel, "loads", "OO",
                                                             PyTuple_GET_ITEM(parts, 0), buffers);
    Py_XDECREF(buffers);
    Py_DECREF(parts);
    return result;
}

/* ---- one value ---- */

static PyObject *decode_body(decoder_t *decoder, plait_flat_value_t value,
                             const plait_flat_body_t *body)
{
    switch (body->type) {
    case PLAIT_FLAT_TUPLE:
        return decode_tuple(decoder, value, body);
    case PLAIT_FLAT_LIST:
        return decode_list(decoder, value, body);
    case PLAIT_FLAT_DICT:
        return decode_dict(decoder, value, body);
    case PLAIT_FLAT_SET:
    case PLAIT_FLAT_FROZENSET:
        return decode_set(decoder, value, body);
    }
    PyObject *object;
    switch (body->type) {
    case PLAIT_FLAT_STR:
        object = decode_text(body);
        break;
    case PLAIT_FLAT_INT:
        object = decode_big_int(body);
        break;
    case PLAIT_FLAT_FLOAT:
    case PLAIT_FLAT_COMPLEX:
        object = decode_number(body);
        break;
    case PLAIT_FLAT_BYTES:
        object = decode_bytes(body);
        break;
    case PLAIT_FLAT_BYTEARRAY:
        object = decode_bytearray(body);
        break;
    case PLAIT_FLAT_BUFFER: /* as writable as the original, and a copy where the message dies with
                               the task */
        object = sharing_views(decoder, body)             ? sharing_view(decoder, body)
                 : body->flags & PLAIT_FLAT_FLAG_READONLY ? decode_bytes(body)
                                                          : decode_bytearray(body);
        break;
    case PLAIT_FLAT_UUID:
        object = decode_uuid(body);
        break;
    case PLAIT_FLAT_PICKLE:
        object = decode_pickle(decoder, body);
        break;
    default:
        object = decode_from_parts(decoder, body);
    }
    if (remember(decoder, value, body->flags, object) < 0)
        Py_CLEAR(object);
    return object;
}

/* A container of so many parts is made with the garbage collector paused, which would look at those
 * made so far again and again and find nothing. Not without a GIL: there other threads may be
 * about to switch it off themselves. */
#define PAUSING_WORDS 512

static bool pause_collector(const plait_flat_body_t *body)
{
#ifdef Py_GIL_DISABLED
    (void)body;
    return false;
#else
    return body->words >= PAUSING_WORDS && PyGC_Disable() == 1;
#endif
}

/* What is neither a short way's nor known. Apart, so that it does not slow down the short ways. */
static __attribute__((noinline)) PyObject *
decode_body_deeper(decoder_t *decoder, plait_flat_value_t value, const plait_flat_body_t *body)
{
    if (Py_EnterRecursiveCall(" while decoding a value from another worker"))
        return NULL;
    bool paused = pause_collector(body);
    PyObject *object = decode_body(decoder, value, body);
    if (paused)
        PyGC_Enable();
    Py_LeaveRecursiveCall();
    return object;
}

static PyObject *decode_ref(decoder_t *decoder, plait_flat_value_t value)
{
    plait_flat_body_t body;
    uint64_t known;
    if (plait_flat_get(&decoder->reader, value, &body) != PLAIT_OK)
        return corrupt("a reference");
    bool shared = (body.flags & PLAIT_FLAT_FLAG_SHARED) != 0;
    if (shared && table_get(&decoder->memo, value, &known))
        return is_open(decoder, value) ? corrupt("a tuple inside itself")
                                       : Py_NewRef((PyObject *)(uintptr_t)known);
    if (plait_flat_charge(&decoder->budget, &body) != PLAIT_OK)
        return corrupt("more parts than it has room for");
    return !shared && is_ascii(&body) ? decode_ascii(&body)
                                      : decode_body_deeper(decoder, value, &body);
}

PyObject *decode_value(decoder_t *decoder, plait_flat_value_t value)
{
    if (plait_flat_is_int(value))
        return PyLong_FromLongLong(plait_flat_to_int(value));
    if (plait_flat_is_double(value))
        return PyFloat_FromDouble(plait_flat_to_double(value));
    if (plait_flat_is_ref(value))
        return decode_ref(decoder, value);
    switch (value) {
    case PLAIT_FLAT_TAG_CONST << 48 | PLAIT_FLAT_NONE:
        Py_RETURN_NONE;
    case PLAIT_FLAT_TAG_CONST << 48 | PLAIT_FLAT_FALSE:
        Py_RETURN_FALSE;
    case PLAIT_FLAT_TAG_CONST << 48 | PLAIT_FLAT_TRUE:
        Py_RETURN_TRUE;
    case PLAIT_FLAT_TAG_CONST << 48 | PLAIT_FLAT_ELLIPSIS:
        return Py_NewRef(Py_Ellipsis);
    case PLAIT_FLAT_TAG_CONST << 48 | PLAIT_FLAT_NOT_IMPLEMENTED:
        return Py_NewRef(Py_NotImplemented);
    }
    return corrupt("an unknown value");
}

PyObject *decode_message(module_state *state, const message_t *message)
{
    decoder_t decoder;
    if (decoder_open(&decoder, state, message) < 0)
        return NULL;
    PyObject *object = decode_value(&decoder, decoder.reader.root);
    decoder_close(&decoder);
    return object;
}

int decode_root(decoder_t *decoder, unsigned type, plait_flat_body_t *body)
{
    plait_flat_value_t root = decoder->reader.root;
    if (decoder->reader.base != NULL && plait_flat_is_ref(root) &&
        plait_flat_get(&decoder->reader, root, body) == PLAIT_OK && body->type == type)
        return 0;
    corrupt("its root");
    return -1;
}
