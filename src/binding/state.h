/* state: what one interpreter has of the module, and the exceptions of the core's errors. */
#ifndef PLAIT_BINDING_STATE_H
#define PLAIT_BINDING_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "binding/compat.h"
#include "plait/mailbox.h"
#include "plait/sched.h"

/* ---- module.c: the state of one interpreter's module ---- */

/* Interned attribute names. */
enum {
    NAME_MODULE,
    NAME_QUALNAME,
    NAME_START,
    NAME_STOP,
    NAME_STEP,
    NAME_STDOUT,
    NAME_STDERR,
    NAME_COUNT
};

enum { STREAM_STDOUT, STREAM_STDERR, STREAM_COUNT };

typedef struct module_state {
    PyTypeObject *pool_type;         /* PoolBase */
    PyTypeObject *future_type;       /* FutureBase */
    PyTypeObject *map_type;          /* MapIterator */
    PyTypeObject *lines_type;        /* Lines, see output.c */
    PyTypeObject *view_type;         /* SharedBytes, see sharing.c */
    PyObject *future_class;          /* plait.Future, told by plait._future; NULL before */
    PyObject *broken_class;          /* plait.BrokenPool, likewise */
    PLAIT_ATOMIC(PyObject *) travel; /* the module plait._travel; NULL until needed */
    PyObject *foreign_types; /* dict: type -> int, what encode.c knows of types outside builtins */
    PyObject *names[NAME_COUNT];
    PyObject *sys;              /* the module */
    struct worker_data *worker; /* whose interpreter this is, which outlives it; or NULL */
    PLAIT_ATOMIC(PyObject *) streams[STREAM_COUNT]; /* taken over last; not held, only compared */
    plait_mailbox_t notifier;                       /* watched futures that became final */
    plait_prim_lock_t orphan_lock;
    plait_sched_t **orphans; /* handles of pools that are gone while their workers finish */
    size_t orphan_count;     /* guarded by orphan_lock, as the handles */
    /* see isolation.h; NULL but in workers' interpreters */
    struct home *home;
    struct plait_images *images;
    PyObject *single_phase; /* dict: (name, path) -> module: such a one is made once */
    size_t unfit_images;    /* of modules that declare no support of own-GIL interpreters */
} module_state;

extern struct PyModuleDef plait_module_def;

static inline module_state *state_of_module(PyObject *module)
{
    return (module_state *)PyModule_GetState(module);
}

/* The state of the module that made the type of `self` or a base of it; never NULL. */
module_state *state_of_type(PyTypeObject *type);

/* Imports plait._travel once: pickling by value, exceptions that travel. Borrowed; NULL with an
 * exception. */
PyObject *state_travel(module_state *state);

/* ---- errors.c ---- */

/* Sets the Python exception for a core code (< 0 or an outcome that the caller did not expect);
 * `what` says what was being done. Always returns NULL. */
PyObject *raise_core_error(int code, const char *what);

/* Likewise, plait.DeadlineExceeded. */
PyObject *raise_deadline_exceeded(const char *text);

#endif
