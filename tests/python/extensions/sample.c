/* An extension module for tests. -DNAME=... names it; one of -DSINGLE_PHASE, -DMULTI_PHASE,
 * -DNATIVE (multi-phase, and declares support of own-GIL interpreters), -DEXPORT (CPython 3.15's
 * PyModExport) says how it is made. Its static data are what must not be shared.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

static long counter;
static PyObject *kept; /* as careless extensions keep objects */

static int64_t here(void)
{
    return PyInterpreterState_GetID(PyInterpreterState_Get());
}

static PyObject *count(PyObject *self, PyObject *ignored)
{
    return PyLong_FromLong(++counter);
}

static PyObject *keep(PyObject *self, PyObject *object)
{
    PyObject *before = kept == NULL ? Py_NewRef(Py_None) : kept;
    kept = Py_NewRef(object);
    return before;
}

static PyObject *main_id(PyObject *self, PyObject *ignored)
{
    return PyLong_FromLongLong(PyInterpreterState_GetID(PyInterpreterState_Main()));
}

/* ---- what OpenMP keeps for each calling thread ---- */

static _Thread_local int thread_limit = 8;

void omp_set_num_threads(int number);

void omp_set_num_threads(int number)
{
    thread_limit = number;
}

static PyObject *omp_threads(PyObject *self, PyObject *ignored)
{
    return PyLong_FromLong(thread_limit);
}

/* ---- native threads ---- */

typedef struct errand {
    PyObject *callable;
    long times;
    int64_t home;
    long wrong; /* times that something was not as it must be */
} errand_t;

static void come_and_go(errand_t *errand)
{
    if (PyGILState_Check())
        errand->wrong++; /* not yet */
    PyGILState_STATE outer = PyGILState_Ensure();
    PyGILState_STATE inner = PyGILState_Ensure();
    if (!PyGILState_Check() || here() != errand->home || inner != PyGILState_LOCKED)
        errand->wrong++;
    PyGILState_Release(inner);
    Py_BEGIN_ALLOW_THREADS;
    PyGILState_STATE again = PyGILState_Ensure();
    if (again != PyGILState_UNLOCKED || here() != errand->home)
        errand->wrong++;
    PyGILState_Release(again);
    Py_END_ALLOW_THREADS;
    PyObject *done = PyObject_CallNoArgs(errand->callable);
    if (done == NULL) {
        PyErr_Clear();
        errand->wrong++;
    }
    Py_XDECREF(done);
    PyGILState_Release(outer);
    if (PyGILState_Check() || PyGILState_GetThisThreadState() != NULL)
        errand->wrong++; /* no more */
}

static void *run_errand(void *argument)
{
    errand_t *errand = argument;
    for (long time = 0; time < errand->times; time++)
        come_and_go(errand);
    return NULL;
}

enum { ERRANDS = 8 };

/* Runs the errands on a thread each, all at once: how many threads there were. */
static int run_errands(errand_t *errands, int count)
{
    pthread_t threads[ERRANDS];
    int begun = 0;
    Py_BEGIN_ALLOW_THREADS;
    while (begun < count && pthread_create(&threads[begun], NULL, run_errand, &errands[begun]) == 0)
        begun++;
    for (int index = 0; index < begun; index++)
        pthread_join(threads[index], NULL);
    Py_END_ALLOW_THREADS;
    return begun;
}

/* call_from_thread(callable, times, threads=1): how often something was wrong. */
static PyObject *call_from_thread(PyObject *self, PyObject *args)
{
    errand_t errands[ERRANDS] = {{.home = here()}};
    int count = 1;
    if (!PyArg_ParseTuple(args, "Ol|i", &errands[0].callable, &errands[0].times, &count))
        return NULL;
    for (int index = 1; index < ERRANDS; index++)
        errands[index] = errands[0];
    if (count > ERRANDS || run_errands(errands, count) != count)
        return PyErr_Format(PyExc_OSError, "no %d threads", count);
    long wrong = 0;
    for (int index = 0; index < count; index++)
        wrong += errands[index].wrong;
    return PyLong_FromLong(wrong);
}

static sem_t came_in;

static void *run_late_errand(void *argument)
{
    errand_t *errand = argument;
    PyGILState_STATE state = PyGILState_Ensure();
    sem_post(&came_in);
    Py_BEGIN_ALLOW_THREADS;
    usleep((useconds_t)errand->times);
    Py_END_ALLOW_THREADS;
    PyObject *done = PyObject_CallNoArgs(errand->callable);
    if (done == NULL)
        PyErr_Print();
    Py_XDECREF(done);
    Py_DECREF(errand->callable);
    PyGILState_Release(state);
    free(errand);
    return NULL;
}

