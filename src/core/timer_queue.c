/* timer_queue: a heap of deadlines under a lock, and one server that sleeps until the earliest.
 *
 * Invariants: a timer is QUEUED exactly while it is in the heap, at its `place`; it goes from QUEUED
 * to FIRING only by the server, which then calls its function once. While the server sleeps,
 * `until` is not after any deadline in the heap, or the bell has been rung. Design:
 * docs/design/timer.md
 */
#include "core/timer_queue.h"

#define FIRST_CAPACITY 16

enum { IDLE, QUEUED, FIRING };

void plait_timer_init(plait_timer_t *timer, plait_timer_function_t *function)
{
    timer->function = function;
    timer->place = 0;
    timer->fork_count = 0;
    plait_atomic_init(&timer->state, (uint32_t)IDLE);
}

void plait_timer_queue_init(plait_timer_queue_t *queue, const plait_alloc_t *alloc)
{
    queue->alloc = alloc;
    queue->lock.word = 0;
    queue->heap = NULL;
    queue->count = queue->capacity = 0;
    queue->until = PLAIT_PRIM_FOREVER;
    plait_atomic_init(&queue->bell, (uint32_t)0);
}

void plait_timer_queue_fini(plait_timer_queue_t *queue)
{
    if (queue->heap != NULL)
        queue->alloc->release(queue->alloc->context, queue->heap);
}

/* ---- the heap, under lock ---- */

static void put(plait_timer_queue_t *queue, size_t place, plait_timer_entry_t entry)
{
    queue->heap[place] = entry;
    entry.timer->place = place;
}

/* Puts the entry where it belongs, at or above `place`, which is free. */
static void sift_up(plait_timer_queue_t *queue, size_t place, plait_timer_entry_t entry)
{
    while (place > 0 && queue->heap[(place - 1) / 2].deadline > entry.deadline) {
        put(queue, place, queue->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put(queue, place, entry);
}

/* Likewise, at or below it. */
static void sift_down(plait_timer_queue_t *queue, size_t place, plait_timer_entry_t entry)
{
    size_t child;
    while ((child = place * 2 + 1) < queue->count) {
        if (child + 1 < queue->count &&
            queue->heap[child + 1].deadline < queue->heap[child].deadline)
            child++;
        if (entry.deadline <= queue->heap[child].deadline)
            break;
        put(queue, place, queue->heap[child]);
        place = child;
    }
    put(queue, place, entry);
}

static void take_out(plait_timer_queue_t *queue, size_t place)
{
    plait_timer_entry_t last = queue->heap[--queue->count];
    if (place == queue->count)
        return;
    if (place > 0 && queue->heap[(place - 1) / 2].deadline > last.deadline)
        sift_up(queue, place, last);
    else
        sift_down(queue, place, last);
}

static int make_room(plait_timer_queue_t *queue)
{
    if (queue->count < queue->capacity)
        return PLAIT_OK;
    const plait_alloc_t *alloc = queue->alloc;
    size_t capacity = queue->capacity == 0 ? FIRST_CAPACITY : queue->capacity * 2;
    size_t size = capacity * sizeof(plait_timer_entry_t);
    void *heap = queue->heap == NULL ? alloc->allocate(alloc->context, size)
                                     : alloc->resize(alloc->context, queue->heap, size);
    if (heap == NULL)
        return PLAIT_NOMEM;
    queue->heap = (plait_timer_entry_t *)heap;
    queue->capacity = capacity;
    return PLAIT_OK;
}

/* ---- the owners of timers ---- */

int plait_timer_queue_start(plait_timer_queue_t *queue, plait_timer_t *timer, int64_t deadline)
{
    plait_prim_lock(&queue->lock);
    int result = make_room(queue);
    bool sooner = result == PLAIT_OK && deadline < queue->until, fired = false;
    if (result == PLAIT_OK) {
        /* relaxed: the lock orders it */
        fired = plait_atomic_load_relaxed(&timer->state) == FIRING;
        plait_atomic_store_relaxed(&timer->state, (uint32_t)QUEUED);
        plait_timer_entry_t entry = {deadline, timer};
        sift_up(queue, queue->count++, entry);
    }
    if (sooner) {
        queue->until = deadline;
        plait_atomic_add_relaxed(&queue->bell, (uint32_t)1); /* relaxed: changed under lock */
    }
    plait_prim_unlock(&queue->lock);
    if (sooner)
        plait_prim_wake(&queue->bell, 1, false);
    if (fired)
        plait_prim_wake(&timer->state, INT32_MAX, false); /* the address only, as in finish */
    return result;
}

bool plait_timer_queue_stop(plait_timer_queue_t *queue, plait_timer_t *timer)
{
    /* acquire, here and below: pairs with finish, after which the timer may be freed */
    if (plait_atomic_load_acquire(&timer->state) == IDLE)
        return true;
    plait_prim_lock(&queue->lock);
    uint32_t state = plait_atomic_load_acquire(&timer->state);
    if (state == QUEUED) {
        take_out(queue, timer->place);
        plait_atomic_store_relaxed(&timer->state, (uint32_t)IDLE); /* relaxed: under lock */
    }
    plait_prim_unlock(&queue->lock);
    return state != FIRING;
}

void plait_timer_wait(plait_timer_t *timer)
{
    while (plait_atomic_load_acquire(&timer->state) == FIRING) /* pairs with finish */
        plait_prim_wait(&timer->state, FIRING, PLAIT_PRIM_FOREVER, false);
}

void plait_timer_finish(plait_timer_t *timer)
{
    /* release: all that the function did comes before whatever its owner does next */
    plait_atomic_store_release(&timer->state, (uint32_t)IDLE);
    plait_prim_wake(&timer->state, INT32_MAX, false); /* the address only: it may be gone */
}

/* ---- the server ---- */

/* Under lock: the earliest timer if it is due, which fires from now on; or NULL. */
static plait_timer_t *take_due(plait_timer_queue_t *queue)
{
    if (queue->count == 0 || queue->heap[0].deadline > plait_prim_now())
        return NULL;
    plait_timer_t *timer = queue->heap[0].timer;
    take_out(queue, 0);
    plait_atomic_store_relaxed(&timer->state, (uint32_t)FIRING); /* relaxed: under lock */
    return timer;
}

void plait_timer_queue_serve(plait_timer_queue_t *queue)
{
    plait_prim_lock(&queue->lock);
    uint32_t bell = plait_atomic_load_relaxed(&queue->bell); /* relaxed: under lock */
    plait_timer_t *due = take_due(queue);
    int64_t until = queue->count == 0 ? PLAIT_PRIM_FOREVER : queue->heap[0].deadline;
    if (due == NULL)
        queue->until = until;
    plait_prim_unlock(&queue->lock);
    if (due != NULL)
        due->function(due);
    else
        plait_prim_wait(&queue->bell, bell, until, false);
}
