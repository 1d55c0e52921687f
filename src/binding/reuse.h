/* reuse: interpreters between two pools. Design: docs/design/workers.md */
#ifndef PLAIT_REUSE_H
#define PLAIT_REUSE_H

#include "binding/binding.h"

/* Gives the worker an interpreter that has served another pool, attached and prepared, and its data.
 * False: there is none. */
bool reuse_take(plait_worker_t *worker);

/* Whether the interpreter can serve another pool; then nothing of this one is left in it. For
 * worker_leave_pool. */
bool reuse_is_fit(worker_data_t *data);

/* Keeps it and detaches; others than the newest ones end if there are too many then. */
void reuse_keep(worker_data_t *data);

/* Any thread, with a thread state: ends all that are kept now, and waits for that. `for_good`: none
 * is kept from now on. */
void reuse_end_all(bool for_good);

/* How many are kept. Any thread. */
unsigned reuse_count(void);

/* In the child of a fork: forgets them. Whether there was any. */
bool reuse_after_fork(void);

#endif