/* linger(callable, microseconds): a detached thread that has come in, and calls it that much later. */
static PyObject *linger(PyObject *self, PyObject *args)
{
    errand_t *errand = calloc(1, sizeof *errand);
    pthread_t thread;
    if (errand == NULL || !PyArg_ParseTuple(args, "Ol", &errand->callable, &errand->times))
        return NULL;
    Py_INCREF(errand->callable);
    sem_init(&came_in, 0, 0);
    if (pthread_create(&thread, NULL, run_late_errand, errand) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_detach(thread);
    Py_BEGIN_ALLOW_THREADS;
    sem_wait(&came_in);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static void *watch(void *path)
{
    sem_post(&came_in);
    while (Py_IsInitialized())
        usleep(1000);
    FILE *file = fopen(path, "w");
    fputs("gone\n", file);
    fclose(file);
    free(path);
    return NULL;
}

/* watch_python(path): a detached thread, as libraries have, that writes the file when it is told that
 * there is no Python any more. */
static PyObject *watch_python(PyObject *self, PyObject *path)
{
    const char *text = PyUnicode_AsUTF8(path);
    pthread_t thread;
    if (text == NULL)
        return NULL;
    sem_init(&came_in, 0, 0);
    if (pthread_create(&thread, NULL, watch, strdup(text)) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_detach(thread);
    Py_BEGIN_ALLOW_THREADS;
    sem_wait(&came_in);
    Py_END_ALLOW_THREADS;
    return PyBool_FromLong(Py_IsInitialized());
}

/* ---- calls from other interpreters ---- */

static int64_t visitor_home = -1;

/* Called with any thread state, or none: comes in, and says whether it came to the right place. */
static int visit(void)
{
    PyGILState_STATE state = PyGILState_Ensure();
    int right = here() == visitor_home && PyGILState_Check();
    PyObject *object = PyList_New(3); /* of this interpreter's memory */
    right = right && object != NULL;
    Py_XDECREF(object);
    PyGILState_Release(state);
    return right;
}

static PyObject *address_of_visit(PyObject *self, PyObject *ignored)
{
    visitor_home = here();
    return PyLong_FromVoidPtr((void *)visit);
}

/* visit_other(address, attached): calls another image's visit(), and says whether all was right. */
static PyObject *visit_other(PyObject *self, PyObject *args)
{
    PyObject *number;
    int attached, right;
    if (!PyArg_ParseTuple(args, "Op", &number, &attached))
        return NULL;
    int (*other)(void) = (int (*)(void))PyLong_AsVoidPtr(number);
    int64_t home = here();
    PyThreadState *state = PyThreadState_Get();
    if (attached) {
        right = other();
    } else {
        Py_BEGIN_ALLOW_THREADS;
        right = other() && PyGILState_GetThisThreadState() == state;
        Py_END_ALLOW_THREADS;
    }
    return PyBool_FromLong(right && PyThreadState_Get() == state && here() == home);
}

/* ---- the end ---- */

static char exit_path[4096];

static void at_exit(void)
{
    FILE *file = fopen(exit_path, "a");
    fputs("left\n", file);
    fclose(file);
}

/* note_exit(path): appends a line to the file when the interpreter is gone. */
static PyObject *note_exit(PyObject *self, PyObject *path)
{
    const char *text = PyUnicode_AsUTF8(path);
    if (text == NULL)
        return NULL;
    snprintf(exit_path, sizeof exit_path, "%s", text);
    return PyLong_FromLong(Py_AtExit(at_exit));
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"count", count, METH_NOARGS, NULL},
    {"keep", keep, METH_O, NULL},
    {"main_id", main_id, METH_NOARGS, NULL},
    {"omp_threads", omp_threads, METH_NOARGS, NULL},
    {"call_from_thread", call_from_thread, METH_VARARGS, NULL},
    {"linger", linger, METH_VARARGS, NULL},
    {"watch_python", watch_python, METH_O, NULL},
    {"address_of_visit", address_of_visit, METH_NOARGS, NULL},
    {"visit_other", visit_other, METH_VARARGS, NULL},
    {"note_exit", note_exit, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#ifdef SINGLE_PHASE

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = TEXT(NAME), .m_size = -1,
                                 .m_methods = methods};

PyMODINIT_FUNC GLUE(PyInit_, NAME)(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyState_FindModule(&definition) != NULL)
        return NULL;
    return module;
}

#else

/* As some do: a module within the module, which declares nothing. */
static PyObject *make_inner(PyObject *spec)
{
#ifdef EXPORT
    PyABIInfo_VAR(abi);
    static PySlot slots[] = {PySlot_STATIC_DATA(Py_mod_abi, &abi),
                             PySlot_STATIC_DATA(Py_mod_name, "inner"), PySlot_END};
    return PyModule_FromSlotsAndSpec(slots, spec);
#else
    static PyModuleDef_Slot no_slots[] = {{0, NULL}};
    static PyModuleDef inner = {PyModuleDef_HEAD_INIT, .m_name = "inner", .m_slots = no_slots};
    return PyModule_FromDefAndSpec(&inner, spec);
#endif
}

static int add_inner(PyObject *module)
{
    PyObject *spec = PyObject_GetAttrString(module, "__spec__");
    PyObject *made = spec == NULL ? NULL : make_inner(spec);
    Py_XDECREF(spec);
    int status = made == NULL ? -1 : PyModule_AddObjectRef(module, "inner", made);
    Py_XDECREF(made);
    return status;
}

#ifdef EXPORT

static int check_token(PyObject *module);

PyABIInfo_VAR(abi);

static PySlot slots[] = {
    PySlot_STATIC_DATA(Py_mod_abi, &abi),
    PySlot_STATIC_DATA(Py_mod_name, TEXT(NAME)),
    PySlot_STATIC_DATA(Py_mod_methods, methods),
    PySlot_FUNC(Py_mod_exec, check_token),
    PySlot_END,
};

static int check_token(PyObject *module)
{
    void *token;
    if (PyModule_GetToken(module, &token) < 0)
        return -1;
    if (token != slots) {
        PyErr_SetString(PyExc_AssertionError, "the module's token is not its slots");
        return -1;
    }
    return add_inner(module);
}

PyMODEXPORT_FUNC GLUE(PyModExport_, NAME)(void)
{
    return slots;
}

#else

static PyModuleDef_Slot slots[] = {
#ifdef NATIVE
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
    {Py_mod_exec, add_inner},
#endif
    {0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = TEXT(NAME), .m_size = 0,
                                 .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC GLUE(PyInit_, NAME)(void)
{
    return PyModuleDef_Init(&definition);
}

#endif
#endif
