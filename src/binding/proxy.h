/* proxy: the parts of a process worker's half in the parent, among themselves.
 *
 * A proxy is a worker's thread without an interpreter: it has its child run what the scheduler gives
 * it, and waits. A child that dies fails what it ran, and nothing else; the next task gets a new
 * one. A call that waits has the proxy help: what the proxy runs meanwhile lies on top of it, in the
 * child and here, a frame on a frame. Invariants: a child belongs to one proxy at a time; what the
 * child sends is copied before it is looked at, and decoded by whoever asks for it; the child, the
 * frames and the request are changed under the worker's lock only, so that interrupters see them
 * whole. All functions are the proxy's own thread's, in no interpreter; those that return an int give
 * PLAIT_OK or what the wire said, unless another meaning is told: PLAIT_CLOSED where the child has
 * ended, PLAIT_NOMEM, and everything else where it has sent nonsense.
 * Design: docs/design/process.md, docs/design/nesting.md
 */
#ifndef PLAIT_BINDING_PROXY_H
#define PLAIT_BINDING_PROXY_H

#include "binding/process.h"

/* One request, on the proxy's stack. */
typedef struct frame {
    /* guarded by the worker's lock */
    struct frame *below;
    call_t *current;  /* what it runs; items_of() for items */
    uint64_t request; /* its number; 0 before the child has been asked */
    bool struck;      /* the child was asked to interrupt the items, or whatever it ran */
    bool recalled;    /* the child has not begun it, and will not */
    /* the proxy's own */
    struct stretch *stretch; /* NULL but for items */
    bool has_desk;           /* these are the items that lie on the child's */
    bool lost;               /* the child has ended */
    plait_child_death_t death;
    uint64_t items_below; /* what the worker's `items` and `items_expired` were */
    plait_job_flag_t *expired_below;
} frame_t;

/* ---- proxy_letters.c ---- */

/* Waits for room. */
int proxy_send(process_t *process, const plait_letter_t *letter);

/* The next answer to the present request; what precedes it is done for the child. Blocks. The letter
 * is to be finished before the next one. PLAIT_RETRY: there is none, the child has not begun it. */
int proxy_receive(worker_data_t *data, plait_letter_t *letter);
void proxy_finish(process_t *process, plait_letter_t *letter);

/* What the child says in its letter, whose message goes over; PLAIT_CORRUPT where it cannot say that. */
int proxy_read_answer(plait_letter_t *letter, answer_t *answer);

/* ---- proxy_child.c ---- */

/* A worker's beginning and end: ops of the scheduler. */
int proxy_enter(plait_worker_t *worker);
void proxy_leave(plait_worker_t *worker);

/* A new child, set up and initialized. 0, or -1 where the pool is broken now. */
int proxy_start(worker_data_t *data);

/* How a process has ended, ahead of death->number. */
const char *proxy_how(const plait_child_death_t *death);

/* Has the child end, and does what it asks for meanwhile. */
void proxy_dismiss(worker_data_t *data);

/* Ends it at the deadline, 0 for at once, if it does not end by itself before; with it all frames
 * that wait in it are lost, but for what lies on its desk. */
plait_child_death_t proxy_bury(worker_data_t *data, int64_t deadline);

/* The answer of a call that its child has taken along. */
void proxy_answer_died(const plait_child_death_t *death, call_t *call);

/* The answer of the frame on top where the child could not give one: `result` is what the wire said.
 * The child is buried, but where only memory was lacking here. */
void proxy_answer_failed(worker_data_t *data, int result, const char *task, answer_t *answer);

/* ---- proxy_template.c ---- */

/* A process for a child that was not there, as the pool has them made; attempts count from 1. PLAIT_OK;
 * PLAIT_RETRY: somebody killed what it was to be made of; otherwise the pool is broken now. */
int proxy_make_child(pool_core_t *core, plait_child_t *child, unsigned attempt);

/* A worker has left: the pool's part in a template ends if it was the last. */
void proxy_drop_template(pool_core_t *core);

/* ---- proxy.c ---- */

/* How many tasks the child may still run. One that may run none is replaced first, unless something in
 * it waits, or may wait as it ends, for what it has submitted. */
uint64_t proxy_make_room(worker_data_t *data);

/* Puts a request, the caller's until it is popped, on top of those that wait. */
void proxy_push(worker_data_t *data, frame_t *frame);

/* Takes it away again; the one below is set aside still. */
void proxy_pop(worker_data_t *data, const frame_t *frame);

/* Sends a call's request with this number. */
int proxy_send_call(process_t *process, const call_t *call, uint64_t number);

/* Asks for the frame on top, with a number of its own, what there is a child for; -1 where there can
 * be none any more. */
int proxy_begin(plait_worker_t *worker, worker_data_t *data);

/* A call of the child waits: the proxy runs something else there, if there is anything. PLAIT_CLOSED
 * where the child has ended meanwhile: that is another one now, if there is one. */
int proxy_help(worker_data_t *data, bool own);

/* The function's part of a request, and of what its answer says about it. */
void proxy_put_function(process_t *process, const shipment_t *shipment, plait_letter_t *letter);
void proxy_note_flags(worker_data_t *data, const shipment_t *shipment, uint64_t flags);

/* The context's part of a request: a letter of its own, ahead of it, unless the child has that one. */
int proxy_send_context(process_t *process, const shipment_t *context, plait_letter_t *request);

/* Whether the child died before it began the request, which another may then begin. Each start is
 * answered by the child, so this cannot go on for ever unless somebody kills every one of them. */
bool proxy_may_begin_again(worker_data_t *data, int result, unsigned *attempts);

/* Whether a child's death is to be followed by another run, which uses up one of `retries`. Nobody
 * wants another of what was interrupted, by its deadline perhaps; that comes before the kill. */
bool proxy_may_retry(worker_data_t *data, call_t *current, int result, uint32_t *retries);

/* ---- proxy_ahead.c ---- */

/* The request on top is with the child: sends it some more, if they are likely to be short. False where
 * the one on top was recalled along with some of them: it is to be asked again. */
bool proxy_fill_ahead(plait_worker_t *worker, worker_data_t *data);

/* An answer has come: whether requests may be ahead follows from how long it took. */
void proxy_note_pace(worker_data_t *data);

/* Takes back what the child has not begun, for any worker to run. True if that is so of the request on
 * top, too, which the caller is to ask again. */
bool proxy_recall_ahead(worker_data_t *data);

/* The same under the worker's lock, by any thread: marks it, for the proxy to do the rest. */
void proxy_mark_recalled(worker_data_t *data);

/* The child has ended, nobody is about to reach it: what it has begun besides the request on top, which
 * only one that is out of order can have, fails; the rest goes back. */
void proxy_fail_ahead(worker_data_t *data, const plait_child_death_t *death);

/* The request on top has its answer: makes the next one of those ahead the one on top, and returns its
 * call; NULL where there is none. It has a number if the child has it. */
call_t *proxy_next_ahead(worker_data_t *data);

/* ---- proxy_items.c ---- */

/* An op of the scheduler. */
uint64_t proxy_run_items(plait_worker_t *worker, plait_job_t *base, uint64_t low, uint64_t high);

/* What a dead child had finished but not sent lies on its desk, a list that lacks its header: sends
 * it on. */
void proxy_save_desk(process_t *process, struct stretch *stretch);

#endif
