/* nested: what children submit, on the parent's side.
 *
 * A proxy submits its child's calls to their pool, where they are calls as any; being the worker's
 * thread it puts those of its own pool where a worker puts them. Each is watched by the proxy's *line*,
 * a thread that sends what came of it to the child. A child that dies leaves its calls to themselves.
 * Invariants: each call holds its line until it is destroyed, so what completes it may use the line's
 * mailbox; the line sends under its lock, and only while connected. Design: docs/design/nesting.md
 */
#include "binding/nested.h"

#define BOOKS 256
#define STACK_SIZE ((size_t)256 << 10)

/* How long it may take, in ns, until the thread of a line that was released sees that its calls have
 * gone. */
#define LOOK INT64_C(10000000)

struct line {
    PLAIT_ATOMIC(uint32_t) references; /* the proxy's, the thread's, and each call's */
    plait_mailbox_t finished;
    plait_link_t end; /* comes last of what the proxy puts there */
    plait_prim_thread_t thread;
    bool started; /* the proxy's own */
    /* guarded by lock, under which results are sent */
    plait_prim_lock_t lock;
    plait_channel_t *channel; /* NULL: there is no child; changed by the proxy */
    bool deaf;                /* the child has ended, or its channel is damaged */
    unsigned child;           /* the number of the present or last one */
    uint32_t sent;            /* results, to it */
    uint64_t last;            /* number of a call */
    call_t *books[BOOKS];     /* calls of which nothing has been sent, by number */
    /* the proxy's own */
    table_t functions; /* the child's ids -> shipments */
    uint64_t context_id;
    shipment_t *context; /* NULL before the first */
};

/* ---- the books; under the lock ---- */

static call_t **place_of(line_t *line, uint64_t number)
{
    call_t **place = &line->books[number % BOOKS];
    while (*place != NULL && (*place)->nested->number != number)
        place = &(*place)->nested->next;
    return place;
}

static void enter_call(line_t *line, call_t *call)
{
    nested_t *nested = call->nested;
    plait_prim_lock(&line->lock);
    nested->child = line->child;
    nested->number = ++line->last;
    call_t **place = place_of(line, nested->number);
    nested->next = NULL;
    *place = call;
    plait_prim_unlock(&line->lock);
}

/* Whether it was there. Then the books' reference is the caller's. */
static bool remove_locked(line_t *line, call_t *call)
{
    call_t **place = place_of(line, call->nested->number);
    if (*place == NULL)
        return false;
    *place = call->nested->next;
    return true;
}

/* A call of the present child's that is not final, a reference; or NULL. */
static call_t *find_call(line_t *line, uint64_t number)
{
    plait_prim_lock(&line->lock);
    call_t *call = *place_of(line, number);
    if (call != NULL && call->nested->child != line->child)
        call = NULL;
    if (call != NULL)
        plait_task_retain(&call->task); /* the line's is dropped by its thread, under the lock */
    plait_prim_unlock(&line->lock);
    return call;
}

bool line_is_busy(line_t *line)
{
    bool busy = false;
    plait_prim_lock(&line->lock);
    for (unsigned index = 0; !busy && index < BOOKS; index++)
        for (call_t *call = line->books[index]; !busy && call != NULL; call = call->nested->next)
            busy = call->nested->child == line->child &&
                   !plait_task_is_final(plait_task_state(&call->task));
    plait_prim_unlock(&line->lock);
    return busy;
}

/* ---- results ---- */

/* Under the lock. Blocks while the child's clerk is stopped; a child that ends frees it. */
static void send_locked(line_t *line, call_t *call)
{
    bool cancelled = (plait_task_state(&call->task) & PLAIT_TASK_CANCELLED) != 0;
    plait_letter_t letter = {
        .type = RESULT_CALL,
        .words = {[RESULT_FOR] = call->nested->call,
                  [RESULT_OUTCOME] = cancelled ? OUTCOME_CANCELLED : call->answer.outcome,
                  [RESULT_ROOT] = call->answer.message.root},
    };
    put_message(&letter, 0, &call->answer.message);
    int result;
    do
        result =
            plait_wire_send_spsc(&line->channel->results, line->channel->results_socket, &letter);
    while (result == PLAIT_INTERRUPTED);
    line->sent++;
    line->deaf = result != PLAIT_OK; /* what is damaged its proxy finds out */
}

