/* prim/linux/time: the clock, and giving the processor away.
 *
 * Any thread.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <sched.h>
#include <time.h>

int64_t plait_prim_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a valid pointer */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void plait_prim_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::
                             : "memory"); /* `yield` does nothing on most cores; isb takes ~10 ns */
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

void plait_prim_yield(void)
{
    sched_yield();
}
