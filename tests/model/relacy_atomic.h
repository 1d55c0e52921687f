/* The names of core/atomic.h on Relacy's atomics, so that a model explores the shipped source
 * itself.
 *
 * A model is one C++ file that defines PLAIT_MODEL, includes "model.h", and then includes the
 * shipped .c files. Rules for such sources: the common subset of C11 and C++; every shared atomic
 * is made by plait_atomic_init; memory with atomics in it comes from the caller's plait_alloc_t.
 *
 * Two additions to what Relacy checks by itself:
 * - atomics are constructed where plait_atomic_init says and destroyed when their block is
 *   released;
 * - each block of the model's allocator carries a shadow variable that every access to an atomic in
 *   it reads and its release writes. Thus a release that is not ordered after every access is a
 *   data race, even where this interleaving happened to run the access first.
 * Limits: Relacy runs a thread's operations in program order and lets loads be late, so a load that
 * must not move below a later store (load buffering) is not explored.
 */
#ifndef PLAIT_TESTS_MODEL_RELACY_ATOMIC_H
#define PLAIT_TESTS_MODEL_RELACY_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <relacy/relacy.hpp>

/* Relacy's stand-ins for these would catch our own uses. */
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno

namespace plait_model
{

/* ---- blocks of memory and the atomics in them ---- */

enum { BLOCKS_MAX = 64, ATOMICS_MAX = 1024 };

struct block {
    char *start;
    size_t size;
    rl::var<int> *shadow; /* at the block's end */
};

struct constructed {
    char *address;
    void (*destroy)(void *);
};

/* Relacy runs its threads as fibers of one system thread: plain globals serve. */
static block blocks[BLOCKS_MAX];
static size_t block_count;
static constructed atomics[ATOMICS_MAX];
static size_t atomic_count;

/* Released blocks, kept to the end of the execution: their atomics count as destroyed. */
static block dead_blocks[BLOCKS_MAX];
static size_t dead_count;

/* Forgets the last execution. Call first in before(). */
static inline void reset()
{
    while (block_count > 0) /* of an execution that failed */
        ::free(blocks[--block_count].start);
    while (dead_count > 0)
        ::free(dead_blocks[--dead_count].start);
    atomic_count = 0;
}

static inline void too_many(const char *what)
{
    fprintf(stderr, "model: too many %s\n", what);
    abort();
}

static inline block *block_of(const volatile void *address)
{
    const char *p = (const char *)address;
    for (size_t i = 0; i < block_count; i++)
        if (p >= blocks[i].start && p < blocks[i].start + blocks[i].size)
            return &blocks[i];
    return NULL;
}

template<typename T>
static void destroy_atomic(void *address)
{
    typedef rl::atomic<T> atomic_type;
    static_cast<atomic_type *>(address)->~atomic_type();
}

static inline void destroy_in(char *start, size_t size)
{
    for (size_t i = 0; i < atomic_count;) {
        if (atomics[i].address >= start && atomics[i].address < start + size) {
            atomics[i].destroy(atomics[i].address);
            atomics[i] = atomics[--atomic_count];
        } else {
            i++;
        }
    }
}

/* Without preemption: nobody else knows the memory yet. */
template<typename T, typename V>
static void construct(rl::atomic<T> *address, V value)
{
    rl::preemption_disabler whole(rl::ctx());
    destroy_in((char *)address, sizeof *address);
    ::new ((void *)address) rl::atomic<T>((T)value);
    if (atomic_count == ATOMICS_MAX)
        too_many("atomics");
    atomics[atomic_count].address = (char *)address;
    atomics[atomic_count].destroy = destroy_atomic<T>;
    atomic_count++;
}

/* Called before every access to an atomic; a model sets it to have threads die there. */
static void (*before_access)(void);

/* Notes an access; passes the pointer on. */
template<typename T>
static T *touch(T *address, rl::debug_info_param info)
{
    if (before_access)
        before_access();
    block *home = block_of(address);
    if (home)
        (void)(*home->shadow)(info).load();
    return address;
}

} /* namespace plait_model */

#define PLAIT_ATOMIC(type) rl::atomic<type>
#define plait_atomic_init(p, v) plait_model::construct(p, v)

