/* extension: builds a module from a private image, in the interpreter that asks.
 *
 * CPython's own way (_imp.create_dynamic) runs a module's PyInit function in the main interpreter
 * and makes single-phase modules there first. Here the function is found in the image and called at
 * once. What CPython checks on the way, that a module declares its support of own-GIL interpreters,
 * is switched off for the one call that needs it, since the image is no other interpreter's.
 *
 * All functions run in a worker's interpreter, attached. Design: docs/design/isolate.md
 */
#include "binding/binding.h" /* first, as it includes Python.h */

#include <dlfcn.h>
#include <string.h>

#include "binding/isolation.h"

typedef PyObject *(*init_function)(void);

/* ---- CPython's check ---- */

static int set_check(int value, int *before)
{
    PyObject *imp = PyImport_ImportModule("_imp");
    PyObject *old =
        imp == NULL
            ? NULL
            : PyObject_CallMethod(imp, "_override_multi_interp_extensions_check", "i", value);
    Py_XDECREF(imp);
    if (old == NULL)
        return -1;
    *before = (int)PyLong_AsLong(old);
    Py_DECREF(old);
    return 0;
}

/* Back to what it was, whatever was raised meanwhile. A new reference is passed through. */
static PyObject *restore_check(int before, PyObject *module)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (set_check(before, &before) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_SetRaisedException(raised);
    return module;
}

PyObject *create_unchecked(PyModuleDef *definition, PyObject *spec, int api_version)
{
    int before;
    if (set_check(-1, &before) < 0)
        return NULL;
    return restore_check(before, PyModule_FromDefAndSpec2(definition, spec, api_version));
}

#if PY_VERSION_HEX >= 0x030F0000

PyObject *create_slots_unchecked(const PySlot *slots, PyObject *spec)
{
    int before;
    if (set_check(-1, &before) < 0)
        return NULL;
    return restore_check(before, PyModule_FromSlotsAndSpec(slots, spec));
}

typedef PySlot *(*export_function)(void);

static bool has_token(const PySlot *slots)
{
    for (; slots->sl_id != 0; slots++)
        if (slots->sl_id == Py_mod_token)
            return true;
    return false;
}

/* CPython's loader makes the slots' address the token of a module that has none. */
static PyObject *create_from_slots(PySlot *slots, PyObject *spec)
{
    PySlot with_token[] = {PySlot_STATIC_DATA(Py_mod_token, slots),
                           PySlot_DATA(Py_slot_subslots, slots), PySlot_END};
    return PyModule_FromSlotsAndSpec(has_token(slots) ? slots : with_token, spec);
}

static PyObject *create_from_slots_unchecked(PySlot *slots, PyObject *spec)
{
    int before;
    if (set_check(-1, &before) < 0)
        return NULL;
    return restore_check(before, create_from_slots(slots, spec));
}

#endif

/* ---- names ---- */

/* "PyInit_" and the last part of the module's name, as CPython spells it (PEP 489). A new bytes. */
static PyObject *hook_name(PyObject *name, const char *prefix)
{
    Py_ssize_t length = PyUnicode_GetLength(name);
    Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, length, -1);
    PyObject *last = dot == -2 ? NULL : PyUnicode_Substring(name, dot + 1, length);
    if (last == NULL)
        return NULL;
    bool ascii = PyUnicode_IS_ASCII(last);
    PyObject *encoded = PyUnicode_AsEncodedString(last, ascii ? "ascii" : "punycode", NULL);
    Py_DECREF(last);
    if (encoded == NULL)
        return NULL;
    PyObject *spelt =
        PyBytes_FromFormat("%s%s_%s", prefix, ascii ? "" : "U", PyBytes_AS_STRING(encoded));
    Py_DECREF(encoded);
    for (char *letter = spelt == NULL ? NULL : PyBytes_AS_STRING(spelt);
         letter != NULL && *letter != '\0'; letter++)
        if (*letter == '-')
            *letter = '_';
    return spelt;
}

