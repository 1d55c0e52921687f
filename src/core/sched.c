/* sched: workers, where they look for work, how they sleep and how they end.
 *
 * A worker looks in the queues of urgent levels, in its own deque (newest first), in the queue of the
 * normal level (oldest first), steals from the others' deques (oldest first), and looks in the queues
 * of the remaining levels; it announces by the protocol of park.h that it is about to sleep, looks
 * around for a short while, and sleeps.
 * Invariants: an item is in one queue or in the hands of one thread; each item holds a reference to
 * its task or job; nothing is pushed from outside unless the gate was entered while open. Design:
 * docs/design/sched.md
 */
#include "core/sched_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

#define FIRST_CAPACITY 64

/* How long an idle worker looks around before it sleeps, in looks. Sleeping and waking cost two
 * system calls and several microseconds of latency; spinning costs whoever else wants the
 * processor. */
#define SPIN_LOOKS 64

/* ---- looking for work ---- */

static bool steal(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    /* acquire: pairs with start_worker_locked */
    unsigned count = plait_atomic_load_acquire(&sched->stealable);
    for (unsigned tried = 0; tried < count; tried++) {
        worker->victim = (worker->victim + 1) % count;
        plait_worker_t *victim = &sched->workers[worker->victim];
        if (victim == worker)
            continue;
        int result;
        do
            result = plait_deque_steal_thief(&victim->deque, item);
        while (result == PLAIT_RETRY);
        if (result == PLAIT_OK)
            return true;
    }
    return false;
}

static bool find_in_levels(plait_worker_t *worker, unsigned first, unsigned end, void **item)
{
    return plait_levels_pop_mpmc(&worker->sched->levels, first, end, item) == PLAIT_OK;
}

/* Where a worker looks before it takes anything from others. */
static inline bool find_first(plait_worker_t *worker, bool used, void **item)
{
    const unsigned normal = PLAIT_LEVEL_NORMAL;
    return (used && find_in_levels(worker, 0, normal, item)) ||
           plait_deque_pop_owner(&worker->deque, item) == PLAIT_OK ||
           plait_inject_pop_mpmc(&worker->sched->levels.queues[normal], item) == PLAIT_OK;
}

static bool find(plait_worker_t *worker, void **item)
{
    bool used = plait_levels_are_used(&worker->sched->levels);
    return find_first(worker, used, item) || steal(worker, item) ||
           (used && find_in_levels(worker, PLAIT_LEVEL_NORMAL + 1, PLAIT_LEVELS, item));
}

static bool has_items(plait_sched_t *sched)
{
    /* acquire: pairs with start_worker_locked */
    unsigned count = plait_atomic_load_acquire(&sched->stealable);
    bool any = !plait_levels_is_empty(&sched->levels);
    for (unsigned index = 0; !any && index < count; index++)
        any = plait_deque_size(&sched->workers[index].deque) > 0;
    return any;
}

static void start_workers(plait_sched_t *sched, uint64_t more);

/* Once, before it sleeps: producers choose it rather than wake another worker. */
static void announce(plait_worker_t *worker)
{
    if (!worker->announced)
        plait_park_prepare_worker(&worker->sched->park, worker->index);
    worker->announced = true;
}

/* By a worker that has found an item and that a producer has chosen, perhaps for another one: if
 * anything still waits, another worker is woken or started for it, as the producer would have done. */
static void find_substitute(plait_sched_t *sched)
{
    /* acquire: as in push */
    if (has_items(sched) && !plait_park_wake_one(&sched->park) &&
        plait_atomic_load_acquire(&sched->started) < sched->capacity)
        start_workers(sched, 1);
}

/* Sleeps until woken, unless an item turns up before. It is announced while it looks around, so that
 * a producer chooses it rather than wake another worker, which would compete for the processor. */
