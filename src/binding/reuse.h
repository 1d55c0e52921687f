/* reuse: interpreters between two pools. Design: docs/design/workers.md */
#ifndef PLAIT_REUSE_H
#define PLAIT_REUSE_H

#include "binding/binding.h"

/* Gives the worker an interpreter that has served another pool, attached and prepared, and its data.
 * False: there is none. */
bool reuse_take(plait_worker_t *worker);

/* Whether the interpreter can serve another pool; then nothing of this one is left in it. The first
 * leaves out what the pool says, and is for the children of process workers, too. For
 * worker_leave_pool. */
bool reuse_is_clean(const worker_data_t *data);
bool reuse_is_fit(const worker_data_t *data);

/* Keeps it and detaches; others than the newest ones end if there are too many then. */
void reuse_keep(worker_data_t *data);

#endif
