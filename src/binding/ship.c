/* ship: how functions reach workers of other interpreters.
 *
 * What can be imported travels as its name; the rest by value, in a message that every worker
 * decodes once and then keeps the callable of. A shipper remembers what it sent, with a
 * *fingerprint*: every object that the pickle was made of and that a program can replace (code,
 * defaults, cells, named globals, versions of classes). Submitting compares identities; any change
 * makes a new shipment. What can change in place (a list in a closure) is pickled each time, and
 * sent again only if the bytes differ. Design: docs/design/shipping.md
 */
#include "binding/binding.h"

#define REMEMBERED 16
#define CHECKS_LIMIT 256

typedef enum check_kind {
    CHECK_CODE,
    CHECK_DEFAULTS,
    CHECK_CELL,
    CHECK_GLOBAL,
    CHECK_CLASS
} check_kind;

typedef struct check {
    check_kind kind;
    unsigned version; /* CHECK_CLASS */
    PyObject *holder; /* the function, cell, dictionary or class */
    PyObject *name;   /* CHECK_GLOBAL */
    PyObject *value;  /* what it held; NULL: nothing */
} check_t;

typedef struct parcel {
    unsigned users;     /* the slot, and whoever looks at it: looking may let other threads in */
    PyObject *callable; /* NULL: recognised by its bytes only */
    shipment_t *shipment;
    check_t *checks;
    size_t count;
} parcel_t;

struct shipper {
    parcel_t *parcels[REMEMBERED]; /* NULL: empty */
    unsigned newest;               /* the slot used last */
    shipment_t *context;           /* the last one, or NULL */
    kept_encoder_t encoder;
    PyObject *decide; /* NULL: all is for this pool's workers; see shipper_place_with */
};

/* ---- shipments ---- */

void shipment_retain(shipment_t *shipment)
{
    plait_atomic_add_relaxed(&shipment->references, 1); /* relaxed: as plait_task_retain */
}

void shipment_release(shipment_t *shipment)
{
    if (shipment != NULL && plait_atomic_sub_acq_rel(&shipment->references, 1) == 1) {
        message_clear(&shipment->message);
        free(shipment);
    }
}

/* Writes the callable's name, or its type's. Runs nothing of its own. */
static void write_name(PyObject *callable, char name[SHIPMENT_NAME])
{
    PyObject *text =
        PyFunction_Check(callable) ? ((PyFunctionObject *)callable)->func_qualname : NULL;
    const char *bytes = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    if (bytes == NULL && PyCFunction_Check(callable))
        bytes = ((PyCFunctionObject *)callable)->m_ml->ml_name;
    if (bytes == NULL)
        bytes = PyType_Check(callable) ? ((PyTypeObject *)callable)->tp_name
                                       : Py_TYPE(callable)->tp_name;
    PyErr_Clear();
    snprintf(name, SHIPMENT_NAME, "%s", bytes);
}

/* Takes the message over. `callable`: NULL for what is none. */
static shipment_t *shipment_new(message_t *message, PyObject *callable)
{
    shipment_t *shipment = malloc(sizeof *shipment);
    if (shipment == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    plait_atomic_init(&shipment->references, 1);
    shipment->id = plait_task_next_id();
    shipment->message = *message;
    shipment->name[0] = 0;
    shipment->elsewhere = false;
    if (callable != NULL)
        write_name(callable, shipment->name);
    *message = (message_t){.root = plait_flat_const(PLAIT_FLAT_NONE)};
    return shipment;
}

/* ---- fingerprints ---- */

typedef struct walk {
    module_state *state;
    check_t *checks;
    size_t count;
    table_t seen; /* functions and classes already walked */
} walk_t;

static bool is_stable(walk_t *walk, PyObject *object);

static bool add_check(walk_t *walk, check_t check)
{
    if (walk->count == CHECKS_LIMIT)
        return false;
    Py_INCREF(check.holder);
    Py_XINCREF(check.name);
    Py_XINCREF(check.value);
    walk->checks[walk->count++] = check;
    return check.value == NULL || check.kind == CHECK_CODE || is_stable(walk, check.value);
}

/* Globals named by the code or by code inside it (nested functions, comprehensions). */
static bool walk_code(walk_t *walk, PyObject *code, PyObject *globals)
{
    PyObject *names = ((PyCodeObject *)code)->co_names,
             *constants = ((PyCodeObject *)code)->co_consts;
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(names); index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index), *value;
        if (PyDict_GetItemRef(globals, name, &value) < 0) {
            PyErr_Clear();
            return false;
        }
        bool stable = add_check(
            walk, (check_t){.kind = CHECK_GLOBAL, .holder = globals, .name = name, .value = value});
        Py_XDECREF(value);
        if (!stable)
            return false;
    }
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(constants); index++) {
        PyObject *constant = PyTuple_GET_ITEM(constants, index);
        if (PyCode_Check(constant) && !walk_code(walk, constant, globals))
            return false;
    }
    return true;
}

