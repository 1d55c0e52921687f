/* worker_process: process workers, the half that lives in the parent.
 *
 * A proxy is a worker's thread without an interpreter: it has its child run what the scheduler gives
 * it, and waits. A child that dies fails what it ran, and nothing else; the next task gets a new
 * one. A call that waits has the proxy help: what the proxy runs meanwhile lies on top of it, in the
 * child and here, a frame on a frame. Invariants: a child belongs to one proxy at a time; what the
 * child sends is copied before it is looked at, and decoded by whoever asks for it; the child, the
 * frames and the request are changed under the worker's lock only, so that interrupters see them
 * whole. Design: docs/design/process.md, docs/design/nesting.md
 */
#include "binding/nested.h"

#include "binding/map_job.h"

/* How many children in a row may die before they begin what they are asked. */
#define ATTEMPTS 3

/* How many in a row may be killed before they are ready: so many take seconds. */
#define ATTEMPTS_TO_START 100

/* See receive; in ns. */
#define LOOK INT64_C(1000000000)

/* A call's mark when the child was asked to interrupt it; 1 before. */
#define MARK_SENT 2

/* One request, on the proxy's stack. */
typedef struct frame {
    /* guarded by the worker's lock */
    struct frame *below;
    call_t *current;  /* what it runs; items_of() for items */
    uint64_t request; /* its number; 0 before the child has been asked */
    bool struck;      /* the child was asked to interrupt the items, or whatever it ran */
    /* the proxy's own */
    struct stretch *stretch; /* NULL but for items */
    bool has_desk;           /* these are the items that lie on the child's */
    bool lost;               /* the child has ended */
    plait_child_death_t death;
    uint64_t items_below; /* what the worker's `items` and `items_expired` were */
    plait_job_flag_t *expired_below;
} frame_t;

/* ---- letters ---- */

static int send(process_t *process, const plait_letter_t *letter)
{
    int result;
    do
        result = plait_wire_send_spsc(&process->child.channel.requests,
                                      process->child.channel.socket, letter);
    while (result == PLAIT_INTERRUPTED);
    return result;
}

static void finish(process_t *process, plait_letter_t *letter)
{
    plait_wire_finish_spsc(&process->child.channel.replies, letter);
}

/* Does what the child asks for. */
static int visit(worker_data_t *data, plait_letter_t *letter)
{
    uint64_t which = letter->words[VISIT_WHICH];
    if (which >= VISIT_COUNT)
        return PLAIT_CORRUPT;
    message_t arguments = message_of(letter, 0, letter->words[VISIT_ROOT]);
    visit_for_child(data, (visit_t)which, &arguments);
    message_clear(&arguments);
    return PLAIT_OK;
}

/* The next letter that belongs to the present request. Looks now and then even if it is not woken: a
 * child that writes nonsense may have written over the word that says who sleeps. */
static int receive_any(process_t *process, plait_letter_t *letter)
{
    int result;
    plait_ring_t *ring = &process->child.channel.replies;
    do
        result = plait_wire_receive_spsc(ring, process->child.channel.socket, true,
                                         plait_prim_now() + LOOK, letter);
    while (result == PLAIT_INTERRUPTED || result == PLAIT_TIMEOUT);
    bool asks = result == PLAIT_OK && letter->type >= REPLY_VISIT && letter->type < REPLY_HELP;
    if (result == PLAIT_OK && !asks && letter->number != process->request) {
        plait_wire_finish_spsc(ring, letter);
        return PLAIT_CORRUPT; /* what threads of the child ask for belongs to no request */
    }
    return result;
}

/* What the child submits, and asks of that. */
static int serve_line(process_t *process, plait_letter_t *letter)
{
    if (process->line == NULL && (process->line = line_new()) == NULL)
        return PLAIT_CORRUPT; /* it cannot go on without an answer */
    if (!process->connected)
        line_connect(process->line, &process->child.channel);
    process->connected = true;
    return line_serve(process->line, letter);
}

