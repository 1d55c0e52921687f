/* compat: what the C API calls differently from version to version, under one name. */
#ifndef PLAIT_BINDING_COMPAT_H
#define PLAIT_BINDING_COMPAT_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000
#error "plait needs CPython 3.12 or later"
#endif

#if PY_VERSION_HEX < 0x030D0000
#define PyThreadState_GetUnchecked _PyThreadState_UncheckedGet
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }

static inline PyObject *PyList_GetItemRef(PyObject *list, Py_ssize_t index)
{
    return Py_XNewRef(PyList_GetItem(list, index));
}

static inline int PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **value)
{
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *value != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}
#endif

/* Whether there are just so many references to the object. Never claimed without a GIL. */
static inline int has_references(PyObject *object, Py_ssize_t count)
{
#ifdef Py_GIL_DISABLED
    (void)object;
    (void)count;
    return 0;
#else
    return Py_REFCNT(object) == count;
#endif
}

/* |number| as little-endian bytes. 0, or -1 with an exception. */
static inline int long_to_bytes(PyObject *magnitude, unsigned char *bytes, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    Py_ssize_t needed =
        PyLong_AsNativeBytes(magnitude, bytes, (Py_ssize_t)size,
                             Py_ASNATIVEBYTES_LITTLE_ENDIAN | Py_ASNATIVEBYTES_UNSIGNED_BUFFER);
    return needed < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)magnitude, bytes, size, 1, 0);
#endif
}

static inline PyObject *long_from_bytes(const unsigned char *bytes, size_t size)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromUnsignedNativeBytes(bytes, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(bytes, size, 1, 0);
#endif
}

#endif
