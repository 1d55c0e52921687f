/* task: the state of one call, and waiting for it.
 *
 * Invariants: RUNNING, CANCELLED and EXPIRED are decided on one word, so a task is run, cancelled or
 * expired, never two of them; DONE is set once, by the worker that claimed it; whoever sleeps on the word has set
 * WAITED in it first, so a completer that does not see WAITED has nobody to wake. Design:
 * docs/design/task.md
 */
#include "plait/task.h"

void plait_task_init(plait_task_t *task, void (*destroy)(plait_task_t *task))
{
    plait_atomic_init(&task->state, 0);
    plait_atomic_init(&task->references, 1);
    task->destroy = destroy;
    task->notifier = NULL;
}

void plait_task_retain(plait_task_t *task)
{
    /* relaxed: the caller holds a reference already, so the task cannot go away meanwhile */
    plait_atomic_add_relaxed(&task->references, 1);
}

void plait_task_release(plait_task_t *task)
{
    /* acq_rel: every holder's writes come before the destruction by the last one */
    if (plait_atomic_sub_acq_rel(&task->references, 1) == 1)
        task->destroy(task);
}

/* Sets RUNNING or HELD; false where the task will never run. */
static bool take(plait_task_t *task, uint32_t bit)
{
    uint32_t before = plait_atomic_or_acq_rel(&task->state, bit);
    return (before & (PLAIT_TASK_CANCELLED | PLAIT_TASK_EXPIRED)) == 0;
}

bool plait_task_claim_worker(plait_task_t *task)
{
    return take(task, PLAIT_TASK_RUNNING);
}

bool plait_task_hold_worker(plait_task_t *task)
{
    return take(task, PLAIT_TASK_HELD);
}

void plait_task_let_go(plait_task_t *task)
{
    plait_atomic_and_acq_rel(&task->state, ~(uint32_t)PLAIT_TASK_HELD);
}

/* What follows from a final state: `before` are the bits that the change replaced. */
static void announce(plait_task_t *task, uint32_t before)
{
    if (before & PLAIT_TASK_WAITED)
        plait_prim_wake(&task->state, INT32_MAX, false);
    if (before & PLAIT_TASK_WATCHED) {
        plait_task_retain(task);
        plait_mailbox_push(task->notifier, &task->link);
    }
}

void plait_task_complete_worker(plait_task_t *task)
{
    announce(task, plait_atomic_or_acq_rel(&task->state, PLAIT_TASK_DONE));
}

/* Sets `bit`, CANCELLED or EXPIRED, unless the task has been claimed, is held or is final. *seen: the state
 * that decided. */
static bool give_up(plait_task_t *task, uint32_t bit, uint32_t *seen)
{
    *seen = plait_atomic_load_acquire(&task->state);
    do {
        if ((*seen & (PLAIT_TASK_RUNNING | PLAIT_TASK_HELD)) || plait_task_is_final(*seen))
            return false;
    } while (!plait_atomic_cas_acq_rel(&task->state, seen, *seen | bit));
    announce(task, *seen);
    return true;
}

bool plait_task_cancel(plait_task_t *task, bool *first)
{
    uint32_t seen;
    *first = give_up(task, PLAIT_TASK_CANCELLED, &seen);
    return *first || (seen & PLAIT_TASK_CANCELLED);
}

bool plait_task_expire(plait_task_t *task)
{
    uint32_t seen;
    return give_up(task, PLAIT_TASK_EXPIRED, &seen);
}

uint32_t plait_task_state(plait_task_t *task)
{
    return plait_atomic_load_acquire(&task->state);
}

int plait_task_wait(plait_task_t *task, int64_t deadline)
{
    for (;;) {
        uint32_t state = plait_atomic_load_acquire(&task->state);
        if (plait_task_is_final(state))
            return PLAIT_OK;
        if (!(state & PLAIT_TASK_WAITED)) {
            state = plait_atomic_or_acq_rel(&task->state, PLAIT_TASK_WAITED);
            if (plait_task_is_final(state))
                return PLAIT_OK;
            state |= PLAIT_TASK_WAITED;
        }
        int result = plait_prim_wait(&task->state, state, deadline, false);
        if (result != PLAIT_OK && !plait_task_is_final(plait_atomic_load_acquire(&task->state)))
            return result;
    }
}

bool plait_task_watch(plait_task_t *task, plait_mailbox_t *notifier)
{
    if (plait_task_is_final(plait_atomic_load_acquire(&task->state)))
        return false;
    task->notifier = notifier;
    uint32_t before = plait_atomic_or_acq_rel(&task->state, PLAIT_TASK_WATCHED);
    return !plait_task_is_final(before);
}

uint64_t plait_task_next_id(void)
{
    static PLAIT_ATOMIC(uint64_t) last;
    return plait_atomic_add_relaxed(&last, 1) + 1; /* relaxed: only uniqueness counts */
}
