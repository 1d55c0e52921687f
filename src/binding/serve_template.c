/* serve_template: the process of which children are copies, see core/template.h.
 *
 * Its only thread imports what children need and then makes copies of itself as they are asked for,
 * each of which goes on as a child. Design: docs/design/process.md
 */
#include "binding/binding.h"

#include "core/template.h"

/* Makes a copy. Whether this is the copy. */
static bool copy(int socket)
{
    PyOS_BeforeFork();
    int pid = plait_prim_fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
        plait_template_become(socket);
        return true;
    }
    PyOS_AfterFork_Parent();
    plait_template_made(socket, pid);
    return false;
}

bool template_serve(void)
{
    for (;;) {
        int result, socket;
        Py_BEGIN_ALLOW_THREADS
        result = plait_template_hear(&socket);
        Py_END_ALLOW_THREADS
        if (result == PLAIT_OK && copy(socket))
            return true;
        if (result == PLAIT_CLOSED)
            return false;
        if (result == PLAIT_INTERRUPTED &&
            PyErr_CheckSignals() < 0) /* a handler of some module's */
            PyErr_WriteUnraisable(NULL);
    }
}
