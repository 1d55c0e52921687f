/* proxy_child: how a child begins and ends. */
#include "binding/proxy.h"

#include "binding/nested.h"

/* How many in a row may be killed before they are ready: so many take seconds. */
#define ATTEMPTS_TO_START 100

/* ---- the end of a child ---- */

/* Nobody is about to send something to the child when its channel goes. */
static void cut_line(process_t *process, int64_t deadline)
{
    if (!process->connected)
        return;
    plait_watch_await(&process->child.watch, deadline);
    line_cut(process->line);
    process->connected = false;
}

plait_child_death_t proxy_bury(worker_data_t *data, int64_t deadline)
{
    process_t *process = data->process;
    plait_child_death_t death;
    plait_prim_lock(&data->lock); /* nobody interrupts it from here on */
    proxy_mark_recalled(data);
    process->alive = false;
    plait_prim_unlock(&data->lock);
    cut_line(process, deadline);
    for (frame_t *frame = process->top; frame != NULL; frame = frame->below)
        if (frame->has_desk && !frame->lost && deadline != 0)
            proxy_save_desk(process, frame->stretch);
    plait_child_end(&process->child, deadline, &death);
    for (frame_t *frame = process->top; frame != NULL; frame = frame->below)
        if (!frame->lost) {
            frame->lost = true;
            frame->death = death;
        }
    proxy_fail_ahead(data, &death);
    table_clear(&process->known);
    process->items_stream = process->context = process->served = 0;
    process->exhausted = false;
    return death;
}

/* (task, pid, signal or None, exit status or None, whether it wrote nonsense), for
 * plait.WorkerDied. */
static void write_death(const plait_child_death_t *death, bool corrupt, const char *task,
                        message_t *message)
{
    plait_flat_value_t none = plait_flat_const(PLAIT_FLAT_NONE);
    plait_flat_value_t number = plait_flat_int(death->number), root, text;
    plait_flat_writer_t writer;
    *message = (message_t){.root = none};
    if (plait_flat_writer_init(&writer, &plait_alloc_system, 0) != PLAIT_OK)
        return;
    if (plait_flat_put_words(&writer, PLAIT_FLAT_TUPLE, 5, 5, &root) == PLAIT_OK &&
        plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, task, strlen(task), &text) == PLAIT_OK) {
        plait_flat_set(&writer, root, 0, text);
        plait_flat_set(&writer, root, 1, plait_flat_int(death->pid));
        plait_flat_set(&writer, root, 2, death->end == PLAIT_PRIM_SIGNALED ? number : none);
        plait_flat_set(&writer, root, 3, death->end == PLAIT_PRIM_EXITED ? number : none);
        plait_flat_set(&writer, root, 4,
                       plait_flat_const(corrupt ? PLAIT_FLAT_TRUE : PLAIT_FLAT_FALSE));
        if (plait_flat_finish(&writer, root, 0, &message->bytes, &message->size) == PLAIT_OK)
            message->root = root;
    }
    plait_flat_writer_fini(&writer);
}

void proxy_answer_died(const plait_child_death_t *death, call_t *call)
{
    call->answer.outcome = OUTCOME_DIED;
    write_death(death, false, call->flat.function->name, &call->answer.message);
}

void proxy_answer_failed(worker_data_t *data, int result, const char *task, answer_t *answer)
{
    frame_t *frame = data->process->top;
    if (result == PLAIT_NOMEM) { /* the child is well, its answer had no room here */
        answer->outcome = OUTCOME_EXCEPTION;
        message_stand_in("MemoryError", &answer->message);
        return;
    }
    /* A closed wire means that it has ended. Everything else means that it is not to be trusted. */
    bool corrupt = result != PLAIT_CLOSED;
    if (!frame->lost)
        proxy_bury(data, corrupt ? 0 : PLAIT_PRIM_FOREVER);
    answer->outcome = OUTCOME_DIED;
    write_death(&frame->death, corrupt, task, &answer->message);
}

/* ---- the beginning of a child ---- */

const char *proxy_how(const plait_child_death_t *death)
{
    return death->end == PLAIT_PRIM_SIGNALED ? "was killed by signal" : "ended with exit status";
}

static int start_failed(worker_data_t *data, int result, bool last)
{
    char text[160];
    if (result == PLAIT_NOMEM) {
        core_failed(data->core, NULL, "no memory for the messages of a worker process");
        return -1;
    }
    plait_child_death_t death = proxy_bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
    if (death.end == PLAIT_PRIM_SIGNALED && !last)
        return 1;
    snprintf(text, sizeof text, "the worker process %d %s %d while it started", death.pid,
             proxy_how(&death), death.number);
    core_failed(data->core, NULL, text);
    return -1;
}

/* Sends a letter that is answered by REPLY_READY; PLAIT_OK with the answer. */
static int ask_shortly(worker_data_t *data, plait_letter_t *letter, answer_t *answer)
{
    process_t *process = data->process;
    letter->number = process->request;
    int result = proxy_send(process, letter);
    if (result == PLAIT_OK)
        result = proxy_receive(data, letter);
    if (result == PLAIT_OK) {
        result = letter->type == REPLY_READY ? proxy_read_answer(letter, answer) : PLAIT_CORRUPT;
        proxy_finish(process, letter);
    }
    return result;
}

