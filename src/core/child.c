/* child: a process that answers requests.
 *
 * Invariant: the channel lives longer than the process and its watcher. Who may call: see child.h.
 * Design: docs/design/process.md
 */
#include "core/child.h"

static plait_child_t *child_of(plait_watch_t *watch)
{
    return (plait_child_t *)watch;
}

static int run_command(plait_watch_t *watch, void *how)
{
    plait_command_t *command = how;
    command->socket = child_of(watch)->channel.other_socket;
    return plait_watch_run(watch, how);
}

static int copy_template(plait_watch_t *watch, void *how)
{
    plait_child_t *child = child_of(watch);
    return plait_template_copy(child->origin, child->channel.other_socket, &watch->process);
}

static plait_prim_end_t reap_copy(plait_watch_t *watch, int *number)
{
    return plait_template_reap(child_of(watch)->origin, watch->process.pid, number);
}

static void tell(plait_watch_t *watch)
{
    plait_child_t *child = child_of(watch);
    plait_ring_abandon(&child->channel.requests);
    plait_ring_abandon(&child->channel.replies);
    plait_ring_abandon(&child->channel.results);
}

static const plait_watch_ops_t of_command = {run_command, plait_watch_reap, tell};
static const plait_watch_ops_t of_template = {copy_template, reap_copy, tell};

static int start(plait_child_t *child, int starter, const plait_watch_ops_t *ops, void *how)
{
    int result = plait_channel_create(&child->channel, starter);
    if (result != PLAIT_OK)
        return result;
    result = plait_watch_start(&child->watch, ops, how);
    if (result == PLAIT_OK)
        plait_channel_handed_over(&child->channel);
    else
        plait_channel_close(&child->channel);
    return result;
}

int plait_child_start(plait_child_t *child, const char *program, const char *const *arguments,
                      const char *const *environment)
{
    plait_command_t command = {program, arguments, environment, -1};
    child->origin = NULL;
    return start(child, plait_prim_process_id(), &of_command, &command);
}

int plait_child_copy(plait_child_t *child, plait_template_t *origin)
{
    child->origin = origin;
    int result = start(child, plait_template_pid(origin), &of_template, NULL);
    if (result == PLAIT_OK)
        plait_template_retain(origin);
    return result;
}

bool plait_child_has_ended(plait_child_t *child)
{
    return plait_atomic_load_seq_cst(&child->channel.replies.gone) != 0;
}

void plait_child_end(plait_child_t *child, int64_t deadline, plait_child_death_t *death)
{
    plait_watch_end(&child->watch, deadline, death);
    plait_channel_close(&child->channel);
    if (child->origin != NULL)
        plait_template_release(child->origin);
}