static int help(worker_data_t *data, bool own);

/* Does what the child asks for ahead of its answer. */
static int do_for_child(worker_data_t *data, plait_letter_t *letter)
{
    process_t *process = data->process;
    if (letter->type == REPLY_HELP) {
        bool own = letter->words[HELP_OWN] != 0;
        finish(process, letter); /* others come before the next of this request */
        return help(data, own);
    }
    int result = letter->type == REPLY_VISIT ? visit(data, letter) : serve_line(process, letter);
    finish(process, letter);
    return result;
}

/* The next answer to the present request. */
static int receive(worker_data_t *data, plait_letter_t *letter)
{
    process_t *process = data->process;
    int result = receive_any(process, letter);
    while (result == PLAIT_OK && letter->type >= REPLY_VISIT && letter->type <= REPLY_HELP) {
        result = do_for_child(data, letter);
        if (result == PLAIT_OK)
            result = receive_any(process, letter);
    }
    return result;
}

/* What the child says in its letter; PLAIT_CORRUPT where it cannot say that. */
static int read_answer(plait_letter_t *letter, answer_t *answer)
{
    uint64_t outcome = letter->words[ANSWER_OUTCOME];
    if (outcome != OUTCOME_VALUE && outcome != OUTCOME_EXCEPTION)
        return PLAIT_CORRUPT;
    answer->outcome = (outcome_t)outcome;
    answer->message = message_of(letter, 0, letter->words[ANSWER_ROOT]);
    return PLAIT_OK;
}

/* ---- the end of a child ---- */

static void save_desk(process_t *process, struct stretch *stretch);

/* Nobody is about to send something to the child when its channel goes. */
static void cut_line(process_t *process, int64_t deadline)
{
    int result;
    if (!process->connected)
        return;
    do
        result = plait_prim_child_wait(&process->child.process, deadline);
    while (result == PLAIT_INTERRUPTED);
    if (result != PLAIT_OK)
        plait_prim_child_kill(&process->child.process);
    line_cut(process->line);
    process->connected = false;
}

/* Ends it: at once, or when it has ended by itself, and all that waits in it. */
static plait_child_death_t bury(worker_data_t *data, int64_t deadline)
{
    process_t *process = data->process;
    plait_child_death_t death;
    plait_prim_lock(&data->lock); /* nobody interrupts it from here on */
    process->alive = false;
    plait_prim_unlock(&data->lock);
    cut_line(process, deadline);
    for (frame_t *frame = process->top; frame != NULL; frame = frame->below)
        if (frame->has_desk && !frame->lost && deadline != 0)
            save_desk(process, frame->stretch);
    plait_child_end(&process->child, deadline, &death);
    for (frame_t *frame = process->top; frame != NULL; frame = frame->below)
        if (!frame->lost) {
            frame->lost = true;
            frame->death = death;
        }
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

/* The answer of the frame on top where the child could not give one: `result` is what the wire said. */
static void answer_failed(worker_data_t *data, int result, const char *task, answer_t *answer)
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
        bury(data, corrupt ? 0 : PLAIT_PRIM_FOREVER);
    answer->outcome = OUTCOME_DIED;
    write_death(&frame->death, corrupt, task, &answer->message);
}

/* ---- the beginning of a child ---- */

static int start_failed(worker_data_t *data, int result, bool last)
{
    char text[160];
    if (result == PLAIT_NOMEM) {
        core_failed(data->core, NULL, "no memory for the messages of a worker process");
        return -1;
    }
    plait_child_death_t death = bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
    if (death.end == PLAIT_PRIM_SIGNALED && !last)
        return 1;
    const char *how =
        death.end == PLAIT_PRIM_SIGNALED ? "was killed by signal" : "ended with exit status";
    snprintf(text, sizeof text, "the worker process %d %s %d while it started", death.pid, how,
             death.number);
    core_failed(data->core, NULL, text);
    return -1;
}

