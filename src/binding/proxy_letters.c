/* proxy_letters: what a proxy and its child say to each other. */
#include "binding/proxy.h"

#include "binding/nested.h"

/* How long the proxy sleeps at most before it looks: see receive_any; in ns. */
#define LOOK INT64_C(1000000000)

/* How long the child may take for a request before those ahead of it are recalled, in ns. */
#define LOOK_AHEAD INT64_C(1000000)

int proxy_send(process_t *process, const plait_letter_t *letter)
{
    int result;
    do
        result = plait_wire_send_spsc(&process->child.channel.requests,
                                      process->child.channel.socket, letter);
    while (result == PLAIT_INTERRUPTED);
    return result;
}

void proxy_finish(process_t *process, plait_letter_t *letter)
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

/* The child would take every request for one that was recalled. */
static bool is_out_of_order(process_t *process)
{
    return plait_atomic_load_seq_cst(&process->child.channel.shared->begun) > process->last;
}

/* The next letter that belongs to the present request. Looks now and then even if it is not woken: a
 * child that writes nonsense may have written over the word that says who sleeps. */
static int receive_any(worker_data_t *data, plait_letter_t *letter)
{
    int result;
    process_t *process = data->process;
    plait_ring_t *ring = &process->child.channel.replies;
    do {
        int64_t look = process->ahead_count > 0 ? LOOK_AHEAD : LOOK;
        result = plait_wire_receive_spsc(ring, process->child.channel.socket, true,
                                         plait_prim_now() + look, letter);
        if (result == PLAIT_TIMEOUT && is_out_of_order(process))
            return PLAIT_CORRUPT;
        if (result == PLAIT_TIMEOUT && proxy_recall_ahead(data))
            return PLAIT_RETRY;
    } while (result == PLAIT_INTERRUPTED || result == PLAIT_TIMEOUT);
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

/* Does what the child asks for ahead of its answer. */
static int do_for_child(worker_data_t *data, plait_letter_t *letter)
{
    process_t *process = data->process;
    if (letter->type != REPLY_VISIT) /* before it submits something, or waits for what it has */
        proxy_recall_ahead(data);
    if (letter->type == REPLY_HELP) {
        bool own = letter->words[HELP_OWN] != 0;
        proxy_finish(process, letter); /* others come before the next of this request */
        return proxy_help(data, own);
    }
    int result = letter->type == REPLY_VISIT ? visit(data, letter) : serve_line(process, letter);
    proxy_finish(process, letter);
    return result;
}

int proxy_receive(worker_data_t *data, plait_letter_t *letter)
{
    int result = receive_any(data, letter);
    while (result == PLAIT_OK && letter->type >= REPLY_VISIT && letter->type <= REPLY_HELP) {
        result = do_for_child(data, letter);
        if (result == PLAIT_OK)
            result = receive_any(data, letter);
    }
    return result;
}

int proxy_read_answer(plait_letter_t *letter, answer_t *answer)
{
    uint64_t outcome = letter->words[ANSWER_OUTCOME];
    if (outcome != OUTCOME_VALUE && outcome != OUTCOME_EXCEPTION)
        return PLAIT_CORRUPT;
    answer->outcome = (outcome_t)outcome;
    answer->message = message_of(letter, 0, letter->words[ANSWER_ROOT]);
    return PLAIT_OK;
}
