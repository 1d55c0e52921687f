/* child: a process that answers requests.
 *
 * Invariant: the watcher is the thread that starts the process, which is killed when that thread ends,
 * and lives as long as the process; the channel lives longer than both. Who may call: see child.h.
 * Design: docs/design/process.md
 */
#include "core/child.h"

#define WATCHER_STACK ((size_t)64 << 10)

/* What a watcher is told, and tells its starter. */
typedef struct order {
    plait_child_t *child;
    const char *program;
    const char *const *arguments, *const *environment;
    int result;
    PLAIT_ATOMIC(uint32_t) done; /* a wait word: 1 when the rest is the starter's again */
} order_t;

/* Starts the process, and tells the starter. */
static bool carry_out(order_t *order)
{
    plait_child_t *child = order->child;
    int result = plait_prim_child_start(&child->process, order->program, order->arguments,
                                        order->environment, child->channel.other_socket);
    order->result = result;
    /* release: pairs with the acquire in plait_child_start */
    plait_atomic_store_release(&order->done, 1u);
    plait_prim_wake(&order->done, 1, false);
    return result == PLAIT_OK;
}

static void watch(void *argument)
{
    order_t *order = argument;
    plait_child_t *child = order->child;
    if (!carry_out(order))
        return;
    while (plait_prim_child_wait(&child->process, PLAIT_PRIM_FOREVER) == PLAIT_INTERRUPTED)
        continue;
    child->death.pid = child->process.pid;
    child->death.end = plait_prim_child_reap(&child->process, &child->death.number);
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
    order_t order = {child, program, arguments, environment, PLAIT_OK, 0u};
    result = plait_prim_thread_start(&child->watcher, watch, &order, "plait-watch", WATCHER_STACK);
    if (result == PLAIT_OK) {
        while (plait_atomic_load_acquire(&order.done) == 0)
            plait_prim_wait(&order.done, 0, PLAIT_PRIM_FOREVER, false);
        result = order.result;
        if (result != PLAIT_OK)
            plait_prim_thread_join(child->watcher);
    }
    if (result == PLAIT_OK)
        plait_channel_handed_over(&child->channel);
    else
        plait_channel_close(&child->channel);
    return result;
}

bool plait_child_has_ended(plait_child_t *child)
{
    return plait_atomic_load_seq_cst(&child->channel.replies.gone) != 0;
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
    *death = child->death;
    plait_prim_child_close(&child->process);
    plait_channel_close(&child->channel);
}
