/* Models of core/life.c with the queue, the deques and park as the scheduler uses them: what was let in is run, all
 * end, join returns after the last worker, and the last holder frees after all use. A missed end shows as a
 * deadlock. What they cover: docs/design/sched.md */
#define PLAIT_INJECT_LAP 3
#define PLAIT_LEVELS 3

#include "model.h"

#include "core/deque.c"
#include "core/inject.c"
#include "core/levels.c"
#include "core/park.c"

#include "core/life.c"

using namespace plait_model;

/* An item is a pointer to the payload; payload 0 is split by whoever takes it where the suite says so. */
template<typename derived, int threads>
struct life_suite : rl::test_suite<derived, threads> {
    enum { WORKERS = 2 };
    plait_life_t *life;
    plait_levels_t *queue;
    plait_park_t *park;
    plait_deque_t *deques[WORKERS];
    rl::var<int> payload[WORKERS];
    rl::var<int> ended[WORKERS];
    rl::atomic<int> begun; /* a suite that starts its worker late */
    int deque_count, accepted, ran, completed, destroyed;
    bool splits, drains;
    bool announced[WORKERS]; /* each the worker's own */

    void start(int workers, bool with_deques = false)
    {
        begin();
        life = make<plait_life_t>();
        queue = make<plait_levels_t>();
        park = make<plait_park_t>();
        RL_ASSERT(plait_levels_init(queue, &allocator) == PLAIT_OK);
        RL_ASSERT(plait_park_init(park, WORKERS, &allocator) == PLAIT_OK);
        plait_life_init(life, queue, park);
        deque_count = with_deques ? WORKERS : 0;
        for (int i = 0; i < deque_count; i++) {
            deques[i] = make<plait_deque_t>();
            RL_ASSERT(plait_deque_init(deques[i], 2, &allocator) == PLAIT_OK);
        }
        for (int i = 0; i < workers; i++)
            plait_life_add_worker(life);
        for (int i = 0; i < WORKERS; i++)
            ended[i](RL_INFO) = 0;
        accepted = ran = completed = destroyed = 0;
        announced[0] = announced[1] = false;
        splits = with_deques;
        drains = false;
        begun.store(0, rl::mo_relaxed, RL_INFO);
    }

    void destroy()
    {
        RL_ASSERT(destroyed++ == 0);
        RL_ASSERT(plait_levels_is_empty(queue));
        for (int i = 0; i < deque_count; i++) {
            plait_deque_fini(deques[i]);
            unmake(deques[i]);
        }
        plait_park_fini(park);
        plait_levels_fini(queue);
        unmake(park);
        unmake(queue);
        unmake(life);
    }

    /* ---- what the scheduler does ---- */

    /* Behind the gate. */
    void push(int index, unsigned level)
    {
        payload[index](RL_INFO) = 1;
        RL_ASSERT(plait_levels_push_mpmc(queue, level, &payload[index]) == PLAIT_OK);
        plait_park_wake_one(park);
        accepted++;
    }

    void submit(int index, unsigned level = PLAIT_LEVEL_NORMAL)
    {
        if (!plait_life_enter(life))
            return;
        push(index, level);
        plait_life_leave(life);
    }

    bool steal(unsigned worker, void **item)
    {
        int result;
        do
            result = plait_deque_steal_thief(deques[1 - worker], item);
        while (result == PLAIT_RETRY);
        return result == PLAIT_OK;
    }

    bool pop(unsigned first, unsigned end, void **item)
    {
        return plait_levels_pop_mpmc(queue, first, end, item) == PLAIT_OK;
    }

    bool find(unsigned worker, void **item)
    {
        const unsigned normal = PLAIT_LEVEL_NORMAL;
        bool used = plait_levels_are_used(queue);
        return (used && pop(0, normal, item)) ||
               (deque_count && plait_deque_pop_owner(deques[worker], item) == PLAIT_OK) ||
               plait_inject_pop_mpmc(&queue->queues[normal], item) == PLAIT_OK ||
               (deque_count && steal(worker, item)) ||
               (used && pop(normal + 1, PLAIT_LEVELS, item));
    }

    bool is_empty(unsigned worker)
    {
        return (!deque_count || plait_deque_size(deques[worker]) == 0) &&
               plait_levels_is_empty(queue);
    }

    bool has_items()
    {
        bool any = !plait_levels_is_empty(queue);
        for (int i = 0; i < deque_count; i++)
            any = any || plait_deque_size(deques[i]) > 0;
        return any;
    }

    void announce(unsigned worker)
    {
        if (!announced[worker])
            plait_park_prepare_worker(park, worker);
        announced[worker] = true;
    }

    void run(unsigned worker, void *item)
    {
        RL_ASSERT((int)(*(rl::var<int> *)item)(RL_INFO) == 1);
        ran++;
        if (splits && item == &payload[0]) {
            payload[1](RL_INFO) = 1;
            RL_ASSERT(plait_deque_push_owner(deques[worker], &payload[1]) == PLAIT_OK);
            accepted++;
            plait_park_wake_one(park);
        }
        if (is_empty(worker)) /* as announce_end */
            announce(worker);
        completed++;
    }

    /* next_item of sched.c, with one look in place of the spin. */
    bool next(unsigned worker, void **item)
    {
        for (;;) {
            if (!announced[worker] && find(worker, item))
                return true;
            if (!announced[worker] && plait_life_is_finished(life))
                return false;
            announce(worker);
            announced[worker] = false;
            *item = NULL;
            if (find(worker, item) || plait_life_is_finished(life)) {
                bool chosen = !plait_park_cancel_worker(park, worker);
                if (chosen && *item && has_items())
                    plait_park_wake_one(park);
                if (*item)
                    return true;
                continue;
            }
            plait_life_sleep_worker(life, worker);
        }
    }

