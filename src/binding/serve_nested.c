/* serve_nested: what a process worker's child submits to pools of its parent.
 *
 * Any thread submits and asks, one at a time, by letters ahead of the present answer, and is told how
 * that went by a word of the channel. What comes of a call arrives in a ring of its own, where the
 * clerk waits, a thread that needs no interpreter: it completes the child's own call, which futures,
 * callbacks and waits then treat as any. The main thread, where a call waits, asks for help, and does
 * what its parent requests until it is told that this was all. Invariant: nobody waits for a lock of
 * the service with the GIL. Design: docs/design/nesting.md
 */
#include "binding/nested.h"
#include "binding/service.h"

#define STACK_SIZE ((size_t)256 << 10)

/* How often the main thread looks whether the clerk is ready before it sleeps. */
#define SPINS 200

/* ---- the clerk ---- */

/* What came of a call; `result`: what the wire said of its message. */
static void settle(plait_letter_t *letter, int result)
{
    call_t *call = (call_t *)(uintptr_t)letter->words[RESULT_FOR]; /* the parent is trusted */
    bool first;
    if (letter->words[RESULT_OUTCOME] == OUTCOME_CANCELLED) {
        plait_task_cancel(&call->task, &first);
    } else if (plait_task_claim_worker(&call->task)) {
        call->answer.outcome = (outcome_t)letter->words[RESULT_OUTCOME];
        call->answer.message = message_of(letter, 0, letter->words[RESULT_ROOT]);
        if (result == PLAIT_NOMEM) {
            call->answer.outcome = OUTCOME_EXCEPTION;
            message_stand_in("MemoryError", &call->answer.message);
        }
        plait_task_complete_worker(&call->task);
    }
    plait_task_release(&call->task);
}

static void take_results(void *argument)
{
    service_t *service = argument;
    plait_letter_t letter;
    for (;;) {
        int result =
            plait_wire_receive_spsc(&service->channel.results, service->channel.results_socket,
                                    true, PLAIT_PRIM_FOREVER, &letter);
        if (result == PLAIT_INTERRUPTED)
            continue;
        if (result != PLAIT_OK && result != PLAIT_NOMEM)
            Py_FatalError("plait: the channel to the parent process is damaged");
        settle(&letter, result);
        plait_atomic_add_seq_cst(&service->settled, 1); /* before the look: see await_results */
        if (plait_atomic_load_seq_cst(&service->awaited))
            plait_prim_wake(&service->settled, 1, false);
        if (result == PLAIT_OK)
            plait_wire_finish_spsc(&service->channel.results, &letter);
    }
}

/* Under `asking`. It serves until the process ends: callbacks may be due when everything else is
 * over. */
static bool has_clerk(service_t *service)
{
    plait_prim_thread_t thread;
    if (service->has_clerk)
        return true;
    if (plait_prim_thread_start(&thread, take_results, service, "plait-clerk", STACK_SIZE) !=
        PLAIT_OK)
        return false;
    plait_prim_thread_detach(thread);
    return service->has_clerk = true;
}

/* ---- asking ---- */

void service_forget_sent(service_t *service)
{
    table_clear(&service->sent);
    service->sent_context = 0;
    plait_atomic_store_seq_cst(&service->settled, 0);
}

/* All below without the GIL, under both locks. */

static void send_function(service_t *service, const shipment_t *function, plait_letter_t *call)
{
    uint64_t known;
    call->words[SUBMIT_FUNCTION] = function->id;
    if (table_get(&service->sent, function->id, &known))
        return;
    if (service->sent.count >= PROCESS_FUNCTIONS) {
        call->words[SUBMIT_FLAGS] |= FLAG_FORGET;
        table_clear(&service->sent);
    }
    plait_letter_t letter = {
        .type = REPLY_FUNCTION,
        .words = {[FUNCTION_ID] = function->id, [FUNCTION_ROOT] = function->message.root},
        .blobs = {blob_of(&function->message), {(void *)function->name, strlen(function->name)}},
    };
    service_send(service, &letter);
    table_add(&service->sent, function->id, 1); /* without memory it is sent again */
}

static void send_context(service_t *service, const shipment_t *context, plait_letter_t *call)
{
    if (context == NULL)
        return;
    call->words[SUBMIT_FLAGS] |= FLAG_CONTEXT;
    if (service->sent_context == context->id)
        return;
    plait_letter_t letter = {
        .type = REPLY_CONTEXT,
        .words = {[CONTEXT_ID] = context->id, [CONTEXT_ROOT] = context->message.root},
        .blobs[0] = blob_of(&context->message),
    };
    service_send(service, &letter);
    service->sent_context = context->id;
}

/* Sends a letter, of a call or with a question, and waits until it is told how that went. */
static bool send_and_wait(service_t *service, plait_letter_t *letter, const call_t *call,
                          uint64_t *told)
{
    uint32_t seen = plait_atomic_load_acquire(&service->channel.shared->told_count);
    plait_prim_lock(&service->sending);
    bool heard = service->heard;
    if (heard && call != NULL) {
        send_function(service, call->flat.function, letter);
        send_context(service, call->flat.context, letter);
    }
    if (heard)
        service_send(service, letter);
    plait_prim_unlock(&service->sending);
    if (heard)
        *told = plait_channel_await_told(&service->channel, seen);
    return heard;
}