static __attribute__((noinline)) bool find_or_sleep(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    announce(worker);
    worker->announced = false;
    for (int look = 0; look < SPIN_LOOKS; look++) {
        if (find(worker, item) || plait_life_is_finished(&sched->life)) {
            bool chosen = !plait_park_cancel_worker(&sched->park, worker->index);
            if (chosen && *item != NULL)
                find_substitute(sched);
            return *item != NULL;
        }
        plait_prim_relax();
    }
    sched->ops->pause(worker);
    plait_life_sleep_worker(&sched->life, worker->index);
    sched->ops->resume(worker);
    return false;
}

/* The next item, or false when the worker is to end. */
static bool next_item(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    *item = NULL;
    for (;;) {
        if (!worker->announced) {
            if (find(worker, item))
                return true;
            if (plait_life_is_finished(&sched->life))
                return false;
        }
        if (find_or_sleep(worker, item))
            return true;
    }
}

/* ---- running ---- */

/* Whoever waits for the task may take this worker's processor at once, and submit the next: it is to
 * find a worker announced that has nothing else to do, rather than wake another. */
static __attribute__((noinline)) void announce_end(plait_worker_t *worker)
{
    if (plait_deque_size(&worker->deque) == 0 && plait_levels_is_empty(&worker->sched->levels))
        announce(worker);
}

static void run_task(plait_worker_t *worker, plait_task_t *task)
{
    plait_sched_t *sched = worker->sched;
    if (plait_task_claim_worker(task)) {
        bool broken = plait_sched_is_broken(sched);
        if (broken)
            sched->ops->abandon(sched, task);
        else
            task = sched->ops->run(worker, task);
        if (worker->announces)
            announce_end(worker);
        plait_task_complete_worker(task);
        if (!broken)
            plait__rest_worker(worker);
    }
    plait_task_release(task);
}

/* One that next_item gave. */
static void run_item(plait_worker_t *worker, void *item)
{
    plait__range_t *range = plait__range_of_item(item);
    if (range != NULL)
        plait__range_run_worker(worker, range);
    else
        run_task(worker, item);
}

void plait__item_run_worker(plait_worker_t *worker, void *item)
{
    bool announces = worker->announces;
    worker->announces = false;
    run_item(worker, item);
    worker->announces = announces;
}

static void fini_workers(plait_sched_t *sched)
{
    for (unsigned index = 0; index < sched->capacity; index++)
        plait_deque_fini(&sched->workers[index].deque);
    free(sched->workers);
}

/* ---- the registry: schedulers by their number ---- */

static plait_prim_lock_t registry_lock;
static plait_sched_t *registry; /* guarded by registry_lock; linked by next */

static void registry_add(plait_sched_t *sched)
{
    sched->id = plait_task_next_id();
    plait_prim_lock(&registry_lock);
    sched->next = registry;
    registry = sched;
    plait_prim_unlock(&registry_lock);
}

static void registry_remove(plait_sched_t *sched)
{
    plait_prim_lock(&registry_lock);
    plait_sched_t **link = &registry;
    while (*link != sched)
        link = &(*link)->next;
    *link = sched->next;
    plait_prim_unlock(&registry_lock);
}

plait_sched_t *plait_sched_find(uint64_t id)
{
    plait_prim_lock(&registry_lock);
    plait_sched_t *sched = registry;
    while (sched != NULL && sched->id != id)
        sched = sched->next;
    if (sched != NULL && !plait_life_retain(&sched->life))
        sched = NULL; /* its last holder has gone and waits for our lock */
    plait_prim_unlock(&registry_lock);
    return sched;
}

bool plait_sched_after_fork(void)
{
    bool any = registry != NULL;
    registry_lock.word = 0;
    registry = NULL;
    return any;
}

uint64_t plait_sched_id(const plait_sched_t *sched)
{
    return sched->id;
}

/* By the last holder: nobody else uses the scheduler any more. */
static void destroy(plait_sched_t *sched)
{
    registry_remove(sched);
    PLAIT_ASSERT(plait_levels_is_empty(&sched->levels));
    fini_workers(sched);
    plait_park_fini(&sched->park);
    plait_levels_fini(&sched->levels);
    sched->ops->dispose(sched->context);
    free(sched);
}