/* False if the object was walked before. */
static bool first_visit(walk_t *walk, PyObject *object)
{
    uint64_t seen;
    return !table_get(&walk->seen, (uint64_t)(uintptr_t)object, &seen) &&
           table_add(&walk->seen, (uint64_t)(uintptr_t)object, 1);
}

static bool walk_function(walk_t *walk, PyObject *function)
{
    if (!first_visit(walk, function))
        return true;
    PyObject *code = PyFunction_GetCode(function), *closure = PyFunction_GetClosure(function);
    PyObject *keyword_defaults = PyFunction_GetKwDefaults(function);
    if (keyword_defaults != NULL && PyDict_GET_SIZE(keyword_defaults) > 0)
        return false; /* a dict, which can change in place */
    PyObject *attributes = ((PyFunctionObject *)function)->func_dict;
    if (attributes != NULL && PyDict_GET_SIZE(attributes) > 0)
        return false; /* likewise */
    if (!add_check(walk, (check_t){.kind = CHECK_CODE, .holder = function, .value = code}) ||
        !add_check(walk, (check_t){.kind = CHECK_DEFAULTS,
                                   .holder = function,
                                   .value = PyFunction_GetDefaults(function)}))
        return false;
    for (Py_ssize_t index = 0; closure != NULL && index < PyTuple_GET_SIZE(closure); index++) {
        PyObject *cell = PyTuple_GET_ITEM(closure, index), *value = PyCell_Get(cell);
        bool stable =
            add_check(walk, (check_t){.kind = CHECK_CELL, .holder = cell, .value = value});
        Py_XDECREF(value);
        if (!stable)
            return false;
    }
    return walk_code(walk, code, PyFunction_GetGlobals(function));
}

/* A class's version changes whenever an attribute of it or of a base is set. */
static unsigned class_version(PyTypeObject *type)
{
    return PyUnstable_Type_AssignVersionTag(type) ? type->tp_version_tag : 0;
}

static bool walk_class(walk_t *walk, PyTypeObject *type)
{
    if (!first_visit(walk, (PyObject *)type))
        return true;
    unsigned version = class_version(type);
    if (version == 0 ||
        !add_check(walk,
                   (check_t){.kind = CHECK_CLASS, .holder = (PyObject *)type, .version = version}))
        return false;
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(type->tp_bases); index++)
        if (!is_stable(walk, PyTuple_GET_ITEM(type->tp_bases, index)))
            return false;
    PyObject *dict = PyType_GetDict(type), *name, *value;
    bool stable = dict != NULL;
    Py_ssize_t position = 0;
    while (stable && PyDict_Next(dict, &position, &name, &value))
        stable = is_stable(walk, value);
    Py_XDECREF(dict);
    return stable;
}

static bool is_descriptor(PyTypeObject *type)
{
    return type == &PyGetSetDescr_Type || type == &PyMemberDescr_Type ||
           type == &PyWrapperDescr_Type || type == &PyMethodDescr_Type;
}

