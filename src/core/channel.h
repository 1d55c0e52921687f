/* channel: what a parent and one child process share: three rings, a word to interrupt by, another to
 * be told something by, and a desk on which the child prepares what must survive it.
 *
 * One map of memory with fixed-width fields and offsets that follow from constants; magic, version
 * and size come first and are checked by the child. Two pairs of sockets go with it, for descriptors:
 * the map's own and the second socket, which the child gets first, and those of blocks. Each child has a channel of its own,
 * so that one that dies, or writes nonsense, can spoil nobody else's.
 * Design: docs/design/process.md
 */
#ifndef PLAIT_CORE_CHANNEL_H
#define PLAIT_CORE_CHANNEL_H

#include "core/begun.h"
#include "core/ring.h"

#define PLAIT_CHANNEL_MAGIC UINT32_C(0x6e616863) /* "chan" */
#define PLAIT_CHANNEL_VERSION 4

#define PLAIT_CHANNEL_RING ((uint64_t)1 << 18) /* bytes, in each direction */
#define PLAIT_CHANNEL_DESK ((uint64_t)1 << 20)

typedef struct plait_channel_shared {
    /* const after init */
    uint32_t magic;
    uint32_t version;
    uint64_t size; /* of the whole map */
    int32_t parent;
    int32_t starter; /* the process with which the child ends: the parent, or one of its own */
    /* the number of the request to be interrupted, which the parent writes and whoever uses it up
     * sets to 0; then a wait word of the parent's that grows by 1 each time */
    PLAIT_ATOMIC(uint64_t) interrupted;
    PLAIT_ATOMIC(uint32_t) bell;
    /* written by the parent: what it has last told, and how often it has, a wait word */
    PLAIT_ATOMIC(uint32_t) told_count;
    PLAIT_ATOMIC(uint64_t) told;
    char pad0[PLAIT_PRIM_CACHE_LINE - 48];
    /* written by the child: the last request that it has begun (or the parent has taken back, see
     * begun.h); how much of the present one is finished, in units of its user's, and how many bytes
     * of it lie on the desk */
    PLAIT_ATOMIC(uint64_t) begun;
    PLAIT_ATOMIC(uint64_t) finished;
    PLAIT_ATOMIC(uint64_t) desk_used;
    char pad1[PLAIT_PRIM_CACHE_LINE - 24];
    plait_ring_shared_t requests; /* to the child */
    plait_ring_shared_t replies;  /* to the parent */
    plait_ring_shared_t results;  /* to the child: of what it has submitted itself */
} plait_channel_shared_t;

_Static_assert(sizeof(plait_channel_shared_t) == 8 * PLAIT_PRIM_CACHE_LINE, "no holes");

/* One side's view. */
typedef struct plait_channel {
    plait_prim_map_t map;
    plait_channel_shared_t *shared;
    plait_ring_t requests;
    plait_ring_t replies;
    plait_ring_t results;
    unsigned char *desk; /* PLAIT_CHANNEL_DESK bytes */
    int socket;          /* this side's end of what blocks travel over, with requests and replies */
    int results_socket;  /* likewise with results */
    int other_socket,
        other_results_socket; /* the child's, in the parent, until it has them; else -1 */
} plait_channel_t;

/* The parent: a channel of its own memory for a child that the process `starter` (its pid) starts;
 * PLAIT_OK, or PLAIT_NOMEM or PLAIT_SYSTEM. Owner: the caller, until close. */
int plait_channel_create(plait_channel_t *channel, int starter);

/* The parent: the child has its end of the socket now. */
void plait_channel_handed_over(plait_channel_t *channel);

/* The child, once: the channel behind the socket that it inherited, which is taken over whatever
 * happens; the map's descriptor comes over it first. PLAIT_CORRUPT where it is none, or of another
 * version. */
int plait_channel_open(plait_channel_t *channel, int socket);

void plait_channel_close(plait_channel_t *channel);

/* Any thread of the parent: asks for the request with this number to be interrupted. */
void plait_channel_interrupt(plait_channel_t *channel, uint64_t number);

/* The child: the number of the request that is to be interrupted; 0 for none. */
uint64_t plait_channel_interrupted(plait_channel_t *channel);

/* The child, to interrupt the request with this number, or the parent, to take that back: whether it
 * was to be interrupted and nobody else was first. */
bool plait_channel_use_interrupt(plait_channel_t *channel, uint64_t number);

/* The child: it could not, after all, and it is to be interrupted still. */
void plait_channel_put_interrupt_back(plait_channel_t *channel, uint64_t number);

/* The parent, one thread at a time: tells something. */
void plait_channel_tell(plait_channel_t *channel, uint64_t told);

/* The child, one thread at a time: what it has been told since `seen` was read. Blocks until
 * then. */
uint64_t plait_channel_await_told(plait_channel_t *channel, uint32_t seen);

/* One thread of the child: blocks until a request is to be interrupted since `seen` was read. */
void plait_channel_await_interrupt(plait_channel_t *channel, uint32_t *seen);

#endif
