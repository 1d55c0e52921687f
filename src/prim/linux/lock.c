/* prim/linux/lock: a mutual-exclusion lock of one word.
 *
 * The three-state futex mutex (U. Drepper, "Futexes Are Tricky", 2011, mutex 2). The word is
 *   0  unlocked
 *   1  locked, nobody sleeps
 *   2  locked, somebody may sleep: whoever unlocks must wake one
 * A sleeper always sets 2 before it sleeps, and takes the lock as 2 since others may sleep besides
 * it; the price is at most one needless wake. Threads of one process only. Compiler built-ins stand
 * in for core/atomic.h, which lies above this layer.
 * Design: docs/design/prim.md
 */
#include "prim/prim.h"

enum { UNLOCKED = 0, LOCKED = 1, CONTENDED = 2, SPINS = 64 };

/* Takes the lock by waiting. Kept out of line so that plait_prim_lock stays a few instructions. */
static __attribute__((noinline)) void lock_slowly(uint32_t *word)
{
    /* Critical sections are short: the holder is mostly about to leave, on another processor. */
    for (int i = 0; i < SPINS; i++) {
        uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED); /* only a hint; the swap decides */
        if (seen == CONTENDED)
            break;
        if (seen == UNLOCKED && __atomic_compare_exchange_n(word, &seen, LOCKED, false,
                                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
        plait_prim_relax();
    }
    /* Acquire: pairs with the release in plait_prim_unlock. */
    while (__atomic_exchange_n(word, CONTENDED, __ATOMIC_ACQUIRE) != UNLOCKED)
        plait_prim_wait(word, CONTENDED, PLAIT_PRIM_FOREVER, false);
}

void plait_prim_lock(plait_prim_lock_t *lock)
{
    uint32_t expected = UNLOCKED;
    /* Acquire: pairs with the release in plait_prim_unlock. */
    if (__builtin_expect(!__atomic_compare_exchange_n(&lock->word, &expected, LOCKED, false,
                                                      __ATOMIC_ACQUIRE, __ATOMIC_RELAXED),
                         0))
        lock_slowly(&lock->word);
}

void plait_prim_unlock(plait_prim_lock_t *lock)
{
    /* Release: pairs with the acquires above. After it the lock's memory may be gone; the wake only
     * uses its address. */
    if (__builtin_expect(__atomic_exchange_n(&lock->word, UNLOCKED, __ATOMIC_RELEASE) == CONTENDED,
                         0))
        plait_prim_wake(&lock->word, 1, false);
}
