/* proxy: the half of a process worker that lives in the parent; proxy.h says what it is. */
#include "binding/proxy.h"

#include "binding/map_job.h"
#include "binding/nested.h"

/* How many children in a row may die before they begin what they are asked. */
#define ATTEMPTS 3

/* A call's mark when the child was asked to interrupt it; 1 before. */
#define MARK_SENT 2

/* ---- requests ---- */

uint64_t proxy_make_room(worker_data_t *data)
{
    process_t *process = data->process;
    uint64_t most = data->core->max_tasks == 0 ? UINT64_MAX : data->core->max_tasks;
    bool due = process->exhausted || process->served >= most;
    if (process->alive && due && process->top == NULL &&
        !(process->connected && line_is_busy(process->line)))
        proxy_dismiss(data);
    return process->served < most ? most - process->served : 1;
}

void proxy_push(worker_data_t *data, frame_t *frame)
{
    process_t *process = data->process;
    frame->items_below = plait_atomic_load_relaxed(&data->items); /* relaxed: this thread's */
    frame->expired_below = data->items_expired;
    frame->has_desk = frame->stretch != NULL;
    for (frame_t *below = process->top; below != NULL; below = below->below)
        if (below->stretch != NULL && !below->lost)
            frame->has_desk = false;
    plait_prim_lock(&data->lock);
    frame->below = process->top;
    process->top = frame;
    plait_prim_unlock(&data->lock);
}

void proxy_pop(worker_data_t *data, const frame_t *frame)
{
    process_t *process = data->process;
    plait_prim_lock(&data->lock);
    plait_atomic_store_seq_cst(&data->current, NULL);
    process->top = frame->below;
    plait_prim_unlock(&data->lock);
    if (frame->below != NULL)
        process->request = frame->below->request;
    data->items_expired = frame->expired_below;
    plait_atomic_store_seq_cst(&data->items, frame->items_below);
}

/* Whether the frame on top, which is current, is to be interrupted and has not been; it counts as
 * interrupted then. Under the lock. */
static bool use_mark_of_top(worker_data_t *data, const frame_t *frame)
{
    uint32_t marked = 1;
    return frame->current != items_of(data) &&
           plait_atomic_cas_seq_cst(&frame->current->interrupted, &marked, MARK_SENT);
}

/* Has the child interrupt what is current, for a mark that was set before it was. */
static void interrupt_marked(worker_data_t *data)
{
    process_t *process = data->process;
    frame_t *frame = process->top;
    plait_prim_lock(&data->lock);
    bool all = plait_atomic_load_seq_cst(&data->core->interrupted) != 0 ||
               (frame->current == items_of(data) && is_marked(data, frame->current));
    if (process->alive && (use_mark_of_top(data, frame) || (all && !frame->struck))) {
        frame->struck = frame->struck || all;
        plait_channel_interrupt(&process->child.channel, frame->request);
    }
    plait_prim_unlock(&data->lock);
}

int proxy_begin(plait_worker_t *worker, worker_data_t *data)
{
    process_t *process = data->process;
    frame_t *frame = process->top;
    frame->request = 0;
    if (!process->alive && proxy_start(data) < 0) {
        plait_sched_break(plait_worker_sched(worker));
        return -1;
    }
    frame->lost = false;
    plait_prim_lock(&data->lock);
    process->request = frame->request = ++process->last;
    frame->struck = frame->recalled = false;
    plait_atomic_store_seq_cst(&data->current, frame->current);
    plait_prim_unlock(&data->lock);
    /* seq_cst, after it is current: as in begin_call */
    interrupt_marked(data);
    return 0;
}

void interrupt_process(worker_data_t *data, const target_t *target)
{
    process_t *process = data->process;
    plait_prim_lock(&data->lock);
    frame_t *frame = process->top;
    if (process->alive && worker_runs(data, target) &&
        (target->call == NULL || use_mark_of_top(data, frame))) {
        frame->struck = frame->struck || target->call == NULL;
        plait_channel_interrupt(&process->child.channel, frame->request);
    }
    plait_prim_unlock(&data->lock);
}