/* Sends a letter that is answered by REPLY_READY; PLAIT_OK with the answer. */
static int ask_shortly(worker_data_t *data, plait_letter_t *letter, answer_t *answer)
{
    process_t *process = data->process;
    letter->number = process->request;
    int result = send(process, letter);
    if (result == PLAIT_OK)
        result = receive(data, letter);
    if (result == PLAIT_OK) {
        result = letter->type == REPLY_READY ? read_answer(letter, answer) : PLAIT_CORRUPT;
        finish(process, letter);
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
static int start_once(worker_data_t *data, bool last)
{
    process_t *process = data->process;
    process_note_key(process, data->core);
    int result = plait_child_start(&process->child, data->core->program[0],
                                   (const char *const *)data->core->program,
                                   (const char *const *)data->core->environment);
    if (result != PLAIT_OK) {
        core_failed(data->core, NULL,
                    result == PLAIT_NOMEM ? "no memory for a worker process"
                                          : "the system could not start a worker process");
        return -1;
    }
    plait_prim_lock(&data->lock);
    process->alive = true;
    plait_prim_unlock(&data->lock);
    return prepare_all(data, last);
}

/* 0, or -1 where the pool is broken now. */
static int start(worker_data_t *data)
{
    int status = 1;
    for (unsigned attempt = 1; status == 1; attempt++)
        status = start_once(data, attempt == ATTEMPTS_TO_START);
    return status;
}

/* Has a child that served another pool serve this one. Where it cannot, it ends: a new one will. */
static void take_over(worker_data_t *data)
{
    plait_letter_t setup = setup_of(data->core);
    answer_t answer = {0};
    int result = ask_shortly(data, &setup, &answer);
    if (result != PLAIT_OK || answer.outcome != OUTCOME_VALUE)
        bury(data, 0);
    answer_clear(&answer);
}

static int enter(plait_worker_t *worker)
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
    return !process->alive && start(data) < 0 ? PLAIT_SYSTEM : PLAIT_OK;
}

/* Has the child end, and does what it asks for meanwhile. */
static void dismiss(worker_data_t *data)
{
    process_t *process = data->process;
    plait_letter_t letter = {.type = REQUEST_END, .number = process->request};
    int result = send(process, &letter);
    while (result == PLAIT_OK) {
        result = receive(data, &letter);
        if (result == PLAIT_OK)
            finish(process, &letter);
    }
    bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
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

static void leave(plait_worker_t *worker)
{
    worker_data_t *data = plait_worker_data(worker);
    if (data == NULL)
        return;
    process_t *process = data->process;
    if (process != NULL) {
        leave_members(data);
        bool stays = process->alive && can_stay(data);
        if (process->alive && !stays)
            dismiss(data);
        visit_end(data);
        if (process->line != NULL)
            line_release(process->line);
        process->line = NULL;
        if (stays)
            process_keep(process, data->core->keep);
        else
            process_free(process);
    }
    plait_worker_set_data(worker, NULL);
    free(data);
}

/* ---- requests ---- */

/* How many tasks the child may still run. One that may run none is replaced first, unless something in
 * it waits, or may wait as it ends, for what it has submitted. */
static uint64_t make_room(worker_data_t *data)
{
    process_t *process = data->process;
    uint64_t most = data->core->max_tasks == 0 ? UINT64_MAX : data->core->max_tasks;
    bool due = process->exhausted || process->served >= most;
    if (process->alive && due && process->top == NULL &&
        !(process->connected && line_is_busy(process->line)))
        dismiss(data);
    return process->served < most ? most - process->served : 1;
}

/* Puts a request on top of those that wait. */
static void push(worker_data_t *data, frame_t *frame)
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

/* Takes it away again; the one below is set aside still. */
static void pop(worker_data_t *data, const frame_t *frame)
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

/* Asks for the frame on top, with a number of its own, what there is a child for; -1 where there can
 * be none any more. */
static int begin(plait_worker_t *worker, worker_data_t *data)
{
    process_t *process = data->process;
    frame_t *frame = process->top;
    frame->request = 0;
    if (!process->alive && start(data) < 0) {
        plait_sched_break(plait_worker_sched(worker));
        return -1;
    }
    frame->lost = false;
    plait_prim_lock(&data->lock);
    process->request = frame->request = ++process->last;
    frame->struck = false;
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
        plait_prim_child_kill(&process->child.process);
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

/* A call of the child waits: the proxy runs something else there, if there is anything. PLAIT_CLOSED
 * where the child has ended meanwhile: that is another one now, if there is one. */
static int help(worker_data_t *data, bool own)
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
    return send(process, &letter);
}

/* ---- calls ---- */

/* The function's part of a request. */
static void put_function(process_t *process, const shipment_t *shipment, plait_letter_t *letter)
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

static void note_flags(worker_data_t *data, const shipment_t *shipment, uint64_t flags)
{
    process_t *process = data->process;
    uint64_t known;
    process->exhausted = data->core->replaces && (flags & FLAG_EXHAUSTED);
    if ((flags & FLAG_KNOWN) && process->known.count < PROCESS_FUNCTIONS &&
        !table_get(&process->known, shipment->id, &known))
        table_add(&process->known, shipment->id, 1); /* without memory it is sent again */
}

/* The context's part of a request: a letter of its own, ahead of it, unless the child has that one. */
static int send_context(process_t *process, const shipment_t *context, plait_letter_t *request)
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
    return send(process, &letter);
}

/* PLAIT_OK with the child's answer. */
static int ask(worker_data_t *data, call_t *call)
{
    process_t *process = data->process;
    shipment_t *function = call->flat.function;
    plait_letter_t letter = {.type = REQUEST_CALL, .words[CALL_ROOT] = call->flat.arguments.root};
    put_message(&letter, 1, &call->flat.arguments);
    put_function(process, function, &letter);
    int result = send_context(process, call->flat.context, &letter);
    if (result == PLAIT_OK)
        result = send(process, &letter);
    if (result == PLAIT_OK)
        result = receive(data, &letter);
    if (result != PLAIT_OK)
        return result;
    result = letter.type == REPLY_CALL ? read_answer(&letter, &call->answer) : PLAIT_CORRUPT;
    note_flags(data, function, letter.words[ANSWER_FLAGS]);
    finish(process, &letter);
    return result;
}

/* Whether the child died before it began the request, which another may then begin. Each start is
 * answered by the child, so this cannot go on for ever unless somebody kills every one of them. */
static bool may_begin_again(worker_data_t *data, int result, unsigned *attempts)
{
    process_t *process = data->process;
    /* What lies above others has a greater number than they. */
    if (result != PLAIT_CLOSED || process->top->lost || ++*attempts > ATTEMPTS ||
        plait_atomic_load_seq_cst(&process->child.channel.shared->begun) >= process->request)
        return false;
    bury(data, PLAIT_PRIM_FOREVER);
    return true;
}

/* Whether a child's death is to be followed by another run, which uses up one of `retries`. Nobody
 * wants another of what was interrupted, by its deadline perhaps; that comes before the kill. */
static bool may_retry(worker_data_t *data, call_t *current, int result, uint32_t *retries)
{
    if (result == PLAIT_NOMEM || *retries == 0 || is_marked(data, current) ||
        plait_atomic_load_seq_cst(&data->core->interrupted))
        return false;
    --*retries;
    if (!data->process->top->lost)
        bury(data, result == PLAIT_CLOSED ? PLAIT_PRIM_FOREVER : 0);
    return true;
}

static void run(plait_worker_t *worker, plait_task_t *task)
{
    worker_data_t *data = plait_worker_data(worker);
    call_t *call = (call_t *)task;
    frame_t frame = {.current = call};
    unsigned attempts = 0;
    int result = PLAIT_OK;
    bool begun;
    make_room(data);
    push(data, &frame);
    do {
        begun = begin(worker, data) == 0;
        if (!begun) {
            answer_broken(data->core, &call->answer);
            break;
        }
        result = ask(data, call);
    } while (result != PLAIT_OK && (may_begin_again(data, result, &attempts) ||
                                    may_retry(data, call, result, &call->retries)));
    if (begun && result != PLAIT_OK)
        answer_failed(data, result, call->flat.function->name, &call->answer);
    pop(data, &frame);
    data->process->served++;
    call_drop_arguments(call);
    if (call->deadline != NULL)
        deadline_settle(call);
}

/* ---- the items of a map ---- */

/* A stretch of a job's items on its way through a child. */
typedef struct stretch {
    map_job_t *job;
    uint64_t next, high; /* items before next are answered */
    uint64_t retried;    /* the item that was last run again */
    uint32_t retries;    /* how often it still may be */
} stretch_t;

static void push_grain(stretch_t *stretch, uint64_t high, answer_t *answer)
{
    map_job_t *job = stretch->job;
    grain_t *grain = grain_new(job->first + stretch->next, job->first + high);
    grain->answer = *answer;
    stream_send(job->stream, grain);
    stretch->next = high;
}

static int send_items(process_t *process, stretch_t *stretch)
{
    map_job_t *job = stretch->job;
    plait_letter_t letter = {.type = REQUEST_ITEMS};
    put_function(process, job->function, &letter);
    letter.words[CALL_ROOT] = job->items.root;
    letter.words[ITEMS_LOW] = stretch->next;
    letter.words[ITEMS_HIGH] = stretch->high;
    letter.words[CALL_FLAGS] |= job->star ? FLAG_STAR : 0;
    if (process->items_stream != job->stream->id || process->items_first != job->first) {
        letter.words[CALL_FLAGS] |= FLAG_ITEMS;
        put_message(&letter, 1, &job->items);
        process->items_stream = job->stream->id;
        process->items_first = job->first;
    }
    if (process->top->has_desk) /* the child begins with an empty one */
        plait_atomic_store_seq_cst(&process->child.channel.shared->finished, stretch->next);
    int result = send_context(process, job->context, &letter);
    return result == PLAIT_OK ? send(process, &letter) : result;
}

/* One letter about the items. PLAIT_EMPTY when it was the last. */
static int take_grain(worker_data_t *data, stretch_t *stretch)
{
    process_t *process = data->process;
    plait_letter_t letter;
    answer_t answer = {0};
    int result = receive(data, &letter);
    if (result != PLAIT_OK)
        return result;
    uint64_t low = letter.words[GRAIN_LOW], high = letter.words[GRAIN_HIGH];
    if (letter.type == REPLY_ITEMS && stretch->next == stretch->high) {
        note_flags(data, stretch->job->function, letter.words[ANSWER_FLAGS]);
        result = PLAIT_EMPTY;
    } else if (letter.type == REPLY_GRAIN && low == stretch->next && high > low &&
               high <= stretch->high) {
        result = read_answer(&letter, &answer);
        if (result == PLAIT_OK)
            push_grain(stretch, high, &answer);
    } else {
        result = PLAIT_CORRUPT;
    }
    finish(process, &letter);
    return result;
}

/* What a dead child had finished but not sent lies on its desk, a list that lacks its header. */
static void save_desk(process_t *process, stretch_t *stretch)
{
    plait_channel_t *channel = &process->child.channel;
    uint64_t finished = plait_atomic_load_seq_cst(&channel->shared->finished);
    uint64_t used = plait_atomic_load_seq_cst(&channel->shared->desk_used);
    if (finished <= stretch->next || finished > stretch->high || used > PLAIT_CHANNEL_DESK ||
        used <= sizeof(plait_flat_header_t) || used % 8 != 0)
        return;
    unsigned char *copy = malloc((size_t)used);
    if (copy == NULL)
        return;
    memcpy(copy, channel->desk, (size_t)used);
    plait_flat_header_t header = {.magic = PLAIT_FLAT_MAGIC,
                                  .version = PLAIT_FLAT_VERSION,
                                  .size = used,
                                  .root = plait__flat_ref(sizeof header)};
    memcpy(copy, &header, sizeof header);
    answer_t answer = {.outcome = OUTCOME_VALUE,
                       .message = {.root = header.root, .bytes = copy, .size = (size_t)used}};
    push_grain(stretch, finished, &answer);
}

/* Likewise, for the item that ran. */
static bool may_retry_item(worker_data_t *data, stretch_t *stretch, int result)
{
    stream_t *stream = stretch->job->stream;
    if (stretch->retried != stretch->next)
        stretch->retries = stream->retries;
    stretch->retried = stretch->next;
    return plait_atomic_load_seq_cst(&stream->cancelled) == 0 &&
           may_retry(data, items_of(data), result, &stretch->retries);
}

/* The item that ran fails, those before it do not. True: it is to be run again instead. */
static bool items_failed(worker_data_t *data, stretch_t *stretch, int result)
{
    answer_t failed = {.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
    frame_t *frame = data->process->top;
    if (result == PLAIT_CLOSED && frame->has_desk && !frame->lost)
        save_desk(data->process, stretch);
    if ((result == PLAIT_NOMEM || stretch->next == stretch->high) && !frame->lost)
        bury(data, 0); /* what it still sends has no place here; or it ended when all was done */
    if (stretch->next == stretch->high)
        return false;
    if (may_retry_item(data, stretch, result))
        return true;
    answer_failed(data, result, stretch->job->function->name, &failed);
    push_grain(stretch, stretch->next + 1, &failed);
    return false;
}

static uint64_t run_items(plait_worker_t *worker, plait_job_t *base, uint64_t low, uint64_t high)
{
    worker_data_t *data = plait_worker_data(worker);
    uint64_t most = make_room(data);
    frame_t frame = {.current = items_of(data)};
    stretch_t stretch = {(map_job_t *)base, low, high - low > most ? low + most : high,
                         .retried = UINT64_MAX};
    unsigned attempts = 0;
    int result = PLAIT_EMPTY;
    frame.stretch = &stretch;
    push(data, &frame);
    if (!frame.has_desk) /* nothing that it has finished is to be found in the child alone */
        stretch.high = low + 1;
    data->items_expired = &stretch.job->stream->expired;
    plait_atomic_store_seq_cst(&data->items, stretch.job->stream->id);
    do {
        if (begin(worker, data) < 0) {
            answer_t broken = {.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
            answer_broken(data->core, &broken);
            push_grain(&stretch, stretch.next + 1, &broken);
            break;
        }
        result = send_items(data->process, &stretch);
        while (result == PLAIT_OK)
            result = take_grain(data, &stretch);
    } while (result != PLAIT_EMPTY &&
             (may_begin_again(data, result, &attempts) || items_failed(data, &stretch, result)));
    pop(data, &frame);
    data->process->served += stretch.next - low;
    return stretch.next - low;
}

/* ---- the rest ---- */

static void nothing(plait_worker_t *Py_UNUSED(worker)) {}

static void abandon(plait_sched_t *sched, plait_task_t *task)
{
    answer_broken(plait_sched_context(sched), &((call_t *)task)->answer);
}

const plait_worker_ops_t worker_process_ops = {
    .enter = enter,
    .run = run,
    .run_items = run_items,
    .rest = nothing,
    .pause = nothing,
    .resume = nothing,
    .leave = leave,
    .abandon = abandon,
    .abandon_items = map_abandon_items,
    .dispose = worker_dispose,
};
