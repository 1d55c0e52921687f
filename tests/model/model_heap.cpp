/* Models of core/remote_set.h: blocks of a heap freed by others than its owner.
 * What they cover: docs/design/heap.md */
#define PLAIT__REMOTE_WORDS 2

#include "model.h"

#include "core/remote_set.h"

using namespace plait_model;

enum { SPANS = 2, BLOCKS = 128, WATCHED = 4 };

/* Two spans of 128 blocks, which share the word of pending spans; four of the blocks are in play.
 * Whoever frees a block reads its payload first, and the owner writes it after: a free that does
 * not order the two is a race. Every suite checks that each block comes back once, and that without
 * a further free one collect at the end finds them all: no hint is lost. */
struct shared {
    plait__remote_set_t remote[SPANS];
    PLAIT_ATOMIC(uint64_t) pending;
};

template<typename derived, int threads>
struct heap_suite : rl::test_suite<derived, threads> {
    shared *memory;
    rl::var<int> payload[WATCHED];
    int freed[WATCHED], taken[WATCHED];

    /* Block 0 and 1: span 0, word 0. Block 2: span 0, word 1. Block 3: span 1. */
    static unsigned span_of(int block)
    {
        return block == 3;
    }

    static uint32_t index_of(int block)
    {
        return block == 1 ? 63 : block == 2 ? 64 : 0;
    }

    static uint64_t mask_of(unsigned span)
    {
        return (uint64_t)1 << span;
    }

    void before()
    {
        begin();
        memory = make<shared>();
        plait_atomic_init(&memory->pending, 0);
        for (int span = 0; span < SPANS; span++) {
            plait_atomic_init(&memory->remote[span].summary, 0);
            for (int word = 0; word < PLAIT__REMOTE_WORDS; word++)
                plait_atomic_init(&memory->remote[span].words[word], 0);
            plait__remote_reset_owner(&memory->remote[span], PLAIT__REMOTE_WORDS);
        }
        for (int block = 0; block < WATCHED; block++) {
            payload[block](RL_INFO) = block;
            freed[block] = taken[block] = 0;
        }
    }

    void put(int block)
    {
        RL_ASSERT((int)payload[block](RL_INFO) == block);
        freed[block]++;
        plait__remote_put(&memory->remote[span_of(block)], index_of(block), &memory->pending,
                          mask_of(span_of(block)));
    }

    /* A process killed after one step or two of freeing. */
    void put_in_part(int block, int steps)
    {
        plait__remote_set_t *remote = &memory->remote[span_of(block)];
        RL_ASSERT((int)payload[block](RL_INFO) == block);
        freed[block]++;
        plait_atomic_or_acq_rel(&remote->words[index_of(block) / 64],
                                (uint64_t)1 << (index_of(block) % 64));
        if (steps > 1)
            plait__remote_hint(&remote->summary, (uint64_t)1 << (index_of(block) / 64));
    }

    int take(unsigned span, uint32_t word, uint64_t found)
    {
        int count = 0;
        for (int block = 0; block < WATCHED; block++)
            if (span_of(block) == span && index_of(block) / 64 == word &&
                (found >> (index_of(block) % 64) & 1) != 0) {
                payload[block](RL_INFO) = block; /* the owner hands it out again */
                taken[block]++;
                RL_ASSERT(taken[block] == freed[block]);
                count++;
            }
        return count;
    }

    /* As plait__heap_collect, for the spans of the mask. */
    int collect(uint64_t mine)
    {
        int count = 0;
        uint64_t spans = plait__remote_take_pending_owner(&memory->pending, mine);
        for (unsigned span = 0; span < SPANS; span++) {
            if ((spans >> span & 1) == 0)
                continue;
            uint64_t summary = plait__remote_take_summary_owner(&memory->remote[span]);
            for (uint32_t word = 0; word < PLAIT__REMOTE_WORDS; word++)
                if ((summary >> word & 1) != 0)
                    count += take(span, word,
                                  plait__remote_take_word_owner(&memory->remote[span], word));
        }
        return count;
    }

    /* As plait__heap_sweep. */
    int sweep(unsigned span)
    {
        int count = 0;
        for (uint32_t word = 0; word < PLAIT__REMOTE_WORDS; word++)
            count += take(span, word, plait__remote_sweep_word_owner(&memory->remote[span], word));
        return count;
    }

