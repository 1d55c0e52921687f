/* prim/linux/cpu: how many processors this process may use.
 *
 * Any thread; reads files.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/linux/cgroup.h"
#include "prim/prim.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

/* Processors in the affinity mask of the process's first thread, 0 when it cannot be told. */
static int affinity_count(void)
{
    /* The kernel refuses a mask that is smaller than its own: grow until it is content. */
    for (int processors = 1024; processors <= 1 << 20; processors *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)processors);
        if (set == NULL)
            return 0;
        size_t size = CPU_ALLOC_SIZE((size_t)processors);
        int failed = sched_getaffinity(0, size, set);
        int count = failed ? 0 : CPU_COUNT_S(size, set);
        bool too_small = failed && errno == EINVAL;
        CPU_FREE(set);
        if (!too_small)
            return count;
    }
    return 0;
}

static int smaller(int count, int limit)
{
    return limit > 0 && limit < count ? limit : count;
}

int plait_prim_cpu_count(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int count = online > 0 && online < 1 << 20 ? (int)online : 1;
    count = smaller(count, affinity_count());
    return smaller(count, plait__prim_cgroup_cpu_limit(""));
}
