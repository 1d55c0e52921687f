/* serve: process workers, the half that runs in the child.
 *
 * The main thread takes requests from its channel, runs them as an interpreter worker does, and
 * answers. A second thread, without an interpreter most of the time, has requests interrupted that
 * the parent asks to. The child trusts its parent and reads small messages where they lie. Results of
 * a map's items are encoded on the desk, memory that the parent can read, so that those of finished
 * items survive this process. Design: docs/design/process.md
 */
#include "binding/service.h"

#include "binding/map_job.h"
#include "binding/reuse.h"

/* Of the main thread; as little a matter of interpreters as the scheduler's current worker. */
static _Thread_local worker_data_t *served;

/* Of the process, for good once it serves. */
static PLAIT_ATOMIC(service_t *) the_service;

worker_data_t *serve_current(void)
{
    return served;
}

service_t *service_here(void)
{
    service_t *service = plait_atomic_load_acquire(&the_service); /* pairs with serve */
    return service != NULL && service->core->fork_count == plait_prim_fork_count() ? service : NULL;
}

/* ---- the desk ---- */

/* There is one block, all of it; an encoder that asks for more is told that memory is short. */
static void *desk_resize(void *context, void *Py_UNUSED(block), size_t size)
{
    service_t *service = context;
    if (size <= PLAIT_CHANNEL_DESK)
        return service->channel.desk;
    service->desk_full = true;
    return NULL;
}

static void *desk_allocate(void *context, size_t size)
{
    return desk_resize(context, NULL, size);
}

static void desk_release(void *Py_UNUSED(context), void *Py_UNUSED(block)) {}

kept_encoder_t *service_desk(service_t *service, bool **full)
{
    if (service->desk.taken)
        return NULL;
    service->desk_full = false;
    *full = &service->desk_full;
    return &service->desk;
}

static void open_desk(service_t *service)
{
    service->desk_alloc = (plait_alloc_t){service, desk_allocate, desk_resize, desk_release};
    encoder_init(&service->desk.encoder, service->data->state);
    service->desk.encoder.writer.alloc = &service->desk_alloc;
}

void service_note(service_t *service, uint64_t finished, size_t used)
{
    plait_channel_shared_t *shared = service->channel.shared;
    /* Relaxed, then release: who sees the count sees the bytes. The reader is another process, which
     * looks when this one has died. */
    plait_atomic_store_relaxed(&shared->desk_used, used);
    plait_atomic_store_release(&shared->finished, finished);
}

/* ---- interrupts ---- */

bool service_use_interrupt(worker_data_t *data)
{
    /* relaxed: the main thread writes it; the attendant has read it in worker_runs */
    return plait_channel_use_interrupt(&data->service->channel,
                                       plait_atomic_load_relaxed(&data->request));
}

void service_put_interrupt_back(worker_data_t *data)
{
    plait_channel_put_interrupt_back(&data->service->channel,
                                     plait_atomic_load_relaxed(&data->request)); /* likewise */
}

static void attend(void *argument)
{
    service_t *service = argument;
    uint32_t seen = 0;
    for (;;) {
        plait_channel_await_interrupt(&service->channel, &seen);
        if (plait_atomic_load_seq_cst(&service->ended))
            return;
        uint64_t number = plait_channel_interrupted(&service->channel);
        PyThreadState *own = number == 0 ? NULL : PyThreadState_New(service->data->interpreter);
        if (own == NULL)
            continue;
        PyEval_RestoreThread(own);
        interrupt_request(service->data, number);
        PyThreadState_Clear(own);
        PyThreadState_DeleteCurrent();
    }
}

static void dismiss_attendant(service_t *service)
{
    plait_atomic_store_seq_cst(&service->ended, 1);
    plait_channel_interrupt(&service->channel, 0);
    Py_BEGIN_ALLOW_THREADS
    plait_prim_thread_join(service->attendant);
    Py_END_ALLOW_THREADS
}

