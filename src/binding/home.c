/* home: which interpreter an extension's image is at home in, for native threads above all.
 *
 * PyGILState_Ensure() in a thread that has no thread state attaches it to the main interpreter; an
 * extension of another interpreter must be given that one. The function has no argument that could
 * tell, so each home has functions of its own (a fixed number of them, made by the compiler), which
 * take the place of CPython's in its images. A thread that comes in this way is counted, since an
 * interpreter must not end while it is inside.
 *
 * Native threads call these functions at any time, even when the interpreter is gone: then they
 * hang, as CPython lets them. A home that native threads have visited is therefore never used again.
 *
 * The homes are this file's own, and the one mutable global of the binding besides a thread's visits:
 * they belong to no interpreter. Design: docs/design/isolate.md
 */
#include "binding/isolation.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/atomic.h"
#include "prim/prim.h"

enum { HOMES = 256, AT_EXIT_MAX = 32 };

#define OVERRIDES (PY_VERSION_HEX >= 0x030F0000 ? 12 : 11)
#define PATIENCE INT64_C(5000000000) /* until a wait for native threads is told, in ns */
#define NAP INT64_C(1000000)

/* CLOSING: who asks is told that Python is gone; who was told otherwise just before may come in. */
typedef enum { FREE, OPEN, CLOSING, CLOSED, RETIRED } home_status;

struct home {
    /* Written by its interpreter when it comes and goes, read by native threads. */
    PLAIT_ATOMIC(PyInterpreterState *) interpreter;
    /* Guarded by lock. */
    plait_prim_lock_t lock;
    home_status status;
    bool visited;    /* by a native thread, ever, or told to one that it may */
    unsigned inside; /* thread states that were made here and are not deleted yet */
    /* The interpreter's own. */
    plait_override_t overrides[OVERRIDES];
    unsigned at_exit_count;
    void (*at_exit[AT_EXIT_MAX])(void);
};

static home_t homes[HOMES];
static PLAIT_ATOMIC(uint32_t) next_home; /* where the search for a free one begins */

/* A thread's stay in an interpreter that is not the one it came from. */
typedef struct visit {
    struct visit *below;
    home_t *home;
    PyThreadState *state;
    unsigned depth;          /* Ensures less Releases */
    PyThreadState *attached; /* of another interpreter, held when it came; or NULL */
    PyThreadState *bound;    /* of another interpreter, its own but not held; or NULL */
} visit_t;

static _Thread_local visit_t *visits;
static _Thread_local const char *package_context;

/* ---- coming and going ---- */

_Noreturn static void hang(void)
{
    if (PyThreadState_GetUnchecked() != NULL)
        PyEval_SaveThread();
    for (;;) {
        static const uint32_t never;
        plait_prim_wait(&never, 0, PLAIT_PRIM_FOREVER, false);
    }
}

static bool come_in(home_t *home)
{
    plait_prim_lock(&home->lock);
    bool open = home->status == OPEN || home->status == CLOSING;
    if (open) {
        home->visited = true;
        home->inside++;
    }
    plait_prim_unlock(&home->lock);
    return open;
}

static void go_out(home_t *home)
{
    plait_prim_lock(&home->lock);
    home->inside--;
    plait_prim_unlock(&home->lock);
}

static PyGILState_STATE begin_visit(home_t *home, PyThreadState *bound)
{
    if (!come_in(home))
        hang();
    visit_t *visit = calloc(1, sizeof *visit);
    if (visit == NULL)
        Py_FatalError("plait: no memory for a native thread in an interpreter");
    visit->below = visits;
    visit->home = home;
    visit->depth = 1;
    visit->attached = PyThreadState_GetUnchecked();
    visit->bound = bound;
    if (visit->attached != NULL)
        PyEval_SaveThread();
    /* Relaxed: written before the home was opened, which come_in has seen under the lock. */
    visit->state = PyThreadState_New(plait_atomic_load_relaxed(&home->interpreter));
    if (visit->state == NULL)
        Py_FatalError("plait: no thread state for a native thread");
    PyEval_RestoreThread(visit->state);
    visits = visit;
    return PyGILState_UNLOCKED;
}

static void end_visit(visit_t *visit)
{
    PyThreadState_Clear(visit->state); /* may run code that comes in and goes out again */
    PyThreadState_DeleteCurrent();
    visits = visit->below;
    go_out(visit->home);
    if (visit->attached != NULL) {
        PyEval_RestoreThread(visit->attached);
    } else if (visit->bound != NULL) { /* CPython finds it again once it was held */
        PyEval_RestoreThread(visit->bound);
        PyEval_SaveThread();
    }
    free(visit);
}

/* ---- what images call ---- */

static PyGILState_STATE ensure(home_t *home)
{
    PyThreadState *bound = PyGILState_GetThisThreadState();
    /* Relaxed: a thread that has a state of this interpreter knows its address already. */
    if (bound == NULL || bound->interp != plait_atomic_load_relaxed(&home->interpreter))
        return begin_visit(home, bound);
    if (visits == NULL || visits->state != bound)
        return PyGILState_Ensure();
    visits->depth++;
    if (PyThreadState_GetUnchecked() == bound)
        return PyGILState_LOCKED;
    PyEval_RestoreThread(bound);
    return PyGILState_UNLOCKED;
}

