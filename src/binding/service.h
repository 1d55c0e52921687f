/* service: the state of a process worker's child, for serve.c and serve_nested.c.
 *
 * Its main thread serves; any thread of it may submit and ask. Design: docs/design/process.md,
 * docs/design/nesting.md
 */
#ifndef PLAIT_BINDING_SERVICE_H
#define PLAIT_BINDING_SERVICE_H

#include "binding/process.h" /* first: it includes Python.h */

/* The block of a map's items, as long as somebody runs some of it. */
typedef struct block {
    unsigned references;
    message_t message;
} block_t;

typedef struct service {
    plait_channel_t channel;
    worker_data_t *data;
    pool_core_t *core;
    /* the main thread's own */
    plait_letter_t *letter; /* the present request's; NULL between requests */
    unsigned depth;         /* how many requests wait below it */
    call_t *call;           /* used for one request after another; NULL while one uses it */
    shipment_t *context;    /* the one that came last, or NULL */
    block_t *items;         /* likewise */
    /* Guarded by sending, under which every letter to the parent goes. Nobody takes it, or the next,
     * with the GIL. */
    plait_prim_lock_t sending;
    uint64_t number; /* of the present request */
    bool heard; /* whether the parent reads letters: while there is a request, and at the end */
    /* the desk */
    kept_encoder_t desk;
    plait_alloc_t desk_alloc;
    bool desk_full;
    /* the thread that interrupts */
    plait_prim_thread_t attendant;
    PLAIT_ATOMIC(uint32_t) ended;
    /* see serve_nested.c; guarded by asking, which comes before sending */
    plait_prim_lock_t asking;
    table_t sent;          /* ids of functions that the parent keeps */
    uint64_t sent_context; /* id of the context that it keeps; 0: none */
    bool has_clerk;
    /* how many results have been settled; changed by the clerk, a wait word */
    PLAIT_ATOMIC(uint32_t) settled;
    PLAIT_ATOMIC(uint32_t) awaited; /* whether the main thread may sleep on it */
} service_t;

/* ---- serve.c ---- */

/* Any thread: that of this process; NULL where it is none's child, or a copy that a task has made of
 * one by fork. */
service_t *service_here(void);

/* A thread without the GIL, under `sending`: the letter gets the present request's number. */
void service_send(service_t *service, plait_letter_t *letter);

/* The main thread, with the GIL: the next letter of the parent, which is the present one from here on.
 * False where it says that nothing more comes. */
bool service_next(service_t *service, plait_letter_t *letter);

/* Likewise: does what it asks for, and answers. */
void service_serve(service_t *service, plait_letter_t *letter);

/* ---- serve_nested.c ---- */

/* A new parent, or the first: it has nothing of what this process could submit. */
void service_forget_sent(service_t *service);

#endif
