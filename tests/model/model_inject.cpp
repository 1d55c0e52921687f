/* Models of core/inject.c, with segments of two slots (one with -DPLAIT_INJECT_LAP=2), so that a
 * few items cross several. What they cover: docs/design/inject.md */
#ifndef PLAIT_INJECT_LAP
#define PLAIT_INJECT_LAP 3
#endif

#include "model.h"

#include "core/inject.c"

using namespace plait_model;

/* Numbered items. Every suite checks that each comes out once, with what was written before its
 * push, and that the items of one pusher come to one popper in order. */
enum { ITEMS_MAX = 8, PUSHERS_MAX = 4 };

template<typename derived, int threads>
struct inject_suite : rl::test_suite<derived, threads> {
    plait_inject_t *queue;
    rl::var<int> payload[ITEMS_MAX];
    int pusher[ITEMS_MAX];
    int taken[ITEMS_MAX];
    int numbers; /* given out so far, in the order in which pushes began */
    int pushed;
    int popped;

    void start()
    {
        begin();
        queue = make<plait_inject_t>();
        RL_ASSERT(plait_inject_init(queue, &allocator) == PLAIT_OK);
        numbers = pushed = popped = 0;
        for (int i = 0; i < ITEMS_MAX; i++)
            taken[i] = 0;
    }

    int push(unsigned id)
    {
        int index = numbers++;
        pusher[index] = (int)id;
        payload[index](RL_INFO) = index + 1;
        int result = plait_inject_push_mpmc(queue, &payload[index]);
        if (result == PLAIT_OK)
            pushed++;
        else
            RL_ASSERT(result == PLAIT_NOMEM);
        return result;
    }

    /* `last`: per pusher the number that this popper had last. */
    bool pop(int *last)
    {
        void *item;
        int result = plait_inject_pop_mpmc(queue, &item);
        if (result != PLAIT_OK) {
            RL_ASSERT(result == PLAIT_EMPTY);
            return false;
        }
        int index = (int)((rl::var<int> *)item - payload);
        RL_ASSERT(index >= 0 && index < numbers);
        RL_ASSERT((int)payload[index](RL_INFO) == index + 1);
        taken[index]++;
        RL_ASSERT(taken[index] == 1);
        RL_ASSERT(index > last[pusher[index]]);
        last[pusher[index]] = index;
        popped++;
        return true;
    }

    bool pop_any()
    {
        int last[PUSHERS_MAX] = {-1, -1, -1, -1};
        return pop(last);
    }

    void after()
    {
        int last[PUSHERS_MAX] = {-1, -1, -1, -1};
        while (pop(last)) {
        }
        RL_ASSERT(popped == pushed);
        RL_ASSERT(plait_inject_is_empty(queue));
        plait_inject_fini(queue);
        unmake(queue);
        end();
    }
};

struct one_to_one : inject_suite<one_to_one, 2> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        int last[PUSHERS_MAX] = {-1, -1, -1, -1};
        for (int i = 0; i < 3; i++) {
            if (id == 0)
                push(0);
            else
                pop(last);
        }
    }
};

struct two_pushers : inject_suite<two_pushers, 2> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        push(id);
        push(id);
        push(id);
    }
};

/* Five items in three segments: the poppers share segments, free them, and turn the head. */
struct two_poppers : inject_suite<two_poppers, 2> {
    void before()
    {
        start();
        for (int i = 0; i < 5; i++)
            push(0);
    }

    void thread(unsigned)
    {
        int last[PUSHERS_MAX] = {-1, -1, -1, -1};
        RL_ASSERT(pop(last));
        RL_ASSERT(pop(last));
    }
};

/* A popper follows a pusher over the turn, so that turn_head meets turn_tail. */
struct turn_together : inject_suite<turn_together, 2> {
    void before()
    {
        start();
        push(0);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push(0);
            push(0);
            push(0);
        } else {
            pop_any();
            pop_any();
            pop_any();
        }
    }
};

/* Everybody pushes before popping, so nobody may hear EMPTY. */
struct never_empty : inject_suite<never_empty, 2> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        for (int i = 0; i < 2; i++) {
            RL_ASSERT(push(id) == PLAIT_OK);
            RL_ASSERT(pop_any());
        }
    }
};

struct never_empty_three : inject_suite<never_empty_three, 3> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        RL_ASSERT(push(id) == PLAIT_OK);
        RL_ASSERT(pop_any());
    }
};

/* A pusher and two poppers across the turn of a segment. */
struct turn : inject_suite<turn, 3> {
    void before()
    {
        start();
        push(0);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push(0);
            push(0);
        } else {
            pop_any();
        }
    }
};

/* Segments go round through the spare while both ends work. */
struct reuse : inject_suite<reuse, 2> {
    void before()
    {
        start();
        for (int i = 0; i < 3; i++)
            push(0);
        pop_any();
        pop_any(); /* retires the first segment */
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            push(0);
            push(0);
            push(0);
        } else {
            pop_any();
            pop_any();
            pop_any();
        }
    }
};

