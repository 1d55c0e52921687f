/* fork: what must be true in the child of a fork before CPython looks at itself there.
 *
 * In the child, os.fork() clears every interpreter but the main one, without a thread state, and on
 * 3.13 to 3.15 that crashes (PyInterpreterState_Clear with no current thread state; the source says
 * "won't this fail"). Their threads did not come along, so nothing can be cleared properly anyway:
 * they are taken out of the runtime's list first, and their memory stays behind. Where the list is,
 * CPython tells debuggers in a table that is laid out for them: _Py_DebugOffsets in
 * Include/internal/pycore_debug_offsets.h. Design: docs/design/workers.md
 */
#include "binding/binding.h"
#include "binding/kept.h"

#if PY_VERSION_HEX >= 0x030D0000

/* The beginning of _Py_DebugOffsets, the same in 3.13, 3.14 and 3.15. */
typedef struct debug_offsets {
    char cookie[8];
    uint64_t version; /* PY_VERSION_HEX of the interpreter that runs */
    uint64_t free_threaded;
    struct {
        uint64_t size, finalizing, interpreters_head;
    } runtime;
    struct {
        uint64_t size, id, next, threads_head;
    } interpreter;
} debug_offsets_t;

PyAPI_DATA(char) _PyRuntime[];

#ifdef Py_GIL_DISABLED

/* An interpreter imports an extension through a thread state of the main one, which it clears, leaves
 * and then deletes (switch_back_from_main_interpreter in import.c). A fork in between has the child
 * clear it again, and without a GIL that crashes: it is in no table any more. */
static void forget_cleared_threads(PyInterpreterState *main, uint64_t threads_head)
{
    PyThreadState *next;
    for (PyThreadState *state = PyInterpreterState_ThreadHead(main); state; state = next) {
        next = state->next;
        if (!state->_status.cleared)
            continue;
        if (state->prev)
            state->prev->next = next;
        else
            memcpy((char *)main + threads_head, &next, sizeof next);
        if (next)
            next->prev = state->prev;
    }
}

#else

static void forget_cleared_threads(PyInterpreterState *main, uint64_t threads_head)
{
    (void)main, (void)threads_head;
}

#endif

static void keep_main_interpreter_only(void)
{
    debug_offsets_t offsets;
    memcpy(&offsets, _PyRuntime, sizeof offsets);
    if (memcmp(offsets.cookie, "xdebugpy", sizeof offsets.cookie) != 0 ||
        offsets.version >> 16 != PY_VERSION_HEX >> 16)
        return;
    PyInterpreterState *main = PyInterpreterState_Main(), *none = NULL;
    memcpy(_PyRuntime + offsets.runtime.interpreters_head, &main, sizeof main);
    memcpy((char *)main + offsets.interpreter.next, &none, sizeof none);
    forget_cleared_threads(main, offsets.interpreter.threads_head);
}

#else

static void keep_main_interpreter_only(void) {}

#endif

/* The child has this one thread, and runs nothing else yet. */
static void after_fork(void)
{
    plait_timer_after_fork();
    plait_block_after_fork();
    bool workers = plait_sched_after_fork(), kept = kept_after_fork();
    if (workers || kept)
        keep_main_interpreter_only();
}

void watch_forks(void)
{
    plait_prim_after_fork(after_fork);
}
