/* kept: lists of what was left for later pools, newest first.
 *
 * Invariant: what is in a list is used by nobody; whoever takes it out owns it. Who may call: see
 * kept.h. Design: docs/design/workers.md
 */
#include "binding/kept.h"

#include "binding/binding.h"

/* Guarded by lock. */
static plait_prim_lock_t lock;
static kept_t *newest[KEPT_KINDS];
static bool ended; /* the process is about to end: nothing is kept any more */

static bool fits(const kept_t *kept, const void *key, size_t size)
{
    return kept->size == size && memcmp(kept->key, key, size) == 0;
}

kept_t *kept_take(kept_kind_t kind, const void *key, size_t size)
{
    plait_prim_lock(&lock);
    kept_t **place = &newest[kind];
    while (*place != NULL && !fits(*place, key, size))
        place = &(*place)->next;
    kept_t *found = *place;
    if (found != NULL)
        *place = found->next;
    plait_prim_unlock(&lock);
    return found;
}

/* Takes the oldest one out if there are more than `limit`; NULL: not so many. */
static kept_t *take_oldest(kept_kind_t kind, unsigned limit)
{
    kept_t *found = NULL;
    plait_prim_lock(&lock);
    kept_t **place = &newest[kind];
    for (unsigned count = 1; *place != NULL && found == NULL; count++) {
        if (count > limit && (*place)->next == NULL) {
            found = *place;
            *place = NULL;
        } else {
            place = &(*place)->next;
        }
    }
    plait_prim_unlock(&lock);
    return found;
}

static void end_beyond(kept_kind_t kind, unsigned limit)
{
    kept_t *kept;
    while ((kept = take_oldest(kind, limit)) != NULL)
        kept->end(kept);
}

void kept_put(kept_kind_t kind, kept_t *kept, unsigned limit)
{
    plait_prim_lock(&lock);
    bool open = !ended;
    if (open) {
        kept->next = newest[kind];
        newest[kind] = kept;
    }
    plait_prim_unlock(&lock);
    if (open)
        end_beyond(kind, limit);
    else
        kept->end(kept);
}

unsigned kept_count(kept_kind_t kind)
{
    unsigned count = 0;
    plait_prim_lock(&lock);
    for (const kept_t *kept = newest[kind]; kept != NULL; kept = kept->next)
        count++;
    plait_prim_unlock(&lock);
    return count;
}

bool kept_after_fork(void)
{
    bool interpreters = newest[KEPT_INTERPRETER] != NULL;
    lock.word = 0;
    for (int kind = 0; kind < KEPT_KINDS; kind++)
        newest[kind] = NULL; /* the parent's; what they own stays behind */
    ended = false;
    return interpreters;
}

static void end_some(void *Py_UNUSED(argument))
{
    for (int kind = 0; kind < KEPT_KINDS; kind++)
        end_beyond((kept_kind_t)kind, 0);
}

/* Each takes as long to end as to import what it has, so all processors take part. */
static void end_in_parallel(unsigned count)
{
    unsigned started = 0, most = (unsigned)plait_prim_cpu_count();
    plait_prim_thread_t *threads = calloc(count + 1, sizeof *threads);
    while (threads != NULL && started < count && started < most &&
           plait_prim_thread_start(&threads[started], end_some, NULL, "plait-end", 0) == PLAIT_OK)
        started++;
    if (started == 0)
        end_some(NULL);
    while (started > 0)
        plait_prim_thread_join(threads[--started]);
    free(threads);
}

void kept_end_all(bool for_good)
{
    PyThreadState *own = PyEval_SaveThread();
    plait_prim_lock(&lock);
    ended = ended || for_good;
    plait_prim_unlock(&lock);
    unsigned count = 0;
    for (int kind = 0; kind < KEPT_KINDS; kind++)
        count += kept_count((kept_kind_t)kind);
    end_in_parallel(count);
    PyEval_RestoreThread(own);
}
