/* prim/linux/wait: waiting on a word, by futex.
 *
 * The kernel compares the word and puts the caller to sleep in one step with respect to a wake, so
 * a waker that changes the word first and wakes then is never missed. Any thread.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int futex_operation(int operation, bool shared)
{
    return shared ? operation : operation | FUTEX_PRIVATE_FLAG;
}

int plait_prim_wait(const volatile void *word, uint32_t expected, int64_t deadline, bool shared)
{
    /* Even "forever" is passed as a time (in 292 years): a wait without one is restarted by the
     * kernel after a handler that was installed with SA_RESTART, and the caller would never hear of
     * the signal. */
    if (deadline < 0)
        deadline = 0;
    struct timespec until = {
        .tv_sec = (time_t)(deadline / 1000000000),
        .tv_nsec = (long)(deadline % 1000000000),
    };
    /* WAIT_BITSET, unlike WAIT, takes an absolute time, so a retry needs no arithmetic. */
    long result = syscall(SYS_futex, word, futex_operation(FUTEX_WAIT_BITSET, shared), expected,
                          &until, NULL, FUTEX_BITSET_MATCH_ANY);
    if (result == 0)
        return PLAIT_OK;
    switch (errno) {
    case EAGAIN:
        return PLAIT_OK;
    case ETIMEDOUT:
        return PLAIT_TIMEOUT;
    case EINTR:
        return PLAIT_INTERRUPTED;
    default:
        return PLAIT_SYSTEM;
    }
}

void plait_prim_wake(const volatile void *word, int count, bool shared)
{
    /* The word may be unmapped by now where the woken thread owns it: an error here means nobody
     * waits. */
    syscall(SYS_futex, word, futex_operation(FUTEX_WAKE, shared), count, NULL, NULL, 0);
}
