/* prim/linux/process: forks, and what they tell.
 *
 * Any thread.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static uint32_t forks;
static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static void (*after_fork)(void); /* set once, atomically */

/* Runs in the child, which has this one thread. */
static void count_fork(void)
{
    __atomic_store_n(&forks, forks + 1, __ATOMIC_RELAXED);
    void (*function)(void) = __atomic_load_n(&after_fork, __ATOMIC_ACQUIRE);
    if (function != NULL)
        function();
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

uint32_t plait_prim_fork_count(void)
{
    pthread_once(&watch_once, watch_forks);
    /* Relaxed: it changes only where there are no other threads yet. */
    return __atomic_load_n(&forks, __ATOMIC_RELAXED);
}

void plait_prim_after_fork(void (*function)(void))
{
    void (*none)(void) = NULL;
    pthread_once(&watch_once, watch_forks);
    /* Release: pairs with the acquire in the child. */
    __atomic_compare_exchange_n(&after_fork, &none, function, false, __ATOMIC_RELEASE,
                                __ATOMIC_RELAXED);
}

int plait_prim_fork(void)
{
    return (int)fork();
}

unsigned plait_prim_thread_count(void)
{
    struct stat threads;
    /* a folder has a link for itself, one in the folder above, and one in each folder in it */
    return stat("/proc/self/task", &threads) == 0 ? (unsigned)threads.st_nlink - 2 : 0;
}
