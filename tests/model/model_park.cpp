/* Models of core/park.c alone, with a counter of items in place of queues. The counter is only
 * ever looked at by a relaxed load first, so that nothing but park's own fences orders a
 * producer's publication and a worker's last look. A lost wake-up shows as a deadlock. What they
 * cover: docs/design/park.md */
#include "model.h"

#include "core/park.c"

using namespace plait_model;

template<typename derived, int threads>
struct park_suite : rl::test_suite<derived, threads> {
    plait_park_t *park;
    rl::atomic<int> items;

    void start(unsigned workers, unsigned spurious = 0)
    {
        begin(spurious);
        park = make<plait_park_t>();
        RL_ASSERT(plait_park_init(park, workers, &allocator) == PLAIT_OK);
        items.store(0, rl::mo_relaxed, RL_INFO);
    }

    /* Makes an item visible, then wakes. */
    bool produce()
    {
        items.fetch_add(1, rl::mo_relaxed, RL_INFO);
        return plait_park_wake_one(park);
    }

    bool take()
    {
        int seen = items.load(rl::mo_relaxed, RL_INFO);
        while (seen > 0)
            if (items.compare_exchange_strong(seen, seen - 1, rl::mo_relaxed, RL_INFO,
                                              rl::mo_relaxed, RL_INFO))
                return true;
        return false;
    }

    bool is_any_left()
    {
        return items.load(rl::mo_relaxed, RL_INFO) > 0;
    }

    /* One item, as a worker gets it. It looks a last time by taking, as a worker that steals
     * does. */
    void consume(unsigned worker)
    {
        for (;;) {
            if (take())
                return;
            plait_park_prepare_worker(park, worker);
            if (take()) { /* last look */
                if (!plait_park_cancel_worker(park, worker) && is_any_left())
                    plait_park_wake_one(park);
                return;
            }
            RL_ASSERT(plait_park_wait_worker(park, worker, PLAIT_PRIM_FOREVER) == PLAIT_OK);
        }
    }

    void after()
    {
        RL_ASSERT(plait_park_sleepers(park) == 0);
        RL_ASSERT(items.load(rl::mo_relaxed, RL_INFO) == 0);
        plait_park_fini(park);
        unmake(park);
        end();
    }
};

struct one_to_one : park_suite<one_to_one, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0)
            produce();
        else
            consume(0);
    }
};

/* Twice: late notifications of the first sleep meet the second. */
struct twice : park_suite<twice, 2> {
    void before()
    {
        start(1, 1);
    }

    void thread(unsigned id)
    {
        for (int i = 0; i < 2; i++) {
            if (id == 0)
                produce();
            else
                consume(0);
        }
    }
};

/* Two items for two workers that each take one and stay busy: two wakes must reach two workers,
 * whoever cancels meanwhile. */
struct two_workers : park_suite<two_workers, 3> {
    void before()
    {
        start(2);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            produce();
            produce();
        } else {
            consume(id - 1);
        }
    }
};

struct two_producers : park_suite<two_producers, 3> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id < 2) {
            produce();
        } else {
            consume(0);
            consume(0);
        }
    }
};

/* Both producers at once, both workers: each wake chooses a worker of its own. */
struct two_to_two : park_suite<two_to_two, 4> {
    void before()
    {
        start(2);
    }

    void thread(unsigned id)
    {
        if (id < 2)
            produce();
        else
            consume(id - 2);
    }
};

/* A worker that leaves for good when its wait times out (a pool that shrinks): TIMEOUT must mean
 * that no producer relied on it. The item must then reach the other worker. Who has it closes,
 * and wakes all. */
struct leaver : park_suite<leaver, 3> {
    rl::atomic<int> closed;

    void before()
    {
        start(2);
        closed.store(0, rl::mo_relaxed, RL_INFO);
    }

    void close()
    {
        closed.store(1, rl::mo_relaxed, RL_INFO);
        plait_park_wake_all(park);
    }

    /* True when there is nothing more to do. */
    bool look()
    {
        if (closed.load(rl::mo_relaxed, RL_INFO))
            return true;
        if (!take())
            return false;
        close();
        return true;
    }

    void work(unsigned worker, int64_t deadline)
    {
        for (;;) {
            if (look())
                return;
            plait_park_prepare_worker(park, worker);
            if (look()) {
                plait_park_cancel_worker(park, worker);
                return;
            }
            int result = plait_park_wait_worker(park, worker, deadline);
            if (result == PLAIT_TIMEOUT)
                return;
            RL_ASSERT(result == PLAIT_OK);
        }
    }

    void thread(unsigned id)
    {
        if (id == 0)
            produce();
        else
            work(id - 1, id == 1 ? 1 : PLAIT_PRIM_FOREVER);
    }
};

/* wake_all reaches whoever has announced itself, and who comes later sees the reason. */
struct closing : park_suite<closing, 3> {
    rl::atomic<int> closed;

    void before()
    {
        start(2);
        closed.store(0, rl::mo_relaxed, RL_INFO);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            closed.store(1, rl::mo_relaxed, RL_INFO);
            plait_park_wake_all(park);
            return;
        }
        while (!closed.load(rl::mo_relaxed, RL_INFO)) {
            plait_park_prepare_worker(park, id - 1);
            if (closed.load(rl::mo_relaxed, RL_INFO)) {
                plait_park_cancel_worker(park, id - 1);
                return;
            }
            plait_park_wait_worker(park, id - 1, PLAIT_PRIM_FOREVER);
        }
    }
};

/* Alone: a notification that was used up does not end a later sleep. */
struct no_stale : park_suite<no_stale, 1> {
    void before()
    {
        start(1);
    }

    void thread(unsigned)
    {
        for (int i = 0; i < 2; i++) {
            plait_park_prepare_worker(park, 0);
            RL_ASSERT(plait_park_wake_one(park));
            RL_ASSERT(plait_park_wait_worker(park, 0, PLAIT_PRIM_FOREVER) == PLAIT_OK);
        }
        plait_park_prepare_worker(park, 0);
        RL_ASSERT(plait_park_wait_worker(park, 0, 1) == PLAIT_TIMEOUT);
        RL_ASSERT(!plait_park_wake_one(park));
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(one_to_one, FULL, name)                                                                      \
    E(twice, 4, name)                                                                              \
    E(two_workers, 3, name)                                                                        \
    E(two_producers, 3, name)                                                                      \
    E(two_to_two, 2, name)                                                                         \
    E(leaver, 2, name)                                                                             \
    E(no_stale, FULL, name)                                                                        \
    E(closing, 3, name)                                                                            \
    S(two_to_two, 20000, name)                                                                     \
    S(two_workers, 20000, name)

MODEL_MAIN(park, SEARCHES)