/* ---- answers ---- */

void service_send(service_t *service, plait_letter_t *letter)
{
    int result;
    letter->number = service->number;
    /* Blocks while the parent takes something large away. */
    do
        result = plait_wire_send_spsc(&service->channel.replies, service->channel.socket, letter);
    while (result == PLAIT_INTERRUPTED);
    if (result != PLAIT_OK)
        Py_FatalError("plait: the channel to the parent process is damaged");
}

/* Under the lock: the request is over, and the one below is the present one, if any is. */
static void end_request(service_t *service)
{
    service->heard = service->depth > 0;
}

/* `last`: the request has been answered then. */
static void send(service_t *service, plait_letter_t *letter, bool last)
{
    Py_BEGIN_ALLOW_THREADS
    plait_prim_lock(&service->sending);
    service_send(service, letter);
    if (last)
        end_request(service);
    plait_prim_unlock(&service->sending);
    Py_END_ALLOW_THREADS
}

static void reply(service_t *service, plait_letter_t *letter, const message_t *message)
{
    if (plait_prim_fork_count() != service->core->fork_count)
        _Exit(0); /* a copy that a task has made by fork, and that came back */
    letter->words[ANSWER_ROOT] = message->root;
    put_message(letter, 0, message);
    send(service, letter, letter->type != REPLY_GRAIN);
}

/* To a step of the setup: whether it raised. */
static void reply_ready(service_t *service, int status)
{
    output_settle(service->data);
    plait_letter_t letter = {.type = REPLY_READY, .words[ANSWER_OUTCOME] = OUTCOME_VALUE};
    message_t message = {.root = plait_flat_const(PLAIT_FLAT_NONE)};
    if (status < 0) {
        letter.words[ANSWER_OUTCOME] = OUTCOME_EXCEPTION;
        exception_to_message(service->data->state, &message);
    }
    reply(service, &letter, &message);
    message_clear(&message);
}

static uint64_t answer_flags(service_t *service, const shipment_t *function)
{
    uint64_t known;
    uint64_t flags = service->data->exhausted ? FLAG_EXHAUSTED : 0;
    if (table_get(&service->data->functions, function->id, &known))
        flags |= FLAG_KNOWN;
    return flags;
}

void service_visit(service_t *service, visit_t visit, const message_t *arguments)
{
    plait_letter_t letter = {
        .type = REPLY_VISIT,
        .words = {[VISIT_WHICH] = visit, [VISIT_ROOT] = arguments->root},
        .blobs[0] = {arguments->bytes, arguments->bytes == NULL ? 0 : arguments->size},
    };
    send(service, &letter, false);
}

/* ---- requests ---- */

static message_t message_in(const plait_letter_t *letter, int blob, uint64_t root)
{
    return (message_t){.root = root,
                       .bytes = letter->blobs[blob].bytes,
                       .size = letter->blobs[blob].size,
                       .borrowed = true,
                       .bundle_borrowed = true,
                       .bundle = letter->bundles[blob]};
}

/* Takes a message away from its letter. */
static message_t take_message(plait_letter_t *letter, int blob, uint64_t root)
{
    message_t message = message_in(letter, blob, root);
    message.borrowed = message.bundle_borrowed = false;
    letter->bundles[blob] = NULL;
    if (message.bytes == NULL || !letter->in_ring[blob]) {
        letter->blobs[blob].bytes = NULL;
        return message;
    }
    message.bytes = malloc(message.size);
    if (message.bytes == NULL)
        Py_FatalError("plait: no memory for a request of the parent process");
    memcpy(message.bytes, letter->blobs[blob].bytes, message.size);
    return message;
}

static void keep_context(service_t *service, plait_letter_t *letter)
{
    shipment_release(service->context);
    service->context = calloc(1, sizeof *service->context);
    if (service->context == NULL)
        Py_FatalError("plait: no memory for a request of the parent process");
    plait_atomic_init(&service->context->references, 1);
    service->context->id = letter->words[CONTEXT_ID];
    service->context->message = take_message(letter, 0, letter->words[CONTEXT_ROOT]);
}