    void work(unsigned worker)
    {
        void *item;
        while (next(worker, &item))
            run(worker, item);
        /* finished: nothing is left, not even in other hands (but for a drain's, who makes no work) */
        RL_ASSERT(completed == accepted || drains);
        ended[worker](RL_INFO) = 1;
        if (plait_life_end_worker(life))
            destroy();
    }

    void release()
    {
        if (plait_life_release(life))
            destroy();
    }

    void close_and_join(int workers)
    {
        plait_life_close(life);
        RL_ASSERT(plait_life_join(life, PLAIT_PRIM_FOREVER) == PLAIT_OK);
        RL_ASSERT(plait_life_workers(life) == 0);
        for (int i = 0; i < workers; i++)
            RL_ASSERT((int)ended[i](RL_INFO) == 1);
        RL_ASSERT(ran == accepted);
    }

    void after()
    {
        RL_ASSERT(ran == accepted);
        RL_ASSERT(destroyed == 1);
        end();
    }
};

/* The handle goes while the worker may still run: either of them frees. */
struct release_first : life_suite<release_first, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            submit(0);
            plait_life_close(life);
            release();
        } else {
            work(0);
        }
    }
};

/* After join the handle's owner frees at once, though the worker may be on its way out. */
struct join_then_free : life_suite<join_then_free, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            submit(0);
            close_and_join(1);
            RL_ASSERT(plait_life_release(life));
            destroy();
        } else {
            work(0);
        }
    }
};

/* A submitter races with close; its item is run or it was told CLOSED. */
struct submit_and_close : life_suite<submit_and_close, 3> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0)
            submit(0);
        else if (id == 1)
            close_and_join(1);
        else
            work(0);
    }

    void after()
    {
        release();
        life_suite<submit_and_close, 3>::after();
    }
};

/* The submitter that is let in starts the first worker; join must wait for it. */
struct first_worker : life_suite<first_worker, 3> {
    void before()
    {
        start(0);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            bool entered = plait_life_enter(life);
            if (entered)
                plait_life_add_worker(life);
            begun.store(entered ? 1 : 2, rl::mo_release, RL_INFO);
            if (entered) {
                push(0, PLAIT_LEVEL_NORMAL);
                plait_life_leave(life);
            }
        } else if (id == 1) {
            close_and_join(0);
        } else {
            int seen;
            while ((seen = begun.load(rl::mo_acquire, RL_INFO)) == 0)
                plait_prim_yield();
            if (seen == 1)
                work(0);
        }
    }

    void after()
    {
        release();
        life_suite<first_worker, 3>::after();
    }
};

/* No worker could be started: drop_worker must leave an end that somebody notices. */
struct no_worker : life_suite<no_worker, 2> {
    void before()
    {
        start(0);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            if (plait_life_enter(life)) {
                plait_life_add_worker(life);
                plait_life_drop_worker(life);
                plait_life_leave(life);
            }
        } else {
            close_and_join(0);
        }
    }

    void after()
    {
        release();
        life_suite<no_worker, 2>::after();
    }
};

/* One item that is split into two while both workers look, steal, fall asleep and end. */
struct two_workers : life_suite<two_workers, 3> {
    void before()
    {
        start(2, true);
        submit(0);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            close_and_join(2);
            release();
        } else {
            work(id - 1);
        }
    }
};

/* An item that comes when both workers may be asleep. */
struct two_sleepers : life_suite<two_sleepers, 3> {
    void before()
    {
        start(2);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            submit(0);
            close_and_join(2);
            release();
        } else {
            work(id - 1);
        }
    }
};

/* The first item of another level comes when the worker may be asleep, or about to be. */
struct first_of_a_level : life_suite<first_of_a_level, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            submit(0, 0);
            submit(1, PLAIT_LEVELS - 1);
            close_and_join(1);
            release();
        } else {
            work(0);
        }
    }
};

/* Two submitters open one level at once; the end must see what either pushed. */
struct level_and_close : life_suite<level_and_close, 3> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            submit(0, 0);
        } else if (id == 1) {
            submit(1, 0);
            close_and_join(1);
        } else {
            work(0);
        }
    }

    void after()
    {
        release();
        life_suite<level_and_close, 3>::after();
    }
};

/* Somebody else takes the last item from the queue: drain. */
struct drained : life_suite<drained, 3> {
    void before()
    {
        start(1);
        drains = true;
        submit(0);
    }

    void thread(unsigned id)
    {
        void *item;
        if (id == 0) {
            while (pop(0, PLAIT_LEVELS, &item))
                ran++, completed++;
            plait_life_look(life);
        } else if (id == 1) {
            plait_life_close(life);
            RL_ASSERT(plait_life_join(life, PLAIT_PRIM_FOREVER) == PLAIT_OK);
        } else {
            work(0);
        }
    }

    void after()
    {
        release();
        life_suite<drained, 3>::after();
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(release_first, 4, name)                                                                      \
    E(join_then_free, 4, name)                                                                     \
    E(no_worker, 20, name)                                                                         \
    E(submit_and_close, 2, name)                                                                   \
    E(first_worker, 2, name)                                                                       \
    E(two_workers, 2, name)                                                                        \
    E(two_sleepers, 2, name)                                                                       \
    E(drained, 2, name)                                                                            \
    E(first_of_a_level, 3, name)                                                                   \
    E(level_and_close, 1, name)                                                                    \
    S(level_and_close, 20000, name)                                                                \
    S(submit_and_close, 20000, name)                                                               \
    S(first_worker, 20000, name)                                                                   \
    S(two_workers, 20000, name)

MODEL_MAIN(life, SEARCHES)
