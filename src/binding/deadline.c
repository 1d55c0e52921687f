/* deadline: calls and maps that end by themselves when their time has passed.
 *
 * A timer of the call's own makes it expire if no worker has begun it. Else it interrupts the call
 * as Future.interrupt() does: in a thread of its own, since that waits for a GIL, or in the timers'
 * thread where the call runs in another process, which is killed if the call goes on for a grace
 * period. Invariants: the worker that has run a call ends the firing of its timer before it
 * completes the call, so nobody is interrupted, visited or killed for a call that is done; without
 * a worker it is the call's destruction that ends it, when no interpreter is needed any more. What
 * a call answered after its deadline is the cause of the exception at most.
 *
 * A map's timer lies in its stream, and whoever gives that up last ends the firing. It cancels what
 * has not begun and interrupts what runs; workers and the iterator see by `expired` and by the clock
 * what to make of that. Design: docs/design/deadline.md
 */
#include "binding/map_job.h"

/* What a call in a process may take after it was interrupted, in ns. */
#define GRACE INT64_C(1000000000)

/* When to try again where no thread could be started. */
#define RETRY INT64_C(10000000)

#define STACK_SIZE ((size_t)1 << 20)

struct deadline {
    plait_timer_t timer; /* first */
    call_t *call;        /* which owns this */
    void (*destroy)(plait_task_t *task);
    /* Written while the timer fires, read when it is idle. */
    enum { AHEAD, PASSED, KILLED } stage;
};

/* ---- when it has passed ---- */

static void interrupt_from_thread(void *argument)
{
    deadline_t *deadline = argument;
    deadline->stage = PASSED;
    interrupt_call(deadline->call);
    plait_timer_finish(&deadline->timer);
}

static void fire_again(plait_timer_t *timer, int64_t later)
{
    if (plait_timer_start(timer, plait_prim_now() + later) != PLAIT_OK)
        plait_timer_finish(timer);
}

static void press_process(deadline_t *deadline)
{
    if (deadline->stage == AHEAD) {
        deadline->stage = PASSED;
        interrupt_call(deadline->call);
    } else {
        deadline->stage = KILLED;
        kill_call(deadline->call);
    }
    fire_again(&deadline->timer, GRACE); /* until the worker says that it has ended */
}

static void fire(plait_timer_t *timer)
{
    deadline_t *deadline = (deadline_t *)timer;
    plait_task_t *task = &deadline->call->task;
    plait_prim_thread_t thread;
    if (plait_task_expire(task) || plait_task_is_final(plait_task_state(task))) {
        plait_timer_finish(timer);
    } else if (deadline->call->kind == KIND_PROCESS) {
        press_process(deadline);
    } else if (plait_prim_thread_start(&thread, interrupt_from_thread, deadline, "plait-deadline",
                                       STACK_SIZE) == PLAIT_OK) {
        plait_prim_thread_detach(thread);
    } else {
        fire_again(timer, RETRY);
    }
}

/* ---- the call's side ---- */

void timer_end(plait_timer_t *timer)
{
    if (plait_timer_stop(timer))
        return;
    /* Whoever fires it may need this interpreter's GIL. */
    PyThreadState *own = PyThreadState_GetUnchecked() == NULL ? NULL : PyEval_SaveThread();
    do
        plait_timer_wait(timer);
    while (!plait_timer_stop(timer));
    if (own != NULL)
        PyEval_RestoreThread(own);
}

static void destroy(plait_task_t *task)
{
    deadline_t *deadline = ((call_t *)task)->deadline;
    timer_end(&deadline->timer);
    deadline->destroy(task);
    free(deadline);
}

int deadline_start(call_t *call, int64_t time)
{
    if (time == PLAIT_PRIM_FOREVER)
        return PLAIT_OK;
    deadline_t *deadline = malloc(sizeof *deadline);
    if (deadline == NULL)
        return PLAIT_NOMEM;
    *deadline = (deadline_t){.call = call, .destroy = call->task.destroy};
    plait_timer_init(&deadline->timer, fire);
    call->deadline = deadline;
    call->task.destroy = destroy;
    call->answer.outcome = OUTCOME_EXPIRED; /* unless a worker says something else */
    return plait_timer_start(&deadline->timer, time);
}

void deadline_settle(call_t *call)
{
    deadline_t *deadline = call->deadline;
    answer_t *answer = &call->answer;
    timer_end(&deadline->timer);
    if (deadline->stage == AHEAD)
        return;
    if (answer->outcome == OUTCOME_EXCEPTION) {
        answer->outcome = OUTCOME_LATE_EXCEPTION;
    } else if (answer->outcome == OUTCOME_VALUE) {
        answer_clear(answer);
        *answer =
            (answer_t){.outcome = OUTCOME_LATE, .message.root = plait_flat_const(PLAIT_FLAT_NONE)};
    } else if (answer->outcome == OUTCOME_DIED && deadline->stage == KILLED) {
        answer->outcome = OUTCOME_KILLED;
    }
}

/* ---- maps ---- */

static stream_t *stream_of(plait_timer_t *timer)
{
    return (stream_t *)(void *)((char *)timer - offsetof(stream_t, timer));
}

static void interrupt_items_from_thread(void *argument)
{
    stream_t *stream = argument;
    interrupt_items(stream->sched_id, stream->id);
    plait_timer_finish(&stream->timer);
}

/* Process kind: a second time for those that have been interrupted, and again for as long as there are
 * any. */
static void press_items(stream_t *stream, bool first)
{
    if (first)
        interrupt_items(stream->sched_id, stream->id);
    else
        plait_atomic_store_seq_cst(&stream->killed, 1);
    if (!first && kill_items(stream->sched_id, stream->id) == 0)
        plait_timer_finish(&stream->timer);
    else
        fire_again(&stream->timer, GRACE);
}

static void fire_stream(plait_timer_t *timer)
{
    stream_t *stream = stream_of(timer);
    plait_prim_thread_t thread;
    /* seq_cst: a worker makes items current and then looks at this, see begin_items */
    bool first = plait_atomic_swap_seq_cst(&stream->expired, 1) == 0;
    plait_job_cancel(&stream->cancelled);
    stream_tell(stream);
    if (stream->kind == KIND_PROCESS) {
        press_items(stream, first);
    } else if (count_items(stream->sched_id, stream->id) == 0) {
        plait_timer_finish(timer);
    } else if (plait_prim_thread_start(&thread, interrupt_items_from_thread, stream,
                                       "plait-deadline", STACK_SIZE) == PLAIT_OK) {
        plait_prim_thread_detach(thread);
    } else {
        fire_again(timer, RETRY);
    }
}

int stream_start_deadline(stream_t *stream, const pool_core_t *core, int64_t deadline)
{
    if (deadline == PLAIT_PRIM_FOREVER)
        return PLAIT_OK;
    stream->sched_id = plait_sched_id(core->sched);
    stream->kind = core->kind;
    plait_timer_init(&stream->timer, fire_stream);
    return plait_timer_start(&stream->timer, deadline);
}