    void finish()
    {
        for (int block = 0; block < WATCHED; block++)
            RL_ASSERT(taken[block] == freed[block]);
        unmake(memory);
        end();
    }

    void after()
    {
        collect(3);
        finish();
    }
};

/* Two processes free blocks of one word while the owner collects. */
struct one_word : heap_suite<one_word, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(1);
            collect(1);
        } else {
            put((int)id - 1);
        }
    }
};

/* Blocks of two words: what is shared is the summary. */
struct two_words : heap_suite<two_words, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(1);
            collect(1);
        } else {
            put((int)id);
        }
    }
};

/* Blocks of two spans of one owner: what is shared is the pending word. */
struct two_spans : heap_suite<two_spans, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(3);
            collect(3);
        } else {
            put(id == 1 ? 0 : 3);
        }
    }
};

/* Two owners, with a span each: neither takes the other's hints. */
struct two_owners : heap_suite<two_owners, 3> {
    void thread(unsigned id)
    {
        if (id < 2) {
            collect(mask_of(id));
        } else {
            put(0);
            put(3);
        }
    }
};

/* One process frees several, another one beside. */
struct many_blocks : heap_suite<many_blocks, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(3);
            collect(3);
        } else if (id == 1) {
            put(0);
            put(2);
        } else {
            put(1);
            put(3);
        }
    }
};

/* A block that came back is handed out and freed again, while another is freed beside it. */
struct again : heap_suite<again, 3> {
    rl::atomic<int> handed_out;

    void before()
    {
        heap_suite<again, 3>::before();
        handed_out.store(1, rl::mo_relaxed, RL_INFO);
    }

    void thread(unsigned id)
    {
        if (id == 0) {
            for (int i = 0; i < 2; i++) {
                int before_collect = taken[0];
                collect(1);
                if (taken[0] != before_collect)
                    handed_out.store(1, rl::mo_release, RL_INFO);
            }
        } else if (id == 1) {
            for (int i = 0; i < 2; i++)
                if (handed_out.exchange(0, rl::mo_acquire, RL_INFO) == 1)
                    put(0);
        } else {
            put(1);
        }
    }
};

/* What a killed process has freed may come back by the sweep only; everything else by a collect. */
template<typename derived>
struct killed_suite : heap_suite<derived, 3> {
    void after()
    {
        this->collect(3);
        for (int block = 1; block < WATCHED; block++)
            RL_ASSERT(this->taken[block] == this->freed[block]);
        this->sweep(0);
        this->finish();
    }
};

/* One process is killed in the middle, another frees in the same word. */
struct killed : killed_suite<killed> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(1);
            sweep(0);
        } else if (id == 1) {
            put_in_part(0, 1 + (int)rl::rand(2));
        } else {
            put(1);
        }
    }
};

/* A killed process left a summary bit without the pending bit. Whoever frees in the same word
 * afterwards sees the summary bit, and must see as well that the owner has cleared the pending
 * bit. */
struct killed_after_summary : killed_suite<killed_after_summary> {
    void thread(unsigned id)
    {
        if (id == 0) {
            collect(1);
        } else if (id == 1) {
            put(2);
            put_in_part(0, 2);
        } else {
            put(1);
        }
    }
};

/* Sweeping beside frees takes no hint away that somebody counts on. */
struct swept : heap_suite<swept, 3> {
    void thread(unsigned id)
    {
        if (id == 0) {
            sweep(0);
            collect(1);
            sweep(0);
        } else {
            put((int)id - 1);
        }
    }
};

#define SEARCHES(E, S, name)                                                                       \
    E(one_word, 5, name)                                                                           \
    E(two_words, 5, name)                                                                          \
    E(two_spans, 5, name)                                                                          \
    E(two_owners, 5, name)                                                                         \
    E(many_blocks, 3, name)                                                                        \
    E(again, 4, name)                                                                              \
    E(killed, 5, name)                                                                             \
    E(killed_after_summary, 4, name)                                                               \
    E(swept, 4, name)                                                                              \
    S(many_blocks, 20000, name)                                                                    \
    S(again, 20000, name)

MODEL_MAIN(heap, SEARCHES)
