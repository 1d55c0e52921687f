/* timer: the process's one queue of timers, and the thread that serves it.
 *
 * The thread is started with the first timer and lives as long as the process; it holds nothing that
 * an exit would have to wait for. Any thread. Design: docs/design/timer.md
 */
#include "core/timer_queue.h"

#define STACK_SIZE ((size_t)256 << 10)

static plait_timer_queue_t queue;
static plait_prim_lock_t start_lock;
static PLAIT_ATOMIC(uint32_t) served; /* the queue is made and has its server; set under lock */

static void serve(void *argument)
{
    for (;;)
        plait_timer_queue_serve(argument);
}

static int start_server(void)
{
    int result = PLAIT_OK;
    plait_prim_thread_t thread;
    plait_prim_lock(&start_lock);
    if (plait_atomic_load_relaxed(&served) == 0) { /* relaxed: under lock */
        plait_timer_queue_init(&queue, &plait_alloc_system);
        result = plait_prim_thread_start(&thread, serve, &queue, "plait-timer", STACK_SIZE);
        if (result == PLAIT_OK) {
            plait_prim_thread_detach(thread);
            plait_atomic_store_release(&served, 1); /* pairs with start */
        }
    }
    plait_prim_unlock(&start_lock);
    return result;
}

int plait_timer_start(plait_timer_t *timer, int64_t deadline)
{
    if (plait_atomic_load_acquire(&served) == 0) { /* pairs with start_server */
        int result = start_server();
        if (result != PLAIT_OK)
            return result;
    }
    uint32_t fork_count = plait_prim_fork_count();
    if (timer->fork_count != fork_count) /* not written while it fires: stop may read it */
        timer->fork_count = fork_count;
    return plait_timer_queue_start(&queue, timer, deadline);
}

bool plait_timer_stop(plait_timer_t *timer)
{
    /* one that a fork has copied is in no queue here, and nobody fires it */
    return timer->fork_count != plait_prim_fork_count() || plait_timer_queue_stop(&queue, timer);
}

void plait_timer_after_fork(void)
{
    start_lock.word = 0;
    plait_atomic_store_relaxed(&served, 0); /* relaxed: there is one thread */
}