void kill_process(worker_data_t *data, const target_t *target)
{
    process_t *process = data->process;
    plait_prim_lock(&data->lock);
    if (process->alive && worker_runs(data, target))
        plait_prim_child_kill(&process->child.watch.process);
    plait_prim_unlock(&data->lock);
}

/* ---- helping ---- */

/* The frame on top waits: nobody interrupts it from here on, and what the child has not yet been
 * interrupted by is taken back. */
static void set_aside(worker_data_t *data, frame_t *frame)
{
    process_t *process = data->process;
    plait_prim_lock(&data->lock);
    plait_atomic_store_seq_cst(&data->current, NULL);
    if (plait_channel_use_interrupt(&process->child.channel, frame->request)) {
        frame->struck = false;
        if (frame->current != items_of(data))
            plait_atomic_store_seq_cst(&frame->current->interrupted, 1);
    }
    plait_prim_unlock(&data->lock);
}

static void make_current(worker_data_t *data, const frame_t *frame)
{
    plait_prim_lock(&data->lock);
    plait_atomic_store_seq_cst(&data->current, frame->current);
    plait_prim_unlock(&data->lock);
    interrupt_marked(data);
}

int proxy_help(worker_data_t *data, bool own)
{
    process_t *process = data->process;
    frame_t *frame = process->top;
    plait_letter_t letter = {.type = REQUEST_HELPED};
    if (frame != NULL && frame->request != 0) { /* not where a child starts or ends */
        set_aside(data, frame);
        letter.words[HELPED_STEPPED] = plait_worker_help(plait_worker_current(), own);
        if (frame->lost)
            return PLAIT_CLOSED;
        make_current(data, frame);
    }
    if (process->connected) /* what has just been run it should not wait for any more */
        letter.words[HELPED_RESULTS] = line_flush(process->line);
    letter.number = process->request;
    return proxy_send(process, &letter);
}

/* ---- calls ---- */

void proxy_put_function(process_t *process, const shipment_t *shipment, plait_letter_t *letter)
{
    uint64_t known;
    letter->number = process->request;
    letter->words[CALL_FUNCTION] = shipment->id;
    letter->words[CALL_FUNCTION_ROOT] = shipment->message.root;
    if (table_get(&process->known, shipment->id, &known))
        return;
    letter->words[CALL_FLAGS] |= FLAG_FUNCTION;
    letter->blobs[0] = blob_of(&shipment->message);
    if (process->known.count >= PROCESS_FUNCTIONS && process->top->below == NULL) {
        letter->words[CALL_FLAGS] |= FLAG_FORGET;
        table_clear(&process->known);
    }
}

void proxy_note_flags(worker_data_t *data, const shipment_t *shipment, uint64_t flags)
{
    process_t *process = data->process;
    uint64_t known;
    process->exhausted = data->core->replaces && (flags & FLAG_EXHAUSTED);
    if ((flags & FLAG_KNOWN) && process->known.count < PROCESS_FUNCTIONS &&
        !table_get(&process->known, shipment->id, &known))
        table_add(&process->known, shipment->id, 1); /* without memory it is sent again */
}

int proxy_send_context(process_t *process, const shipment_t *context, plait_letter_t *request)
{
    if (context == NULL)
        return PLAIT_OK;
    request->words[CALL_FLAGS] |= FLAG_CONTEXT;
    if (process->context == context->id)
        return PLAIT_OK;
    plait_letter_t letter = {
        .type = REQUEST_CONTEXT,
        .number = process->request,
        .words = {[CONTEXT_ID] = context->id, [CONTEXT_ROOT] = context->message.root},
        .blobs[0] = blob_of(&context->message),
    };
    process->context = context->id;
    return proxy_send(process, &letter);
}

int proxy_send_call(process_t *process, const call_t *call, uint64_t number)
{
    plait_letter_t letter = {.type = REQUEST_CALL, .words[CALL_ROOT] = call->flat.arguments.root};
    put_message(&letter, 1, &call->flat.arguments);
    proxy_put_function(process, call->flat.function, &letter);
    letter.number = number;
    int result = proxy_send_context(process, call->flat.context, &letter);
    return result == PLAIT_OK ? proxy_send(process, &letter) : result;
}

