/* mailbox: many senders, one receiver.
 *
 * Invariant: the receiver sets the bell's lowest bit before its last look at the list, and a sender
 * rings after it has added; both change the one word, so either the sender sees the bit, or the
 * receiver's look sees the addition. Design: docs/design/mailbox.md
 */
#include "plait/mailbox.h"

#define SLEEPING 1u
#define RING 2u

void plait_mailbox_init(plait_mailbox_t *mailbox)
{
    mailbox->lock.word = 0;
    mailbox->first = NULL;
    mailbox->last = &mailbox->first;
    mailbox->closed = false;
    plait_atomic_init(&mailbox->bell, 0);
}

static void ring(plait_mailbox_t *mailbox)
{
    if (plait_atomic_add_seq_cst(&mailbox->bell, RING) & SLEEPING) {
        plait_atomic_and_acq_rel(&mailbox->bell, ~SLEEPING);
        plait_prim_wake(&mailbox->bell, 1, false);
    }
}

void plait_mailbox_push(plait_mailbox_t *mailbox, plait_link_t *link)
{
    link->next = NULL;
    plait_prim_lock(&mailbox->lock);
    *mailbox->last = link;
    mailbox->last = &link->next;
    plait_prim_unlock(&mailbox->lock);
    ring(mailbox);
}

/* PLAIT_OK with the whole list, PLAIT_EMPTY or PLAIT_CLOSED. */
static int look(plait_mailbox_t *mailbox, plait_link_t **links)
{
    plait_prim_lock(&mailbox->lock);
    bool closed = mailbox->closed;
    *links = mailbox->first;
    mailbox->first = NULL;
    mailbox->last = &mailbox->first;
    plait_prim_unlock(&mailbox->lock);
    if (*links != NULL)
        return PLAIT_OK;
    return closed ? PLAIT_CLOSED : PLAIT_EMPTY;
}

int plait_mailbox_take(plait_mailbox_t *mailbox, int64_t deadline, plait_link_t **links)
{
    int result = look(mailbox, links);
    while (result == PLAIT_EMPTY) {
        if (deadline == 0)
            return PLAIT_TIMEOUT;
        uint32_t bell = plait_atomic_or_seq_cst(&mailbox->bell, SLEEPING) | SLEEPING;
        result = look(mailbox, links);
        if (result != PLAIT_EMPTY)
            break;
        int waited = plait_prim_wait(&mailbox->bell, bell, deadline, false);
        result = look(mailbox, links);
        if (result == PLAIT_EMPTY && waited != PLAIT_OK)
            return waited;
    }
    return result;
}

void plait_mailbox_close(plait_mailbox_t *mailbox)
{
    plait_prim_lock(&mailbox->lock);
    mailbox->closed = true;
    plait_prim_unlock(&mailbox->lock);
    ring(mailbox);
}
