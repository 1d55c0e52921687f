/* An extension module that kills the process, as those do that keep state over all interpreters.
 * -DNAME=... names it; -DTWICE: when a second interpreter of the process imports it; -DALWAYS: when
 * any does; -DAT_EXIT: when the process ends; -DRAISES: not at all, but it cannot be imported.
 */
#include <Python.h>

#include <signal.h>
#include <stdlib.h>

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

#ifdef AT_EXIT
__attribute__((destructor)) static void at_exit(void)
{
    abort();
}
#endif

static int execute(PyObject *module)
{
#ifdef TWICE
    if (signal(SIGUSR2, SIG_IGN) == SIG_IGN) /* one swap of what is the process's own */
        abort();
#endif
#ifdef ALWAYS
    abort();
#endif
#ifdef RAISES
    PyErr_SetString(PyExc_ImportError, "not today");
    return -1;
#endif
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = TEXT(NAME), .m_slots = slots};

PyMODINIT_FUNC GLUE(PyInit_, NAME)(void)
{
    return PyModuleDef_Init(&definition);
}