#define PLAIT__AT(p) plait_model::touch(p, RL_INFO)

#define PLAIT__LOAD(p, order) PLAIT__AT(p)->load(rl::order, RL_INFO)
#define plait_atomic_load_relaxed(p) PLAIT__LOAD(p, mo_relaxed)
#define plait_atomic_load_acquire(p) PLAIT__LOAD(p, mo_acquire)
#define plait_atomic_load_seq_cst(p) PLAIT__LOAD(p, mo_seq_cst)

#define PLAIT__STORE(p, v, order) PLAIT__AT(p)->store(v, rl::order, RL_INFO)
#define plait_atomic_store_relaxed(p, v) PLAIT__STORE(p, v, mo_relaxed)
#define plait_atomic_store_release(p, v) PLAIT__STORE(p, v, mo_release)
#define plait_atomic_store_seq_cst(p, v) PLAIT__STORE(p, v, mo_seq_cst)

#define PLAIT__RMW(p, what, v, order) PLAIT__AT(p)->what(v, rl::order, RL_INFO)
#define plait_atomic_swap_relaxed(p, v) PLAIT__RMW(p, exchange, v, mo_relaxed)
#define plait_atomic_swap_acq_rel(p, v) PLAIT__RMW(p, exchange, v, mo_acq_rel)
#define plait_atomic_swap_seq_cst(p, v) PLAIT__RMW(p, exchange, v, mo_seq_cst)
#define plait_atomic_add_relaxed(p, v) PLAIT__RMW(p, fetch_add, v, mo_relaxed)
#define plait_atomic_add_acq_rel(p, v) PLAIT__RMW(p, fetch_add, v, mo_acq_rel)
#define plait_atomic_add_seq_cst(p, v) PLAIT__RMW(p, fetch_add, v, mo_seq_cst)
#define plait_atomic_sub_release(p, v) PLAIT__RMW(p, fetch_sub, v, mo_release)
#define plait_atomic_sub_acq_rel(p, v) PLAIT__RMW(p, fetch_sub, v, mo_acq_rel)
#define plait_atomic_sub_seq_cst(p, v) PLAIT__RMW(p, fetch_sub, v, mo_seq_cst)
#define plait_atomic_or_relaxed(p, v) PLAIT__RMW(p, fetch_or, v, mo_relaxed)
#define plait_atomic_or_acq_rel(p, v) PLAIT__RMW(p, fetch_or, v, mo_acq_rel)
#define plait_atomic_or_seq_cst(p, v) PLAIT__RMW(p, fetch_or, v, mo_seq_cst)
#define plait_atomic_and_relaxed(p, v) PLAIT__RMW(p, fetch_and, v, mo_relaxed)
#define plait_atomic_and_acq_rel(p, v) PLAIT__RMW(p, fetch_and, v, mo_acq_rel)
#define plait_atomic_and_seq_cst(p, v) PLAIT__RMW(p, fetch_and, v, mo_seq_cst)

#define PLAIT__CAS(p, expected, v, success, failure)                                               \
    PLAIT__AT(p)->compare_exchange_strong(*(expected), v, rl::success, RL_INFO, rl::failure,       \
                                          RL_INFO)
#define plait_atomic_cas_relaxed(p, expected, v) PLAIT__CAS(p, expected, v, mo_relaxed, mo_relaxed)
#define plait_atomic_cas_release(p, expected, v) PLAIT__CAS(p, expected, v, mo_release, mo_relaxed)
#define plait_atomic_cas_acquire(p, expected, v) PLAIT__CAS(p, expected, v, mo_acquire, mo_relaxed)
#define plait_atomic_cas_acq_rel(p, expected, v) PLAIT__CAS(p, expected, v, mo_acq_rel, mo_acquire)
#define plait_atomic_cas_seq_cst(p, expected, v) PLAIT__CAS(p, expected, v, mo_seq_cst, mo_relaxed)

#define plait_atomic_fence_seq_cst() rl::atomic_thread_fence(rl::mo_seq_cst, RL_INFO)
#define plait_atomic_fence_acquire() rl::atomic_thread_fence(rl::mo_acquire, RL_INFO)
#define plait_atomic_fence_release() rl::atomic_thread_fence(rl::mo_release, RL_INFO)

#endif
