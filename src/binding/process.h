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
#include "core/child.h"
#include "core/wire.h"

/* Requests, with their words and blobs. Where a blob is a message, a word is its root. */
enum {
    REQUEST_END,        /* nothing more comes */
    REQUEST_SETUP,      /* what makes the child resemble its maker; [SETUP_ROOT]; blob 0 */
    REQUEST_INITIALIZE, /* as REQUEST_CALL */
    REQUEST_CONTEXT,    /* a context for calls to come, not answered; [CONTEXT_*]; blob 0 */
    REQUEST_CALL,       /* [CALL_*]; blob 0 the function, blob 1 the arguments */
    REQUEST_ITEMS       /* [CALL_*] and [ITEMS_*]; blob 1 the block of items */
};

/* Answers. */
enum {
    REPLY_READY, /* to setup and initialize; [ANSWER_*]; blob 0 what was raised */
    REPLY_CALL,  /* [ANSWER_*]; blob 0 the value or exception */
    REPLY_GRAIN, /* some items' [ANSWER_*] and [GRAIN_*]; more follows */
    REPLY_ITEMS, /* all items have been answered; [ANSWER_FLAGS] */
    REPLY_VISIT  /* no answer, but precedes one: see visit.c; [VISIT_*]; blob 0 the arguments */
};

enum { SETUP_ROOT = 0 };
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

/* serve.c, the child's main thread: sends what the parent is to do, ahead of the present answer. */
void service_visit(struct service *service, visit_t visit, const message_t *arguments);

#endif
