/* serve: process workers, the half that runs in the child.
 *
 * The main thread takes requests from its channel, runs them as an interpreter worker does, and
 * answers. A second thread, without an interpreter most of the time, has requests interrupted that
 * the parent asks to. The child trusts its parent and reads small messages where they lie. Results of
 * a map's items are encoded on the desk, memory that the parent can read, so that those of finished
 * items survive this process. Design: docs/design/process.md
 */
#include "binding/process.h"

#include "binding/map_job.h"
#include "binding/reuse.h"

typedef struct service {
    plait_channel_t channel;
    worker_data_t *data;
    pool_core_t *core;
    uint64_t number; /* of the present request */
    call_t *call;    /* used for every request */
    shipment_t function, context;
    message_t items; /* the block of a map's items that came last */
    /* the desk */
    kept_encoder_t desk;
    plait_alloc_t desk_alloc;
    bool desk_full;
    /* the thread that interrupts */
    plait_prim_thread_t attendant;
    PLAIT_ATOMIC(uint32_t) ended;
} service_t;

/* Of the main thread; as little a matter of interpreters as the scheduler's current worker. */
static _Thread_local worker_data_t *served;

worker_data_t *serve_current(void)
{
    return served;
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

bool service_is_interrupted(worker_data_t *data)
{
    /* relaxed: written by this thread */
    return plait_channel_interrupted(&data->service->channel) ==
           plait_atomic_load_relaxed(&data->request);
}

static void attend(void *argument)
{
    service_t *service = argument;
    uint32_t seen = 0;
    for (;;) {
        plait_channel_await_interrupt(&service->channel, &seen);
        if (plait_atomic_load_seq_cst(&service->ended))
            return;
        PyThreadState *own = PyThreadState_New(service->data->interpreter);
        if (own == NULL)
            continue;
        PyEval_RestoreThread(own);
        interrupt_request(service->data, plait_channel_interrupted(&service->channel));
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

static void send(service_t *service, plait_letter_t *letter)
{
    int result;
    letter->number = service->number;
    /* Blocks while the parent takes something large away. */
    Py_BEGIN_ALLOW_THREADS
    do
        result = plait_wire_send_spsc(&service->channel.replies, service->channel.socket, letter);
    while (result == PLAIT_INTERRUPTED);
    Py_END_ALLOW_THREADS
    if (result != PLAIT_OK)
        Py_FatalError("plait: the channel to the parent process is damaged");
}

static void reply(service_t *service, plait_letter_t *letter, const message_t *message)
{
    if (plait_prim_fork_count() != service->core->fork_count)
        _Exit(0); /* a copy that a task has made by fork, and that came back */
    letter->words[ANSWER_ROOT] = message->root;
    if (message->bytes != NULL)
        letter->blobs[0] = (plait_blob_t){message->bytes, message->size};
    letter->bundles[0] = message->bundle;
    send(service, letter);
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

static uint64_t answer_flags(service_t *service)
{
    uint64_t known;
    uint64_t flags = service->data->exhausted ? FLAG_EXHAUSTED : 0;
    if (table_get(&service->data->functions, service->function.id, &known))
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
    send(service, &letter);
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

/* Keeps a message for the requests that follow, in place of the one before. */
static void keep(message_t *kept, plait_letter_t *letter, int blob, uint64_t root)
{
    message_clear(kept);
    *kept = message_in(letter, blob, root);
    kept->borrowed = kept->bundle_borrowed = false;
    letter->bundles[blob] = NULL; /* taken away */
    if (!letter->in_ring[blob]) {
        letter->blobs[blob].bytes = NULL; /* likewise */
        return;
    }
    kept->bytes = malloc(kept->size);
    if (kept->bytes == NULL)
        Py_FatalError("plait: no memory for a request of the parent process");
    memcpy(kept->bytes, letter->blobs[blob].bytes, kept->size);
}

static void keep_context(service_t *service, plait_letter_t *letter)
{
    service->context.id = letter->words[CONTEXT_ID];
    keep(&service->context.message, letter, 0, letter->words[CONTEXT_ROOT]);
}

/* The context of a request, as call_run wants it. */
static shipment_t *take_context(service_t *service, const plait_letter_t *letter)
{
    if (!(letter->words[CALL_FLAGS] & FLAG_CONTEXT))
        return NULL;
    shipment_retain(&service->context); /* the call's */
    return &service->context;
}

/* The function of a request, as worker_function wants it. */
static void take_function(service_t *service, const plait_letter_t *letter)
{
    if (letter->words[CALL_FLAGS] & FLAG_FORGET)
        worker_forget_functions(service->data);
    service->function.id = letter->words[CALL_FUNCTION];
    service->function.message = message_in(letter, 0, letter->words[CALL_FUNCTION_ROOT]);
    plait_atomic_store_seq_cst(&service->data->request, letter->number);
    plait_atomic_store_seq_cst(&service->channel.shared->begun, letter->number);
}

static void do_setup(service_t *service, const plait_letter_t *letter)
{
    service->core->setup = message_in(letter, 0, letter->words[SETUP_ROOT]);
    service->core->keep = (unsigned)letter->words[SETUP_KEEP];
    plait_prim_child_ignore_interrupts();
    reply_ready(service, worker_resemble_maker(service->data));
}

/* Drops what it has of the pool. Whether nothing is left. */
static bool leave_pool(service_t *service)
{
    worker_data_t *data = service->data;
    worker_forget_functions(data);
    context_end(data);
    message_clear(&service->items);
    message_clear(&service->context.message);
    service->items = service->context.message =
        (message_t){.root = plait_flat_const(PLAIT_FLAT_NONE)};
    service->context.id = 0;
    data->reused = !data->exhausted && reuse_is_clean(data);
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

static void do_initialize(service_t *service, const plait_letter_t *letter)
{
    take_function(service, letter);
    service->core->initializer_shipment = &service->function;
    service->core->initializer_arguments = message_in(letter, 1, letter->words[CALL_ROOT]);
    reply_ready(service, worker_run_initializer(service->data));
    service->core->initializer_shipment = NULL;
}

static void do_call(service_t *service, const plait_letter_t *letter)
{
    call_t *call = service->call;
    plait_letter_t answer = {.type = REPLY_CALL};
    take_function(service, letter);
    shipment_retain(&service->function); /* the call's */
    call->flat.function = &service->function;
    call->flat.context = take_context(service, letter);
    call->flat.arguments = message_in(letter, 1, letter->words[CALL_ROOT]);
    call_run(service->data, call);
    answer.words[ANSWER_OUTCOME] = call->answer.outcome;
    answer.words[ANSWER_FLAGS] = answer_flags(service);
    reply(service, &answer, &call->answer.message);
    deferred_free(service->data);
    answer_clear(&call->answer);
    call->answer = (answer_t){.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
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
    uint64_t flags = letter->words[CALL_FLAGS], high = letter->words[ITEMS_HIGH];
    stream_t *stream = stream_new();
    if (stream == NULL)
        Py_FatalError("plait: no memory for the items of a map");
    if (flags & FLAG_ITEMS)
        keep(&service->items, letter, 1, letter->words[CALL_ROOT]);
    take_function(service, letter);
    map_job_t job = {.stream = stream,
                     .core = service->core,
                     .star = (flags & FLAG_STAR) != 0,
                     .function = &service->function,
                     .context = flags & FLAG_CONTEXT ? &service->context : NULL,
                     .items = service->items};
    for (uint64_t low = letter->words[ITEMS_LOW]; low < high;) {
        low += map_run_items(service->data, &job.job, low, high);
        send_grains(service, stream);
    }
    stream_release(stream);
    done.words[ANSWER_FLAGS] = answer_flags(service);
    reply(service, &done, &nothing);
}

/* ---- the loop ---- */

/* The next request. False at the end. */
static bool next_request(service_t *service, plait_letter_t *letter)
{
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = plait_wire_receive_spsc(&service->channel.requests, service->channel.socket, false,
                                         PLAIT_PRIM_FOREVER, letter);
        Py_END_ALLOW_THREADS
        if (result == PLAIT_OK)
            return letter->type != REQUEST_END;
        if (result == PLAIT_NOMEM) { /* another child may have room: this one has not begun it */
            service->number = letter->number; /* what it prints at its end belongs to this */
            Py_FatalError(
                "plait: no memory or no file descriptor for a request of the parent process");
        }
        if (result != PLAIT_INTERRUPTED)
            Py_FatalError("plait: the channel to the parent process is damaged");
        if (PyErr_CheckSignals() < 0) /* a handler that some task has left behind */
            PyErr_WriteUnraisable(NULL);
    }
}

static void serve_requests(service_t *service)
{
    plait_letter_t letter;
    while (next_request(service, &letter)) {
        service->number = letter.number;
        switch (letter.type) {
        case REQUEST_SETUP:
            do_setup(service, &letter);
            break;
        case REQUEST_INITIALIZE:
            do_initialize(service, &letter);
            break;
        case REQUEST_CONTEXT:
            keep_context(service, &letter);
            break;
        case REQUEST_CALL:
            do_call(service, &letter);
            break;
        case REQUEST_ITEMS:
            do_items(service, &letter);
            break;
        case REQUEST_LEAVE:
            do_leave(service);
            break;
        }
        plait_wire_finish_spsc(&service->channel.requests, &letter);
    }
}

/* ---- life ---- */

static int open_service(service_t *service)
{
    int result = plait_channel_open(&service->channel, PLAIT_PRIM_CHILD_DESCRIPTOR);
    if (result != PLAIT_OK) {
        raise_core_error(result, "opening the channel to the parent process");
        return -1;
    }
    if (!plait_prim_child_follow(service->channel.shared->parent))
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
    plait_atomic_init(&service->function.references, 1);
    plait_atomic_init(&service->context.references, 1);
    service->context.message.root = plait_flat_const(PLAIT_FLAT_NONE);
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
    message_clear(&service->items);
    message_clear(&service->context.message);
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
    serve_requests(service);
    served = NULL;
    close_service(service);
    Py_RETURN_NONE;
}
