/* reuse_process: the children of process workers between two pools.
 *
 * A child that says that it has nothing of its pool left waits, asleep, for a later pool that wants one
 * like it: started by the same command with the same environment and standard streams, and set up in
 * the same way. It is its own watcher's, so it ends with this process like any other. One that dies
 * meanwhile is reaped by the watcher, and dropped when it is found.
 *
 * Who may call: a proxy, for its own child. Design: docs/design/workers.md
 */
#include "binding/process.h"

/* How long a child may take to end that nobody needs any more, in ns; then it is killed. */
#define GRACE INT64_C(10000000000)

#define STREAMS 3 /* the descriptors that a child inherits */

/* ---- keys ---- */

/* Grows by copying, or only counts where there is no place yet. */
typedef struct writer {
    char *place;
    size_t size;
} writer_t;

static void add(writer_t *writer, const void *bytes, size_t size)
{
    if (writer->place != NULL && size > 0)
        memcpy(writer->place + writer->size, bytes, size);
    writer->size += size;
}

static void add_strings(writer_t *writer, char *const *strings)
{
    size_t count = 0;
    while (strings[count] != NULL)
        count++;
    add(writer, &count, sizeof count);
    for (size_t index = 0; index < count; index++)
        add(writer, strings[index], strlen(strings[index]) + 1);
}

static void write_key(const pool_core_t *core, char *const *program, const message_t *setup,
                      writer_t *writer)
{
    add_strings(writer, program);
    add_strings(writer, core->environment);
    for (int stream = 0; stream < STREAMS; stream++) {
        uint64_t identity[2];
        plait_prim_descriptor_identity(stream, identity);
        add(writer, identity, sizeof identity);
    }
    if (setup != NULL)
        add(writer, setup->bytes, setup->size);
}

void *process_key(const pool_core_t *core, char *const *program, const message_t *setup,
                  size_t *size)
{
    writer_t counted = {NULL, 0};
    write_key(core, program, setup, &counted);
    writer_t written = {malloc(counted.size), 0};
    if (written.place != NULL) /* the streams have as many bytes whatever they are by now */
        write_key(core, program, setup, &written);
    *size = counted.size;
    return written.place;
}

/* The key of a child that this pool starts now. */
static void *make_key(const pool_core_t *core, size_t *size)
{
    return process_key(core, core->program, &core->setup, size);
}

void process_note_key(process_t *process, const pool_core_t *core)
{
    free(process->kept.key);
    process->kept.key = core->keep == 0 ? NULL : make_key(core, &process->kept.size);
}

/* ---- ends ---- */

void process_free(process_t *process)
{
    table_fini(&process->known);
    free(process->kept.key);
    free(process);
}

static void end(kept_t *kept)
{
    process_t *process = (process_t *)kept;
    plait_channel_t *channel = &process->child.channel;
    plait_letter_t letter = {.type = REQUEST_END, .number = process->request};
    plait_child_death_t ignored;
    int result = plait_wire_send_spsc(&channel->requests, channel->socket, &letter);
    int64_t deadline = result == PLAIT_OK || result == PLAIT_CLOSED ? plait_prim_now() + GRACE : 0;
    plait_child_end(&process->child, deadline, &ignored);
    process_free(process);
}

/* ---- keeping and using again ---- */

void process_keep(process_t *process, unsigned limit)
{
    table_clear(&process->known);
    process->context = process->items_stream = process->items_first = process->served = 0;
    process->kept.end = end;
    kept_put(KEPT_PROCESS, &process->kept, limit);
}

process_t *process_take(const pool_core_t *core)
{
    size_t size;
    void *key = core->keep == 0 ? NULL : make_key(core, &size);
    process_t *found = NULL;
    while (key != NULL && found == NULL) {
        found = (process_t *)kept_take(KEPT_PROCESS, key, size);
        if (found == NULL)
            break;
        if (plait_child_has_ended(&found->child)) {
            end(&found->kept);
            found = NULL;
        }
    }
    free(key);
    return found;
}
