/* process: what a process worker's two halves say to each other, and what they share.
 *
 * The proxy (proxy.c) is a worker's thread in the parent. It needs no interpreter: it puts
 * messages that are encoded already into letters. The child (serve.c) decodes, calls and encodes
 * with the same code as an interpreter worker. Requests lie on top of each other at most: a call that
 * waits has the proxy help, which may ask something else meanwhile. So each answer belongs to the last
 * request that is not answered. Design: docs/design/process.md, docs/design/nesting.md
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
    REQUEST_LEAVE,      /* the pool is over: whether the child can serve another one */
    REQUEST_HELPED      /* no request: the answer to REPLY_HELP; [HELPED_*] */
};

/* Answers, and what precedes one: what the child has its proxy do. */
enum {
    REPLY_READY, /* to setup and initialize; [ANSWER_*]; blob 0 what was raised. To leave: a bool */
    REPLY_CALL,  /* [ANSWER_*]; blob 0 the value or exception */
    REPLY_GRAIN, /* some items' [ANSWER_*] and [GRAIN_*]; more follows */
    REPLY_ITEMS, /* all items have been answered; [ANSWER_FLAGS] */
    /* these are no answers */
    REPLY_VISIT,    /* see visit.c; [VISIT_*]; blob 0 the arguments */
    REPLY_FUNCTION, /* of calls that the child submits; [FUNCTION_*]; blob 0 it, blob 1 its name */
    REPLY_CONTEXT,  /* likewise, of the next call; [CONTEXT_*]; blob 0 */
    REPLY_SUBMIT,   /* a call; [SUBMIT_*]; blob 1 the arguments; the child is told how it went */
    REPLY_ASK,      /* [ASK_*]; the child is told */
    REPLY_HELP      /* the call waits; [HELP_OWN]; answered by REQUEST_HELPED */
};

/* Letters about what the child has submitted, in the channel's third ring. */
enum { RESULT_CALL }; /* [RESULT_*]; blob 0 the value or exception */

enum { SETUP_ROOT, SETUP_KEEP, SETUP_POOL };
enum { CALL_FUNCTION, CALL_FUNCTION_ROOT, CALL_ROOT, CALL_FLAGS, ITEMS_LOW, ITEMS_HIGH };
enum { CONTEXT_ID, CONTEXT_ROOT };
enum { VISIT_WHICH, VISIT_ROOT };
enum { ANSWER_OUTCOME, ANSWER_ROOT, ANSWER_FLAGS, GRAIN_LOW, GRAIN_HIGH };
enum { FUNCTION_ID, FUNCTION_ROOT };
enum {
    SUBMIT_POOL,
    SUBMIT_CALL, /* what the child knows it by */
    SUBMIT_FUNCTION,
    SUBMIT_ROOT,
    SUBMIT_FLAGS,
    SUBMIT_LEVEL,
    SUBMIT_DEADLINE,
    SUBMIT_RETRIES
};
enum { ASK_WHAT, ASK_WHOM, ASK_HOW };
enum { HELP_OWN = 0 };
enum { HELPED_STEPPED, HELPED_RESULTS };
enum { RESULT_FOR, RESULT_OUTCOME, RESULT_ROOT };

/* [CALL_FLAGS] */
enum {
    FLAG_FUNCTION = 1, /* blob 0 has it; else the child keeps it from before */
    FLAG_FORGET = 2,   /* first, all functions that are kept are to be forgotten */
    FLAG_ITEMS = 4,    /* blob 1 has the block; else it is the one before */
    FLAG_STAR = 8,
    FLAG_CONTEXT = 16 /* runs in the context that came last; else in none */
};

/* [SUBMIT_FLAGS]: FLAG_CONTEXT, and FLAG_FORGET: the functions that came before this one */

/* What the child is told of a call: its number in the parent's books times 8, plus one of these. */
enum { SUBMIT_ACCEPTED, SUBMIT_CLOSED, SUBMIT_BROKEN, SUBMIT_NOMEM, SUBMIT_FAILED };
#define SUBMIT_NUMBER 8

