/* proxy_ahead: requests that a child has before it has answered the present one.
 *
 * While tasks are short, a proxy takes the next ones out of the queues and sends them along, so that
 * neither side waits for the other between two of them. Nobody else can run those that are ahead, so
 * they are recalled as soon as one takes long, waits or is cancelled, or the child dies: what it has not
 * begun by then goes back to the queues. Invariants: a call is ahead only while the frame below all
 * others is on top; each has a number greater than the frame's and those before it, and is held, unless
 * it is recalled, and then so are all behind it; the list changes under the worker's lock only.
 * Design: docs/design/process.md
 */
#include "binding/proxy.h"

/* How long all that is ahead may take, as far as answers tell, in ns: so little that it does not matter
 * that nobody else can run it, and as much as waking a process takes. */
#define BUDGET INT64_C(100000)

/* Bytes of arguments, so that all that is ahead has room in the ring: nobody waits for a side that
 * waits. */
#define SIZE_MOST 1024

/* How many calls run one by one after one that could not go ahead. */
#define PAUSE 64

/* ---- what the child has ---- */

static void add(process_t *process, call_t *call, uint64_t number)
{
    process->ahead[process->ahead_count++] =
        (ahead_t){.call = call, .number = number, .recalled = number == 0};
}

/* Takes the oldest away. */
static ahead_t shift(process_t *process)
{
    ahead_t first = process->ahead[0];
    process->ahead_count--;
    memmove(process->ahead, process->ahead + 1, process->ahead_count * sizeof first);
    return first;
}

void proxy_mark_recalled(worker_data_t *data)
{
    process_t *process = data->process;
    uint64_t last = 0;
    for (unsigned index = 0; index < process->ahead_count; index++)
        if (!process->ahead[index].recalled)
            last = process->ahead[index].number;
    if (last == 0 || !process->alive)
        return;
    uint64_t begun = plait_begun_recall(&process->child.channel.shared->begun, last);
    if (process->top->request > begun)
        process->top->recalled = true;
    for (unsigned index = 0; index < process->ahead_count; index++) {
        ahead_t *ahead = &process->ahead[index];
        if (ahead->recalled)
            continue;
        ahead->recalled = ahead->number > begun;
        if (ahead->recalled)
            plait_task_let_go(&ahead->call->task);
        else
            plait_task_claim_worker(&ahead->call->task);
    }
}

/* What is recalled comes after all else. */
static bool has_recalled(const process_t *process)
{
    return process->ahead_count > 0 && process->ahead[process->ahead_count - 1].recalled;
}

/* Gives what was recalled back to the scheduler, last first, so that the worker would find it in the
 * order it had. What there is no memory for stays. */
static void give_back(worker_data_t *data)
{
    process_t *process = data->process;
    while (has_recalled(process)) {
        call_t *last = process->ahead[process->ahead_count - 1].call;
        if (plait_worker_give_back(plait_worker_current(), &last->task) != PLAIT_OK)
            return;
        process->ahead_count--;
    }
}

bool proxy_recall_ahead(worker_data_t *data)
{
    process_t *process = data->process;
    if (process->ahead_count == 0) /* no other thread adds */
        return false;
    plait_prim_lock(&data->lock);
    proxy_mark_recalled(data);
    give_back(data);
    plait_prim_unlock(&data->lock);
    return process->top->recalled;
}

void proxy_fail_ahead(worker_data_t *data, const plait_child_death_t *death)
{
    process_t *process = data->process;
    plait_prim_lock(&data->lock);
    give_back(data);
    while (process->ahead_count > 0 && !process->ahead[0].recalled) {
        call_t *call = shift(process).call;
        proxy_answer_died(death, call);
        call_drop_arguments(call);
        plait_worker_complete(&call->task);
    }
    plait_prim_unlock(&data->lock);
}

call_t *proxy_next_ahead(worker_data_t *data)
{
    process_t *process = data->process;
    frame_t *frame = process->top;
    call_t *call = NULL;
    if (process->ahead_count == 0 || frame->below != NULL)
        return NULL;
    plait_prim_lock(&data->lock);
    give_back(data);
    while (call == NULL && process->ahead_count > 0) {
        ahead_t next = shift(process);
        frame->request = next.recalled ? 0 : next.number;
        if (plait_task_claim_worker(&next.call->task))
            call = next.call;
        else
            plait_task_release(&next.call->task);
    }
    if (call != NULL) {
        frame->current = call;
        frame->struck = frame->recalled = false;
        process->request = frame->request;
    }
    /* one without a number becomes current in proxy_begin */
    plait_atomic_store_seq_cst(&data->current, call == NULL || frame->request == 0 ? NULL : call);
    plait_prim_unlock(&data->lock);
    return call;
}

/* ---- what it gets ---- */

void proxy_note_pace(worker_data_t *data)
{
    process_t *process = data->process;
    int64_t now = plait_prim_now(), took = now - process->answered;
    process->answered = now;
    if (took > 2 * BUDGET) /* one long task, or a pause, is soon forgotten */
        took = 2 * BUDGET;
    process->pace = process->pace == 0 ? took : process->pace + (took - process->pace) / 4;
    if (process->ahead_pause > 0)
        process->ahead_pause--;
}

