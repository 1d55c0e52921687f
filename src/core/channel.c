/* channel: a parent's and a child's shared map.
 *
 * Layout: the shared part, the requests' bytes, the replies' bytes, the
 * results' bytes, the desk. Invariant: the parent
 * reads nothing of it but through the rings, which check, and by copying from the desk. Who may
 * call: see channel.h. Design: docs/design/process.md
 */
#include "core/channel.h"

/* How often the child looks for what it is to be told before it sleeps. */
#define TOLD_SPINS 200

#define RINGS_AT 4096 /* the shared part has a page of its own */
#define SIZE (RINGS_AT + 3 * PLAIT_CHANNEL_RING + PLAIT_CHANNEL_DESK)

/* How long either side looks for the other's letter before it sleeps, in ns. Where processors are
 * virtual, waking a process on another one takes 20 to 40 us of both; a caller that waits for one
 * result after another comes back in less. */
#define PATIENCE 50000

static void lay_out(plait_channel_t *channel)
{
    unsigned char *base = channel->map.base;
    channel->shared = channel->map.base;
    plait_ring_init(&channel->requests, &channel->shared->requests, base + RINGS_AT,
                    PLAIT_CHANNEL_RING);
    plait_ring_init(&channel->replies, &channel->shared->replies,
                    base + RINGS_AT + PLAIT_CHANNEL_RING, PLAIT_CHANNEL_RING);
    plait_ring_init(&channel->results, &channel->shared->results,
                    base + RINGS_AT + 2 * PLAIT_CHANNEL_RING, PLAIT_CHANNEL_RING);
    channel->requests.patience = channel->replies.patience = channel->results.patience = PATIENCE;
    channel->desk = base + RINGS_AT + 3 * PLAIT_CHANNEL_RING;
}

static void close_sockets(plait_channel_t *channel)
{
    plait_prim_descriptor_close(channel->socket);
    plait_prim_descriptor_close(channel->results_socket);
    if (channel->other_socket >= 0)
        plait_channel_handed_over(channel);
}

/* Both pairs of sockets. */
static int open_sockets(plait_channel_t *channel)
{
    int first[2], second[2];
    int result = plait_prim_socket_pair(first);
    if (result != PLAIT_OK)
        return result;
    result = plait_prim_socket_pair(second);
    if (result != PLAIT_OK) {
        plait_prim_descriptor_close(first[0]);
        plait_prim_descriptor_close(first[1]);
        return result;
    }
    channel->socket = first[0];
    channel->other_socket = first[1];
    channel->results_socket = second[0];
    channel->other_results_socket = second[1];
    return PLAIT_OK;
}

int plait_channel_create(plait_channel_t *channel, int starter)
{
    int result = plait_prim_map_create(&channel->map, SIZE, true);
    if (result != PLAIT_OK)
        return result;
    lay_out(channel);
    channel->shared->magic = PLAIT_CHANNEL_MAGIC;
    channel->shared->version = PLAIT_CHANNEL_VERSION;
    channel->shared->size = SIZE;
    channel->shared->parent = plait_prim_process_id();
    channel->shared->starter = starter;
    result = open_sockets(channel);
    if (result == PLAIT_OK) {
        int descriptors[] = {channel->map.descriptor, channel->other_results_socket};
        result = plait_prim_socket_send(channel->socket, descriptors, 2);
        if (result == PLAIT_OK)
            return PLAIT_OK;
        close_sockets(channel);
    }
    plait_prim_map_close(&channel->map);
    return result;
}

void plait_channel_handed_over(plait_channel_t *channel)
{
    plait_prim_descriptor_close(channel->other_socket);
    plait_prim_descriptor_close(channel->other_results_socket);
    channel->other_socket = channel->other_results_socket = -1;
}

int plait_channel_open(plait_channel_t *channel, int socket)
{
    int descriptors[2];
    channel->socket = socket;
    channel->other_socket = channel->other_results_socket = -1;
    plait_prim_descriptor_keep(socket);
    int result = plait_prim_socket_receive(socket, descriptors, 2);
    if (result != PLAIT_OK) {
        plait_prim_descriptor_close(socket);
        return result;
    }
    channel->results_socket = descriptors[1];
    result = plait_prim_map_open(&channel->map, descriptors[0], SIZE);
    if (result != PLAIT_OK) {
        plait_prim_descriptor_close(descriptors[0]);
        close_sockets(channel);
        return result;
    }
    lay_out(channel);
    if (channel->shared->magic == PLAIT_CHANNEL_MAGIC &&
        channel->shared->version == PLAIT_CHANNEL_VERSION && channel->shared->size == SIZE)
        return PLAIT_OK;
    plait_channel_close(channel);
    return PLAIT_CORRUPT;
}

void plait_channel_close(plait_channel_t *channel)
{
    close_sockets(channel);
    plait_prim_map_close(&channel->map);
}

void plait_channel_interrupt(plait_channel_t *channel, uint64_t number)
{
    /* seq_cst: the child makes a request current and then looks here; who waits on the bell looks
     * here and then at what is current */
    plait_atomic_store_seq_cst(&channel->shared->interrupted, number);
    plait_atomic_add_seq_cst(&channel->shared->bell, 1u);
    plait_prim_wake(&channel->shared->bell, 1, true);
}

uint64_t plait_channel_interrupted(plait_channel_t *channel)
{
    return plait_atomic_load_seq_cst(&channel->shared->interrupted);
}

void plait_channel_await_interrupt(plait_channel_t *channel, uint32_t *seen)
{
    uint32_t now;
    while ((now = plait_atomic_load_seq_cst(&channel->shared->bell)) == *seen)
        plait_prim_wait(&channel->shared->bell, now, PLAIT_PRIM_FOREVER, true);
    *seen = now;
}

bool plait_channel_use_interrupt(plait_channel_t *channel, uint64_t number)
{
    return plait_atomic_load_seq_cst(&channel->shared->interrupted) == number &&
           plait_atomic_cas_acq_rel(&channel->shared->interrupted, &number, 0);
}

void plait_channel_put_interrupt_back(plait_channel_t *channel, uint64_t number)
{
    uint64_t none = 0; /* or the parent has sent another meanwhile, of the same number */
    plait_atomic_cas_acq_rel(&channel->shared->interrupted, &none, number);
}

void plait_channel_tell(plait_channel_t *channel, uint64_t told)
{
    plait_atomic_store_relaxed(&channel->shared->told, told); /* published by the next */
    plait_atomic_add_seq_cst(&channel->shared->told_count, 1u);
    plait_prim_wake(&channel->shared->told_count, 1, true);
}

uint64_t plait_channel_await_told(plait_channel_t *channel, uint32_t seen)
{
    PLAIT_ATOMIC(uint32_t) *count = &channel->shared->told_count;
    /* acquire: pairs with the addition */
    for (int look = 0; plait_atomic_load_acquire(count) == seen; look++)
        if (look < TOLD_SPINS)
            plait_prim_relax();
        else
            plait_prim_wait(count, seen, PLAIT_PRIM_FOREVER, true);
    return plait_atomic_load_relaxed(&channel->shared->told);
}