/* [ASK_WHAT], whom it is about, and what the child is told. */
enum {
    ASK_CANCEL,    /* a call: whether it is cancelled now */
    ASK_INTERRUPT, /* a call: whether it had not ended */
    ASK_RUNNING,   /* a call: whether a worker runs it */
    ASK_CLOSE,     /* a pool; [ASK_HOW]: whether to drain it */
    ASK_STOP,      /* a pool: what its workers run is interrupted */
    ASK_LIVING     /* a pool: how many workers it has */
};

/* [ANSWER_FLAGS] */
enum {
    FLAG_KNOWN = 1,    /* the child keeps the function */
    FLAG_EXHAUSTED = 2 /* something in it has raised MemoryError */
};

/* How many functions a child keeps, and how many of its own the parent keeps for it. */
#define PROCESS_FUNCTIONS 200

/* Requests that a child has, or is to have, besides the present one: see proxy_ahead.c. */
#define AHEAD_MOST 32

typedef struct ahead {
    call_t *call;
    uint64_t number;
    bool recalled; /* the child does not have it, or has not begun it and will not */
} ahead_t;

/* A proxy's, or of a later pool's: see reuse_process.c. */
typedef struct process {
    kept_t kept; /* first */
    /* guarded by the worker's lock */
    plait_child_t child;
    bool alive;
    struct frame *top;         /* what runs, on what waits for it: see proxy.h */
    ahead_t ahead[AHEAD_MOST]; /* oldest first */
    unsigned ahead_count;
    /* the proxy's own */
    uint64_t request;                   /* the number of the present one, or of the last */
    uint64_t last;                      /* the greatest number so far */
    struct line *line;                  /* NULL until a child submits something */
    bool connected;                     /* the line, to the present child */
    table_t known;                      /* ids of shipments whose function the child keeps */
    uint64_t context;                   /* id of the one that it keeps; 0: none */
    uint64_t items_stream, items_first; /* the block of items that it keeps */
    uint64_t served;                    /* how many tasks and items it has run */
    bool exhausted;                     /* it has run out of memory, and is to be replaced */
    int64_t answered;                   /* when the last answer to a call came */
    int64_t pace;                       /* ns between two of them, lately; 0: unknown */
    unsigned ahead_pause;               /* how many calls to run before one may go ahead again */
} process_t;

/* What starts a process for a pool, byte by byte, from malloc: the program, the environment, the
 * standard streams, and the setup unless that is NULL; NULL without memory. */
void *process_key(const pool_core_t *core, char *const *program, const message_t *setup,
                  size_t *size);

/* Before a child is started for a pool: what a later one must be like that may take it. */
void process_note_key(process_t *process, const pool_core_t *core);

/* Keeps a child that has left its pool; those beyond `limit` end. The caller's no longer. */
void process_keep(process_t *process, unsigned limit);

/* A child, alive but yet to be set up, that has served another pool like this one; NULL: none. */
process_t *process_take(const pool_core_t *core);

/* One without a child. */
void process_free(process_t *process);

static inline plait_blob_t blob_of(const message_t *message)
{
    return (plait_blob_t){message->bytes, message->bytes == NULL ? 0 : message->size};
}

/* Makes a message a letter's blob, with its blocks; it stays the caller's. */
static inline void put_message(plait_letter_t *letter, int blob, const message_t *message)
{
    letter->blobs[blob] = blob_of(message);
    letter->bundles[blob] = message->bundle;
}

/* Takes a blob away from its letter, which was received with `copy`. */
static inline message_t message_of(plait_letter_t *letter, int blob, uint64_t root)
{
    message_t message = {.root = root,
                         .bytes = letter->blobs[blob].bytes,
                         .size = letter->blobs[blob].size,
                         .bundle = letter->bundles[blob]};
    letter->blobs[blob].bytes = NULL;
    letter->bundles[blob] = NULL;
    if (message.bytes == NULL && plait_flat_is_ref(root))
        message.root = plait_flat_const(PLAIT_FLAT_NONE); /* nonsense: refers to nothing */
    return message;
}

/* serve.c, the child's main thread: sends what the parent is to do, ahead of the present answer. */
void service_visit(struct service *service, visit_t visit, const message_t *arguments);

#endif
