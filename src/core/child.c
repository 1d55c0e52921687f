/* child: a process that answers requests.
 *
 * Invariant: the watcher lives as long as the process, and the channel longer than both. Who may
 * call: see child.h. Design: docs/design/process.md
 */
#include "core/child.h"

#define WATCHER_STACK ((size_t)64 << 10)

static void watch(void *argument)
{
    plait_child_t *child = argument;
    while (plait_prim_child_wait(&child->process, PLAIT_PRIM_FOREVER) == PLAIT_INTERRUPTED)
        continue;
    plait_ring_abandon(&child->channel.requests);
    plait_ring_abandon(&child->channel.replies);
    plait_ring_abandon(&child->channel.results);
}

int plait_child_start(plait_child_t *child, const char *program, const char *const *arguments,
                      const char *const *environment)
{
    int result = plait_channel_create(&child->channel);
    if (result != PLAIT_OK)
        return result;
    result = plait_prim_child_start(&child->process, program, arguments, environment,
                                    child->channel.other_socket);
    if (result != PLAIT_OK)
        goto fail_channel;
    plait_channel_handed_over(&child->channel);
    result = plait_prim_thread_start(&child->watcher, watch, child, "plait-watch", WATCHER_STACK);
    if (result == PLAIT_OK)
        return PLAIT_OK;
    int ignored;
    plait_prim_child_kill(&child->process);
    plait_prim_child_end(&child->process, &ignored);
fail_channel:
    plait_channel_close(&child->channel);
    return result;
}

void plait_child_end(plait_child_t *child, int64_t deadline, plait_child_death_t *death)
{
    int result;
    do
        result = plait_prim_child_wait(&child->process, deadline);
    while (result == PLAIT_INTERRUPTED);
    if (result != PLAIT_OK)
        plait_prim_child_kill(&child->process);
    plait_prim_thread_join(child->watcher);
    death->pid = child->process.pid;
    death->end = plait_prim_child_end(&child->process, &death->number);
    plait_channel_close(&child->channel);
}