/* NULL without an exception where the image has no such function. */
static void *find_hook(void *handle, PyObject *name, const char *prefix)
{
    PyObject *spelt = hook_name(name, prefix);
    void *found = spelt == NULL ? NULL : dlsym(handle, PyBytes_AS_STRING(spelt));
    Py_XDECREF(spelt);
    return found;
}

/* ---- building ---- */

/* Such a module is made once per interpreter: importing it again, after it was taken out of
 * sys.modules, gives it back, as CPython does by and large. */
static PyObject *keep_single_phase(PyObject *module, PyObject *kept, PyObject *key)
{
    PyModuleDef *definition = PyModule_Check(module) ? PyModule_GetDef(module) : NULL;
    if (definition == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_SystemError, "its PyInit function made no extension module");
        Py_DECREF(module);
        return NULL;
    }
    if ((PyState_FindModule(definition) == NULL && PyState_AddModule(module, definition) < 0) ||
        PyDict_SetItem(kept, key, module) < 0)
        Py_CLEAR(module);
    return module;
}

/* What is to be loaded. */
typedef struct extension {
    PyObject *name, *origin, *spec;
    const char *path; /* the origin's, as files are named */
    PyObject *key;    /* (name, origin) */
    PyObject *kept;   /* the interpreter's single-phase modules */
    size_t *unfit;    /* counts those that declare no support of own-GIL interpreters */
} extension_t;

static PyObject *import_error(const extension_t *extension, const char *why)
{
    PyObject *text = PyUnicode_FromFormat("%U cannot be loaded into a plait interpreter: %s",
                                          extension->name, why);
    if (text != NULL)
        PyErr_SetImportError(text, extension->name, extension->origin);
    Py_XDECREF(text);
    return NULL;
}

/* Whether CPython's check stopped what was tried, which is counted; the exception is gone then. */
static bool was_stopped(const extension_t *extension)
{
    if (!PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_ImportError))
        return false;
    PyErr_Clear();
    ++*extension->unfit;
    return true;
}

static PyObject *create_from_definition(PyModuleDef *definition, const extension_t *extension)
{
    PyObject *module = PyModule_FromDefAndSpec(definition, extension->spec);
    return module != NULL || !was_stopped(extension)
               ? module
               : create_unchecked(definition, extension->spec, PYTHON_API_VERSION);
}

static PyObject *build_by_init(init_function init, const extension_t *extension)
{
    const char *full_name = PyUnicode_AsUTF8(extension->name);
    if (full_name == NULL)
        return NULL;
    const char *before = swap_package_context(full_name);
    PyObject *made = init();
    swap_package_context(before);
    if (made == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_SystemError, "its PyInit function failed without an exception");
        return NULL;
    }
    if (PyErr_Occurred() || Py_IS_TYPE(made, NULL)) {
        PyErr_SetString(PyExc_SystemError, "its PyInit function returned what it should not");
        return NULL;
    }
    if (PyObject_TypeCheck(made, &PyModuleDef_Type))
        return create_from_definition((PyModuleDef *)made, extension);
    ++*extension->unfit;
    return keep_single_phase(made, extension->kept, extension->key);
}

static PyObject *build(void *handle, const extension_t *extension)
{
    void *address;
#if PY_VERSION_HEX >= 0x030F0000
    address = find_hook(handle, extension->name, "PyModExport");
    if (address != NULL) {
        export_function export;
        memcpy(&export, &address, sizeof export);
        PySlot *slots = export();
        if (slots == NULL)
            return PyErr_Occurred() ? NULL
                                    : PyErr_Format(PyExc_SystemError, "its PyModExport function "
                                                                      "failed without exception");
        PyObject *module = create_from_slots(slots, extension->spec);
        return module != NULL || !was_stopped(extension)
                   ? module
                   : create_from_slots_unchecked(slots, extension->spec);
    }
    if (PyErr_Occurred())
        return NULL;
#endif
    address = find_hook(handle, extension->name, "PyInit");
    if (address == NULL)
        return PyErr_Occurred() ? NULL : import_error(extension, "it has no PyInit function");
    init_function init;
    memcpy(&init, &address, sizeof init);
    return build_by_init(init, extension);
}