static _Thread_local plait_worker_t *current_worker;

static void work(plait_worker_t *worker)
{
    void *item;
    worker->announces = worker->sched->ops->rest == NULL;
    while (next_item(worker, &item))
        run_item(worker, item);
    worker->announces = false;
}

bool plait_worker_help(plait_worker_t *worker, bool own)
{
    void *item;
    bool found =
        own ? plait_deque_pop_owner(&worker->deque, &item) == PLAIT_OK : find(worker, &item);
    if (found)
        plait__item_run_worker(worker, item);
    return found;
}

static void worker_main(void *argument)
{
    plait_worker_t *worker = argument;
    plait_sched_t *sched = worker->sched;
    current_worker = worker;
    if (sched->ops->enter(worker) != PLAIT_OK)
        plait_sched_break(sched);
    if (!plait_sched_is_broken(sched) && sched->ops->surround != NULL)
        sched->ops->surround(worker, work);
    else
        work(worker);
    sched->ops->leave(worker);
    current_worker = NULL;
    if (plait_life_end_worker(&sched->life))
        destroy(sched);
}

/* ---- life ---- */

static int init_workers(plait_sched_t *sched)
{
    sched->workers = calloc(sched->capacity, sizeof *sched->workers);
    if (sched->workers == NULL)
        return PLAIT_NOMEM;
    for (unsigned index = 0; index < sched->capacity; index++) {
        plait_worker_t *worker = &sched->workers[index];
        int result = plait_deque_init(&worker->deque, FIRST_CAPACITY, &plait_alloc_system);
        if (result != PLAIT_OK) {
            while (index-- > 0)
                plait_deque_fini(&sched->workers[index].deque);
            free(sched->workers);
            return result;
        }
        worker->sched = sched;
        worker->index = worker->victim = index;
    }
    return PLAIT_OK;
}

int plait_sched_create(plait_sched_t **out, const plait_sched_config_t *config)
{
    if (config->workers == 0)
        return PLAIT_INVALID;
    size_t size = (sizeof(plait_sched_t) + PLAIT_PRIM_CACHE_LINE - 1) / PLAIT_PRIM_CACHE_LINE *
                  PLAIT_PRIM_CACHE_LINE;
    plait_sched_t *sched = aligned_alloc(PLAIT_PRIM_CACHE_LINE, size);
    if (sched == NULL)
        return PLAIT_NOMEM;
    memset(sched, 0, size);
    sched->ops = config->ops;
    sched->context = config->context;
    sched->capacity = config->workers;
    sched->stack_size = config->stack_size;
    if (config->name != NULL)
        strncpy(sched->name, config->name, PLAIT__SCHED_NAME_SIZE - 1);
    int result = plait_levels_init(&sched->levels, &plait_alloc_system);
    if (result != PLAIT_OK)
        goto fail;
    result = plait_park_init(&sched->park, sched->capacity, &plait_alloc_system);
    if (result != PLAIT_OK)
        goto fail_levels;
    result = init_workers(sched);
    if (result != PLAIT_OK)
        goto fail_park;
    plait_life_init(&sched->life, &sched->levels, &sched->park);
    registry_add(sched);
    *out = sched;
    return PLAIT_OK;
fail_park:
    plait_park_fini(&sched->park);
fail_levels:
    plait_levels_fini(&sched->levels);
fail:
    free(sched);
    return result;
}

void plait_sched_release(plait_sched_t *sched)
{
    if (plait_life_release(&sched->life))
        destroy(sched);
}

/* Under lock, behind the gate: one more worker, which the caller publishes in `started`. */
static int start_worker_locked(plait_sched_t *sched, uint32_t index)
{
    plait_prim_thread_t thread;
    plait_life_add_worker(&sched->life);
    /* Before it can push anything, so that whoever it wakes also looks at its deque. release: pairs
     * with steal. */
    plait_atomic_store_release(&sched->stealable, index + 1);
    int result = plait_prim_thread_start(&thread, worker_main, &sched->workers[index], sched->name,
                                         sched->stack_size);
    if (result == PLAIT_OK)
        plait_prim_thread_detach(thread);
    else
        plait_life_drop_worker(&sched->life);
    return result;
}