static void release(PyGILState_STATE before)
{
    visit_t *visit = visits;
    if (visit == NULL || visit->state != PyThreadState_GetUnchecked()) {
        PyGILState_Release(before);
    } else if (visit->depth == 1) {
        end_visit(visit);
    } else {
        visit->depth--;
        if (before == PyGILState_UNLOCKED)
            PyEval_SaveThread();
    }
}

/* CPython's own always says yes once there are several interpreters. */
static int check(home_t *home)
{
    PyThreadState *attached = PyThreadState_GetUnchecked();
    /* Relaxed: as in ensure(). */
    return attached != NULL && attached->interp == plait_atomic_load_relaxed(&home->interpreter);
}

/* What libraries ask before they come in to let go of objects, often long after the work that they
 * did for an interpreter. A thread that came when it is gone would hang, and all that wait for it: the
 * pool of threads of a library that all interpreters share, and the end of the process. */
static int is_initialized(home_t *home)
{
    PyThreadState *bound = PyGILState_GetThisThreadState();
    /* Relaxed: as in ensure(). */
    if (bound != NULL && bound->interp == plait_atomic_load_relaxed(&home->interpreter))
        return Py_IsInitialized();
    plait_prim_lock(&home->lock);
    bool open = home->status == OPEN;
    home->visited = home->visited || open;
    plait_prim_unlock(&home->lock);
    return open;
}

/* An image's main interpreter is the only one that it is ever used in. */
static PyInterpreterState *home_interpreter(home_t *home)
{
    return plait_atomic_load_relaxed(&home->interpreter); /* relaxed: const while its images run */
}

static home_t *home_of(const PyInterpreterState *interpreter)
{
    for (size_t index = 0; index < HOMES; index++) {
        /* Relaxed: the caller's own interpreter, which wrote it. */
        if (plait_atomic_load_relaxed(&homes[index].interpreter) == interpreter)
            return &homes[index];
    }
    return NULL;
}

/* CPython calls these when the process ends, long after the interpreter, and has room for few. */
static int at_exit(void (*function)(void))
{
    home_t *home = home_of(PyInterpreterState_Get());
    if (home == NULL)
        return Py_AtExit(function);
    if (home->at_exit_count == AT_EXIT_MAX)
        return -1;
    home->at_exit[home->at_exit_count++] = function;
    return 0;
}

const char *swap_package_context(const char *name)
{
    const char *before = package_context;
    package_context = name;
    return before;
}

/* A single-phase module names itself without its package; CPython's loader fills that in where we
 * cannot reach. */
static PyObject *create_named(PyModuleDef *definition, int api_version)
{
    const char *dot = package_context == NULL ? NULL : strrchr(package_context, '.');
    if (dot == NULL || strcmp(dot + 1, definition->m_name) != 0)
        return PyModule_Create2(definition, api_version);
    const char *name = definition->m_name;
    definition->m_name = swap_package_context(NULL);
    PyObject *module = PyModule_Create2(definition, api_version);
    definition->m_name = name;
    return module;
}

/* Destructors of C++ objects that are made at run time and may hold Python objects, which are gone
 * when the process ends. */
static int never_destroy(void (*destroy)(void *), void *object, void *library)
{
    return 0;
}

/* ---- each home's own functions ---- */

