/* isolation: extension modules in own-GIL interpreters that were not written for them.
 *
 * Each interpreter that asks for it has a *home*, which stands for it in its extensions' images:
 * what they call to find "the" interpreter finds this one. Homes are plain C memory of the process:
 * native threads look at them without any interpreter. Design: docs/design/isolate.md
 */
#ifndef PLAIT_ISOLATION_H
#define PLAIT_ISOLATION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>

#include "binding/compat.h"
#include "isolate/image.h"

typedef struct home home_t;

/* ---- home.c ---- */

/* A home for the caller's interpreter. NULL with an exception: all are taken. */
home_t *home_take(void);

/* What its images get instead of CPython's functions. */
const plait_override_t *home_overrides(const home_t *home, size_t *count);

/* The interpreter, attached, before it ends: waits until the native threads that are inside have
 * left, and lets no more in. */
void home_close(home_t *home);

/* Without any interpreter, after its has ended: calls what its extensions gave to Py_AtExit. NULL is
 * allowed. */
void home_give(home_t *home);

/* The name that a single-phase module is to have while its PyInit function runs in this thread;
 * NULL for none. Returns what it was. */
const char *swap_package_context(const char *name);

/* ---- extension.c ---- */

/* A call of PyModule_FromDefAndSpec2 that CPython's check of own-GIL support does not stop. */
PyObject *create_unchecked(PyModuleDef *definition, PyObject *spec, int api_version);

#if PY_VERSION_HEX >= 0x030F0000
/* Likewise of PyModule_FromSlotsAndSpec. */
PyObject *create_slots_unchecked(const PySlot *slots, PyObject *spec);
#endif

extern PyMethodDef isolation_methods[]; /* of plait._plait */

#endif