/* The context of a request, a reference; NULL for none. */
static shipment_t *take_context(service_t *service, const plait_letter_t *letter)
{
    if (!(letter->words[CALL_FLAGS] & FLAG_CONTEXT) || service->context == NULL)
        return NULL;
    shipment_retain(service->context);
    return service->context;
}

/* Begins a request, unless the parent has taken it back; what it says of functions holds anyway. */
static bool begin_request(service_t *service, const plait_letter_t *letter)
{
    if (letter->words[CALL_FLAGS] & FLAG_FORGET)
        worker_forget_functions(service->data);
    if (!plait_begun_claim(&service->channel.shared->begun, letter->number))
        return false;
    plait_atomic_store_seq_cst(&service->data->request, letter->number);
    return true;
}

/* The function of a request, as worker_function wants it; it lies on the caller's stack. */
static void take_function(const plait_letter_t *letter, shipment_t *function)
{
    plait_atomic_init(&function->references, 1);
    function->id = letter->words[CALL_FUNCTION];
    function->message = message_in(letter, 0, letter->words[CALL_FUNCTION_ROOT]);
}

static void do_setup(service_t *service, const plait_letter_t *letter)
{
    service->core->setup = message_in(letter, 0, letter->words[SETUP_ROOT]);
    service->core->keep = (unsigned)letter->words[SETUP_KEEP];
    service->core->remote = letter->words[SETUP_POOL];
    service_forget_sent(service);
    plait_prim_child_ignore_interrupts();
    reply_ready(service, worker_resemble_maker(service->data));
}

static void do_initialize(service_t *service, const plait_letter_t *letter)
{
    shipment_t function;
    plait_atomic_store_seq_cst(&service->data->request, letter->number);
    take_function(letter, &function);
    service->core->initializer_shipment = &function;
    service->core->initializer_arguments = message_in(letter, 1, letter->words[CALL_ROOT]);
    reply_ready(service, worker_run_initializer(service->data));
    service->core->initializer_shipment = NULL;
}

/* The call that requests use, or one more for what runs on top of another. */
static call_t *take_call(service_t *service)
{
    call_t *call = service->call != NULL ? service->call : call_new_empty();
    service->call = NULL;
    if (call == NULL)
        Py_FatalError("plait: no memory for a request of the parent process");
    return call;
}

