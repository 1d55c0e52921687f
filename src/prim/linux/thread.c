/* prim/linux/thread: threads, by POSIX threads.
 *
 * A thread is born with its final signal mask: the starter blocks signals around pthread_create,
 * since a thread that blocked them itself could be hit before it does. Any thread.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_SIZE = 16 }; /* the kernel's limit, with the closing zero */

/* Passed from the starter to the thread, which frees it. */
struct start {
    void (*main)(void *argument);
    void *argument;
    char name[NAME_SIZE];
};

static void *thread_main(void *raw)
{
    struct start start = *(struct start *)raw;
    free(raw);
    if (start.name[0] != '\0')
        pthread_setname_np(pthread_self(), start.name);
    start.main(start.argument);
    return NULL;
}

/* All but those that an instruction of the thread itself causes: were they blocked, the kernel
 * would kill the process without running its crash handler. */
static void fill_blocked_signals(sigset_t *set)
{
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(set, synchronous[i]);
}

static int set_stack_size(pthread_attr_t *attributes, size_t stack_size)
{
    if (stack_size == 0)
        return 0;
    size_t page = plait_prim_page_size();
    size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    if (stack_size < least)
        stack_size = least;
    if (stack_size > SIZE_MAX - page)
        return -1;
    return pthread_attr_setstacksize(attributes, (stack_size + page - 1) / page * page);
}

int plait_prim_thread_start(plait_prim_thread_t *thread, void (*main)(void *argument),
                            void *argument, const char *name, size_t stack_size)
{
    int code = PLAIT_NOMEM;
    pthread_attr_t attributes;
    sigset_t blocked, previous;
    pthread_t handle;
    struct start *start = calloc(1, sizeof *start);
    if (start == NULL)
        return PLAIT_NOMEM;
    start->main = main;
    start->argument = argument;
    if (name != NULL)
        strncpy(start->name, name, NAME_SIZE - 1);
    if (pthread_attr_init(&attributes) != 0)
        goto fail_start;
    code = PLAIT_INVALID;
    if (set_stack_size(&attributes, stack_size) != 0)
        goto fail_attributes;
    fill_blocked_signals(&blocked);
    pthread_sigmask(SIG_SETMASK, &blocked, &previous);
    int failed = pthread_create(&handle, &attributes, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    code = PLAIT_SYSTEM;
    if (failed)
        goto fail_attributes;
    pthread_attr_destroy(&attributes);
    thread->handle = (uintptr_t)handle;
    return PLAIT_OK;

fail_attributes:
    pthread_attr_destroy(&attributes);
fail_start:
    free(start);
    return code;
}

void plait_prim_thread_join(plait_prim_thread_t thread)
{
    pthread_join((pthread_t)thread.handle, NULL);
}

void plait_prim_thread_detach(plait_prim_thread_t thread)
{
    pthread_detach((pthread_t)thread.handle);
}

uint64_t plait_prim_thread_id(void)
{
    return (uint64_t)pthread_self(); /* the address of the thread's control block */
}
