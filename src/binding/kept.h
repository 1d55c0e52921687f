/* kept: what workers leave for those of later pools: interpreters, processes, and what those are
 * copied from.
 *
 * Lists of their own, of the process: they belong to no interpreter. Whoever wants one says with a key
 * what it must be like. Design: docs/design/workers.md
 */
#ifndef PLAIT_KEPT_H
#define PLAIT_KEPT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum kept_kind { KEPT_INTERPRETER, KEPT_PROCESS, KEPT_TEMPLATE, KEPT_KINDS } kept_kind_t;

/* Part of what is kept. */
typedef struct kept {
    struct kept *next; /* the list's */
    void *key;         /* from malloc, this one's own */
    size_t size;       /* of the key */
    /* Ends the whole and frees it, with its key. Called by threads that are in no interpreter; takes
     * as long as it takes. */
    void (*end)(struct kept *kept);
} kept_t;

/* Keeps one; then the oldest ones of its kind end as long as there are more than `limit`, and this
 * one at once where nothing is kept any more. The thread is in no interpreter. */
void kept_put(kept_kind_t kind, kept_t *kept, unsigned limit);

/* Takes the newest one out that has this key; NULL: none. Any thread. */
kept_t *kept_take(kept_kind_t kind, const void *key, size_t size);

/* How many are kept. Any thread. */
unsigned kept_count(kept_kind_t kind);

/* Any thread, with a thread state: ends all that are kept now, and waits for that. `for_good`: none
 * is kept from now on. */
void kept_end_all(bool for_good);

/* In the child of a fork: forgets them. Whether there was any interpreter. */
bool kept_after_fork(void);

#endif