/* Behind the gate, or by a worker that is busy: starts `more` workers, or as many as there may be and can be had. */
static void start_workers(plait_sched_t *sched, uint64_t more)
{
    plait_prim_lock(&sched->lock);
    uint32_t started = plait_atomic_load_relaxed(&sched->started); /* relaxed: under lock */
    for (; more > 0 && started < sched->capacity; more--) {
        if (start_worker_locked(sched, started) != PLAIT_OK)
            break;
        started++;
    }
    plait_atomic_store_release(&sched->started, started); /* pairs with push */
    plait_prim_unlock(&sched->lock);
}

/* ---- submitting ---- */

/* What a worker submits goes to its own deque whatever its level: there it finds it if it waits. */
static int enqueue(plait_sched_t *sched, void *item, unsigned level)
{
    plait_worker_t *worker = current_worker;
    if (worker != NULL && worker->sched == sched)
        return plait_deque_push_owner(&worker->deque, item);
    return plait_levels_push_mpmc(&sched->levels, level, item);
}

/* Behind the gate: starts the first worker, without which nothing may be queued, and gives it the
 * item. Other submitters wait meanwhile: they must not wake this worker for an item of theirs and
 * count on it. PLAIT_FULL where another thread was first. */
static int push_first(plait_sched_t *sched, void *item, unsigned level)
{
    int result = PLAIT_FULL;
    plait_prim_lock(&sched->lock);
    if (plait_atomic_load_relaxed(&sched->started) == 0) { /* relaxed: under lock */
        result = start_worker_locked(sched, 0);
        if (result == PLAIT_OK) {
            result = enqueue(sched, item, level);
            plait_park_wake_one(&sched->park);
            plait_atomic_store_release(&sched->started, 1); /* pairs with push */
        }
    }
    plait_prim_unlock(&sched->lock);
    return result;
}

/* Behind the gate: makes an item visible, and `parallelism` workers ready to take it or what it is
 * split into: one that sleeps, or new ones. Not one that is awake, since it may be about to take
 * something that lasts. */
static int push(plait_sched_t *sched, void *item, unsigned level, uint64_t parallelism)
{
    int result = PLAIT_FULL;
    bool served = true;
    if (plait_atomic_load_acquire(&sched->started) == 0) /* pairs with its stores */
        result = push_first(sched, item, level);
    if (result == PLAIT_FULL) {
        result = enqueue(sched, item, level);
        served = result == PLAIT_OK && plait_park_wake_one(&sched->park);
    }
    if (result != PLAIT_OK)
        return result;
    uint64_t more = (parallelism < sched->capacity ? parallelism : sched->capacity) - served;
    if (more > 0 && plait_atomic_load_acquire(&sched->started) < sched->capacity)
        start_workers(sched, more);
    return PLAIT_OK;
}

int plait_sched_submit(plait_sched_t *sched, plait_task_t *task)
{
    return plait_sched_submit_at(sched, task, PLAIT_LEVEL_NORMAL);
}

int plait_sched_submit_at(plait_sched_t *sched, plait_task_t *task, unsigned level)
{
    PLAIT_ASSERT(level < PLAIT_LEVELS);
    if (!plait_life_enter(&sched->life))
        return PLAIT_CLOSED;
    plait_task_retain(task);
    int result = push(sched, task, level, 1);
    plait_life_leave(&sched->life);
    if (result != PLAIT_OK)
        plait_task_release(task);
    return result;
}

int plait_sched_submit_job(plait_sched_t *sched, plait_job_t *job)
{
    PLAIT_ASSERT(job->count > 0);
    if (!plait_life_enter(&sched->life))
        return PLAIT_CLOSED;
    plait__range_t *range = plait__range_new(job);
    int result = range == NULL ? PLAIT_NOMEM
                               : push(sched, plait__item_of_range(range), job->level, job->count);
    plait_life_leave(&sched->life);
    if (result != PLAIT_OK && range != NULL)
        plait__range_free(range);
    return result;
}