static void pass_on(line_t *line, call_t *call)
{
    plait_prim_lock(&line->lock);
    bool entered = remove_locked(line, call);
    if (entered && line->channel != NULL && !line->deaf && call->nested->child == line->child)
        send_locked(line, call);
    plait_prim_unlock(&line->lock);
    if (entered)
        plait_task_release(&call->task); /* the books' */
    plait_task_release(&call->task);     /* the mailbox's */
}

/* Those of a list from the mailbox; whether the proxy's end was among them. */
static bool pass_all_on(line_t *line, plait_link_t *link)
{
    bool ended = false;
    while (link != NULL) {
        plait_link_t *next = link->next;
        if (link == &line->end)
            ended = true;
        else
            pass_on(line, (call_t *)plait_task_of_link(link));
        link = next;
    }
    return ended;
}

uint32_t line_flush(line_t *line)
{
    plait_link_t *link;
    if (plait_mailbox_take(&line->finished, 0, &link) == PLAIT_OK)
        pass_all_on(line, link);
    plait_prim_lock(&line->lock);
    uint32_t sent = line->sent;
    plait_prim_unlock(&line->lock);
    return sent;
}

static void forget(line_t *line);

static void drop_reference(line_t *line)
{
    if (plait_atomic_sub_acq_rel(&line->references, 1) != 1)
        return;
    forget(line);
    table_fini(&line->functions);
    free(line);
}

static void run_line(void *argument)
{
    line_t *line = argument;
    bool ended = false;
    /* acquire: pairs with the release of the others, which do not use it any more */
    while (!ended || plait_atomic_load_acquire(&line->references) > 1) {
        plait_link_t *link;
        int64_t deadline = ended ? plait_prim_now() + LOOK : PLAIT_PRIM_FOREVER;
        if (plait_mailbox_take(&line->finished, deadline, &link) == PLAIT_OK)
            ended |= pass_all_on(line, link);
    }
    drop_reference(line);
}

/* ---- life ---- */

line_t *line_new(void)
{
    line_t *line = calloc(1, sizeof *line);
    if (line == NULL)
        return NULL;
    plait_atomic_init(&line->references, 1);
    plait_mailbox_init(&line->finished);
    table_init(&line->functions);
    return line;
}

/* What the child has sent once and for all. */
static void forget(line_t *line)
{
    size_t position = 0;
    uint64_t id, shipment;
    while (table_next(&line->functions, &position, &id, &shipment))
        shipment_release((shipment_t *)(uintptr_t)shipment);
    table_clear(&line->functions);
    shipment_release(line->context);
    line->context = NULL;
    line->context_id = 0;
}

void line_connect(line_t *line, plait_channel_t *channel)
{
    plait_prim_lock(&line->lock);
    line->channel = channel;
    line->deaf = false;
    line->sent = 0;
    line->child++;
    plait_prim_unlock(&line->lock);
}

void line_cut(line_t *line)
{
    plait_prim_lock(&line->lock);
    line->channel = NULL;
    line->child++;
    plait_prim_unlock(&line->lock);
    forget(line);
}

void line_release(line_t *line)
{
    if (line->started) {
        plait_mailbox_push(&line->finished, &line->end);
        /* acquire: as in run_line. With calls that other pools still run, nobody waits. */
        if (plait_atomic_load_acquire(&line->references) > 2) {
            plait_prim_thread_detach(line->thread);
        } else {
            plait_prim_thread_t thread = line->thread;
            drop_reference(line);
            plait_prim_thread_join(thread);
            return;
        }
    }
    drop_reference(line);
}

void nested_free(nested_t *nested)
{
    if (nested == NULL)
        return;
    if (nested->line != NULL)
        drop_reference(nested->line);
    free(nested);
}

static bool start_line(line_t *line)
{
    if (line->started)
        return true;
    plait_atomic_add_relaxed(&line->references, 1); /* relaxed: the caller holds one */
    line->started = plait_prim_thread_start(&line->thread, run_line, line, "plait-line",
                                            STACK_SIZE) == PLAIT_OK;
    if (!line->started)
        plait_atomic_sub_acq_rel(&line->references, 1);
    return line->started;
}

/* ---- what a child submits ---- */