static void give_call(service_t *service, call_t *call)
{
    answer_clear(&call->answer);
    call->answer = (answer_t){.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
    plait_atomic_store_seq_cst(&call->interrupted, 0);
    if (service->call == NULL)
        service->call = call;
    else
        plait_task_release(&call->task);
}

static void do_call(service_t *service, const plait_letter_t *letter)
{
    call_t *call = take_call(service);
    plait_letter_t answer = {.type = REPLY_CALL};
    shipment_t function;
    take_function(letter, &function);
    shipment_retain(&function); /* the call's */
    call->flat.function = &function;
    call->flat.context = take_context(service, letter);
    call->flat.arguments = message_in(letter, 1, letter->words[CALL_ROOT]);
    call_run(service->data, call);
    answer.words[ANSWER_OUTCOME] = call->answer.outcome;
    answer.words[ANSWER_FLAGS] = answer_flags(service, &function);
    reply(service, &answer, &call->answer.message);
    deferred_free(service->data);
    give_call(service, call);
}

static void block_release(block_t *block)
{
    if (block == NULL || --block->references > 0)
        return;
    message_clear(&block->message);
    free(block);
}

/* The block of a request, a reference: its own, or the one that came last. */
static block_t *take_block(service_t *service, plait_letter_t *letter)
{
    if ((letter->words[CALL_FLAGS] & FLAG_ITEMS) || service->items == NULL) {
        block_release(service->items);
        service->items = malloc(sizeof *service->items);
        if (service->items == NULL)
            Py_FatalError("plait: no memory for a request of the parent process");
        service->items->references = 1;
        service->items->message = take_message(letter, 1, letter->words[CALL_ROOT]);
    }
    service->items->references++;
    return service->items;
}

/* Drops what it has of the pool. Whether nothing is left. */
static bool leave_pool(service_t *service)
{
    worker_data_t *data = service->data;
    deferred_end(data);
    worker_forget_functions(data);
    context_end(data);
    block_release(service->items);
    service->items = NULL;
    shipment_release(service->context);
    service->context = NULL;
    data->reused = !data->exhausted && !service->has_clerk && reuse_is_clean(data);
    return data->reused;
}

static void do_leave(service_t *service)
{
    bool clean = leave_pool(service);
    output_end_all(service->data);
    plait_letter_t letter = {.type = REPLY_READY, .words[ANSWER_OUTCOME] = OUTCOME_VALUE};
    message_t message = {.root = plait_flat_const(clean ? PLAIT_FLAT_TRUE : PLAIT_FLAT_FALSE)};
    reply(service, &letter, &message);
}

static void send_grains(service_t *service, stream_t *stream)
{
    plait_link_t *link;
    if (plait_mailbox_take(&stream->grains, 0, &link) != PLAIT_OK)
        return;
    while (link != NULL) {
        grain_t *grain = (grain_t *)link;
        link = link->next;
        plait_letter_t letter = {.type = REPLY_GRAIN};
        letter.words[ANSWER_OUTCOME] = grain->answer.outcome;
        letter.words[GRAIN_LOW] = grain->low;
        letter.words[GRAIN_HIGH] = grain->high;
        reply(service, &letter, &grain->answer.message);
        grain_free(grain);
    }
}

static void do_items(service_t *service, plait_letter_t *letter)
{
    plait_letter_t done = {.type = REPLY_ITEMS};
    message_t nothing = {.root = plait_flat_const(PLAIT_FLAT_NONE)};
    shipment_t function;
    uint64_t high = letter->words[ITEMS_HIGH];
    stream_t *stream = stream_new();
    if (stream == NULL)
        Py_FatalError("plait: no memory for the items of a map");
    block_t *block = take_block(service, letter);
    shipment_t *context = take_context(service, letter);
    take_function(letter, &function);
    /* Its own: it may be asked for again when the letter is no longer there. */
    function.message = take_message(letter, 0, letter->words[CALL_FUNCTION_ROOT]);
    map_job_t job = {.stream = stream,
                     .core = service->core,
                     .star = (letter->words[CALL_FLAGS] & FLAG_STAR) != 0,
                     .function = &function,
                     .context = context,
                     .items = block->message};
    for (uint64_t low = letter->words[ITEMS_LOW]; low < high;) {
        low += map_run_items(service->data, &job.job, low, high);
        send_grains(service, stream);
    }
    stream_release(stream);
    done.words[ANSWER_FLAGS] = answer_flags(service, &function);
    message_clear(&function.message);
    shipment_release(context);
    block_release(block);
    reply(service, &done, &nothing);
}

/* ---- the loop ---- */

/* Without the GIL. */
static int receive(service_t *service, plait_letter_t *letter)
{
    int result = plait_wire_receive_spsc(&service->channel.requests, service->channel.socket, false,
                                         PLAIT_PRIM_FOREVER, letter);
    if (result == PLAIT_OK || result == PLAIT_NOMEM) {
        plait_prim_lock(&service->sending);
        service->number = letter->number; /* also of what is printed at the end */
        service->heard = true;
        plait_prim_unlock(&service->sending);
    }
    return result;
}

bool service_next(service_t *service, plait_letter_t *letter)
{
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = receive(service, letter);
        Py_END_ALLOW_THREADS
        if (result == PLAIT_OK)
            return letter->type != REQUEST_END;
        if (result == PLAIT_NOMEM) /* another child may have room: this one has not begun it */
            Py_FatalError(
                "plait: no memory or no file descriptor for a request of the parent process");
        if (result != PLAIT_INTERRUPTED)
            Py_FatalError("plait: the channel to the parent process is damaged");
        if (PyErr_CheckSignals() < 0) /* a handler that some task has left behind */
            PyErr_WriteUnraisable(NULL);
    }
}