/* PLAIT_OK with the child's answer; PLAIT_RETRY where it has not begun the call, and will not. */
static int receive_answer(worker_data_t *data, call_t *call)
{
    plait_letter_t letter;
    int result = proxy_receive(data, &letter);
    if (result != PLAIT_OK)
        return result;
    result = letter.type == REPLY_CALL ? proxy_read_answer(&letter, &call->answer) : PLAIT_CORRUPT;
    proxy_note_flags(data, call->flat.function, letter.words[ANSWER_FLAGS]);
    proxy_finish(data->process, &letter);
    return result;
}

bool proxy_may_begin_again(worker_data_t *data, int result, unsigned *attempts)
{
    process_t *process = data->process;
    if (result == PLAIT_RETRY)
        return true;
    if (result != PLAIT_CLOSED || process->top->lost || ++*attempts > ATTEMPTS)
        return false;
    /* What lies above others has a greater number than they. */
    if (!process->top->recalled &&
        plait_atomic_load_seq_cst(&process->child.channel.shared->begun) >= process->request)
        return false;
    proxy_bury(data, PLAIT_PRIM_FOREVER);
    return true;
}

bool proxy_may_retry(worker_data_t *data, call_t *current, int result, uint32_t *retries)
{
    if (result == PLAIT_NOMEM || *retries == 0 || is_marked(data, current) ||
        plait_atomic_load_seq_cst(&data->core->interrupted))
        return false;
    --*retries;
    if (!data->process->top->lost)
        proxy_bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
    return true;
}

/* Asks for the call of the frame on top, with a new number; *result is what the wire says. False where
 * no child can be had any more: that is the call's answer. */
static bool ask(plait_worker_t *worker, worker_data_t *data, call_t *call, int *result)
{
    if (proxy_begin(worker, data) < 0) {
        answer_broken(data->core, &call->answer);
        return false;
    }
    *result = proxy_send_call(data->process, call, data->process->top->request);
    return true;
}

/* Answers the call of the frame on top, which the child has been asked already if it has a number. */
static void answer(plait_worker_t *worker, worker_data_t *data, call_t *call)
{
    unsigned attempts = 0;
    int result = PLAIT_OK;
    if (data->process->top->request != 0)
        interrupt_marked(data); /* as in proxy_begin */
    else if (!ask(worker, data, call, &result))
        return;
    /* Not when it asks again: a child that does not begin may be stopped, and its ring full soon. */
    if (result == PLAIT_OK && !proxy_fill_ahead(worker, data))
        result = PLAIT_RETRY;
    if (result == PLAIT_OK)
        result = receive_answer(data, call);
    while (result != PLAIT_OK && (proxy_may_begin_again(data, result, &attempts) ||
                                  proxy_may_retry(data, call, result, &call->retries))) {
        if (!ask(worker, data, call, &result))
            return;
        if (result == PLAIT_OK)
            result = receive_answer(data, call);
    }
    if (result != PLAIT_OK)
        proxy_answer_failed(data, result, call->flat.function->name, &call->answer);
    else
        proxy_note_pace(data);
}

/* Nobody reaches the call by its worker any more. */
static void settle(worker_data_t *data, call_t *call)
{
    data->process->served++;
    call_drop_arguments(call);
    if (call->deadline != NULL)
        deadline_settle(call);
}

static plait_task_t *run(plait_worker_t *worker, plait_task_t *task)
{
    worker_data_t *data = plait_worker_data(worker);
    call_t *call = (call_t *)task, *next;
    frame_t frame = {.current = call};
    proxy_make_room(data);
    proxy_push(data, &frame);
    answer(worker, data, call);
    while ((next = proxy_next_ahead(data)) != NULL) {
        settle(data, call);
        plait_worker_complete(&call->task);
        call = next;
        answer(worker, data, call);
    }
    proxy_pop(data, &frame);
    settle(data, call);
    return &call->task;
}

/* ---- the rest ---- */

static void nothing(plait_worker_t *Py_UNUSED(worker)) {}

const plait_worker_ops_t worker_process_ops = {
    .enter = proxy_enter,
    .run = run,
    .run_items = proxy_run_items,
    .pause = nothing,
    .resume = nothing,
    .leave = proxy_leave,
    .abandon = call_abandon,
    .abandon_items = map_abandon_items,
    .dispose = worker_dispose,
};
