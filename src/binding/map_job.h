/* map_job: what the iterator of a map and the workers that run its items share.
 *
 * A block of items is a job; what came out of a stretch of them is a grain; all grains of a map
 * arrive in one stream. All three are plain memory, since their two sides may be different
 * interpreters; the objects in them are there for thread workers only. Design: docs/design/map.md
 */
#ifndef PLAIT_BINDING_MAP_JOB_H
#define PLAIT_BINDING_MAP_JOB_H

#include "binding/binding.h"

/* What the iterator and the workers share. */
typedef struct stream {
    PLAIT_ATOMIC(uint32_t) references; /* the iterator and each job */
    plait_job_flag_t cancelled;
    plait_job_flag_t expired;      /* its deadline has passed */
    plait_timer_t timer;           /* of its deadline; idle if it has none */
    uint64_t sched_id;             /* where its items run; const once the timer is started */
    pool_kind kind;                /* likewise */
    PLAIT_ATOMIC(uint32_t) killed; /* processes that went on after the deadline */
    PLAIT_ATOMIC(call_t *) signal; /* to be told when something arrives: a reference, or NULL */
    unsigned level;                /* of its jobs */
    uint32_t retries;              /* of each item, see call_t */
    uint64_t id;                   /* of all jobs: what workers learn of one holds for the next */
    plait_mailbox_t grains;
} stream_t;

typedef struct grain {
    plait_link_t link;
    uint64_t low, high; /* places in the whole map */
    answer_t answer;    /* VALUE: a LIST message or a list object of high - low values */
} grain_t;

typedef struct map_job {
    plait_job_t job; /* first: the scheduler knows this part only */
    stream_t *stream;
    pool_core_t *core; /* alive while a worker runs this */
    uint64_t first;    /* the place of item 0 in the whole map */
    bool star;
    shipment_t *function; /* not for threads */
    message_t items;      /* a LIST */
    shipment_t *context;  /* NULL: no variable travels */
    PyObject *callable;   /* thread kind */
    PyObject *variables;  /* a context, or NULL: none is set */
    PyObject *objects;    /* a list */
} map_job_t;

/* Cuts a list that was made for more. */
static inline void cut_list(PyObject *list, uint64_t count)
{
    if ((uint64_t)PyList_GET_SIZE(list) > count &&
        PyList_SetSlice(list, (Py_ssize_t)count, PyList_GET_SIZE(list), NULL) < 0)
        PyErr_Clear(); /* cannot be: nothing is allocated to cut the end off */
}

/* One reference, the caller's; NULL without memory. */
stream_t *stream_new(void);
void stream_release(stream_t *stream);

/* Any thread that keeps the stream, with an interpreter or without: hands the grain over. */
void stream_send(stream_t *stream, grain_t *grain);

/* Likewise: tells whoever waits for something to arrive, if anybody does. */
void stream_tell(stream_t *stream);

/* The iterator, before any job: gives the map a deadline, unless it is PLAIT_PRIM_FOREVER. PLAIT_OK,
 * PLAIT_NOMEM or PLAIT_SYSTEM. See deadline.c. */
int stream_start_deadline(stream_t *stream, const pool_core_t *core, int64_t deadline);

grain_t *grain_new(uint64_t low, uint64_t high);
void grain_free(grain_t *grain);

/* A job of `count` items whose first has the place `first`, with a reference to the stream and one
 * for the caller; NULL with an exception. */
map_job_t *map_job_new(stream_t *stream, pool_core_t *core, uint64_t first, uint64_t count,
                       bool star);

#endif