static void do_request(service_t *service, plait_letter_t *letter)
{
    switch (letter->type) {
    case REQUEST_SETUP:
        do_setup(service, letter);
        break;
    case REQUEST_INITIALIZE:
        do_initialize(service, letter);
        break;
    case REQUEST_CONTEXT:
        keep_context(service, letter);
        break;
    case REQUEST_CALL:
        do_call(service, letter);
        break;
    case REQUEST_ITEMS:
        do_items(service, letter);
        break;
    case REQUEST_LEAVE:
        do_leave(service);
        break;
    }
}

/* A request that was taken back needs no answer, and nobody waits for one. */
static void unhear(service_t *service)
{
    Py_BEGIN_ALLOW_THREADS
    plait_prim_lock(&service->sending);
    end_request(service);
    plait_prim_unlock(&service->sending);
    Py_END_ALLOW_THREADS
}

void service_serve(service_t *service, plait_letter_t *letter)
{
    plait_letter_t *below = service->letter;
    service->letter = letter;
    bool runs = letter->type == REQUEST_CALL || letter->type == REQUEST_ITEMS;
    if (runs && !begin_request(service, letter))
        unhear(service);
    else
        do_request(service, letter);
    plait_wire_finish_spsc(&service->channel.requests, letter);
    service->letter = below;
}

static void serve_requests(service_t *service)
{
    plait_letter_t letter;
    while (service_next(service, &letter))
        service_serve(service, &letter);
}

/* ---- life ---- */

static int open_service(service_t *service)
{
    int result = plait_channel_open(&service->channel, PLAIT_PRIM_CHILD_DESCRIPTOR);
    if (result != PLAIT_OK) {
        raise_core_error(result, "opening the channel to the parent process");
        return -1;
    }
    if (!plait_prim_child_follow(service->channel.shared->starter))
        _Exit(1); /* nobody is there any more to be told */
    plait_prim_child_ignore_interrupts();
    service->data = calloc(1, sizeof *service->data);
    service->core = calloc(1, sizeof *service->core);
    service->call = call_new_empty();
    if (service->data == NULL || service->core == NULL || service->call == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    service->core->kind = KIND_PROCESS;
    service->core->fork_count = plait_prim_fork_count();
    service->data->core = service->core;
    service->data->service = service;
    table_init(&service->data->functions);
    table_init(&service->sent);
    if (worker_find_state(service->data) < 0)
        return -1;
    open_desk(service);
    if (plait_prim_thread_start(&service->attendant, attend, service, "plait-attend", 0) ==
        PLAIT_OK)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
    return -1;
}

/* What it holds of Python's; the process ends and takes the rest along. */
static void close_service(service_t *service)
{
    dismiss_attendant(service);
    leave_members(service->data);
    worker_forget_functions(service->data);
    context_end(service->data);
    output_leave(service->data);
    encoder_fini(&service->data->encoder.encoder);
    encoder_fini(&service->desk.encoder);
    block_release(service->items);
    shipment_release(service->context);
    Py_CLEAR(service->data->module);
}

PyObject *serve(void)
{
    service_t *service = calloc(1, sizeof *service);
    if (service == NULL)
        return PyErr_NoMemory();
    if (open_service(service) < 0)
        return NULL;
    served = service->data;
    plait_atomic_store_release(&the_service, service); /* pairs with service_here */
    serve_requests(service);
    served = NULL;
    close_service(service);
    Py_RETURN_NONE;
}
