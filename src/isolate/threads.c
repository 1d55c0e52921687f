/* threads: see threads.h. */
#define _GNU_SOURCE
#include "isolate/threads.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(cpu_set_t) == sizeof((plait_threads_guard_t){0}.before),
               "a guard holds a cpu_set_t");

/* OpenBLAS's function for it, by the names that its builds give it. */
static const char *const pool_functions[] = {
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
};

/* Functions of an int that hold for the thread which calls them. What they return is not used. */
static const struct {
    const char *function, *variable;
} thread_functions[] = {
    {"omp_set_num_threads", "OMP_NUM_THREADS"},
    {"MKL_Set_Num_Threads_Local", "MKL_NUM_THREADS"},
};

static bool is_chosen(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0';
}

static bool is_pool_chosen(void)
{
    return is_chosen("OPENBLAS_NUM_THREADS") || is_chosen("GOTO_NUM_THREADS") ||
           is_chosen("OMP_NUM_THREADS");
}

bool plait_threads_has_pool(const char *soname)
{
    return soname != NULL && strstr(soname, "openblas") != NULL;
}

void plait_threads_guard(plait_threads_guard_t *guard)
{
    cpu_set_t one;
    int processor = sched_getcpu();
    guard->set = !is_pool_chosen() && processor >= 0 && processor < CPU_SETSIZE &&
                 sched_getaffinity(0, sizeof guard->before, (cpu_set_t *)guard->before) == 0;
    if (!guard->set)
        return;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    guard->set = sched_setaffinity(0, sizeof one, &one) == 0;
}

void plait_threads_unguard(const plait_threads_guard_t *guard)
{
    if (guard->set) /* what was allowed before is allowed still */
        (void)sched_setaffinity(0, sizeof guard->before, (const cpu_set_t *)guard->before);
}

static void set_one(void *address)
{
    void (*function)(int);
    memcpy(&function, &address, sizeof function);
    function(1);
}

void plait_threads_limit_pool(void *handle)
{
    for (size_t index = 0; index < sizeof pool_functions / sizeof *pool_functions; index++) {
        void *address = is_pool_chosen() ? NULL : dlsym(handle, pool_functions[index]);
        if (address != NULL)
            set_one(address);
    }
}

static bool is_new(plait_threads_t *threads, void *address)
{
    for (size_t index = 0; index < threads->count; index++)
        if (threads->called[index] == address)
            return false;
    if (threads->count == PLAIT_THREADS_KNOWN)
        return false;
    threads->called[threads->count++] = address;
    return true;
}

void plait_threads_limit(plait_threads_t *threads, void *handle)
{
    for (size_t index = 0; index < sizeof thread_functions / sizeof *thread_functions; index++) {
        void *address = is_chosen("OMP_NUM_THREADS") || is_chosen(thread_functions[index].variable)
                            ? NULL
                            : dlsym(handle, thread_functions[index].function);
        if (address != NULL && is_new(threads, address))
            set_one(address);
    }
}

void plait_threads_limit_again(const plait_threads_t *threads)
{
    for (size_t index = 0; index < threads->count; index++)
        set_one(threads->called[index]);
}