#define HOME_FUNCTIONS(n)                                                                          \
    static PyGILState_STATE ensure_##n(void)                                                       \
    {                                                                                              \
        return ensure(&homes[0x##n]);                                                              \
    }                                                                                              \
    static int check_##n(void)                                                                     \
    {                                                                                              \
        return check(&homes[0x##n]);                                                               \
    }                                                                                              \
    static PyInterpreterState *main_##n(void)                                                      \
    {                                                                                              \
        return home_interpreter(&homes[0x##n]);                                                    \
    }                                                                                              \
    static int initialized_##n(void)                                                               \
    {                                                                                              \
        return is_initialized(&homes[0x##n]);                                                      \
    }                                                                                              \
    static int finalizing_##n(void)                                                                \
    {                                                                                              \
        return !is_initialized(&homes[0x##n]);                                                     \
    }

#define HOME_ENTRY(n) {ensure_##n, check_##n, main_##n, initialized_##n, finalizing_##n},

/* clang-format off */
#define SIXTEEN(X, high)                                                                           \
    X(high##0) X(high##1) X(high##2) X(high##3) X(high##4) X(high##5) X(high##6) X(high##7)        \
    X(high##8) X(high##9) X(high##a) X(high##b) X(high##c) X(high##d) X(high##e) X(high##f)

#define ALL_HOMES(X)                                                                               \
    SIXTEEN(X, 0) SIXTEEN(X, 1) SIXTEEN(X, 2) SIXTEEN(X, 3) SIXTEEN(X, 4) SIXTEEN(X, 5)            \
    SIXTEEN(X, 6) SIXTEEN(X, 7) SIXTEEN(X, 8) SIXTEEN(X, 9) SIXTEEN(X, a) SIXTEEN(X, b)            \
    SIXTEEN(X, c) SIXTEEN(X, d) SIXTEEN(X, e) SIXTEEN(X, f)
/* clang-format on */

ALL_HOMES(HOME_FUNCTIONS)

static const struct {
    PyGILState_STATE (*ensure)(void);
    int (*check)(void);
    PyInterpreterState *(*main)(void);
    int (*initialized)(void);
    int (*finalizing)(void);
} functions[HOMES] = {ALL_HOMES(HOME_ENTRY)};

typedef void (*function_t)(void);

static void fill_overrides(home_t *home)
{
    size_t index = (size_t)(home - homes);
    const plait_override_t overrides[OVERRIDES] = {
        {"PyGILState_Ensure", (function_t)functions[index].ensure},
        {"PyGILState_Release", (function_t)release},
        {"PyGILState_Check", (function_t)functions[index].check},
        {"PyInterpreterState_Main", (function_t)functions[index].main},
        {"Py_IsInitialized", (function_t)functions[index].initialized},
        {"Py_IsFinalizing", (function_t)functions[index].finalizing},
        {"_Py_IsFinalizing", (function_t)functions[index].finalizing}, /* its name until 3.12 */
        {"PyModule_Create2", (function_t)create_named},
        {"PyModule_FromDefAndSpec2", (function_t)create_unchecked},
        {"Py_AtExit", (function_t)at_exit},
        {"__cxa_atexit", (function_t)never_destroy},
#if PY_VERSION_HEX >= 0x030F0000
        {"PyModule_FromSlotsAndSpec", (function_t)create_slots_unchecked},
#endif
    };
    memcpy(home->overrides, overrides, sizeof overrides);
}

const plait_override_t *home_overrides(const home_t *home, size_t *count)
{
    *count = OVERRIDES;
    return home->overrides;
}

/* ---- the life of a home ---- */

home_t *home_take(void)
{
    for (unsigned attempt = 0; attempt < HOMES; attempt++) {
        /* Relaxed: only where the search goes on; the lock decides. */
        home_t *home = &homes[plait_atomic_add_relaxed(&next_home, 1) % HOMES];
        plait_prim_lock(&home->lock);
        bool taken = home->status == FREE;
        if (taken) {
            home->status = OPEN;
            /* Relaxed: those who read it come under the lock later, or by way of an image. */
            plait_atomic_store_relaxed(&home->interpreter, PyInterpreterState_Get());
        }
        plait_prim_unlock(&home->lock);
        if (taken) {
            fill_overrides(home);
            return home;
        }
    }
    PyErr_Format(PyExc_RuntimeError,
                 "no more than %d interpreters of a process can have extension modules of their "
                 "own: keep pools open instead of making new ones",
                 HOMES);
    return NULL;
}

/* Thread states of this interpreter besides the caller's. */
static unsigned count_others(void)
{
    PyThreadState *own = PyThreadState_Get();
    unsigned count = 0;
    for (PyThreadState *state = PyInterpreterState_ThreadHead(own->interp); state != NULL;
         state = PyThreadState_Next(state))
        count += state != own;
    return count;
}

static void nap(void)
{
    static const uint32_t never;
    Py_BEGIN_ALLOW_THREADS;
    plait_prim_wait(&never, 0, plait_prim_now() + NAP, false);
    Py_END_ALLOW_THREADS;
}

/* Whether native threads have visited it before. */
static bool change_status(home_t *home, home_status status)
{
    plait_prim_lock(&home->lock);
    home->status = status;
    bool visited = home->visited;
    plait_prim_unlock(&home->lock);
    return visited;
}

void home_close(home_t *home)
{
    int64_t told = plait_prim_now() + PATIENCE;
    if (change_status(home, CLOSING))
        nap(); /* for those who have asked, and come in next */
    change_status(home, CLOSED);
    for (;;) {
        plait_prim_lock(&home->lock);
        unsigned inside = home->inside;
        plait_prim_unlock(&home->lock);
        unsigned others = count_others();
        if (inside == 0 && others == 0)
            return;
        if (plait_prim_now() > told) {
            told = PLAIT_PRIM_FOREVER;
            PySys_FormatStderr("plait: a worker's interpreter waits to end until %u threads of "
                               "its extension modules leave it\n",
                               others > inside ? others : inside);
        }
        nap();
    }
}

void home_give(home_t *home)
{
    if (home == NULL)
        return;
    while (home->at_exit_count > 0)
        home->at_exit[--home->at_exit_count]();
    plait_prim_lock(&home->lock);
    /* Relaxed: nothing is there any more to come this way, but threads that will hang. */
    plait_atomic_store_relaxed(&home->interpreter, NULL);
    home->status = home->visited ? RETIRED : FREE;
    plait_prim_unlock(&home->lock);
}
