/* begun: a word by which a child begins requests and its parent takes back those it has not begun.
 *
 * It holds the greatest number that has been begun or taken back; requests are begun in the order of
 * their numbers. So one compare-and-swap decides for each request who has it, and when the child has
 * died the word tells what it had begun.
 * Design: docs/design/process.md, tests/model/model_begun.cpp
 */
#ifndef PLAIT_CORE_BEGUN_H
#define PLAIT_CORE_BEGUN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/atomic.h"

/* Raises the word to `number`, if it is below; what it was before. */
static inline uint64_t plait__begun_raise(PLAIT_ATOMIC(uint64_t) *begun, uint64_t number)
{
    uint64_t before = plait_atomic_load_seq_cst(begun);
    while (before < number && !plait_atomic_cas_seq_cst(begun, &before, number))
        continue;
    return before;
}

/* The child, before it does anything of a request: false where it has been taken back. */
static inline bool plait_begun_claim(PLAIT_ATOMIC(uint64_t) *begun, uint64_t number)
{
    return plait__begun_raise(begun, number) < number;
}

/* The parent: takes back all requests up to `last` that have not been begun, which are those with
 * greater numbers than what this returns. */
static inline uint64_t plait_begun_recall(PLAIT_ATOMIC(uint64_t) *begun, uint64_t last)
{
    return plait__begun_raise(begun, last);
}

#endif