/* Whether the object cannot change in place without a check noticing. */
static bool is_stable(walk_t *walk, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (object == Py_None || type == &PyLong_Type || type == &PyUnicode_Type ||
        type == &PyFloat_Type || type == &PyBool_Type || type == &PyBytes_Type ||
        type == &PyComplex_Type || type == &PyRange_Type || object == Py_Ellipsis ||
        object == Py_NotImplemented || PyModule_Check(object) || is_descriptor(type) ||
        type == &PyContextVar_Type)
        return true;
    if (type == &PyTuple_Type) {
        for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(object); index++)
            if (!is_stable(walk, PyTuple_GET_ITEM(object, index)))
                return false;
        return true;
    }
    if (type == &PyFunction_Type)
        return is_importable(walk->state, object) || walk_function(walk, object);
    if (type == &PyCFunction_Type)
        return is_importable(walk->state, object);
    if (PyType_Check(object))
        return is_importable(walk->state, object) || walk_class(walk, (PyTypeObject *)object);
    return false;
}

static bool check_holds(const check_t *check)
{
    PyObject *value;
    switch (check->kind) {
    case CHECK_CODE:
        return PyFunction_GET_CODE(check->holder) == check->value;
    case CHECK_DEFAULTS:
        return PyFunction_GET_DEFAULTS(check->holder) == check->value;
    case CHECK_CELL:
        value = PyCell_Get(check->holder);
        break;
    case CHECK_GLOBAL:
        if (PyDict_GetItemRef(check->holder, check->name, &value) < 0) {
            PyErr_Clear();
            return false;
        }
        break;
    case CHECK_CLASS:
        return class_version((PyTypeObject *)check->holder) == check->version;
    default:
        return false;
    }
    bool same = value == check->value;
    Py_XDECREF(value);
    return same;
}

static void checks_free(check_t *checks, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        Py_DECREF(checks[index].holder);
        Py_XDECREF(checks[index].name);
        Py_XDECREF(checks[index].value);
    }
    PyMem_Free(checks);
}

/* The checks that make it safe to send a callable's shipment again unseen; NULL where there are
 * none such. */
static check_t *take_fingerprint(module_state *state, PyObject *callable, size_t *count)
{
    walk_t walk = {.state = state, .checks = PyMem_Malloc(CHECKS_LIMIT * sizeof(check_t))};
    if (walk.checks == NULL)
        return NULL;
    table_init(&walk.seen);
    bool stable = is_stable(&walk, callable);
    table_fini(&walk.seen);
    if (!stable) {
        checks_free(walk.checks, walk.count);
        return NULL;
    }
    check_t *fitted = PyMem_Realloc(walk.checks, (walk.count + 1) * sizeof(check_t));
    *count = walk.count;
    return fitted == NULL ? walk.checks : fitted;
}

/* ---- the shipper ---- */

shipper_t *shipper_new(module_state *state, bool share)
{
    shipper_t *shipper = PyMem_Calloc(1, sizeof *shipper);
    if (shipper == NULL)
        PyErr_NoMemory();
    else
        encoder_init(&shipper->encoder.encoder, state);
    if (shipper != NULL && share)
        encoder_share(&shipper->encoder.encoder);
    return shipper;
}

static void parcel_release(parcel_t *parcel)
{
    if (parcel == NULL || --parcel->users > 0)
        return;
    shipment_release(parcel->shipment);
    checks_free(parcel->checks, parcel->count);
    Py_XDECREF(parcel->callable);
    PyMem_Free(parcel);
}

/* Takes the parcel over; what was in the slot goes last, since that may run code that ships. */
static void put(shipper_t *shipper, unsigned slot, parcel_t *parcel)
{
    parcel_t *old = shipper->parcels[slot];
    shipper->parcels[slot] = parcel;
    parcel_release(old);
}

kept_encoder_t *shipper_encoder(shipper_t *shipper)
{
    return &shipper->encoder;
}

void shipper_place_with(shipper_t *shipper, PyObject *decide)
{
    Py_XSETREF(shipper->decide, Py_NewRef(decide));
}

void shipper_forget(shipper_t *shipper)
{
    for (unsigned slot = 0; shipper != NULL && slot < REMEMBERED; slot++)
        put(shipper, slot, NULL);
    if (shipper != NULL) {
        shipment_release(shipper->context);
        shipper->context = NULL;
    }
}

