/* pool: the parts of PoolBase, the C half of plait.Pool, among themselves.
 *
 * It owns the scheduler's handle and a shipper. After a fork the child's copy of a pool has no
 * workers: it refuses everything and never touches its scheduler, whose locks may be held by
 * threads that do not exist. In a process worker's child a pool of the parent has no scheduler here:
 * the parent is asked instead.
 */
#ifndef PLAIT_BINDING_POOL_H
#define PLAIT_BINDING_POOL_H

#include "binding/binding.h"

static inline bool pool_is_forked(const pool_core_t *core)
{
    return core->fork_count != plait_prim_fork_count();
}

/* Whether it is a pool of the parent's, in a process worker's child. */
static inline bool pool_is_remote(const pool_core_t *core)
{
    return core->sched == NULL;
}

/* Methods, with what help() says of them. */

/* ---- pool_open.c ---- */

extern const char pool_open_doc[];
PyObject *pool_open(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                    PyObject *names);
extern const char pool_attach_doc[];
PyObject *pool_attach(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                      PyObject *names);

/* ---- pool_submit.c ---- */

extern const char pool_submit_doc[];
PyObject *pool_submit(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                      PyObject *names);
extern const char pool_submit_with_doc[];
PyObject *pool_submit_with(PyObject *object, PyTypeObject *type, PyObject *const *args,
                           Py_ssize_t count, PyObject *names);
extern const char pool_map_doc[];
PyObject *pool_map(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t count,
                   PyObject *names);
extern const char pool_place_with_doc[];
PyObject *pool_place_with(PyObject *object, PyObject *decide);

#endif
