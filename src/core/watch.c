/* watch: a process's thread in this one.
 *
 * Invariant: the thread ends after the process. Who may call: see watch.h.
 * Design: docs/design/process.md
 */
#include "core/watch.h"

#define STACK ((size_t)64 << 10)

/* What a watcher is told, and tells its starter. */
typedef struct order {
    plait_watch_t *watch;
    void *how;
    int result;
    PLAIT_ATOMIC(uint32_t) done; /* a wait word: 1 when the rest is the starter's again */
} order_t;

/* Starts the process, and tells the starter. */
static bool carry_out(order_t *order)
{
    int result = order->watch->ops->start(order->watch, order->how);
    order->result = result;
    /* release: pairs with the acquire in plait_watch_start */
    plait_atomic_store_release(&order->done, 1u);
    plait_prim_wake(&order->done, 1, false);
    return result == PLAIT_OK;
}

void plait_watch_await(const plait_watch_t *watch, int64_t deadline)
{
    int result;
    do
        result = plait_prim_child_wait(&watch->process, deadline);
    while (result == PLAIT_INTERRUPTED);
    if (result != PLAIT_OK)
        plait_prim_child_kill(&watch->process);
}

static void watch_main(void *argument)
{
    order_t *order = argument;
    plait_watch_t *watch = order->watch;
    if (!carry_out(order))
        return;
    plait_watch_await(watch, PLAIT_PRIM_FOREVER);
    watch->death.pid = watch->process.pid;
    watch->death.end = watch->ops->reap(watch, &watch->death.number);
    watch->ops->tell(watch);
}

int plait_watch_start(plait_watch_t *watch, const plait_watch_ops_t *ops, void *how)
{
    watch->ops = ops;
    order_t order = {watch, how, PLAIT_OK, 0u};
    int result = plait_prim_thread_start(&watch->thread, watch_main, &order, "plait-watch", STACK);
    if (result != PLAIT_OK)
        return result;
    while (plait_atomic_load_acquire(&order.done) == 0)
        plait_prim_wait(&order.done, 0, PLAIT_PRIM_FOREVER, false);
    if (order.result != PLAIT_OK)
        plait_prim_thread_join(watch->thread);
    return order.result;
}

void plait_watch_end(plait_watch_t *watch, int64_t deadline, plait_child_death_t *death)
{
    plait_watch_await(watch, deadline);
    plait_prim_thread_join(watch->thread);
    *death = watch->death;
    plait_prim_child_close(&watch->process);
}

int plait_watch_run(plait_watch_t *watch, void *how)
{
    const plait_command_t *command = how;
    return plait_prim_child_start(&watch->process, command->program, command->arguments,
                                  command->environment, command->socket);
}

plait_prim_end_t plait_watch_reap(plait_watch_t *watch, int *number)
{
    return plait_prim_child_reap(&watch->process, number);
}
