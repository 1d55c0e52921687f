/* timer_queue: the timers that wait for their deadlines, and the server that sleeps for them.
 *
 * The part of timer.h that knows neither threads nor forks, so that it can be modelled. Design:
 * docs/design/timer.md
 */
#ifndef PLAIT_CORE_TIMER_QUEUE_H
#define PLAIT_CORE_TIMER_QUEUE_H

#include "plait/alloc.h"
#include "plait/timer.h"

typedef struct plait_timer_queue plait_timer_queue_t;

typedef struct plait_timer_entry {
    int64_t deadline;
    plait_timer_t *timer;
} plait_timer_entry_t;

struct plait_timer_queue {
    /* const after init */
    const plait_alloc_t *alloc;
    /* guarded by lock */
    plait_prim_lock_t lock;
    plait_timer_entry_t *heap; /* a binary heap, the earliest deadline first */
    size_t count, capacity;
    int64_t until; /* the server looks again by then, whatever is started meanwhile */
    /* changed under lock when the server must look earlier; the word that it sleeps on */
    PLAIT_ATOMIC(uint32_t) bell;
};

/* Empty; `alloc` outlives it. */
void plait_timer_queue_init(plait_timer_queue_t *queue, const plait_alloc_t *alloc);

/* Frees the queue's memory; no timer is in it, and no other thread uses it any more. */
void plait_timer_queue_fini(plait_timer_queue_t *queue);

/* As plait_timer_start and plait_timer_stop. */
int plait_timer_queue_start(plait_timer_queue_t *queue, plait_timer_t *timer, int64_t deadline);
bool plait_timer_queue_stop(plait_timer_queue_t *queue, plait_timer_t *timer);

/* The server, one thread: calls the function of one timer that is due, or sleeps until one may
 * be. */
void plait_timer_queue_serve(plait_timer_queue_t *queue);

#endif
