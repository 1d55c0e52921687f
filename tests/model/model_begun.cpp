/* Models of core/begun.h: a child begins requests in order, its parent takes back what it has not begun, in two
 * steps, and the child may die before any request. Each is begun or taken back, never both, and when the child is dead
 * the word tells the parent what it had begun. What they cover: docs/design/process.md */
#include "model.h"

#include "core/begun.h"

using namespace plait_model;

typedef PLAIT_ATOMIC(uint64_t) word_t;

template<typename derived, bool dies>
struct begun_suite : rl::test_suite<derived, 2> {
    enum { REQUESTS = 3 };
    word_t *word;
    rl::atomic<int> gone;
    rl::var<int> begun[REQUESTS + 1];
    bool taken[REQUESTS + 1];

    void before()
    {
        begin();
        word = make<word_t>();
        plait_atomic_init(word, 0);
        gone.store(0, rl::mo_relaxed, RL_INFO);
        for (int i = 0; i <= REQUESTS; i++) {
            begun[i](RL_INFO) = 0;
            taken[i] = false;
        }
    }

    void child()
    {
        for (uint64_t number = 1; number <= REQUESTS && !(dies && rl::rand(3) == 0); number++)
            if (plait_begun_claim(word, number))
                begun[number](RL_INFO) = (int)begun[number](RL_INFO) + 1;
        gone.store(1, rl::mo_release, RL_INFO);
    }

    void recall(uint64_t last)
    {
        uint64_t known = plait_begun_recall(word, last);
        for (uint64_t number = 1; number <= last; number++)
            taken[number] = taken[number] || number > known;
    }

    void parent()
    {
        recall(2);
        if (!dies)
            recall(REQUESTS);
        while (gone.load(rl::mo_acquire, RL_INFO) == 0)
            rl::yield(1, RL_INFO);
        uint64_t last = plait_atomic_load_seq_cst(word);
        for (uint64_t number = 1; number <= REQUESTS; number++)
            RL_ASSERT((int)begun[number](RL_INFO) == (!taken[number] && number <= last));
    }

    void thread(unsigned id)
    {
        if (id == 0)
            child();
        else
            parent();
    }

    void after()
    {
        unmake(word);
        end();
    }
};

struct recalls : begun_suite<recalls, false> {};
struct dies : begun_suite<dies, true> {};

#define SEARCHES(E, S, name)                                                                       \
    E(recalls, FULL, name)                                                                         \
    E(dies, FULL, name)

MODEL_MAIN(begun, SEARCHES)
