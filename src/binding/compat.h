/* compat: what the C API calls differently from version to version, under one name. Most of it is
 * CPython's own pythoncapi_compat.h. */
#ifndef PLAIT_BINDING_COMPAT_H
#define PLAIT_BINDING_COMPAT_H

#include <Python.h>

#include "pythoncapi_compat.h"

#if PY_VERSION_HEX < 0x030C0000
#error "plait needs CPython 3.12 or later"
#endif

/* Whether there are just so many references to the object. Without a GIL that can be told of those
 * that belong to the calling thread and that no other thread has ever referred to. */
static inline int has_references(PyObject *object, Py_ssize_t count)
{
#ifdef Py_GIL_DISABLED
    return _Py_IsOwnedByCurrentThread(object) &&
           _Py_atomic_load_uint32_relaxed(&object->ob_ref_local) == (uint32_t)count &&
           _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared) == 0;
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
