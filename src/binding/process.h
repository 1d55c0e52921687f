/* process: what a process worker's two halves say to each other, and what they share.
 *
 * The proxy (worker_process.c) is a worker's thread in the parent. It needs no interpreter: it puts
 * messages that are encoded already into letters. The child (serve.c) decodes, calls and encodes
 * with the same code as an interpreter worker. There is at most one request at a time, so each
 * answer belongs to the last one. Design: docs/design/process.md
 */
#ifndef PLAIT_BINDING_PROCESS_H
#define PLAIT_BINDING_PROCESS_H

#include "binding/binding.h" /* first: it includes Python.h */
#include "binding/kept.h"
#include "core/child.h"
#include "core/wire.h"

/* Requests, with their words and blobs. Where a blob is a message, a word is its root. */
enum {
    REQUEST_END,        /* nothing more comes */
    REQUEST_SETUP,      /* what makes the child resemble its maker; [SETUP_*]; blob 0 */
    REQUEST_INITIALIZE, /* as REQUEST_CALL */
    REQUEST_CONTEXT,    /* a context for calls to come, not answered; [CONTEXT_*]; blob 0 */
    REQUEST_CALL,       /* [CALL_*]; blob 0 the function, blob 1 the arguments */
    REQUEST_ITEMS,      /* [CALL_*] and [ITEMS_*]; blob 1 the block of items */
    REQUEST_LEAVE       /* the pool is over: whether the child can serve another one */
};

/* Answers. */
enum {
    REPLY_READY, /* to setup and initialize; [ANSWER_*]; blob 0 what was raised. To leave: a bool */
    REPLY_CALL,  /* [ANSWER_*]; blob 0 the value or exception */
    REPLY_GRAIN, /* some items' [ANSWER_*] and [GRAIN_*]; more follows */
    REPLY_ITEMS, /* all items have been answered; [ANSWER_FLAGS] */
    REPLY_VISIT  /* no answer, but precedes one: see visit.c; [VISIT_*]; blob 0 the arguments */
};

enum { SETUP_ROOT, SETUP_KEEP };
enum { CALL_FUNCTION, CALL_FUNCTION_ROOT, CALL_ROOT, CALL_FLAGS, ITEMS_LOW, ITEMS_HIGH };
enum { CONTEXT_ID, CONTEXT_ROOT };
enum { VISIT_WHICH, VISIT_ROOT };
enum { ANSWER_OUTCOME, ANSWER_ROOT, ANSWER_FLAGS, GRAIN_LOW, GRAIN_HIGH };

/* [CALL_FLAGS] */
enum {
    FLAG_FUNCTION = 1, /* blob 0 has it; else the child keeps it from before */
    FLAG_FORGET = 2,   /* first, all functions that are kept are to be forgotten */
    FLAG_ITEMS = 4,    /* blob 1 has the block; else it is the one before */
    FLAG_STAR = 8,
    FLAG_CONTEXT = 16 /* runs in the context that came last; else in none */
};

/* [ANSWER_FLAGS] */
enum {
    FLAG_KNOWN = 1,    /* the child keeps the function */
    FLAG_EXHAUSTED = 2 /* something in it has raised MemoryError */
};

/* How many functions a child keeps. */
#define PROCESS_FUNCTIONS 200

/* A proxy's, or of a later pool's: see reuse_process.c. */
typedef struct process {
    kept_t kept; /* first */
    /* guarded by the worker's lock */
    plait_child_t child;
    bool alive;
    uint64_t request; /* the number of the one under way, or of the last */
    /* the proxy's own */
    table_t known;                      /* ids of shipments whose function the child keeps */
    uint64_t context;                   /* id of the one that it keeps; 0: none */
    uint64_t items_stream, items_first; /* the block of items that it keeps */
    uint64_t served;                    /* how many tasks and items it has run */
    bool exhausted;                     /* it has run out of memory, and is to be replaced */
} process_t;

/* Before a child is started for a pool: what a later one must be like that may take it. */
void process_note_key(process_t *process, const pool_core_t *core);

/* Keeps a child that has left its pool; those beyond `limit` end. The caller's no longer. */
void process_keep(process_t *process, unsigned limit);

/* A child, alive but yet to be set up, that has served another pool like this one; NULL: none. */
process_t *process_take(const pool_core_t *core);

/* One without a child. */
void process_free(process_t *process);

/* serve.c, the child's main thread: sends what the parent is to do, ahead of the present answer. */
void service_visit(struct service *service, visit_t visit, const message_t *arguments);

#endif
