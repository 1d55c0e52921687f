/* deferred: large arguments, freed when their call's answer is out.
 *
 * Freeing a container of many objects takes half as long as making it, and nobody waits for it. Nor
 * is all of its memory given back: pymalloc unmaps an arena once nothing lives in it, and the next
 * such container would have to fault it in again, which is a quarter of what decoding takes. So one
 * object of each is kept until the next large arguments go, or the worker leaves its pool.
 *
 * Only what the decoder has made of builtin types alone comes here, so freeing it runs no code of
 * anybody's. Who may call: the worker, attached. Design: docs/design/costs.md
 */
#include "binding/binding.h"

/* Half an arena of pymalloc's, so that each arena has one of its own wherever it begins. */
#define BLOCK_SHIFT 19

void deferred_add(worker_data_t *data, PyObject *argument)
{
    deferred_t *deferred = &data->deferred;
    if (deferred->count < DEFERRED_LIMIT)
        deferred->objects[deferred->count++] = argument;
    else
        Py_DECREF(argument);
}

#ifdef Py_GIL_DISABLED
static void keep_some(deferred_t *Py_UNUSED(deferred), PyObject *Py_UNUSED(object)) {}
#else
/* Keeps the object if it is alone in its block so far. It must be the container's only. */
static void keep_one(deferred_t *deferred, PyObject *object)
{
    uintptr_t block = (uintptr_t)object >> BLOCK_SHIFT;
    if (Py_REFCNT(object) != 1 || PyObject_IS_GC(object) || deferred->kept_count == DEFERRED_KEPT)
        return;
    for (unsigned index = deferred->kept_count; index > 0; index--) /* the last is the likeliest */
        if ((uintptr_t)deferred->kept[index - 1] >> BLOCK_SHIFT == block)
            return;
    deferred->kept[deferred->kept_count++] = Py_NewRef(object);
}

static void keep_some(deferred_t *deferred, PyObject *object)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    if (PyDict_CheckExact(object)) {
        while (PyDict_Next(object, &position, &key, &value)) {
            keep_one(deferred, key);
            keep_one(deferred, value);
        }
    } else if (PyList_CheckExact(object) || PyTuple_CheckExact(object)) {
        while (position < PySequence_Fast_GET_SIZE(object))
            keep_one(deferred, PySequence_Fast_GET_ITEM(object, position++));
    }
}
#endif

static void let_go(PyObject **objects, unsigned count)
{
    while (count > 0)
        Py_DECREF(objects[--count]);
}

void deferred_free_added(worker_data_t *data)
{
    deferred_t *deferred = &data->deferred;
    PyObject *kept[DEFERRED_KEPT];
    unsigned kept_count = deferred->kept_count, count = deferred->count;
    memcpy(kept, deferred->kept, kept_count * sizeof *kept);
    deferred->kept_count = 0;
    for (unsigned index = 0; index < count; index++)
        if (Py_REFCNT(deferred->objects[index]) == 1)
            keep_some(deferred, deferred->objects[index]);
    deferred->count = 0;
    let_go(deferred->objects, count);
    let_go(kept, kept_count);
}

void deferred_end(worker_data_t *data)
{
    deferred_free(data);
    let_go(data->deferred.kept, data->deferred.kept_count);
    data->deferred.kept_count = 0;
}
