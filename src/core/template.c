/* template: both sides of the conversation with a process that is copied.
 *
 * Invariant: a copy is reaped only when its watcher asks for it, so its pid is its own until then. Who
 * may call: see template.h. Design: docs/design/process.md
 */
#include "core/template.h"

#include <stdlib.h>

#include "plait/error.h"

/* How long one may take to end that nobody needs any more, in ns; then it is killed. */
#define GRACE INT64_C(10000000000)

enum { HELLO, COPY, REAP, END };

typedef struct question {
    int32_t what;
    int32_t pid; /* HELLO: the asker's; REAP: the copy's */
} question_t;

typedef struct answer {
    int32_t result;
    int32_t pid;         /* COPY */
    int32_t end, number; /* REAP */
} answer_t;

/* ---- this process's side ---- */

static plait_template_t *template_of(plait_watch_t *watch)
{
    return (plait_template_t *)watch;
}

static void tell(plait_watch_t *watch)
{
    plait_template_t *template = template_of(watch);
    /* release: pairs with the acquire in plait_template_end */
    plait_atomic_store_release(&template->ended, 1u);
    plait_prim_wake(&template->ended, INT32_MAX, false);
}

static const plait_watch_ops_t watch_ops = {plait_watch_run, plait_watch_reap, tell};

int plait_template_start(plait_template_t **template, const char *program,
                         const char *const *arguments, const char *const *environment)
{
    int sockets[2];
    plait_template_t *made = *template = calloc(1, sizeof *made);
    if (made == NULL)
        return PLAIT_NOMEM;
    int result = plait_prim_socket_pair(sockets);
    if (result != PLAIT_OK)
        goto fail;
    plait_atomic_init(&made->references, 1u);
    made->socket = sockets[0];
    question_t hello = {HELLO, plait_prim_process_id()};
    plait_command_t command = {program, arguments, environment, sockets[1]};
    result = plait_prim_socket_tell(made->socket, &hello, sizeof hello, -1);
    if (result == PLAIT_OK)
        result = plait_watch_start(&made->watch, &watch_ops, &command);
    plait_prim_descriptor_close(sockets[1]);
    if (result == PLAIT_OK)
        return PLAIT_OK;
    plait_prim_descriptor_close(sockets[0]);
fail:
    free(made);
    *template = NULL;
    return result;
}

void plait_template_retain(plait_template_t *template)
{
    plait_atomic_add_relaxed(&template->references, 1u);
}

void plait_template_release(plait_template_t *template)
{
    plait_child_death_t ignored;
    /* acq_rel: the last one sees what the others did */
    if (plait_atomic_sub_acq_rel(&template->references, 1u) > 1)
        return;
    const question_t end = {.what = END};
    plait_prim_socket_tell(template->socket, &end, sizeof end, -1);
    plait_prim_descriptor_close(template->socket);
    plait_watch_end(&template->watch, plait_prim_now() + GRACE, &ignored);
    free(template);
}

int plait_template_pid(const plait_template_t *template)
{
    return template->watch.process.pid;
}

bool plait_template_has_ended(plait_template_t *template)
{
    return plait_atomic_load_acquire(&template->ended) != 0;
}

bool plait_template_has_served(plait_template_t *template)
{
    return plait_atomic_load_relaxed(&template->served) != 0; /* relaxed: nothing hangs on it */
}

/* What the template answers; one that cannot answer is of no use. */
static int ask(plait_template_t *template, const question_t *question, int socket, answer_t *answer,
               int *descriptor)
{
    plait_prim_lock(&template->lock);
    int result = plait_prim_socket_tell(template->socket, question, sizeof *question, socket);
    do {
        if (result == PLAIT_OK || result == PLAIT_INTERRUPTED)
            result = plait_prim_socket_hear(template->socket, answer, sizeof *answer, descriptor);
    } while (result == PLAIT_INTERRUPTED);
    plait_prim_unlock(&template->lock);
    if (result != PLAIT_OK)
        return PLAIT_CLOSED;
    plait_atomic_store_relaxed(&template->served, 1u);
    return answer->result;
}

