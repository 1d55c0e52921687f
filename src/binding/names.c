/* names: functions and classes that travel as their module's and their own name. */
#include "binding/binding.h"

/* Follows the dots of a qualified name. Steals `found`; NULL with an exception. */
static PyObject *follow(PyObject *found, PyObject *path)
{
    PyObject *dot = PyUnicode_FromString(".");
    PyObject *names = dot == NULL ? NULL : PyUnicode_Split(path, dot, -1);
    Py_XDECREF(dot);
    if (names == NULL)
        Py_CLEAR(found);
    for (Py_ssize_t index = 0; found != NULL && index < PyList_GET_SIZE(names); index++)
        Py_SETREF(found, PyObject_GetAttr(found, PyList_GET_ITEM(names, index)));
    Py_XDECREF(names);
    return found;
}

bool is_importable(module_state *state, PyObject *object)
{
    PyObject *module_name = PyObject_GetAttr(object, state->names[NAME_MODULE]);
    PyObject *path =
        module_name == NULL ? NULL : PyObject_GetAttr(object, state->names[NAME_QUALNAME]);
    PyObject *found = NULL;
    if (path != NULL && PyUnicode_CheckExact(module_name) && PyUnicode_CheckExact(path) &&
        PyUnicode_CompareWithASCIIString(module_name, "__main__") != 0)
        found = PyImport_GetModule(module_name);
    if (found != NULL)
        found = follow(found, path);
    bool same = found == object;
    PyErr_Clear();
    Py_XDECREF(found);
    Py_XDECREF(path);
    Py_XDECREF(module_name);
    return same;
}

PyObject *import_by_name(PyObject *module_name, PyObject *path)
{
    if (!PyUnicode_Check(module_name) || !PyUnicode_Check(path))
        return PyErr_Format(PyExc_ValueError, "malformed plait message: a name that is no text");
    PyObject *package = PyImport_Import(module_name); /* of a dotted name it gives the outermost */
    if (package == NULL)
        return NULL;
    Py_DECREF(package);
    PyObject *module = PyImport_GetModule(module_name);
    if (module == NULL && !PyErr_Occurred())
        PyErr_Format(PyExc_ImportError, "module %R vanished while it was imported", module_name);
    return module == NULL ? NULL : follow(module, path);
}
