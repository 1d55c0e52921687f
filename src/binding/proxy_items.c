/* proxy_items: the items of a map, on their way through a child. */
#include "binding/proxy.h"

#include "binding/map_job.h"

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
    proxy_put_function(process, job->function, &letter);
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
    int result = proxy_send_context(process, job->context, &letter);
    return result == PLAIT_OK ? proxy_send(process, &letter) : result;
}

/* One letter about the items. PLAIT_EMPTY when it was the last. */
static int take_grain(worker_data_t *data, stretch_t *stretch)
{
    process_t *process = data->process;
    plait_letter_t letter;
    answer_t answer = {0};
    int result = proxy_receive(data, &letter);
    if (result != PLAIT_OK)
        return result;
    uint64_t low = letter.words[GRAIN_LOW], high = letter.words[GRAIN_HIGH];
    if (letter.type == REPLY_ITEMS && stretch->next == stretch->high) {
        proxy_note_flags(data, stretch->job->function, letter.words[ANSWER_FLAGS]);
        result = PLAIT_EMPTY;
    } else if (letter.type == REPLY_GRAIN && low == stretch->next && high > low &&
               high <= stretch->high) {
        result = proxy_read_answer(&letter, &answer);
        if (result == PLAIT_OK)
            push_grain(stretch, high, &answer);
    } else {
        result = PLAIT_CORRUPT;
    }
    proxy_finish(process, &letter);
    return result;
}

void proxy_save_desk(process_t *process, stretch_t *stretch)
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
           proxy_may_retry(data, items_of(data), result, &stretch->retries);
}

/* The item that ran fails, those before it do not. True: it is to be run again instead. */
static bool items_failed(worker_data_t *data, stretch_t *stretch, int result)
{
    answer_t failed = {.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
    frame_t *frame = data->process->top;
    if (result == PLAIT_CLOSED && frame->has_desk && !frame->lost)
        proxy_save_desk(data->process, stretch);
    if ((result == PLAIT_NOMEM || stretch->next == stretch->high) && !frame->lost)
        proxy_bury(data,
                   0); /* what it still sends has no place here; or it ended when all was done */
    if (stretch->next == stretch->high)
        return false;
    if (may_retry_item(data, stretch, result))
        return true;
    proxy_answer_failed(data, result, stretch->job->function->name, &failed);
    push_grain(stretch, stretch->next + 1, &failed);
    return false;
}

uint64_t proxy_run_items(plait_worker_t *worker, plait_job_t *base, uint64_t low, uint64_t high)
{
    worker_data_t *data = plait_worker_data(worker);
    uint64_t most = proxy_make_room(data);
    frame_t frame = {.current = items_of(data)};
    stretch_t stretch = {(map_job_t *)base, low, high - low > most ? low + most : high,
                         .retried = UINT64_MAX};
    unsigned attempts = 0;
    int result = PLAIT_EMPTY;
    frame.stretch = &stretch;
    proxy_push(data, &frame);
    if (!frame.has_desk) /* nothing that it has finished is to be found in the child alone */
        stretch.high = low + 1;
    data->items_expired = &stretch.job->stream->expired;
    plait_atomic_store_seq_cst(&data->items, stretch.job->stream->id);
    do {
        if (proxy_begin(worker, data) < 0) {
            answer_t broken = {.message.root = plait_flat_const(PLAIT_FLAT_NONE)};
            answer_broken(data->core, &broken);
            push_grain(&stretch, stretch.next + 1, &broken);
            break;
        }
        result = send_items(data->process, &stretch);
        while (result == PLAIT_OK)
            result = take_grain(data, &stretch);
    } while (result != PLAIT_EMPTY && (proxy_may_begin_again(data, result, &attempts) ||
                                       items_failed(data, &stretch, result)));
    proxy_pop(data, &frame);
    data->process->served += stretch.next - low;
    return stretch.next - low;
}
