/* sched: workers, where they look for work, how they sleep and how they end.
 *
 * A worker looks in its own deque (newest first), then in the injector (oldest first), then steals
 * from the others' deques (oldest first); after a short spin it sleeps by the protocol of park.h.
 * Invariants: an item is in one queue or in the hands of one thread; each item holds a reference to
 * its task or job; nothing is pushed from outside unless the gate was entered while open. Design:
 * docs/design/sched.md
 */
#include "plait/sched.h"

#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/deque.h"
#include "core/inject.h"
#include "core/park.h"

#define FIRST_CAPACITY 64
#define NAME_SIZE 16

/* How long an idle worker looks around before it sleeps, in looks. Sleeping and waking cost two
 * system calls and several microseconds of latency; spinning costs whoever else wants the
 * processor. */
#define SPIN_LOOKS 64

/* A range whose items are quick is run in grains, each as long as about this many nanoseconds: long
 * enough to make the clock and the publication cheap, short enough to leave something to steal. */
#define GRAIN_TIME 100000
#define GRAIN_LIMIT 4096

/* The gate's lowest bit says closed; the rest counts the submitters that are inside. */
#define GATE_CLOSED 1u
#define GATE_ENTRY 2u

struct plait_worker {
    /* const after init */
    plait_sched_t *sched;
    unsigned index;
    /* owner only */
    void *data;
    unsigned victim;
    /* bottom by the owner, top by thieves */
    plait_deque_t deque;
};

struct plait_sched {
    /* const after init */
    const plait_worker_ops_t *ops;
    void *context;
    unsigned capacity;
    size_t stack_size;
    char name[NAME_SIZE];
    plait_worker_t *workers;
    /* starting a worker */
    plait_prim_lock_t lock;
    PLAIT_ATOMIC(uint32_t) started; /* grows under lock */
    /* life: changes seldom */
    PLAIT_ATOMIC(uint32_t) references; /* the handle and each living worker */
    PLAIT_ATOMIC(uint32_t) living;     /* a wait word for join */
    PLAIT_ATOMIC(uint32_t) broken;
    PLAIT_ATOMIC(uint32_t) finished; /* closed, and nothing is left or can come: workers end */
    PLAIT_ATOMIC(uint32_t) busy;     /* workers that are not asleep; only they make work */
    /* written by every submitter */
    _Alignas(PLAIT_PRIM_CACHE_LINE) PLAIT_ATOMIC(uint32_t) gate;
    plait_inject_t inject;
    plait_park_t park;
};

/* ---- items: a pointer to a task, or to a range with the lowest bit set ---- */

typedef struct range {
    plait_job_t *job; /* a reference */
    uint64_t low, high;
} range_t;

static void *item_of_range(range_t *range)
{
    return (void *)((uintptr_t)range | 1);
}

static range_t *range_of_item(void *item)
{
    return ((uintptr_t)item & 1) ? (range_t *)((uintptr_t)item & ~(uintptr_t)1) : NULL;
}

static range_t *range_new(plait_job_t *job, uint64_t low, uint64_t high)
{
    range_t *range = malloc(sizeof *range);
    if (range == NULL)
        return NULL;
    plait_job_retain(job);
    *range = (range_t){job, low, high};
    return range;
}

static void range_free(range_t *range)
{
    plait_job_release(range->job);
    free(range);
}

/* ---- jobs ---- */

void plait_job_init(plait_job_t *job, uint64_t count, plait_job_flag_t *cancelled,
                    void (*destroy)(plait_job_t *job))
{
    plait_atomic_init(&job->references, 1);
    job->destroy = destroy;
    job->count = count;
    job->cancelled = cancelled;
}

void plait_job_retain(plait_job_t *job)
{
    plait_atomic_add_relaxed(&job->references, 1); /* relaxed: as plait_task_retain */
}

void plait_job_release(plait_job_t *job)
{
    if (plait_atomic_sub_acq_rel(&job->references, 1) == 1)
        job->destroy(job);
}

void plait_job_cancel(plait_job_flag_t *cancelled)
{
    plait_atomic_store_relaxed(cancelled, 1); /* relaxed: only a hint to stop, it orders nothing */
}

