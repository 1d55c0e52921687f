/* remote_set: the blocks of one span that others than the owner have freed.
 *
 * One bit a block, set by whoever frees it, taken by the heap's owner. Two levels above say where
 * to look: `summary` has a bit for every word of block bits, and a `pending` word outside (one bit
 * a span, shared by the spans of many heaps) says which spans to look at. Freeing sets block,
 * summary, pending, in this order; the owner clears pending, summary, block, in this order. A
 * summary or pending bit that is seen set is not set again. No hint is lost: in the order of a
 * level's changes, a free either precedes the owner's clearing of that level, which then takes it,
 * or follows it and has synchronised with it; then it also sees the level above as cleared, which
 * the owner did before, and sets it.
 *
 * Why bits and not a list through the freed blocks: one step makes the block free, so a process
 * killed at any instant has freed it or has not; there is nothing to retry, no ABA, and no link in
 * memory that another process may have overwritten. What a killed process may leave out is the hint
 * in the levels above: the next free beside it makes up for it, and so does the owner's sweep of
 * the block bits.
 *
 * plait__remote_put: any thread of any process. The rest: the owner only.
 * Protocol: docs/design/heap.md. Model: tests/model/model_heap.cpp. In the common subset of C11 and C++.
 */
#ifndef PLAIT_CORE_REMOTE_SET_H
#define PLAIT_CORE_REMOTE_SET_H

#include <stdint.h>

#include "core/atomic.h"

#ifndef PLAIT__REMOTE_WORDS
#define PLAIT__REMOTE_WORDS 64 /* at most: `summary` is one word */
#endif

typedef struct plait__remote_set {
    /* set by anyone, cleared by the owner */
    PLAIT_ATOMIC(uint64_t) summary;
    PLAIT_ATOMIC(uint64_t) words[PLAIT__REMOTE_WORDS];
} plait__remote_set_t;

/* Sets the bits of `mask` in a hint, unless they are. Acquire, also where the bit is seen set:
 * pairs with the release of the owner's clearing of this level, so that the level above is seen as
 * the owner left it before. Release: pairs with the owner's acquire, which so finds what the caller
 * put in the level below. */
static inline void plait__remote_hint(PLAIT_ATOMIC(uint64_t) *hint, uint64_t mask)
{
    if ((plait_atomic_load_acquire(hint) & mask) == 0)
        plait_atomic_or_acq_rel(hint, mask);
}

/* Frees block `index` of the span whose bit in *pending is `pending_mask`. The caller must not
 * touch the block afterwards. Any thread of any process; wait-free. The first step releases the
 * caller's accesses to the block, and acquires what the owner cleared before it last took the word:
 * both pair with plait__remote_take_word_owner. */
static inline void plait__remote_put(plait__remote_set_t *set, uint32_t index,
                                     PLAIT_ATOMIC(uint64_t) *pending, uint64_t pending_mask)
{
    uint32_t word = index / 64;
    plait_atomic_or_acq_rel(&set->words[word], (uint64_t)1 << (index % 64));
    plait__remote_hint(&set->summary, (uint64_t)1 << word);
    plait__remote_hint(pending, pending_mask);
}

/* Takes the pending bits of the spans in `mask`. Owner only. */
static inline uint64_t plait__remote_take_pending_owner(PLAIT_ATOMIC(uint64_t) *pending,
                                                        uint64_t mask)
{
    /* Relaxed: most of the time there is nothing, and what is missed now is seen the next time. */
    if ((plait_atomic_load_relaxed(pending) & mask) == 0)
        return 0;
    /* Acquire: pairs with plait__remote_hint. */
    return plait_atomic_and_acq_rel(pending, ~mask) & mask;
}

/* Takes the hints which words to look at. Owner only. Pairs with plait__remote_hint, both ways. */
static inline uint64_t plait__remote_take_summary_owner(plait__remote_set_t *set)
{
    return plait_atomic_swap_acq_rel(&set->summary, 0);
}

/* Takes the freed blocks of a word: they are the owner's from now on. Owner only. Pairs with
 * plait__remote_put, both ways. */
static inline uint64_t plait__remote_take_word_owner(plait__remote_set_t *set, uint32_t word)
{
    return plait_atomic_swap_acq_rel(&set->words[word], 0);
}

/* The same without a hint that there is something. It leaves the hints as they are: whoever saw one
 * set may count on it. Owner only. */
static inline uint64_t plait__remote_sweep_word_owner(plait__remote_set_t *set, uint32_t word)
{
    /* Relaxed: mostly there is nothing, and what is missed now keeps its hint, or is swept the next
     * time. */
    if (plait_atomic_load_relaxed(&set->words[word]) == 0)
        return 0;
    return plait__remote_take_word_owner(set, word);
}

/* Makes the first `words` words empty. Owner only, before a block of the span is handed out;
 * whoever frees one got it after this, so relaxed is enough. */
static inline void plait__remote_reset_owner(plait__remote_set_t *set, uint32_t words)
{
    plait_atomic_store_relaxed(&set->summary, (uint64_t)0);
    for (uint32_t i = 0; i < words; i++)
        plait_atomic_store_relaxed(&set->words[i], (uint64_t)0);
}

#endif
