/* ring: records between two processes.
 *
 * Invariants: [head, tail) holds whole records, and both positions are multiples of the alignment; a
 * side that sleeps has set its `wanted` word to 1 and looked again afterwards, and whoever changes
 * what it waits for looks at that word afterwards, both sequentially consistent: one of them sees
 * the other. `gone` counts as such a change. Who may call: see ring.h. Design: docs/design/process.md
 */
#include "core/ring.h"

#include <string.h>

/* How often a side looks before it sleeps, at least. Waking a process costs several microseconds; a
 * short task of the peer's takes less. */
#ifndef PLAIT_RING_SPINS
#define PLAIT_RING_SPINS 200
#endif

/* How often it does so between two looks at the clock. */
#define LOOKS_PER_TIME 16

/* A side whose patience is always in vain shows it in one wait out of two to this power. */
#define VAIN_MAX 2

void plait_ring_init(plait_ring_t *ring, plait_ring_shared_t *shared, void *data, uint64_t capacity)
{
    ring->shared = shared;
    ring->data = (unsigned char *)data;
    ring->capacity = capacity;
    plait_atomic_init(&ring->gone, 0u);
    ring->patience = 0;
    ring->position = 0;
    ring->whole = 0;
    ring->vain = ring->hasty = 0;
}

static uint64_t whole_size(uint64_t payload)
{
    uint64_t mask = PLAIT_RING_ALIGNMENT - 1;
    return sizeof(plait_ring_head_t) + ((payload + mask) & ~mask);
}

static plait_ring_head_t *head_at(plait_ring_t *ring, uint64_t position)
{
    return (plait_ring_head_t *)(void *)(ring->data + (position & (ring->capacity - 1)));
}

/* Bytes from a position to where the ring's memory ends. */
static uint64_t to_the_end(const plait_ring_t *ring, uint64_t position)
{
    return ring->capacity - (position & (ring->capacity - 1));
}

/* ---- sleep and wake ---- */

/* Wakes the other side if it sleeps on its word, after a change that it may wait for. */
static void wake(PLAIT_ATOMIC(uint32_t) *wanted)
{
    if (plait_atomic_load_seq_cst(wanted) == 0)
        return;
    plait_atomic_store_seq_cst(wanted, 0u);
    plait_prim_wake(wanted, 1, true);
}

/* How far the other side's counter is from ours: what may be read, or what is still unread. */
typedef uint64_t (*distance_t)(plait_ring_t *ring);

static uint64_t readable(plait_ring_t *ring)
{
    /* seq_cst: see the file's head. It also acquires what the producer wrote before its commit. */
    return plait_atomic_load_seq_cst(&ring->shared->tail) - ring->position;
}

static uint64_t writable(plait_ring_t *ring)
{
    /* likewise: acquires the consumer's reads of what is to be overwritten */
    uint64_t unread = ring->position - plait_atomic_load_seq_cst(&ring->shared->head);
    return unread > ring->capacity ? UINT64_MAX : ring->capacity - unread;
}

/* Whether a side that has looked so often looks again before it sleeps: some times, then until its
 * patience ends, at `*until`, 0 before. Where that was in vain it is patient half as often from then
 * on, since the peer may be waiting for this very processor. */
static bool looks_again(plait_ring_t *ring, int looks, int64_t deadline, int64_t *until)
{
    if (looks < PLAIT_RING_SPINS)
        return true;
    if (*until == 0) {
        if (ring->patience == 0)
            return false;
        if (ring->hasty > 0) {
            ring->hasty--;
            return false;
        }
        *until = plait_prim_now() + ring->patience;
        if (*until > deadline)
            *until = deadline;
    }
    if (looks % LOOKS_PER_TIME != 0 || plait_prim_now() < *until)
        return true;
    if (ring->vain < VAIN_MAX)
        ring->vain++;
    ring->hasty = (1u << ring->vain) - 1;
    *until = 0;
    return false;
}