/* How many may be ahead. */
static unsigned width(const process_t *process)
{
    int64_t many = process->pace == 0 ? 0 : BUDGET / process->pace;
    return many < AHEAD_MOST ? (unsigned)many : AHEAD_MOST;
}

/* Whether a call may go ahead: nothing has to be sent before it, and it cannot expire meanwhile. */
static bool suits(const process_t *process, const call_t *call)
{
    uint64_t known;
    return call->deadline == NULL && call->flat.arguments.bundle == NULL &&
           call->flat.arguments.size <= SIZE_MOST &&
           (call->flat.context == NULL || call->flat.context->id == process->context) &&
           table_get(&process->known, call->flat.function->id, &known);
}

/* The next call, held; NULL where there is none, or it does not suit. */
static call_t *take(plait_worker_t *worker, process_t *process)
{
    call_t *call;
    while ((call = (call_t *)plait_worker_take(worker)) != NULL && suits(process, call)) {
        if (plait_task_hold_worker(&call->task))
            return call;
        plait_task_release(&call->task); /* cancelled */
    }
    if (call == NULL)
        return NULL;
    process->ahead_pause = PAUSE;
    if (plait_worker_give_back(worker, &call->task) != PLAIT_OK)
        add(process, call, 0);
    return NULL;
}

/* One more call, with a number, which the child is to get. */
static call_t *take_one(plait_worker_t *worker, worker_data_t *data)
{
    process_t *process = data->process;
    call_t *call = NULL;
    plait_prim_lock(&data->lock);
    give_back(data);
    bool over = process->top->recalled || has_recalled(process) ||
                plait_atomic_load_seq_cst(&data->core->drained) != 0 ||
                plait_sched_is_broken(data->core->sched);
    if (!over)
        call = take(worker, process);
    if (call != NULL)
        add(process, call, ++process->last);
    plait_prim_unlock(&data->lock);
    return call;
}

bool proxy_fill_ahead(plait_worker_t *worker, worker_data_t *data)
{
    process_t *process = data->process;
    if (process->ahead_pause > 0 || process->top->below != NULL || data->core->replaces ||
        data->core->max_tasks != 0)
        return true;
    while (process->ahead_count < width(process)) {
        call_t *call = take_one(worker, data);
        if (call == NULL || proxy_send_call(process, call, process->last) != PLAIT_OK)
            break; /* of a child that has died, everything is recalled */
    }
    plait_prim_lock(&data->lock);
    bool recalled = process->top->recalled;
    plait_prim_unlock(&data->lock);
    return !recalled;
}

/* ---- cancelling ---- */

static bool has(const process_t *process, const call_t *call)
{
    for (unsigned index = 0; index < process->ahead_count; index++)
        if (process->ahead[index].call == call)
            return true;
    return false;
}

/* Any thread: recalls the call if a child of the pool has it and has not begun it. */
static void recall(pool_core_t *core, const call_t *call)
{
    plait_prim_lock(&core->lock);
    for (worker_data_t *data = core->members; data != NULL; data = data->next) {
        plait_prim_lock(&data->lock);
        if (has(data->process, call))
            proxy_mark_recalled(data);
        plait_prim_unlock(&data->lock);
    }
    plait_prim_unlock(&core->lock);
}

/* By a worker that has not claimed it. */
static bool is_held(call_t *call)
{
    uint32_t state = plait_task_state(&call->task);
    return (state & (PLAIT_TASK_HELD | PLAIT_TASK_RUNNING)) == PLAIT_TASK_HELD &&
           !plait_task_is_final(state);
}

bool call_cancel(call_t *call, bool *first)
{
    bool cancelled;
    while (!(cancelled = plait_task_cancel(&call->task, first)) && is_held(call)) {
        plait_sched_t *sched = plait_sched_find(call->sched_id);
        if (sched == NULL)
            break;
        recall(plait_sched_context(sched), call); /* or it is not held any more */
        plait_sched_release(sched);
    }
    return cancelled;
}

/* Cancels what the worker's child has not begun. */
static void cancel_ahead(worker_data_t *data)
{
    process_t *process = data->process;
    bool first;
    plait_prim_lock(&data->lock);
    proxy_mark_recalled(data);
    for (unsigned index = 0; index < process->ahead_count; index++)
        if (process->ahead[index].recalled)
            plait_task_cancel(&process->ahead[index].call->task, &first);
    plait_prim_unlock(&data->lock);
}

void core_drain(pool_core_t *core)
{
    plait_atomic_store_seq_cst(&core->drained, 1); /* nothing goes ahead from here on: see take */
    plait_prim_lock(&core->lock);
    for (worker_data_t *data = core->members; data != NULL; data = data->next)
        if (data->process != NULL)
            cancel_ahead(data);
    plait_prim_unlock(&core->lock);
    plait_sched_drain(core->sched);
}