void shipper_free(shipper_t *shipper)
{
    shipper_forget(shipper);
    if (shipper != NULL) {
        encoder_fini(&shipper->encoder.encoder);
        Py_XDECREF(shipper->decide);
    }
    PyMem_Free(shipper);
}

static bool parcel_holds(const parcel_t *parcel)
{
    for (size_t index = 0; index < parcel->count; index++)
        if (!check_holds(&parcel->checks[index]))
            return false;
    return true;
}

static shipment_t *find_by_identity(shipper_t *shipper, PyObject *callable)
{
    shipment_t *shipment = NULL;
    unsigned slot = shipper->newest, step = 0;
    while (step < REMEMBERED &&
           (shipper->parcels[slot] == NULL || shipper->parcels[slot]->callable != callable))
        slot = (shipper->newest + REMEMBERED - ++step) % REMEMBERED;
    if (step == REMEMBERED)
        return NULL;
    parcel_t *parcel = shipper->parcels[slot];
    parcel->users++;
    if (parcel_holds(parcel)) {
        shipment = parcel->shipment;
        shipment_retain(shipment);
    } else if (shipper->parcels[slot] == parcel) {
        put(shipper, slot, NULL);
    }
    parcel_release(parcel);
    return shipment;
}

static bool has_bytes(const shipment_t *shipment, const message_t *message)
{
    return shipment != NULL && shipment->message.size == message->size &&
           memcmp(shipment->message.bytes, message->bytes, message->size) == 0;
}

static shipment_t *find_by_bytes(shipper_t *shipper, const message_t *message)
{
    for (unsigned slot = 0; slot < REMEMBERED; slot++) {
        shipment_t *shipment =
            shipper->parcels[slot] == NULL ? NULL : shipper->parcels[slot]->shipment;
        if (has_bytes(shipment, message)) {
            shipment_retain(shipment);
            return shipment;
        }
    }
    return NULL;
}

shipment_t *ship_context(shipper_t *shipper, message_t *message)
{
    if (!has_bytes(shipper->context, message)) {
        shipment_t *shipment = shipment_new(message, NULL);
        if (shipment == NULL) {
            message_clear(message);
            return NULL;
        }
        shipment_release(shipper->context);
        shipper->context = shipment;
    }
    message_clear(message);
    shipment_retain(shipper->context);
    return shipper->context;
}

/* Has it decided where the new shipment's calls run. Lets other threads in. */
static int place(shipper_t *shipper, shipment_t *shipment, PyObject *callable)
{
    if (shipper->decide == NULL)
        return 0;
    PyObject *elsewhere = PyObject_CallOneArg(shipper->decide, callable);
    shipment->elsewhere = elsewhere == Py_True;
    Py_XDECREF(elsewhere);
    return elsewhere == NULL ? -1 : 0;
}

static shipment_t *ship_anew(module_state *state, shipper_t *shipper, PyObject *callable)
{
    message_t message;
    shipment_t *shipment = NULL;
    parcel_t *parcel = PyMem_Calloc(1, sizeof *parcel);
    if (parcel == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    parcel->users = 1;
    /* Before it is encoded: what another thread changes meanwhile is then noticed next time. */
    parcel->checks = take_fingerprint(state, callable, &parcel->count);
    parcel->callable = parcel->checks == NULL ? NULL : Py_NewRef(callable);
    if (encode_message(state, callable, &message) == 0) {
        shipment = find_by_bytes(shipper, &message);
        if (shipment == NULL) {
            shipment = shipment_new(&message, callable);
            if (shipment != NULL && place(shipper, shipment, callable) < 0) {
                shipment_release(shipment);
                shipment = NULL;
            }
        }
        message_clear(&message);
    }
    if (shipment == NULL) {
        parcel_release(parcel);
        return NULL;
    }
    shipment_retain(shipment);
    parcel->shipment = shipment;
    shipper->newest = (shipper->newest + 1) % REMEMBERED;
    put(shipper, shipper->newest, parcel);
    return shipment;
}

shipment_t *ship(module_state *state, shipper_t *shipper, PyObject *callable)
{
    shipment_t *known = find_by_identity(shipper, callable);
    return known != NULL ? known : ship_anew(state, shipper, callable);
}
