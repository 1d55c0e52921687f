/* Models of core/deque.c. What they cover: docs/design/deque.md */
#include "model.h"

#include "core/deque.c"

using namespace plait_model;

/* One owner, some thieves, up to four numbered items. Every suite checks that each item comes
 * out once, with what was written before its push; that a thief sees numbers grow; that the
 * owner pops the newest. */
enum { ITEMS_MAX = 4 };

template<typename derived, int threads>
struct deque_suite : rl::test_suite<derived, threads> {
    plait_deque_t *deque;
    rl::var<int> payload[ITEMS_MAX];
    int taken[ITEMS_MAX];
    int pushed;

    void start(size_t capacity)
    {
        begin();
        deque = make<plait_deque_t>();
        RL_ASSERT(plait_deque_init(deque, capacity, &allocator) == PLAIT_OK);
        pushed = 0;
        for (int i = 0; i < ITEMS_MAX; i++)
            taken[i] = 0;
    }

    void push()
    {
        payload[pushed](RL_INFO) = pushed + 1;
        RL_ASSERT(plait_deque_push_owner(deque, &payload[pushed]) == PLAIT_OK);
        pushed++;
    }

    int number(void *item)
    {
        int index = (int)((rl::var<int> *)item - payload);
        RL_ASSERT(index >= 0 && index < ITEMS_MAX);
        RL_ASSERT((int)payload[index](RL_INFO) == index + 1);
        taken[index]++;
        RL_ASSERT(taken[index] == 1);
        return index;
    }

    bool pop()
    {
        void *item;
        int result = plait_deque_pop_owner(deque, &item);
        if (result != PLAIT_OK) {
            RL_ASSERT(result == PLAIT_EMPTY);
            return false;
        }
        int index = number(item);
        for (int newer = index + 1; newer < pushed; newer++)
            RL_ASSERT(taken[newer] == 1);
        return true;
    }

    int steal(int *last)
    {
        void *item;
        int result = plait_deque_steal_thief(deque, &item);
        if (result == PLAIT_OK) {
            int index = number(item);
            RL_ASSERT(index > *last);
            *last = index;
        } else {
            RL_ASSERT(result == PLAIT_EMPTY || result == PLAIT_RETRY);
        }
        return result;
    }

    void after()
    {
        while (pop()) {
        }
        for (int i = 0; i < pushed; i++)
            RL_ASSERT(taken[i] == 1);
        RL_ASSERT(plait_deque_size(deque) == 0);
        plait_deque_fini(deque);
        unmake(deque);
        end();
    }
};

/* Both ends meet over two items: the pop must not take at the bottom what the thief takes at the
 * top. */
struct last_items : deque_suite<last_items, 2> {
    void before()
    {
        start(2);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push();
            push();
            pop();
            pop();
        } else {
            int last = -1;
            steal(&last);
            steal(&last);
        }
    }
};

/* The owner pops an empty deque, pushes, pops: bottom goes down and comes back under the thief's
 * eyes. */
struct empty_pops : deque_suite<empty_pops, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            pop();
            push();
            pop();
            pop();
            push();
            pop();
        } else {
            int last = -1;
            steal(&last);
            steal(&last);
        }
    }
};

/* The ring is replaced twice while a thief reads it. */
struct growth : deque_suite<growth, 2> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push();
            push();
            push();
            pop();
        } else {
            int last = -1;
            steal(&last);
            steal(&last);
        }
    }
};

/* Slots are filled again as the thief makes room: indices go round the ring of two. */
struct slots_again : deque_suite<slots_again, 2> {
    void before()
    {
        start(2);
        push();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push();
            push();
            pop();
            push();
        } else {
            int last = -1;
            steal(&last);
            steal(&last);
        }
    }
};

/* Two thieves and the owner over two items. */
struct two_thieves : deque_suite<two_thieves, 3> {
    void before()
    {
        start(2);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push();
            push();
            pop();
        } else {
            int last = -1;
            steal(&last);
        }
    }
};

/* Two thieves while the owner takes the last two of three items. */
struct crowd : deque_suite<crowd, 3> {
    void before()
    {
        start(4);
        push();
        push();
        push();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            pop();
            pop();
        } else {
            int last = -1;
            steal(&last);
            if (id == 1)
                steal(&last);
        }
    }
};

/* Only PLAIT_EMPTY says that nothing was there: with items for everybody nobody hears it. */
struct never_empty : deque_suite<never_empty, 3> {
    void before()
    {
        start(4);
        push();
        push();
        push();
    }

    void thread(unsigned id)
    {
        int last = -1;
        if (id == 0)
            RL_ASSERT(pop());
        else
            RL_ASSERT(steal(&last) != PLAIT_EMPTY);
    }
};

/* A push that gets no memory leaves everything as it was. */
struct no_memory : deque_suite<no_memory, 2> {
    void before()
    {
        start(1);
        push();
        allocations_left = 0;
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            payload[1](RL_INFO) = 2;
            if (plait_deque_push_owner(deque, &payload[1]) == PLAIT_OK)
                pushed++;
            pop();
        } else {
            int last = -1;
            steal(&last);
        }
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(last_items, 4, name)                                                                         \
    E(empty_pops, 4, name)                                                                         \
    E(growth, 4, name)                                                                             \
    E(slots_again, 4, name)                                                                        \
    E(two_thieves, 3, name)                                                                        \
    E(crowd, 3, name)                                                                              \
    E(never_empty, 3, name)                                                                        \
    E(no_memory, 5, name)                                                                          \
    S(last_items, 20000, name)                                                                     \
    S(crowd, 20000, name)

MODEL_MAIN(deque, SEARCHES)
