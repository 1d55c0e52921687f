/* Models of core/ring.c: records come whole and in order, nobody is left asleep, and that stays so
 * when a side dies before any of its accesses to shared memory, or has written nonsense to the words
 * that the other sleeps on. A lost wake-up shows as a deadlock. What they cover:
 * docs/design/process.md */
#include "model.h"

#define PLAIT_RING_SPINS 0

#include "core/ring.c"

using namespace plait_model;

enum { CAPACITY = 64, RECORDS = 3 };

/* The sides have no patience here, which would only add looks before the first announcement. */
int64_t plait_prim_now(void)
{
    RL_ASSERT(false);
    return 0;
}

struct death {};

/* Thread 0 is the child that may die. */
static void maybe_die()
{
    if (rl::ctx().current_thread() == 0 && rl::rand(2) == 1) {
        before_access = NULL;
        throw death();
    }
}

template<typename derived>
struct ring_suite : rl::test_suite<derived, 2> {
    plait_ring_shared_t *shared;
    plait_ring_t *in, *out;
    void *data;
    rl::var<int> payload[RECORDS];
    rl::var<int> room[RECORDS]; /* written when the record is consumed */
    unsigned committed;         /* records whose tail has moved, as the child knows */

    plait_ring_t *side()
    {
        plait_ring_t *made = make<plait_ring_t>();
        plait_ring_init(made, shared, data, CAPACITY);
        return made;
    }

    void start(unsigned spurious = 0)
    {
        begin(spurious);
        shared = make<plait_ring_shared_t>();
        plait_atomic_init(&shared->tail, 0u);
        plait_atomic_init(&shared->head, 0u);
        plait_atomic_init(&shared->room_wanted, 0u);
        plait_atomic_init(&shared->data_wanted, 0u);
        data = allocate(NULL, CAPACITY);
        in = side();
        out = side();
        committed = 0;
        for (int i = 0; i < RECORDS; i++)
            room[i](RL_INFO) = 0;
    }

    /* Sizes that make the third record wrap, with padding before it. */
    static size_t size_of(unsigned number)
    {
        return number == 0 ? 0 : 16;
    }

    /* The room of record 2 is that of records 0 and 1. */
    int send(unsigned number)
    {
        void *place;
        int result;
        do
            result = plait_ring_reserve_spsc(in, number, number, size_of(number),
                                             PLAIT_PRIM_FOREVER, &place);
        while (result == PLAIT_INTERRUPTED);
        if (result != PLAIT_OK)
            return result;
        if (number == 2)
            room[0](RL_INFO) = room[1](RL_INFO) = 2;
        payload[number](RL_INFO) = 1;
        committed = number + 1;
        plait_ring_commit_spsc(in);
        return PLAIT_OK;
    }

    int receive(unsigned number)
    {
        plait_ring_record_t record;
        int result;
        do
            result = plait_ring_peek_spsc(out, PLAIT_PRIM_FOREVER, &record);
        while (result == PLAIT_INTERRUPTED);
        if (result != PLAIT_OK)
            return result;
        RL_ASSERT(record.number == number && record.type == number &&
                  record.size == size_of(number));
        RL_ASSERT((int)payload[number](RL_INFO) == 1);
        room[number](RL_INFO) = 1;
        plait_ring_consume_spsc(out);
        return PLAIT_OK;
    }

    void after()
    {
        before_access = NULL;
        unmake(out);
        unmake(in);
        release(NULL, data);
        unmake(shared);
        end();
    }
};

struct pass : ring_suite<pass> {
    void before()
    {
        start(1);
    }

    void thread(unsigned id)
    {
        for (unsigned number = 0; number < RECORDS; number++)
            RL_ASSERT((id == 0 ? send(number) : receive(number)) == PLAIT_OK);
    }
};

/* The child sends, and dies somewhere. */
struct producer_dies : ring_suite<producer_dies> {
    void before()
    {
        start();
        before_access = maybe_die;
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            try {
                for (unsigned number = 0; number < RECORDS; number++)
                    send(number);
            } catch (death &) {
            }
            before_access = NULL;
            plait_ring_abandon(out); /* what the watcher does */
            return;
        }
        unsigned number = 0;
        int result;
        while ((result = receive(number)) == PLAIT_OK)
            number++;
        RL_ASSERT(result == PLAIT_CLOSED);
        RL_ASSERT(number <= committed && number + 1 >= committed);
    }
};

/* The child receives, and dies somewhere. */
struct consumer_dies : ring_suite<consumer_dies> {
    void before()
    {
        start();
        before_access = maybe_die;
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            try {
                for (unsigned number = 0; number < RECORDS; number++)
                    receive(number);
            } catch (death &) {
            }
            before_access = NULL;
            plait_ring_abandon(in);
            return;
        }
        int result = PLAIT_OK;
        for (unsigned number = 0; number < RECORDS && result == PLAIT_OK; number++)
            result = send(number);
        RL_ASSERT(result == PLAIT_OK || result == PLAIT_CLOSED);
    }
};

/* The child writes nonsense to the words, and dies: the parent, a consumer, still hears of it. */
struct nonsense : ring_suite<nonsense> {
    void before()
    {
        start();
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            plait_atomic_store_relaxed(&shared->data_wanted, rl::rand(2)); /* relaxed: nonsense */
            plait_ring_abandon(out);
        } else {
            RL_ASSERT(receive(0) == PLAIT_CLOSED);
        }
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(pass, 4, name)                                                                               \
    E(producer_dies, 3, name)                                                                      \
    E(consumer_dies, 3, name)                                                                      \
    E(nonsense, FULL, name)                                                                        \
    S(pass, 20000, name)                                                                           \
    S(producer_dies, 20000, name)

MODEL_MAIN(ring, SEARCHES)
