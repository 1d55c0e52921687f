/* map: the iterator of a map, which map.c asks for results and map_feed.c feeds.
 *
 * One thread at a time uses it, in its critical section. Design: docs/design/map.md
 */
#ifndef PLAIT_BINDING_MAP_H
#define PLAIT_BINDING_MAP_H

#include "binding/map_job.h"

typedef struct map_object {
    PyObject_HEAD
    pool_object *pool; /* NULL once the input is exhausted: a pool that is let go of then closes */
    uint64_t sched_id;
    uint32_t fork_count;
    module_state *state;
    PyObject *callable;
    PyObject *input;      /* NULL once exhausted */
    shipment_t *function; /* not for threads */
    shipment_t *context;  /* likewise; NULL: no variable travels */
    PyObject *variables;  /* thread kind: a context; NULL: none is set */
    stream_t *stream;
    map_options_t options;
    bool begun;
    int64_t waiting_since; /* for the next value; see help_while_waiting */
    uint64_t taken;        /* items taken from the input */
    uint64_t next;         /* items given to the caller */
    uint64_t block;        /* how large the next block may be */
    double bytes;          /* of all messages so far */
    /* grains that came before their turn: a binary heap by place */
    grain_t **heap;
    size_t heap_count, heap_capacity;
    /* the grain being given */
    grain_t *current;
    uint64_t position; /* in current */
    decoder_t decoder;
    plait_flat_body_t values;
    bool decoding;
} map_object;

/* ---- map_feed.c ---- */

/* How large the first block may be. */
#define MAP_FIRST_BLOCK 64

/* How many items more may be in flight. */
uint64_t map_room(const map_object *self);

/* Whether it is worth taking more from the input now: in steady state by the half window, not by
 * the item. */
bool map_wants_more(const map_object *self);

/* Takes one block from the input and hands it over. 0, or -1 with an exception. */
int map_feed(map_object *self);

#endif
