/* Models of the three sources together, as a pool uses them: work is published in a deque or the
 * injector, workers look there, sleep, and are woken. A lost wake-up shows as a deadlock. */
#define PLAIT_INJECT_LAP 3

#include "model.h"

#include "core/deque.c"
#include "core/inject.c"
/* deque.c and inject.c keep their helpers to themselves; park.c's names do not collide with
 * theirs. */
#include "core/park.c"

using namespace plait_model;

/* From outside: an injector between a producer and sleeping workers. */
template<typename derived, int threads>
struct outside_suite : rl::test_suite<derived, threads> {
    plait_inject_t *queue;
    plait_park_t *park;
    rl::var<int> payload[2];

    void before()
    {
        begin();
        queue = make<plait_inject_t>();
        park = make<plait_park_t>();
        RL_ASSERT(plait_inject_init(queue, &allocator) == PLAIT_OK);
        RL_ASSERT(plait_park_init(park, 2, &allocator) == PLAIT_OK);
    }

    void produce(int index)
    {
        payload[index](RL_INFO) = 1;
        RL_ASSERT(plait_inject_push_mpmc(queue, &payload[index]) == PLAIT_OK);
        plait_park_wake_one(park);
    }

    void consume(unsigned worker)
    {
        void *item;
        bool chosen = false;
        while (plait_inject_pop_mpmc(queue, &item) != PLAIT_OK) {
            plait_park_prepare_worker(park, worker);
            if (!plait_inject_is_empty(queue))
                chosen |= !plait_park_cancel_worker(park, worker);
            else
                plait_park_wait_worker(park, worker, PLAIT_PRIM_FOREVER);
        }
        if (chosen && !plait_inject_is_empty(queue))
            plait_park_wake_one(park);
        RL_ASSERT((int)(*(rl::var<int> *)item)(RL_INFO) == 1);
    }

    void after()
    {
        RL_ASSERT(plait_inject_is_empty(queue));
        plait_park_fini(park);
        plait_inject_fini(queue);
        unmake(park);
        unmake(queue);
        end();
    }
};

struct outside : outside_suite<outside, 2> {
    void thread(unsigned id)
    {
        for (int i = 0; i < 2; i++) {
            if (id == 0)
                produce(i);
            else
                consume(0);
        }
    }
};

struct outside_two : outside_suite<outside_two, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            produce(0);
            produce(1);
        } else {
            consume(id - 1);
        }
    }
};

/* From inside: a busy worker pushes to its own deque and does not come back to it (it blocks in
 * its task); the sleeping thief must get the items. */
struct inside : rl::test_suite<inside, 2> {
    plait_deque_t *deque;
    plait_park_t *park;
    rl::var<int> payload[2];

    void before()
    {
        begin();
        deque = make<plait_deque_t>();
        park = make<plait_park_t>();
        RL_ASSERT(plait_deque_init(deque, 1, &allocator) == PLAIT_OK);
        RL_ASSERT(plait_park_init(park, 2, &allocator) == PLAIT_OK);
    }

    void steal(unsigned worker)
    {
        void *item;
        int result;
        bool chosen = false;
        while ((result = plait_deque_steal_thief(deque, &item)) != PLAIT_OK) {
            if (result == PLAIT_RETRY)
                continue;
            plait_park_prepare_worker(park, worker);
            if (plait_deque_size(deque) > 0)
                chosen |= !plait_park_cancel_worker(park, worker);
            else
                plait_park_wait_worker(park, worker, PLAIT_PRIM_FOREVER);
        }
        if (chosen && plait_deque_size(deque) > 0)
            plait_park_wake_one(park);
        RL_ASSERT((int)(*(rl::var<int> *)item)(RL_INFO) == 1);
    }

    void thread(unsigned id)
    {
        for (int i = 0; i < 2; i++) {
            if (id == 0) {
                payload[i](RL_INFO) = 1;
                RL_ASSERT(plait_deque_push_owner(deque, &payload[i]) == PLAIT_OK);
                plait_park_wake_one(park);
            } else {
                steal(1);
            }
        }
    }

    void after()
    {
        RL_ASSERT(plait_deque_size(deque) == 0);
        plait_park_fini(park);
        plait_deque_fini(deque);
        unmake(park);
        unmake(deque);
        end();
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(outside, 3, name)                                                                            \
    E(outside_two, 2, name)                                                                        \
    E(inside, 4, name)                                                                             \
    S(outside_two, 20000, name)

MODEL_MAIN(pool, SEARCHES)