/* Sends a letter of the setup and waits until the child has done what it says. 0; 1 where it was
 * killed meanwhile, unless this is the last attempt; -1 where the pool is broken now. */
static int prepare(worker_data_t *data, plait_letter_t *letter, bool last)
{
    answer_t answer = {0};
    int result = ask_shortly(data, letter, &answer);
    if (result != PLAIT_OK)
        return start_failed(data, result, last);
    if (answer.outcome == OUTCOME_VALUE)
        return 0;
    core_failed_by(data->core, &answer.message);
    return -1;
}

static plait_letter_t setup_of(const pool_core_t *core)
{
    return (plait_letter_t){.type = REQUEST_SETUP,
                            .words = {[SETUP_ROOT] = core->setup.root,
                                      [SETUP_KEEP] = core->keep,
                                      [SETUP_POOL] = plait_sched_id(core->sched)},
                            .blobs[0] = blob_of(&core->setup)};
}

static int prepare_all(worker_data_t *data, bool last)
{
    pool_core_t *core = data->core;
    plait_letter_t setup = setup_of(core);
    int status = prepare(data, &setup, last);
    if (status != 0 || core->initializer_shipment == NULL)
        return status;
    const message_t *function = &core->initializer_shipment->message;
    plait_letter_t initialize = {
        .type = REQUEST_INITIALIZE,
        .words = {core->initializer_shipment->id, function->root, core->initializer_arguments.root,
                  FLAG_FUNCTION},
        .blobs = {blob_of(function), blob_of(&core->initializer_arguments)},
    };
    return prepare(data, &initialize, last);
}

/* 1 where it was killed before it was ready, which is no fault of the pool's; else as prepare. */
static int start_once(worker_data_t *data, unsigned attempt)
{
    process_t *process = data->process;
    process_note_key(process, data->core);
    int result = proxy_make_child(data->core, &process->child, attempt);
    if (result != PLAIT_OK)
        return result == PLAIT_RETRY ? 1 : -1;
    plait_prim_lock(&data->lock);
    process->alive = true;
    plait_prim_unlock(&data->lock);
    return prepare_all(data, attempt >= ATTEMPTS_TO_START);
}

int proxy_start(worker_data_t *data)
{
    int status = 1;
    for (unsigned attempt = 1; status == 1; attempt++)
        status = start_once(data, attempt);
    return status;
}

/* Has a child that served another pool serve this one. Where it cannot, it ends: a new one will. */
static void take_over(worker_data_t *data)
{
    plait_letter_t setup = setup_of(data->core);
    answer_t answer = {0};
    int result = ask_shortly(data, &setup, &answer);
    if (result != PLAIT_OK || answer.outcome != OUTCOME_VALUE)
        proxy_bury(data, 0);
    answer_clear(&answer);
}

int proxy_enter(plait_worker_t *worker)
{
    pool_core_t *core = plait_sched_context(plait_worker_sched(worker));
    worker_data_t *data = worker_data_new(worker);
    process_t *kept = data == NULL ? NULL : process_take(core);
    process_t *process = kept != NULL || data == NULL ? kept : calloc(1, sizeof *process);
    if (process == NULL) {
        core_failed(core, NULL, "no memory for a worker");
        return PLAIT_NOMEM;
    }
    if (kept == NULL)
        table_init(&process->known);
    data->process = process;
    join_members(data);
    if (kept != NULL)
        take_over(data);
    return !process->alive && proxy_start(data) < 0 ? PLAIT_SYSTEM : PLAIT_OK;
}

void proxy_dismiss(worker_data_t *data)
{
    process_t *process = data->process;
    plait_letter_t letter = {.type = REQUEST_END, .number = process->request};
    int result = proxy_send(process, &letter);
    while (result == PLAIT_OK) {
        result = proxy_receive(data, &letter);
        if (result == PLAIT_OK)
            proxy_finish(process, &letter);
    }
    proxy_bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
}

/* Whether the child can serve another pool; then it has nothing of this one left. */
static bool can_stay(worker_data_t *data)
{
    const pool_core_t *core = data->core;
    plait_letter_t letter = {.type = REQUEST_LEAVE};
    answer_t answer = {0};
    if (data->process->kept.key == NULL || data->process->exhausted || data->process->connected ||
        plait_sched_is_broken(core->sched) || plait_atomic_load_seq_cst(&core->interrupted) ||
        ask_shortly(data, &letter, &answer) != PLAIT_OK)
        return false;
    return answer.message.root == plait_flat_const(PLAIT_FLAT_TRUE);
}

void proxy_leave(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data == NULL)
        return;
    process_t *process = data->process;
    if (process != NULL) {
        leave_members(data);
        bool stays = process->alive && can_stay(data);
        if (process->alive && !stays)
            proxy_dismiss(data);
        visit_end(data);
        if (process->line != NULL)
            line_release(process->line);
        process->line = NULL;
        if (stays)
            process_keep(process, data->core->keep);
        else
            process_free(process);
        proxy_drop_template(data->core);
    }
    plait_worker_set_data(worker, NULL);
    free(data);
}