/* ---- loading ---- */

static PyObject *load(module_state *state, const extension_t *extension)
{
    void *handle;
    PyObject *known = PyDict_GetItemWithError(extension->kept, extension->key);
    if (known != NULL || PyErr_Occurred())
        return Py_XNewRef(known);
    if (PySys_Audit("import", "OOOOO", extension->name, extension->origin, Py_None, Py_None,
                    Py_None) < 0)
        return NULL;
    if (plait_images_load(state->images, extension->path, &handle) != PLAIT_OK)
        return import_error(extension, plait_images_error(state->images));
    return build(handle, extension);
}

PyDoc_STRVAR(load_extension_doc,
             "_load_extension(spec, /)\n--\n\n"
             "The extension module of a spec, made from a private image but not executed.\n"
             "Raises ImportError where there can be none.");

static PyObject *load_extension(PyObject *module, PyObject *spec)
{
    module_state *state = state_of_module(module);
    extension_t extension = {
        .spec = spec, .kept = state->single_phase, .unfit = &state->unfit_images};
    PyObject *path = NULL, *result = NULL;
    if (state->images == NULL)
        return PyErr_Format(PyExc_RuntimeError, "only workers load private images");
    extension.name = PyObject_GetAttrString(spec, "name");
    extension.origin = extension.name == NULL ? NULL : PyObject_GetAttrString(spec, "origin");
    if (extension.origin == NULL || !PyUnicode_FSConverter(extension.origin, &path))
        goto done;
    extension.path = PyBytes_AS_STRING(path);
    extension.key = PyTuple_Pack(2, extension.name, extension.origin);
    if (extension.key != NULL)
        result = load(state, &extension);
done:
    Py_XDECREF(extension.key);
    Py_XDECREF(path);
    Py_XDECREF(extension.origin);
    Py_XDECREF(extension.name);
    return result;
}

/* ---- the interpreter's life ---- */

PyDoc_STRVAR(isolate_doc,
             "_isolate()\n--\n\n"
             "Prepares this interpreter for private images. Raises RuntimeError in the main one\n"
             "and in free-threaded builds, which need none.");

static PyObject *isolate(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of_module(module);
    size_t count;
    int before;
    if (state->home != NULL)
        Py_RETURN_NONE;
    if (set_check(0, &before) < 0) /* says whether it can be set here */
        return NULL;
    state->home = home_take();
    if (state->home == NULL)
        return NULL;
    const plait_override_t *overrides = home_overrides(state->home, &count);
    state->images = plait_images_new(overrides, count);
    if (state->images == NULL)
        return PyErr_NoMemory();
    state->single_phase = PyDict_New();
    if (state->single_phase == NULL)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_thread_doc,
             "_enter_thread()\n--\n\n"
             "Tells the images of this interpreter that another thread runs it from now on.");

static PyObject *enter_thread(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of_module(module);
    if (state->images != NULL)
        plait_images_enter_thread(state->images);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(count_unfit_images_doc,
             "_count_unfit_images()\n--\n\n"
             "How many modules CPython would have refused to import into this interpreter.");

static PyObject *count_unfit_images(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(state_of_module(module)->unfit_images);
}

PyDoc_STRVAR(leave_native_threads_doc,
             "_leave_native_threads()\n--\n\n"
             "Waits until no native thread is in this interpreter, and lets no more in. For its\n"
             "end alone.");

static PyObject *leave_native_threads(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    module_state *state = state_of_module(module);
    if (state->home != NULL)
        home_close(state->home);
    Py_RETURN_NONE;
}

PyMethodDef isolation_methods[] = {
    {"_isolate", isolate, METH_NOARGS, isolate_doc},
    {"_load_extension", load_extension, METH_O, load_extension_doc},
    {"_enter_thread", enter_thread, METH_NOARGS, enter_thread_doc},
    {"_count_unfit_images", count_unfit_images, METH_NOARGS, count_unfit_images_doc},
    {"_leave_native_threads", leave_native_threads, METH_NOARGS, leave_native_threads_doc},
    {NULL, NULL, 0, NULL},
};