/* Without memory the call that uses it fails, and the child with it. */
static shipment_t *take_shipment(plait_letter_t *letter, uint64_t root)
{
    shipment_t *shipment = calloc(1, sizeof *shipment);
    if (shipment == NULL)
        return NULL;
    plait_atomic_init(&shipment->references, 1);
    shipment->id = plait_task_next_id();
    shipment->message = message_of(letter, 0, root);
    return shipment;
}

static int take_function(line_t *line, plait_letter_t *letter)
{
    uint64_t id = letter->words[FUNCTION_ID], known;
    const plait_blob_t *name = &letter->blobs[1];
    if (id == 0 || table_get(&line->functions, id, &known))
        return PLAIT_CORRUPT;
    shipment_t *function = take_shipment(letter, letter->words[FUNCTION_ROOT]);
    if (function == NULL || !table_add(&line->functions, id, (uint64_t)(uintptr_t)function)) {
        shipment_release(function);
        return PLAIT_CORRUPT;
    }
    if (name->bytes != NULL)
        snprintf(function->name, SHIPMENT_NAME, "%.*s", (int)(name->size < 79 ? name->size : 79),
                 (const char *)name->bytes);
    return PLAIT_OK;
}

static int take_context(line_t *line, plait_letter_t *letter)
{
    shipment_release(line->context);
    line->context_id = letter->words[CONTEXT_ID];
    line->context = take_shipment(letter, letter->words[CONTEXT_ROOT]);
    return line->context == NULL ? PLAIT_CORRUPT : PLAIT_OK;
}

/* The function of a call, a reference; NULL where the child has sent none. The others go where it says
 * so. */
static shipment_t *function_of(line_t *line, const plait_letter_t *letter)
{
    uint64_t known, id = letter->words[SUBMIT_FUNCTION];
    if (!table_get(&line->functions, id, &known))
        return NULL;
    shipment_t *function = (shipment_t *)(uintptr_t)known;
    shipment_retain(function);
    if (letter->words[SUBMIT_FLAGS] & FLAG_FORGET) {
        size_t position = 0;
        uint64_t other, shipment;
        while (table_next(&line->functions, &position, &other, &shipment))
            if (other != id)
                shipment_release((shipment_t *)(uintptr_t)shipment);
        table_clear(&line->functions);
        table_add(&line->functions, id, known); /* it has room for a few at all times */
    }
    return function;
}

/* The parent's call; NULL without memory. `function` is taken over. */
static call_t *make_call(line_t *line, plait_letter_t *letter, plait_sched_t *sched,
                         shipment_t *function)
{
    pool_core_t *core = plait_sched_context(sched);
    nested_t *nested = calloc(1, sizeof *nested);
    call_t *call = nested == NULL ? NULL : call_new_bare();
    if (call == NULL) {
        shipment_release(function);
        free(nested);
        return NULL;
    }
    nested->call = letter->words[SUBMIT_CALL];
    nested->line = line;
    plait_atomic_add_relaxed(&line->references, 1); /* relaxed: the proxy holds one */
    call->nested = nested;
    call->kind = core->kind;
    call->flat.function = function;
    call->flat.arguments = message_of(letter, 1, letter->words[SUBMIT_ROOT]);
    if (letter->words[SUBMIT_FLAGS] & FLAG_CONTEXT) {
        shipment_retain(line->context);
        call->flat.context = line->context;
    }
    call->sched_id = plait_sched_id(sched);
    call->fork_count = core->fork_count;
    call->retries = (uint32_t)letter->words[SUBMIT_RETRIES];
    return call;
}

/* Enters and watches it, and hands it over: then the scheduler, the books and this function have a
 * reference each. */
