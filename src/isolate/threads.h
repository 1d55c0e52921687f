/* threads: how many threads the libraries below an extension compute with.
 *
 * Workers already use all processors; were each also to start OpenBLAS's or OpenMP's threads, they
 * would fight for them. So a worker's libraries compute in the thread that calls them, unless the
 * environment has one of the variables by which people choose themselves (OPENBLAS_NUM_THREADS,
 * OMP_NUM_THREADS, MKL_NUM_THREADS): then the library does what it says.
 *
 * OpenMP and MKL keep the number for each calling thread. OpenBLAS has one for the process, and
 * starts its threads when it is loaded: see image.c for how workers get one of their own.
 * Design: docs/design/isolate.md
 */
#ifndef PLAIT_ISOLATE_THREADS_H
#define PLAIT_ISOLATE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a library of this name (NULL: of none) has one pool of threads for all who call it. */
bool plait_threads_has_pool(const char *soname);

/* What the calling thread may run on, while a library with a pool is being loaded. */
typedef struct plait_threads_guard {
    _Alignas(long) unsigned char before[128]; /* a cpu_set_t */
    bool set;
} plait_threads_guard_t;

/* Around the loading of a library with a pool: as it takes one thread for each processor that the
 * calling thread may run on, it starts none. Changes nothing where the environment chooses. */
void plait_threads_guard(plait_threads_guard_t *guard);
void plait_threads_unguard(const plait_threads_guard_t *guard);

/* Has a library with a pool compute in the calling threads, unless the environment chooses. */
void plait_threads_limit_pool(void *handle);

enum { PLAIT_THREADS_KNOWN = 16 };

/* Functions that were called for a thread. */
typedef struct plait_threads {
    void *called[PLAIT_THREADS_KNOWN];
    size_t count;
} plait_threads_t;

/* Has what `handle` depends on compute in the calling thread when that calls it, unless the
 * environment chooses. Once per library, so that what the thread itself asks for later holds. */
void plait_threads_limit(plait_threads_t *threads, void *handle);

/* What was done so for another thread, for the calling one. */
void plait_threads_limit_again(const plait_threads_t *threads);

#endif