int plait_template_copy(plait_template_t *template, int socket, plait_prim_child_t *copy)
{
    question_t question = {.what = COPY};
    answer_t answer;
    int descriptor = -1;
    int result = ask(template, &question, socket, &answer, &descriptor);
    if (result == PLAIT_OK && descriptor < 0)
        result = PLAIT_CLOSED;
    if (result == PLAIT_OK)
        *copy = (plait_prim_child_t){answer.pid, descriptor};
    else if (descriptor >= 0)
        plait_prim_descriptor_close(descriptor);
    return result;
}

plait_prim_end_t plait_template_reap(plait_template_t *template, int pid, int *number)
{
    question_t question = {REAP, pid};
    answer_t answer;
    int descriptor = -1;
    int result = ask(template, &question, -1, &answer, &descriptor);
    if (descriptor >= 0)
        plait_prim_descriptor_close(descriptor);
    if (result != PLAIT_OK) { /* it has ended, and has taken its copies along */
        *number = PLAIT_PRIM_KILLED;
        return PLAIT_PRIM_SIGNALED;
    }
    *number = answer.number;
    return (plait_prim_end_t)answer.end;
}

void plait_template_end(plait_template_t *template, int64_t deadline, plait_child_death_t *death)
{
    plait_watch_await(&template->watch, deadline);
    while (plait_atomic_load_acquire(&template->ended) == 0) /* pairs with tell */
        plait_prim_wait(&template->ended, 0, PLAIT_PRIM_FOREVER, false);
    *death = template->watch.death;
}

/* ---- the template's side ---- */

bool plait_template_open(void)
{
    question_t hello;
    int none = -1;
    plait_prim_descriptor_keep(PLAIT_PRIM_CHILD_DESCRIPTOR);
    return plait_prim_socket_hear(PLAIT_PRIM_CHILD_DESCRIPTOR, &hello, sizeof hello, &none) ==
               PLAIT_OK &&
           hello.what == HELLO && plait_prim_child_follow(hello.pid);
}

static void tell_parent(const answer_t *answer, int descriptor)
{
    /* a parent that is gone is noticed by the next question */
    plait_prim_socket_tell(PLAIT_PRIM_CHILD_DESCRIPTOR, answer, sizeof *answer, descriptor);
}

static void reap(int pid)
{
    plait_prim_child_t copy;
    answer_t answer = {.result = plait_prim_child_find(&copy, pid)};
    int number = 0;
    if (answer.result == PLAIT_OK) {
        answer.end = (int32_t)plait_prim_child_reap(&copy, &number);
        answer.number = number;
        plait_prim_child_close(&copy);
    }
    tell_parent(&answer, -1);
}

int plait_template_hear(int *socket)
{
    const answer_t refused = {.result = PLAIT_UNSUPPORTED};
    question_t question;
    for (;;) {
        int result =
            plait_prim_socket_hear(PLAIT_PRIM_CHILD_DESCRIPTOR, &question, sizeof question, socket);
        if (result != PLAIT_OK)
            return result == PLAIT_INTERRUPTED ? result : PLAIT_CLOSED;
        if (question.what == COPY && *socket >= 0 && plait_prim_thread_count() == 1)
            return PLAIT_OK;
        if (*socket >= 0)
            plait_prim_descriptor_close(*socket);
        if (question.what == END)
            return PLAIT_CLOSED;
        if (question.what == REAP)
            reap(question.pid);
        else
            tell_parent(&refused, -1);
    }
}

void plait_template_made(int socket, int pid)
{
    plait_prim_child_t copy = {.descriptor = -1};
    answer_t answer = {.result = pid < 0 ? PLAIT_NOMEM : plait_prim_child_find(&copy, pid),
                       .pid = pid};
    plait_prim_descriptor_close(socket);
    tell_parent(&answer, copy.descriptor);
    if (copy.descriptor >= 0)
        plait_prim_child_close(&copy);
}

void plait_template_become(int socket)
{
    plait_prim_descriptor_move(socket, PLAIT_PRIM_CHILD_DESCRIPTOR);
}