/* Waits until the distance is at least `least`. */
static int await(plait_ring_t *ring, distance_t distance, uint64_t least,
                 PLAIT_ATOMIC(uint32_t) *wanted, int64_t deadline)
{
    enum { LOOK, ANNOUNCE, SLEEP } next = LOOK;
    int64_t until = 0;
    for (int looks = 0;; looks++) {
        /* first: what a peer did before it went is seen after this */
        bool gone = plait_atomic_load_seq_cst(&ring->gone) != 0;
        uint64_t found = distance(ring);
        if (found > ring->capacity || found % PLAIT_RING_ALIGNMENT != 0)
            return PLAIT_CORRUPT;
        if (found >= least) {
            if (until != 0)
                ring->vain = 0;
            return PLAIT_OK;
        }
        if (gone)
            return PLAIT_CLOSED;
        if (deadline == 0)
            return PLAIT_TIMEOUT;
        if (next == LOOK && looks_again(ring, looks, deadline, &until)) {
            if (until != 0 && looks % LOOKS_PER_TIME == 0)
                plait_prim_yield(); /* to whoever wants this very processor */
            else
                plait_prim_relax();
        } else if (next != SLEEP) {
            plait_atomic_store_seq_cst(wanted, 1u);
            next = SLEEP; /* after another look */
        } else {
            int result = plait_prim_wait(wanted, 1u, deadline, true);
            if (result != PLAIT_OK)
                return result;
            next = ANNOUNCE; /* again, unless this look finds enough */
        }
    }
}

void plait_ring_abandon(plait_ring_t *ring)
{
    plait_atomic_store_seq_cst(&ring->gone, 1u);
    /* Whatever the words say: the peer may have written nonsense to them. */
    plait_atomic_store_seq_cst(&ring->shared->data_wanted, 0u);
    plait_atomic_store_seq_cst(&ring->shared->room_wanted, 0u);
    plait_prim_wake(&ring->shared->data_wanted, 1, true);
    plait_prim_wake(&ring->shared->room_wanted, 1, true);
}

/* ---- the producer ---- */

int plait_ring_reserve_spsc(plait_ring_t *ring, uint32_t type, uint64_t number, size_t size,
                            int64_t deadline, void **payload)
{
    if (size > plait_ring_limit(ring))
        return PLAIT_TOO_BIG;
    uint64_t whole = whole_size(size), end = to_the_end(ring, ring->position);
    uint64_t padding = whole > end ? end : 0;
    int result = await(ring, writable, whole + padding, &ring->shared->room_wanted, deadline);
    if (result != PLAIT_OK)
        return result;
    if (padding > 0)
        *head_at(ring, ring->position) = (plait_ring_head_t){
            (uint32_t)(padding - sizeof(plait_ring_head_t)), PLAIT_RING_PADDING, 0};
    plait_ring_head_t *head = head_at(ring, ring->position + padding);
    *head = (plait_ring_head_t){(uint32_t)size, type, number};
    *payload = head + 1;
    ring->whole = whole + padding;
    return PLAIT_OK;
}

void plait_ring_commit_spsc(plait_ring_t *ring)
{
    ring->position += ring->whole;
    plait_atomic_store_seq_cst(&ring->shared->tail, ring->position);
    wake(&ring->shared->data_wanted);
}

/* ---- the consumer ---- */

/* Checks what lies at a position, of which `found` bytes may be read. The head is read once: the
 * peer could change it between two looks. */
static int read_head(plait_ring_t *ring, uint64_t position, uint64_t found, plait_ring_head_t *head)
{
    if (found < sizeof *head)
        return PLAIT_CORRUPT;
    const volatile plait_ring_head_t *shared = head_at(ring, position);
    head->size = shared->size;
    head->type = shared->type;
    head->number = shared->number;
    uint64_t whole = whole_size(head->size);
    return whole <= found && whole <= to_the_end(ring, position) ? PLAIT_OK : PLAIT_CORRUPT;
}

int plait_ring_peek_spsc(plait_ring_t *ring, int64_t deadline, plait_ring_record_t *record)
{
    int result =
        await(ring, readable, sizeof(plait_ring_head_t), &ring->shared->data_wanted, deadline);
    if (result != PLAIT_OK)
        return result;
    uint64_t found = readable(ring), padding = 0;
    plait_ring_head_t head;
    if (found > ring->capacity || read_head(ring, ring->position, found, &head) != PLAIT_OK)
        return PLAIT_CORRUPT;
    if (head.type == PLAIT_RING_PADDING) { /* is committed together with a record */
        padding = whole_size(head.size);
        if (padding != to_the_end(ring, ring->position) ||
            read_head(ring, ring->position + padding, found - padding, &head) != PLAIT_OK ||
            head.type == PLAIT_RING_PADDING)
            return PLAIT_CORRUPT;
    }
    *record = (plait_ring_record_t){head.type, head.size, head.number,
                                    head_at(ring, ring->position + padding) + 1};
    ring->whole = padding + whole_size(head.size);
    return PLAIT_OK;
}

void plait_ring_consume_spsc(plait_ring_t *ring)
{
    ring->position += ring->whole;
    plait_atomic_store_seq_cst(&ring->shared->head, ring->position);
    wake(&ring->shared->room_wanted);
}