bool plait_job_is_cancelled(plait_job_t *job)
{
    return plait_atomic_load_relaxed(job->cancelled) != 0;
}

/* ---- looking for work ---- */

static bool steal(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    unsigned count = plait_atomic_load_acquire(&sched->started); /* pairs with start_worker */
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

static bool find(plait_worker_t *worker, void **item)
{
    return plait_deque_pop_owner(&worker->deque, item) == PLAIT_OK ||
           plait_inject_pop_mpmc(&worker->sched->inject, item) == PLAIT_OK || steal(worker, item);
}

/* Notices the end: the gate is closed with nobody inside, nothing is queued, and nobody is awake to
 * make more. Called by whoever may have brought the last of these about. The order of the three
 * looks matters: after an empty injector behind a closed gate, work lies only with workers that are
 * busy. */
static void finish_if_idle(plait_sched_t *sched)
{
    if (plait_atomic_load_seq_cst(&sched->gate) == GATE_CLOSED &&
        plait_inject_is_empty(&sched->inject) && plait_atomic_load_seq_cst(&sched->busy) == 0) {
        plait_atomic_store_seq_cst(&sched->finished, 1);
        plait_park_wake_all(&sched->park);
    }
}

/* Sleeps until woken, unless an item turns up at the last look. */
static bool find_or_sleep(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    plait_park_prepare_worker(&sched->park, worker->index);
    if (find(worker, item) || plait_atomic_load_seq_cst(&sched->finished)) {
        plait_park_cancel_worker(&sched->park, worker->index);
        return *item != NULL;
    }
    sched->ops->pause(worker);
    plait_atomic_sub_seq_cst(&sched->busy, 1);
    if (plait_atomic_load_seq_cst(&sched->gate) & GATE_CLOSED)
        finish_if_idle(sched);
    plait_park_wait_worker(&sched->park, worker->index, PLAIT_PRIM_FOREVER);
    plait_atomic_add_seq_cst(&sched->busy, 1); /* before it looks for work: see finish_if_idle */
    sched->ops->resume(worker);
    return false;
}

/* The next item, or false when the worker is to end. */
static bool next_item(plait_worker_t *worker, void **item)
{
    plait_sched_t *sched = worker->sched;
    *item = NULL;
    for (;;) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (find(worker, item))
                return true;
            plait_prim_relax();
        }
        if (plait_atomic_load_seq_cst(&sched->finished))
            return false;
        if (find_or_sleep(worker, item))
            return true;
    }
}

/* ---- running ---- */

/* Gives the upper half of what is left to whoever wants it, if nobody can steal anything from us
 * now. */
static void share(plait_worker_t *worker, range_t *range, uint64_t grain)
{
    uint64_t left = range->high - range->low;
    if (left <= grain || left < 2 || plait_deque_size(&worker->deque) != 0)
        return;
    uint64_t middle = range->low + left / 2;
    range_t *upper = range_new(range->job, middle, range->high);
    if (upper == NULL)
        return; /* then this worker runs all of it itself */
    if (plait_deque_push_owner(&worker->deque, item_of_range(upper)) != PLAIT_OK) {
        range_free(upper);
        return;
    }
    range->high = middle;
    plait_park_wake_one(&worker->sched->park);
}

static void run_range(plait_worker_t *worker, range_t *range)
{
    plait_sched_t *sched = worker->sched;
    uint64_t grain = 1;
    int64_t before = plait_prim_now();
    while (range->low < range->high) {
        if (plait_job_is_cancelled(range->job) || plait_sched_is_broken(sched)) {
            sched->ops->abandon_items(sched, range->job, range->low, range->high);
            break;
        }
        share(worker, range, grain);
        uint64_t left = range->high - range->low;
        uint64_t high = range->low + (grain < left ? grain : left);
        range->low += sched->ops->run_items(worker, range->job, range->low, high);
        int64_t now = plait_prim_now();
        if (now - before < GRAIN_TIME / 2 && grain < GRAIN_LIMIT)
            grain *= 2;
        else if (now - before > GRAIN_TIME * 2 && grain > 1)
            grain /= 2;
        before = now;
    }
    range_free(range);
}