static int hand_over(line_t *line, call_t *call, plait_sched_t *sched, const plait_letter_t *letter)
{
    if (deadline_start(call, (int64_t)letter->words[SUBMIT_DEADLINE]) != PLAIT_OK)
        return SUBMIT_NOMEM;
    enter_call(line, call);
    plait_task_retain(&call->task); /* the books' */
    /* Unless its deadline has passed, which nobody else tells the line of. */
    if (!plait_task_watch(&call->task, &line->finished)) {
        plait_task_retain(&call->task);
        plait_mailbox_push(&line->finished, &call->task.link);
        return SUBMIT_ACCEPTED;
    }
    bool broken = plait_sched_is_broken(sched);
    int result =
        broken ? PLAIT_CLOSED
               : plait_sched_submit_at(sched, &call->task, (unsigned)letter->words[SUBMIT_LEVEL]);
    if (result == PLAIT_OK)
        return SUBMIT_ACCEPTED;
    if (broken && plait_task_claim_worker(&call->task)) {
        answer_broken(plait_sched_context(sched), &call->answer);
        plait_task_complete_worker(&call->task);
        return SUBMIT_BROKEN;
    }
    plait_prim_lock(&line->lock);
    bool entered = remove_locked(line, call); /* or its deadline has passed, and the line has it */
    plait_prim_unlock(&line->lock);
    if (entered)
        plait_task_release(&call->task); /* the books' */
    return result == PLAIT_CLOSED  ? SUBMIT_CLOSED
           : result == PLAIT_NOMEM ? SUBMIT_NOMEM
                                   : SUBMIT_FAILED;
}

/* What the child is told; or PLAIT_CORRUPT. */
static int submit(line_t *line, plait_letter_t *letter, uint64_t *told)
{
    shipment_t *function = function_of(line, letter);
    bool context = (letter->words[SUBMIT_FLAGS] & FLAG_CONTEXT) != 0;
    if (function == NULL || letter->words[SUBMIT_LEVEL] >= PLAIT_LEVELS ||
        (context && line->context == NULL)) {
        shipment_release(function);
        return PLAIT_CORRUPT;
    }
    plait_sched_t *sched = plait_sched_find(letter->words[SUBMIT_POOL]);
    pool_core_t *core = sched == NULL ? NULL : plait_sched_context(sched);
    if (sched == NULL || core->kind == KIND_THREAD || !start_line(line)) {
        *told = sched == NULL ? SUBMIT_CLOSED : SUBMIT_FAILED;
        shipment_release(function);
    } else {
        call_t *call = make_call(line, letter, sched, function);
        *told = call == NULL ? SUBMIT_NOMEM : (uint64_t)hand_over(line, call, sched, letter);
        if (call != NULL) {
            *told += call->nested->number * SUBMIT_NUMBER;
            plait_task_release(&call->task);
        }
    }
    if (sched != NULL)
        plait_sched_release(sched);
    return PLAIT_OK;
}

/* ---- what it asks ---- */

static uint64_t ask_about_call(line_t *line, uint64_t what, uint64_t number)
{
    uint64_t told = 0;
    bool first;
    call_t *call = find_call(line, number);
    if (call == NULL)
        return 0; /* it is final, and the child hears of it */
    if (what == ASK_CANCEL)
        told = call_cancel(call, &first);
    else if (what == ASK_INTERRUPT)
        told = interrupt_call(call);
    else
        told = (plait_task_state(&call->task) & PLAIT_TASK_RUNNING) != 0;
    plait_task_release(&call->task);
    return told;
}

static uint64_t ask_about_pool(uint64_t what, uint64_t id, uint64_t how)
{
    uint64_t told = 0;
    plait_sched_t *sched = plait_sched_find(id);
    if (sched == NULL)
        return 0;
    if (what == ASK_CLOSE) {
        plait_sched_close(sched);
        if (how != 0)
            core_drain(plait_sched_context(sched));
    } else if (what == ASK_STOP) {
        interrupt_workers(plait_sched_context(sched));
    } else {
        told = plait_sched_living(sched);
    }
    plait_sched_release(sched);
    return told;
}

int line_serve(line_t *line, plait_letter_t *letter)
{
    uint64_t told = 0, what = letter->words[ASK_WHAT], whom = letter->words[ASK_WHOM];
    int result = PLAIT_OK;
    if (letter->type == REPLY_FUNCTION)
        return take_function(line, letter);
    if (letter->type == REPLY_CONTEXT)
        return take_context(line, letter);
    if (letter->type == REPLY_SUBMIT)
        result = submit(line, letter, &told);
    else if (what <= ASK_RUNNING)
        told = ask_about_call(line, what, whom);
    else if (what <= ASK_LIVING)
        told = ask_about_pool(what, whom, letter->words[ASK_HOW]);
    else
        result = PLAIT_CORRUPT;
    if (result == PLAIT_OK)
        plait_channel_tell(line->channel, told);
    return result;
}
