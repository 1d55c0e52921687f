/* prim/linux/child: processes that this one starts, and what they do to end with it.
 *
 * A child is named by its pidfd, which no other process can take over as it can a pid. It is made by
 * posix_spawn, never by a plain fork, which would copy a process full of threads whose locks nobody
 * would ever release. Any thread, one at a time for one child.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <errno.h>
#include <features.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

extern char **environ;

/* ---- starting ---- */

static int set_descriptors(posix_spawn_file_actions_t *actions, int descriptor)
{
    /* where it has that number already, this clears close-on-exec, in the child alone */
    int failed = posix_spawn_file_actions_adddup2(actions, descriptor, PLAIT_PRIM_CHILD_DESCRIPTOR);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    if (!failed)
        failed = posix_spawn_file_actions_addclosefrom_np(actions, PLAIT_PRIM_CHILD_DESCRIPTOR + 1);
#endif
    return failed ? PLAIT_NOMEM : PLAIT_OK;
}

/* The starter blocks signals, and what is blocked stays so across exec. */
static void set_signals(posix_spawnattr_t *attributes)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    posix_spawnattr_setsigmask(attributes, &mask);
    posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK);
}

int plait_prim_child_start(plait_prim_child_t *child, const char *program,
                           const char *const *arguments, const char *const *environment,
                           int descriptor)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char **argv, **envp = environ;
    memcpy(&argv, &arguments, sizeof argv); /* posix_spawn changes none of them */
    if (environment != NULL)
        memcpy(&envp, &environment, sizeof envp);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return PLAIT_NOMEM;
    int code = PLAIT_NOMEM;
    if (posix_spawnattr_init(&attributes) != 0)
        goto fail_actions;
    set_signals(&attributes);
    code = set_descriptors(&actions, descriptor);
    if (code != PLAIT_OK)
        goto fail_attributes;
    pid_t pid;
    int failed = posix_spawn(&pid, program, &actions, &attributes, argv, envp);
    code = failed == ENOMEM ? PLAIT_NOMEM : failed != 0 ? PLAIT_SYSTEM : PLAIT_OK;
    if (code == PLAIT_OK) {
        code = plait_prim_child_find(child, (int)pid);
        if (code != PLAIT_OK) {
            kill(pid, SIGKILL); /* not reaped by anyone yet, so the pid is still its own */
            waitpid(pid, NULL, 0);
        }
    }
fail_attributes:
    posix_spawnattr_destroy(&attributes);
fail_actions:
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

int plait_prim_child_find(plait_prim_child_t *child, int pid)
{
    int name = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); /* close-on-exec by itself */
    *child = (plait_prim_child_t){.pid = pid, .descriptor = name};
    return name < 0 ? PLAIT_SYSTEM : PLAIT_OK;
}

/* ---- ending ---- */

_Static_assert(PLAIT_PRIM_KILLED == SIGKILL, "the signal by which a child ends");

int plait_prim_child_wait(const plait_prim_child_t *child, int64_t deadline)
{
    struct pollfd ended = {.fd = child->descriptor, .events = POLLIN};
    struct timespec left, *limit = NULL;
    if (deadline != PLAIT_PRIM_FOREVER) {
        int64_t rest = deadline - plait_prim_now();
        if (rest < 0)
            rest = 0;
        left = (struct timespec){.tv_sec = (time_t)(rest / 1000000000),
                                 .tv_nsec = (long)(rest % 1000000000)};
        limit = &left;
    }
    int ready = ppoll(&ended, 1, limit, NULL);
    if (ready > 0)
        return PLAIT_OK;
    if (ready == 0)
        return PLAIT_TIMEOUT;
    return errno == EINTR ? PLAIT_INTERRUPTED : PLAIT_SYSTEM;
}

void plait_prim_child_kill(const plait_prim_child_t *child)
{
    syscall(SYS_pidfd_send_signal, child->descriptor, SIGKILL, NULL, 0);
}

plait_prim_end_t plait_prim_child_reap(const plait_prim_child_t *child, int *number)
{
    siginfo_t told = {0};
    int failed;
    do
        failed = waitid((idtype_t)P_PIDFD, (id_t)child->descriptor, &told, WEXITED);
    while (failed != 0 && errno == EINTR);
    *number = failed ? 0 : told.si_status;
    if (failed)
        return PLAIT_PRIM_UNKNOWN; /* somebody waits for any child, or SIGCHLD is ignored */
    return told.si_code == CLD_EXITED ? PLAIT_PRIM_EXITED : PLAIT_PRIM_SIGNALED;
}

void plait_prim_child_close(plait_prim_child_t *child)
{
    close(child->descriptor);
    *child = (plait_prim_child_t){.pid = 0, .descriptor = -1};
}

/* ---- in the child ---- */

bool plait_prim_child_follow(int parent)
{
    /* The order matters: one that ends between the two is noticed by the second. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent;
}

static void nothing(int number)
{
    (void)number;
}

void plait_prim_child_ignore_interrupts(void)
{
    /* A handler, since what is ignored stays ignored in programs that the child runs. */
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigset_t mask;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
}

int plait_prim_process_id(void)
{
    return (int)getpid();
}