static void run_task(plait_worker_t *worker, plait_task_t *task)
{
    plait_sched_t *sched = worker->sched;
    if (plait_task_claim_worker(task)) {
        if (plait_sched_is_broken(sched))
            sched->ops->abandon(sched, task);
        else
            sched->ops->run(worker, task);
        plait_task_complete_worker(task);
    }
    plait_task_release(task);
}

static void run_item(plait_worker_t *worker, void *item)
{
    range_t *range = range_of_item(item);
    if (range != NULL)
        run_range(worker, range);
    else
        run_task(worker, item);
}

static _Thread_local plait_worker_t *current_worker;

static void worker_main(void *argument)
{
    plait_worker_t *worker = argument;
    plait_sched_t *sched = worker->sched;
    current_worker = worker;
    if (sched->ops->enter(worker) != PLAIT_OK)
        plait_atomic_store_seq_cst(&sched->broken, 1);
    void *item;
    while (next_item(worker, &item))
        run_item(worker, item);
    sched->ops->leave(worker);
    current_worker = NULL;
    if (plait_atomic_sub_seq_cst(&sched->living, 1) == 1)
        plait_prim_wake(&sched->living, INT32_MAX, false);
    plait_sched_release(sched);
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

static void fini_workers(plait_sched_t *sched)
{
    for (unsigned index = 0; index < sched->capacity; index++)
        plait_deque_fini(&sched->workers[index].deque);
    free(sched->workers);
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
        strncpy(sched->name, config->name, NAME_SIZE - 1);
    plait_atomic_init(&sched->references, 1);
    int result = plait_inject_init(&sched->inject, &plait_alloc_system);
    if (result != PLAIT_OK)
        goto fail;
    result = plait_park_init(&sched->park, sched->capacity, &plait_alloc_system);
    if (result != PLAIT_OK)
        goto fail_inject;
    result = init_workers(sched);
    if (result != PLAIT_OK)
        goto fail_park;
    *out = sched;
    return PLAIT_OK;
fail_park:
    plait_park_fini(&sched->park);
fail_inject:
    plait_inject_fini(&sched->inject);
fail:
    free(sched);
    return result;
}

void plait_sched_release(plait_sched_t *sched)
{
    if (plait_atomic_sub_acq_rel(&sched->references, 1) != 1)
        return;
    PLAIT_ASSERT(plait_inject_is_empty(&sched->inject));
    fini_workers(sched);
    plait_park_fini(&sched->park);
    plait_inject_fini(&sched->inject);
    sched->ops->dispose(sched->context);
    free(sched);
}

/* Under lock: one more worker, if there may be one. */
static int start_worker_locked(plait_sched_t *sched)
{
    uint32_t index = plait_atomic_load_relaxed(&sched->started); /* relaxed: under lock */
    if (index == sched->capacity)
        return PLAIT_FULL;
    plait_prim_thread_t thread;
    plait_atomic_add_relaxed(&sched->references, 1); /* relaxed: the caller holds the handle */
    plait_atomic_add_seq_cst(&sched->living, 1);
    plait_atomic_add_seq_cst(&sched->busy, 1);
    int result = plait_prim_thread_start(&thread, worker_main, &sched->workers[index], sched->name,
                                         sched->stack_size);
    if (result != PLAIT_OK) {
        plait_atomic_sub_seq_cst(&sched->busy, 1);
        plait_atomic_sub_seq_cst(&sched->living, 1);
        plait_atomic_sub_release(&sched->references, 1);
        return result;
    }
    plait_prim_thread_detach(thread);
    plait_atomic_store_release(&sched->started, index + 1); /* pairs with steal */
    return PLAIT_OK;
}

/* Starts workers until `wanted` exist. PLAIT_OK if at least one does. */
static int start_workers(plait_sched_t *sched, uint64_t wanted)
{
    int result = PLAIT_OK;
    plait_prim_lock(&sched->lock);
    uint32_t started = plait_atomic_load_relaxed(&sched->started); /* relaxed: under lock */
    while (result == PLAIT_OK && started < wanted && started < sched->capacity) {
        result = start_worker_locked(sched);
        started += result == PLAIT_OK;
    }
    plait_prim_unlock(&sched->lock);
    return started > 0 ? PLAIT_OK : result;
}

/* ---- submitting ---- */

static bool gate_enter(plait_sched_t *sched)
{
    uint32_t before = plait_atomic_add_seq_cst(&sched->gate, GATE_ENTRY);
    if (!(before & GATE_CLOSED))
        return true;
    plait_atomic_sub_seq_cst(&sched->gate, GATE_ENTRY);
    finish_if_idle(sched);
    return false;
}

static void gate_leave(plait_sched_t *sched)
{
    if (plait_atomic_sub_seq_cst(&sched->gate, GATE_ENTRY) & GATE_CLOSED)
        finish_if_idle(sched);
}

/* Behind the gate: makes an item visible and somebody awake to take it. */
static int push(plait_sched_t *sched, void *item, uint64_t parallelism)
{
    uint32_t started = plait_atomic_load_acquire(&sched->started);
    if (started == 0) {
        int result = start_workers(sched, 1);
        if (result != PLAIT_OK)
            return result;
        started = 1;
        parallelism--;
    }
    plait_worker_t *worker = current_worker;
    int result = worker != NULL && worker->sched == sched
                     ? plait_deque_push_owner(&worker->deque, item)
                     : plait_inject_push_mpmc(&sched->inject, item);
    if (result != PLAIT_OK)
        return result;
    bool woken = plait_park_wake_one(&sched->park);
    if (parallelism > woken && started < sched->capacity)
        start_workers(sched, started + parallelism - woken);
    return PLAIT_OK;
}

int plait_sched_submit(plait_sched_t *sched, plait_task_t *task)
{
    if (!gate_enter(sched))
        return PLAIT_CLOSED;
    plait_task_retain(task);
    int result = push(sched, task, 1);
    gate_leave(sched);
    if (result != PLAIT_OK)
        plait_task_release(task);
    return result;
}

int plait_sched_submit_job(plait_sched_t *sched, plait_job_t *job)
{
    if (!gate_enter(sched))
        return PLAIT_CLOSED;
    range_t *range = range_new(job, 0, job->count);
    int result = range == NULL ? PLAIT_NOMEM : push(sched, item_of_range(range), job->count);
    gate_leave(sched);
    if (result != PLAIT_OK && range != NULL)
        range_free(range);
    return result;
}

/* ---- ending ---- */

void plait_sched_close(plait_sched_t *sched)
{
    plait_atomic_or_seq_cst(&sched->gate, GATE_CLOSED);
    finish_if_idle(sched);
}

static void drain_item(plait_sched_t *sched, void *item)
{
    range_t *range = range_of_item(item);
    if (range != NULL) {
        plait_job_cancel(range->job->cancelled);
        sched->ops->abandon_items(sched, range->job, range->low, range->high);
        range_free(range);
    } else {
        bool first;
        plait_task_cancel(item, &first);
        plait_task_release(item);
    }
}

void plait_sched_drain(plait_sched_t *sched)
{
    void *item;
    while (plait_inject_pop_mpmc(&sched->inject, &item) == PLAIT_OK)
        drain_item(sched, item);
    uint32_t count = plait_atomic_load_acquire(&sched->started);
    for (uint32_t index = 0; index < count; index++) {
        int result;
        while ((result = plait_deque_steal_thief(&sched->workers[index].deque, &item)) !=
               PLAIT_EMPTY)
            if (result == PLAIT_OK)
                drain_item(sched, item);
    }
    if (plait_sched_is_closed(sched))
        finish_if_idle(sched);
}

int plait_sched_join(plait_sched_t *sched, int64_t deadline)
{
    for (;;) {
        uint32_t living =
            plait_atomic_load_acquire(&sched->living); /* pairs with worker_main's end */
        if (living == 0)
            return PLAIT_OK;
        int result = plait_prim_wait(&sched->living, living, deadline, false);
        if (result != PLAIT_OK)
            return result;
    }
}

/* ---- queries ---- */

bool plait_sched_is_closed(plait_sched_t *sched)
{
    return (plait_atomic_load_seq_cst(&sched->gate) & GATE_CLOSED) != 0;
}

bool plait_sched_is_broken(plait_sched_t *sched)
{
    return plait_atomic_load_acquire(&sched->broken) != 0; /* pairs with the store in worker_main */
}

unsigned plait_sched_living(plait_sched_t *sched)
{
    return plait_atomic_load_acquire(&sched->living);
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
