/* encode_foreign: encoding instances of the types that the format knows and that live in modules:
 * dates and times, UUID, Decimal, members of importable enumerations.
 *
 * They are recognised by identity with what their module has now, so a class that merely has the
 * name is not taken for one. Design: docs/design/encoding.md
 */
#include "binding/encode_internal.h"

/* What foreign_types maps to, besides being absent: types that need an import to be known. */
enum {
    FOREIGN_NO = 0,
    FOREIGN_DATE,
    FOREIGN_TIME,
    FOREIGN_DATETIME,
    FOREIGN_TIMEDELTA,
    FOREIGN_TIMEZONE,
    FOREIGN_UUID,
    FOREIGN_DECIMAL,
    FOREIGN_ENUM
};

typedef struct foreign {
    const char *module;
    const char *name;
    int code;
} foreign_t;

static const foreign_t foreign_types[] = {
    {"datetime", "date", FOREIGN_DATE},         {"datetime", "time", FOREIGN_TIME},
    {"datetime", "datetime", FOREIGN_DATETIME}, {"datetime", "timedelta", FOREIGN_TIMEDELTA},
    {"datetime", "timezone", FOREIGN_TIMEZONE}, {"uuid", "UUID", FOREIGN_UUID},
    {"decimal", "Decimal", FOREIGN_DECIMAL},
};

/* The class itself, if its module has been imported and still has it. New reference or NULL, no
 * exception. */
static PyObject *imported(const char *module_name, const char *name)
{
    PyObject *module = PyImport_AddModule(module_name) /* borrowed; there, or made empty */;
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    if (found == NULL)
        PyErr_Clear();
    return found;
}

static int classify(PyTypeObject *type)
{
    const char *dot = strrchr(type->tp_name, '.');
    const char *name = dot == NULL ? type->tp_name : dot + 1;
    for (size_t index = 0; index < sizeof foreign_types / sizeof *foreign_types; index++) {
        const foreign_t *foreign = &foreign_types[index];
        if (strcmp(name, foreign->name) != 0)
            continue;
        PyObject *modules = PyImport_GetModuleDict();
        if (PyDict_GetItemString(modules, foreign->module) == NULL)
            continue;
        PyObject *class = imported(foreign->module, foreign->name);
        bool same = class == (PyObject *)type;
        Py_XDECREF(class);
        if (same)
            return foreign->code;
    }
    PyTypeObject *meta = Py_TYPE(type);
    if (meta != &PyType_Type && PyDict_GetItemString(PyImport_GetModuleDict(), "enum") != NULL) {
        PyObject *class = imported("enum", "EnumType");
        bool same = class == (PyObject *)meta;
        Py_XDECREF(class);
        if (same)
            return FOREIGN_ENUM;
    }
    return FOREIGN_NO;
}

/* One of FOREIGN_, or -1 with an exception. Remembered only for types that live as long as the
 * module. */
static int foreign_code(module_state *state, PyTypeObject *type)
{
    PyObject *known;
    if (PyDict_GetItemRef(state->foreign_types, (PyObject *)type, &known) < 0)
        return -1;
    if (known != NULL) {
        int code = (int)PyLong_AsLong(known);
        Py_DECREF(known);
        return code;
    }
    int code = classify(type);
    if (code == FOREIGN_NO || code == FOREIGN_ENUM)
        return code;
    PyObject *number = PyLong_FromLong(code);
    int status =
        number == NULL ? -1 : PyDict_SetItem(state->foreign_types, (PyObject *)type, number);
    Py_XDECREF(number);
    return status < 0 ? -1 : code;
}

/* A container whose parts are attributes, given by name; integers or values of any type. */
static int encode_named(encoder_t *encoder, PyObject *object, unsigned type,
                        const char *const *names, size_t count, plait_flat_value_t *value)
{
    int status = open_container(encoder, object, type, count, count, value);
    for (size_t index = 0; status == 0 && index < count; index++) {
        PyObject *part = PyObject_GetAttrString(object, names[index]);
        if (part == NULL)
            return -1;
        status = encode_item(encoder, part, *value, index);
        Py_DECREF(part);
    }
    return status;
}

/* The result of a method as the one part. */
static int encode_through(encoder_t *encoder, PyObject *object, unsigned type, size_t words,
                          size_t index, const char *method, plait_flat_value_t *value)
{
    if (index == 0) {
        int status = open_container(encoder, object, type, words, words, value);
        if (status != 0)
            return status;
    }
    PyObject *part = PyObject_CallMethod(object, method, NULL);
    if (part == NULL)
        return -1;
    int status = encode_item(encoder, part, *value, index);
    Py_DECREF(part);
    return status;
}

