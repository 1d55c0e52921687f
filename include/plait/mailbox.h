/* mailbox: a list that any thread adds to and one thread empties, sleeping while there is nothing.
 *
 * What travels is the sender's own structure with a link in it, so adding never allocates and never
 * fails. It carries what workers hand back in bulk (finished stretches of a map, tasks whose
 * callbacks are due), so a lock of a few instructions around the list costs nothing that could be
 * measured. Design: docs/design/mailbox.md
 */
#ifndef PLAIT_MAILBOX_H
#define PLAIT_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/atomic.h"
#include "plait/error.h"
#include "prim/prim.h"

typedef struct plait_link {
    struct plait_link *next;
} plait_link_t;

typedef struct plait_mailbox {
    plait_prim_lock_t lock;
    plait_link_t *first; /* guarded by lock, as the next two */
    plait_link_t **last;
    bool closed;
    /* Grows by 2 with every addition; the lowest bit says that the receiver may sleep on it. */
    PLAIT_ATOMIC(uint32_t) bell;
} plait_mailbox_t;

void plait_mailbox_init(plait_mailbox_t *mailbox);

/* Any thread; does not block. The link belongs to the mailbox until it is taken. The mailbox itself
 * must outlive the call: the sender still rings after the receiver may have taken the link. */
void plait_mailbox_push(plait_mailbox_t *mailbox, plait_link_t *link);

/* The receiver: takes all that is there, oldest first, linked by `next`. Blocks while there is
 * nothing: PLAIT_OK, PLAIT_TIMEOUT, PLAIT_INTERRUPTED (a signal handler ran), or PLAIT_CLOSED when
 * it is empty and closed. A deadline of 0 never blocks, and so may be used by others, too. */
int plait_mailbox_take(plait_mailbox_t *mailbox, int64_t deadline, plait_link_t **links);

/* Any thread: nothing more will come; the receiver wakes. */
void plait_mailbox_close(plait_mailbox_t *mailbox);

#endif