/* ---- submitting ---- */

static int submit_result(uint64_t told)
{
    switch (told % SUBMIT_NUMBER) {
    case SUBMIT_ACCEPTED:
        return PLAIT_OK;
    case SUBMIT_CLOSED:
        return PLAIT_CLOSED;
    case SUBMIT_BROKEN:
        return PLAIT_FULL;
    case SUBMIT_NOMEM:
        return PLAIT_NOMEM;
    }
    return PLAIT_SYSTEM;
}

static int submit(service_t *service, plait_letter_t *letter, call_t *call)
{
    uint64_t told = 0;
    int result = PLAIT_SYSTEM;
    Py_BEGIN_ALLOW_THREADS
    plait_prim_lock(&service->asking);
    if (has_clerk(service))
        result = send_and_wait(service, letter, call, &told) ? submit_result(told) : PLAIT_INVALID;
    plait_prim_unlock(&service->asking);
    Py_END_ALLOW_THREADS
    call->nested->number = told / SUBMIT_NUMBER;
    return result;
}

int nested_submit(const pool_core_t *core, call_t *call, const call_options_t *options)
{
    service_t *service = service_here();
    call->nested = service == NULL ? NULL : calloc(1, sizeof *call->nested);
    if (call->nested == NULL)
        return service == NULL ? PLAIT_INVALID : PLAIT_NOMEM;
    call->sched_id = nested_sched_id(core->remote);
    call->fork_count = core->fork_count;
    plait_letter_t letter = {
        .type = REPLY_SUBMIT,
        .words = {[SUBMIT_POOL] = core->remote,
                  [SUBMIT_CALL] = (uintptr_t)call,
                  [SUBMIT_ROOT] = call->flat.arguments.root,
                  [SUBMIT_LEVEL] = options->level,
                  [SUBMIT_DEADLINE] = (uint64_t)options->deadline,
                  [SUBMIT_RETRIES] = options->retries},
    };
    put_message(&letter, 1, &call->flat.arguments);
    plait_task_retain(&call->task); /* the clerk's */
    int result = submit(service, &letter, call);
    if (result != PLAIT_OK && result != PLAIT_FULL)
        plait_task_release(&call->task); /* which will not hear of it */
    call_drop_arguments(call);
    return result;
}

uint64_t nested_ask(unsigned what, uint64_t whom, uint64_t how)
{
    service_t *service = service_here();
    uint64_t told = 0;
    if (service == NULL)
        return 0;
    plait_letter_t letter = {.type = REPLY_ASK,
                             .words = {[ASK_WHAT] = what, [ASK_WHOM] = whom, [ASK_HOW] = how}};
    Py_BEGIN_ALLOW_THREADS
    plait_prim_lock(&service->asking);
    send_and_wait(service, &letter, NULL, &told);
    plait_prim_unlock(&service->asking);
    Py_END_ALLOW_THREADS
    return told;
}

bool nested_reaches(long process)
{
    service_t *service = service_here();
    return service != NULL && service->channel.shared->parent == process;
}

/* ---- helping ---- */

/* Until the clerk has settled what the parent has sent, without the GIL. */
static void await_results(service_t *service, uint32_t count)
{
    uint32_t settled;
    for (int look = 0;
         (int32_t)((settled = plait_atomic_load_seq_cst(&service->settled)) - count) < 0; look++) {
        if (look < SPINS) {
            plait_prim_relax();
        } else if (look == SPINS) {
            plait_atomic_store_seq_cst(&service->awaited, 1);
        } else {
            plait_prim_wait(&service->settled, settled, PLAIT_PRIM_FOREVER, false);
        }
    }
    plait_atomic_store_seq_cst(&service->awaited, 0);
}

bool service_help(service_t *service, bool own)
{
    worker_data_t *data = service->data;
    plait_letter_t *waiting = service->letter;
    plait_letter_t letter = {.type = REPLY_HELP, .words[HELP_OWN] = own};
    bool helped = false, stepped = false;
    uint32_t results = 0;
    /* relaxed: written by this thread */
    uint64_t request = plait_atomic_load_relaxed(&data->request);
    plait_wire_leave_ring_spsc(&service->channel.requests, waiting);
    Py_BEGIN_ALLOW_THREADS
    plait_prim_lock(&service->sending);
    service_send(service, &letter);
    plait_prim_unlock(&service->sending);
    Py_END_ALLOW_THREADS
    service->depth++;
    while (!helped && service_next(service, &letter)) {
        helped = letter.type == REQUEST_HELPED;
        stepped = helped && letter.words[HELPED_STEPPED] != 0;
        results = helped ? (uint32_t)letter.words[HELPED_RESULTS] : 0;
        service_serve(service, &letter);
    }
    service->depth--;
    Py_BEGIN_ALLOW_THREADS
    await_results(service, results);
    Py_END_ALLOW_THREADS
    plait_atomic_store_seq_cst(&data->request, request);
    return stepped;
}
