/* Counts threads as OpenBLAS does: one number for the process, at first that of the processors that
 * the thread which loads it may run on. */
#define _GNU_SOURCE
#include <sched.h>

void openblas_set_num_threads(int number);
int openblas_get_num_threads(void);
int threads_at_load(void);

static int at_load, threads;

__attribute__((constructor)) static void load(void)
{
    cpu_set_t processors;
    at_load = threads =
        sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : -1;
}

void openblas_set_num_threads(int number)
{
    threads = number;
}

int openblas_get_num_threads(void)
{
    return threads;
}

int threads_at_load(void)
{
    return at_load;
}
