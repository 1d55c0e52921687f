/* wait: deadlines, and what a worker does while one of its calls waits for another.
 *
 * A worker that only slept would deadlock a pool whose calls wait for calls of the same pool. It
 * runs other items meanwhile, and when there are none sleeps for a short while only, since what
 * could wake it is not what it sleeps on. Design: docs/design/nesting.md
 */
#include "binding/nested.h"

/* Seconds of sleep in ns: how late a signal that arrived just before the sleep is seen; and how
 * late a worker sees new work, or that its call is to be interrupted. */
#define SLEEP INT64_C(1000000000)
#define SLEEP_OF_WORKER INT64_C(1000000)

/* Calls that help lie on the stack of the one that waits. From this depth on a worker runs only
 * what its own calls have submitted, which is no deeper than the same recursion without a pool. */
#define HELP_DEPTH 8

/* How long a worker waits for a call of another pool before it helps its own, in ns: two pools whose
 * calls wait for each other's would otherwise stand still for ever, each behind the other. */
#define PATIENCE INT64_C(100000000)

int deadline_from_timeout(PyObject *timeout, int64_t *deadline)
{
    *deadline = PLAIT_PRIM_FOREVER;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds != seconds) {
        PyErr_SetString(PyExc_ValueError, "a timeout cannot be NaN");
        return -1;
    }
    if (seconds < 9e9) /* 285 years: later than that is never */
        *deadline = plait_prim_now() + (seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
    return 0;
}

worker_data_t *worker_of_thread(void)
{
    plait_worker_t *worker = plait_worker_current();
    return worker == NULL ? serve_current() : plait_worker_data(worker);
}

int64_t deadline_of_sleep(int64_t deadline)
{
    int64_t soon = plait_prim_now() + (worker_of_thread() == NULL ? SLEEP : SLEEP_OF_WORKER);
    return deadline < soon ? deadline : soon;
}

/* Whether the wait that *since (0 at first) belongs to goes on for long. */
static bool out_of_patience(int64_t *since)
{
    int64_t now = plait_prim_now();
    if (*since == 0)
        *since = now;
    return now - *since >= PATIENCE;
}

int help_while_waiting(uint64_t sched_id, int64_t *since, bool *stepped)
{
    plait_worker_t *worker = plait_worker_current();
    worker_data_t *data = worker_of_thread();
    *stepped = false;
    if (data == NULL || data->abroad)
        return 0; /* abroad its calls belong to another interpreter than the one it is in */
    if (raise_if_interrupted_in_wait(data) < 0)
        return -1;
    /* A child cannot help while it decodes or encodes, when its parent's letter is still in use. */
    if (data->leaving || (worker == NULL && plait_atomic_load_relaxed(&data->current) == NULL))
        return 0;
    uint64_t own = worker == NULL ? nested_sched_id(data->core->remote)
                                  : plait_sched_id(plait_worker_sched(worker));
    if (own != sched_id && !out_of_patience(since))
        return 0;
    if (Py_EnterRecursiveCall(" while a worker runs other tasks during a wait"))
        return -1;
    call_t *call = set_call_aside(data);
    data->helping++;
    bool deep = data->helping > HELP_DEPTH;
    *stepped = worker == NULL ? service_help(data->service, deep) : plait_worker_help(worker, deep);
    data->helping--;
    end_call(data, call);
    Py_LeaveRecursiveCall();
    return raise_if_interrupted(data);
}