static int encode_time(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    static const char *const names[] = {"hour", "minute", "second", "microsecond", "fold"};
    long fields[5];
    for (size_t index = 0; index < 5; index++) {
        PyObject *part = PyObject_GetAttrString(object, names[index]);
        fields[index] = part == NULL ? -1 : PyLong_AsLong(part);
        Py_XDECREF(part);
        if (fields[index] == -1 && PyErr_Occurred())
            return -1;
    }
    int status = open_container(encoder, object, PLAIT_FLAT_TIME, 3, 3, value);
    if (status != 0)
        return status;
    int64_t microseconds =
        ((fields[0] * 60 + fields[1]) * 60 + fields[2]) * INT64_C(1000000) + fields[3];
    plait_flat_set(&encoder->writer, *value, 0, plait_flat_int(microseconds));
    plait_flat_set(&encoder->writer, *value, 1, plait_flat_int(fields[4]));
    PyObject *zone = PyObject_GetAttrString(object, "tzinfo");
    if (zone == NULL)
        return -1;
    status = encode_item(encoder, zone, *value, 2);
    Py_DECREF(zone);
    return status;
}

static int encode_uuid(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    PyObject *bytes = PyObject_GetAttrString(object, "bytes");
    int status = -1;
    if (bytes != NULL && PyBytes_CheckExact(bytes) && PyBytes_GET_SIZE(bytes) == 16)
        status = encode_bytes(encoder, PLAIT_FLAT_UUID, PyBytes_AS_STRING(bytes), 16, value);
    else if (bytes != NULL)
        status = NOT_NATIVE;
    Py_XDECREF(bytes);
    return status == 0 ? remember(encoder, object, *value) : status;
}

static int encode_decimal(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    int status = open_container(encoder, object, PLAIT_FLAT_DECIMAL, 1, 1, value);
    if (status != 0)
        return status;
    PyObject *text = PyObject_Str(object);
    if (text == NULL)
        return -1;
    status = encode_item(encoder, text, *value, 0);
    Py_DECREF(text);
    return status;
}

/* A member of an importable enumeration travels as its class and name; flags that combine members
 * have no name and are pickled. */
static int encode_enum(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    PyObject *class = (PyObject *)Py_TYPE(object);
    if (!is_importable(encoder->state, class))
        return NOT_NATIVE;
    PyObject *name = PyObject_GetAttrString(object, "_name_");
    if (name == NULL || !PyUnicode_CheckExact(name)) {
        PyErr_Clear();
        Py_XDECREF(name);
        return NOT_NATIVE;
    }
    PyObject *member = PyObject_GetAttr(class, name);
    if (member == NULL)
        PyErr_Clear();
    int status = member == object ? open_container(encoder, object, PLAIT_FLAT_ENUM, 2, 2, value)
                                  : NOT_NATIVE;
    if (status == 0)
        status = encode_item(encoder, class, *value, 0);
    if (status == 0)
        status = encode_item(encoder, name, *value, 1);
    Py_XDECREF(member);
    Py_DECREF(name);
    return status;
}

int encode_foreign(encoder_t *encoder, PyObject *object, plait_flat_value_t *value)
{
    static const char *const date[] = {"year", "month", "day"};
    static const char *const delta[] = {"days", "seconds", "microseconds"};
    int status;
    switch (foreign_code(encoder->state, Py_TYPE(object))) {
    case FOREIGN_DATE:
        return encode_named(encoder, object, PLAIT_FLAT_DATE, date, 3, value);
    case FOREIGN_TIMEDELTA:
        return encode_named(encoder, object, PLAIT_FLAT_TIMEDELTA, delta, 3, value);
    case FOREIGN_TIME:
        return encode_time(encoder, object, value);
    case FOREIGN_DATETIME:
        status = encode_through(encoder, object, PLAIT_FLAT_DATETIME, 2, 0, "date", value);
        return status != 0
                   ? status
                   : encode_through(encoder, object, PLAIT_FLAT_DATETIME, 2, 1, "timetz", value);
    case FOREIGN_UUID:
        return encode_uuid(encoder, object, value);
    case FOREIGN_DECIMAL:
        return encode_decimal(encoder, object, value);
    case FOREIGN_ENUM:
        return encode_enum(encoder, object, value);
    case FOREIGN_TIMEZONE: {
        PyObject *parts = PyObject_CallMethod(object, "__getinitargs__", NULL);
        if (parts == NULL)
            return -1;
        status = open_container(encoder, object, PLAIT_FLAT_TIMEZONE, 2, 2, value);
        for (Py_ssize_t index = 0; status == 0 && index < PyTuple_GET_SIZE(parts) && index < 2;
             index++)
            status = encode_item(encoder, PyTuple_GET_ITEM(parts, index), *value, (size_t)index);
        Py_DECREF(parts);
        return status;
    }
    case -1:
        return -1;
    default:
        return NOT_NATIVE;
    }
}
