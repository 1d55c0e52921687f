/* Models of core/task.c: run or cancelled and never both, whoever waits wakes, the watcher is told once, the outcome
 * is there for whoever sees the task final, and the last reference frees it after all use. A lost wake-up shows as a
 * deadlock. What they cover: docs/design/task.md */
#include "model.h"
#include "model_lock.h"

#include "core/mailbox.c"
#include "core/task.c"

using namespace plait_model;

static void destroy_task(plait_task_t *task)
{
    unmake(task);
}

enum role { WORK, HOLD, CANCEL, EXPIRE, WAIT, WATCH };

template<typename... rest>
static constexpr int count_roles(rest...)
{
    return sizeof...(rest);
}

template<typename derived, int threads>
struct task_suite : rl::test_suite<derived, threads> {
    plait_task_t *task;
    plait_mailbox_t *notifier;
    model_locks locks;
    rl::var<int> outcome;
    int ran, firsts;
    bool watched, runs; /* runs: nobody cancels */

    /* One reference for each of `holders`. */
    void start(int holders, bool cancels, unsigned spurious = 0)
    {
        begin(spurious);
        locks.begin();
        notifier = make<plait_mailbox_t>();
        plait_mailbox_init(notifier);
        task = make<plait_task_t>();
        plait_task_init(task, destroy_task);
        for (int i = 1; i < holders; i++)
            plait_task_retain(task);
        ran = firsts = 0;
        watched = false;
        runs = !cancels;
    }

    void work()
    {
        if (plait_task_claim_worker(task)) {
            ran++;
            outcome(RL_INFO) = 7;
            plait_task_complete_worker(task);
        }
        plait_task_release(task);
    }

    /* Holds it at first, and may let go of it. */
    void hold()
    {
        bool held = plait_task_hold_worker(task), goes = rl::rand(2) == 0;
        if (held && goes)
            plait_task_let_go(task);
        int before = ran;
        work();
        RL_ASSERT(ran == before + 1 || !held || goes);
    }

    void cancel()
    {
        bool first;
        bool cancelled = plait_task_cancel(task, &first);
        RL_ASSERT(cancelled || !first);
        firsts += first;
        plait_task_release(task);
    }

    void expire()
    {
        firsts += plait_task_expire(task);
        plait_task_release(task);
    }

    void check_final()
    {
        uint32_t state = plait_task_state(task);
        RL_ASSERT(plait_task_is_final(state));
        if (state & PLAIT_TASK_DONE)
            RL_ASSERT((int)outcome(RL_INFO) == 7);
    }

    void wait()
    {
        int result;
        do
            result = plait_task_wait(task, PLAIT_PRIM_FOREVER);
        while (result == PLAIT_INTERRUPTED);
        RL_ASSERT(result == PLAIT_OK);
        if (runs) /* wait itself has acquired it */
            RL_ASSERT((int)outcome(RL_INFO) == 7);
        check_final();
        plait_task_release(task);
    }

    /* Gives its reference up first: the one that comes with the link keeps the task. */
    void watch_and_take()
    {
        watched = plait_task_watch(task, notifier);
        if (!watched)
            check_final();
        plait_task_t *known = task;
        plait_task_release(task);
        if (!watched)
            return;
        plait_link_t *link;
        RL_ASSERT(plait_mailbox_take(notifier, PLAIT_PRIM_FOREVER, &link) == PLAIT_OK);
        RL_ASSERT(plait_task_of_link(link) == known && !link->next);
        check_final();
        plait_task_release(known);
    }

    void play(role what)
    {
        switch (what) {
        case WORK:
            return work();
        case HOLD:
            return hold();
        case CANCEL:
            return cancel();
        case EXPIRE:
            return expire();
        case WAIT:
            return wait();
        case WATCH:
            return watch_and_take();
        }
    }

    void after()
    {
        plait_link_t *link;
        RL_ASSERT(plait_mailbox_take(notifier, 0, &link) == PLAIT_TIMEOUT); /* told once at most */
        RL_ASSERT(ran + firsts == 1);
        unmake(notifier);
        end();
    }
};

/* A suite of so many threads, each of which plays one of these roles. */
#define SUITE(name, spurious, cancels, ...)                                                        \
    struct name : task_suite<name, count_roles(__VA_ARGS__)> {                                     \
        void before()                                                                              \
        {                                                                                          \
            start(count_roles(__VA_ARGS__), cancels, spurious);                                    \
        }                                                                                          \
                                                                                                   \
        void thread(unsigned id)                                                                   \
        {                                                                                          \
            const role roles[] = {__VA_ARGS__};                                                    \
            play(roles[id]);                                                                       \
        }                                                                                          \
    };

SUITE(complete_wait, 1, false, WORK, WAIT)
SUITE(two_wait, 0, false, WORK, WAIT, WAIT)
SUITE(cancel_wait, 0, true, WORK, CANCEL, WAIT)
SUITE(complete_watch, 0, false, WORK, WATCH)
SUITE(cancel_watch, 0, true, WORK, CANCEL, WATCH)
SUITE(two_cancel, 0, true, WORK, CANCEL, CANCEL)
SUITE(expire_cancel, 0, true, WORK, CANCEL, EXPIRE)
SUITE(expire_wait, 0, true, WORK, EXPIRE, WAIT)

SUITE(hold_cancel, 0, true, HOLD, CANCEL, EXPIRE)
SUITE(hold_wait, 0, true, HOLD, CANCEL, WAIT)

#define SEARCHES(E, S, name)                                                                       \
    E(complete_wait, 20, name)                                                                     \
    E(two_wait, 3, name)                                                                           \
    E(cancel_wait, 3, name)                                                                        \
    E(complete_watch, 4, name)                                                                     \
    E(cancel_watch, 3, name)                                                                       \
    E(two_cancel, 4, name)                                                                         \
    E(expire_cancel, 3, name)                                                                      \
    E(expire_wait, 3, name)                                                                        \
    E(hold_cancel, 3, name)                                                                        \
    E(hold_wait, 3, name)                                                                          \
    S(cancel_watch, 20000, name)

MODEL_MAIN(task, SEARCHES)