/* ---- ahead ---- */

/* The last worker of a scheduler that is closed has not ended yet, so whoever is woken or started will. */
static int give_back(plait_worker_t *worker, void *item)
{
    plait_sched_t *sched = worker->sched;
    if (plait_deque_push_owner(&worker->deque, item) != PLAIT_OK)
        return PLAIT_NOMEM;
    /* acquire: as in push */
    if (!plait_park_wake_one(&sched->park) &&
        plait_atomic_load_acquire(&sched->started) < sched->capacity)
        start_workers(sched, 1);
    return PLAIT_OK;
}

plait_task_t *plait_worker_take(plait_worker_t *worker)
{
    void *item;
    bool used = plait_levels_are_used(&worker->sched->levels);
    if (!plait_deque_has_room_owner(&worker->deque) || !find_first(worker, used, &item))
        return NULL;
    if (plait__range_of_item(item) == NULL)
        return item;
    give_back(worker, item); /* there is room */
    return NULL;
}

int plait_worker_give_back(plait_worker_t *worker, plait_task_t *task)
{
    return give_back(worker, task);
}

void plait_worker_complete(plait_task_t *task)
{
    plait_task_complete_worker(task);
    plait_task_release(task);
}

/* ---- ending ---- */

void plait_sched_close(plait_sched_t *sched)
{
    plait_life_close(&sched->life);
}

static void drain_item(plait_sched_t *sched, void *item)
{
    plait__range_t *range = plait__range_of_item(item);
    if (range != NULL) {
        plait__range_drain(sched, range);
    } else {
        bool first;
        plait_task_cancel(item, &first);
        plait_task_release(item);
    }
}

static void drain_deque(plait_sched_t *sched, plait_worker_t *worker)
{
    void *item;
    int result;
    do {
        result = worker == current_worker ? plait_deque_pop_owner(&worker->deque, &item)
                                          : plait_deque_steal_thief(&worker->deque, &item);
        if (result == PLAIT_OK)
            drain_item(sched, item);
    } while (result != PLAIT_EMPTY);
}

void plait_sched_drain(plait_sched_t *sched)
{
    void *item;
    while (plait_levels_pop_mpmc(&sched->levels, 0, PLAIT_LEVELS, &item) == PLAIT_OK)
        drain_item(sched, item);
    uint32_t count = plait_atomic_load_acquire(&sched->stealable); /* as in steal */
    for (uint32_t index = 0; index < count; index++)
        drain_deque(sched, &sched->workers[index]);
    plait_life_look(&sched->life);
}

int plait_sched_join(plait_sched_t *sched, int64_t deadline)
{
    return plait_life_join(&sched->life, deadline);
}

/* ---- queries ---- */

bool plait_sched_is_closed(plait_sched_t *sched)
{
    return plait_life_is_closed(&sched->life);
}

void plait_sched_break(plait_sched_t *sched)
{
    plait_atomic_store_seq_cst(&sched->broken, 1);
}

bool plait_sched_is_broken(plait_sched_t *sched)
{
    return plait_atomic_load_acquire(&sched->broken) != 0; /* pairs with plait_sched_break */
}

unsigned plait_sched_living(plait_sched_t *sched)
{
    return plait_life_workers(&sched->life);
}

void *plait_sched_context(plait_sched_t *sched)
{
    return sched->context;
}

plait_worker_t *plait_worker_current(void)
{
    return current_worker;
}

plait_sched_t *plait_worker_sched(plait_worker_t *worker)
{
    return worker->sched;
}

unsigned plait_worker_index(plait_worker_t *worker)
{
    return worker->index;
}

void *plait_worker_data(plait_worker_t *worker)
{
    return worker->data;
}

void plait_worker_set_data(plait_worker_t *worker, void *data)
{
    worker->data = data;
}