/* A segment is cleared by one thread, reused by the second, and read by the third. */
struct reuse_three : inject_suite<reuse_three, 3> {
    void before()
    {
        start();
        push(0);
        push(0);
        push(0);
        pop_any();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            pop_any(); /* the last of the first segment */
        } else if (id == 1) {
            push(0);
            push(0);
        } else {
            pop_any();
            pop_any();
            pop_any();
        }
    }
};

/* As before with one popper more, so that the one who comes to the reused segment has not
 * touched the spare. */
struct reuse_four : inject_suite<reuse_four, 4> {
    void before()
    {
        start();
        push(0);
        push(0);
        push(0);
        pop_any();
    }

    void thread(unsigned id)
    {
        if (id == 1) {
            push(0);
            push(0);
        } else {
            pop_any();
            if (id == 2)
                pop_any();
        }
    }
};

/* A segment goes back to the allocator while the pusher of its last slot is hardly through. */
struct freeing : inject_suite<freeing, 2> {
    void before()
    {
        start();
        for (int i = 0; i < PLAIT_INJECT_SLOTS - 1; i++) {
            push(0);
            pop_any();
        }
    }

    void thread(unsigned id)
    {
        push(id);
        if (id == 1) {
            for (int i = 1; i < PLAIT_INJECT_SLOTS; i++)
                push(id);
            for (int i = 0; i <= PLAIT_INJECT_SLOTS; i++)
                pop_any();
        }
    }
};

/* Pushes that get no memory leave the queue as it was. */
struct no_memory : inject_suite<no_memory, 2> {
    void before()
    {
        start();
        push(0);
        allocations_left = 1;
    }

    void thread(unsigned id)
    {
        push(id);
        push(id);
        pop_any();
    }
};

/* The order of seq_cst operations: each pushes to one queue and looks at the other; one of them
 * sees the other's item. `look` is a pop or is_empty. */
template<typename derived>
struct cross_suite : rl::test_suite<derived, 2> {
    plait_inject_t *queues[2];
    bool found[2];

    void before()
    {
        begin();
        for (int i = 0; i < 2; i++) {
            queues[i] = make<plait_inject_t>();
            RL_ASSERT(plait_inject_init(queues[i], &allocator) == PLAIT_OK);
        }
    }

    void thread(unsigned id)
    {
        RL_ASSERT(plait_inject_push_mpmc(queues[id], this) == PLAIT_OK);
        found[id] = static_cast<derived *>(this)->look(queues[1 - id]);
    }

    void after()
    {
        RL_ASSERT(found[0] || found[1]);
        for (int i = 0; i < 2; i++) {
            plait_inject_fini(queues[i]);
            unmake(queues[i]);
        }
        end();
    }
};

struct cross_is_empty : cross_suite<cross_is_empty> {
    bool look(plait_inject_t *queue)
    {
        return !plait_inject_is_empty(queue);
    }
};

struct cross_pop : cross_suite<cross_pop> {
    bool look(plait_inject_t *queue)
    {
        void *item;
        return plait_inject_pop_mpmc(queue, &item) == PLAIT_OK;
    }
};

#if PLAIT_INJECT_LAP == 2 /* every push and pop turns: smaller bounds take as long */
#define SEARCHES(E, S, name)                                                                       \
    E(one_to_one, 2, name)                                                                         \
    E(two_pushers, 3, name)                                                                        \
    E(two_poppers, 3, name)                                                                        \
    E(turn_together, 3, name)                                                                      \
    E(never_empty, 2, name)                                                                        \
    E(never_empty_three, 1, name)                                                                  \
    E(turn, 2, name)                                                                               \
    E(reuse, 2, name)                                                                              \
    E(reuse_three, 1, name)                                                                        \
    E(freeing, 3, name)                                                                            \
    E(no_memory, 3, name)                                                                          \
    E(cross_is_empty, 6, name)                                                                     \
    E(cross_pop, 3, name)                                                                          \
    S(never_empty_three, 20000, name)

MODEL_MAIN(inject1, SEARCHES)
#else
#define SEARCHES(E, S, name)                                                                       \
    E(one_to_one, 4, name)                                                                         \
    E(two_pushers, 4, name)                                                                        \
    E(two_poppers, 4, name)                                                                        \
    E(turn_together, 4, name)                                                                      \
    E(never_empty, 2, name)                                                                        \
    E(never_empty_three, 2, name)                                                                  \
    E(turn, 3, name)                                                                               \
    E(reuse, 3, name)                                                                              \
    E(reuse_three, 2, name)                                                                        \
    E(reuse_four, 1, name)                                                                         \
    E(freeing, 3, name)                                                                            \
    E(no_memory, 3, name)                                                                          \
    E(cross_is_empty, FULL, name)                                                                  \
    E(cross_pop, 6, name)                                                                          \
    S(never_empty_three, 20000, name)                                                              \
    S(reuse_four, 20000, name)

MODEL_MAIN(inject, SEARCHES)
#endif
