/* nested: calls that a process worker's child submits to a pool of its parent.
 *
 * Each is two calls: the child's, which its future asks, and the parent's, which the scheduler knows.
 * The child has its proxy submit the parent's (serve_nested.c); when that is final its *line*, a thread
 * of the parent, sends what came of it, and the child's *clerk* completes the child's (nested.c).
 * Design: docs/design/nesting.md
 */
#ifndef PLAIT_BINDING_NESTED_H
#define PLAIT_BINDING_NESTED_H

#include "binding/process.h" /* first: it includes Python.h */

typedef struct line line_t;

/* What such a call has besides. */
typedef struct nested {
    uint64_t number; /* in the parent's books; const once it is submitted */
    /* the parent's: const once it is watched, but for next */
    line_t *line;   /* a reference; NULL in the child */
    uint64_t call;  /* what the child knows it by */
    unsigned child; /* which of the line's children that is */
    call_t *next;   /* guarded by the line's lock */
} nested_t;

/* Lets go of the line, and of itself; NULL is nothing. */
void nested_free(nested_t *nested);

/* ---- nested.c: the parent; the proxy's thread ---- */

/* NULL without memory. */
line_t *line_new(void);

/* The child can be sent results from here on, until it is cut off, which precedes its end: by then it
 * has ended or has been killed. */
void line_connect(line_t *line, plait_channel_t *channel);
void line_cut(line_t *line);

/* Whether the child has submitted what is not final yet. */
bool line_is_busy(line_t *line);

/* Sends the results that are there, which the thread else does a little later. How many the child has
 * been sent, modulo 2^32. */
uint32_t line_flush(line_t *line);

/* Does what a letter of type REPLY_FUNCTION, _CONTEXT, _SUBMIT or _ASK says. PLAIT_OK or
 * PLAIT_CORRUPT. */
int line_serve(line_t *line, plait_letter_t *letter);

/* The proxy's end: gives the line up. */
void line_release(line_t *line);

/* ---- serve_nested.c: the child; any thread, with the GIL ---- */

/* What help_while_waiting knows a pool of the parent's by: no scheduler of this process has it. */
static inline uint64_t nested_sched_id(uint64_t pool)
{
    return pool | UINT64_C(1) << 63;
}

/* Whether a pool of the process with that id can be used from here. */
bool nested_reaches(long process);

/* Submits the call to the parent's pool; PLAIT_OK: the future has a reference, and the clerk has one.
 * PLAIT_CLOSED; PLAIT_FULL where the pool is broken, and then the call will have an answer that says
 * why; PLAIT_NOMEM; PLAIT_SYSTEM; PLAIT_INVALID: this process is not heard. */
int nested_submit(const pool_core_t *core, call_t *call, const call_options_t *options);

/* What the parent says; 0 where this process is not heard. */
uint64_t nested_ask(unsigned what, uint64_t whom, uint64_t how);

#endif
