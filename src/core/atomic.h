/* Named-order atomics: the only way the core touches memory that two threads share without a lock.
 *
 * The memory order is in the name, so that every use can be checked against the protocol's page.
 * Each acquire or release says in a comment what it pairs with; relaxed needs a reason; undecided
 * means seq_cst. Under PLAIT_MODEL the same names map to Relacy's atomics, so that the models in
 * tests/model explore the shipped source itself. Sources that include this file and have a model
 * stay within the common subset of C11 and C++.
 */
#ifndef PLAIT_CORE_ATOMIC_H
#define PLAIT_CORE_ATOMIC_H

/* 1 where ThreadSanitizer watches: it does not understand free-standing fences, so the few
 * places that use one have a formulation of equal meaning on read-modify-write operations for
 * it. */
#if defined(__SANITIZE_THREAD__)
#define PLAIT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PLAIT_TSAN 1
#endif
#endif
#ifndef PLAIT_TSAN
#define PLAIT_TSAN 0
#endif

#ifdef PLAIT_MODEL
#include "relacy_atomic.h" /* tests/model */
#else

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PLAIT_ATOMIC(type) _Atomic(type)

#define plait_atomic_init(p, v) atomic_init(p, v)
#define plait_atomic_load_relaxed(p) atomic_load_explicit(p, memory_order_relaxed)
#define plait_atomic_load_acquire(p) atomic_load_explicit(p, memory_order_acquire)
#define plait_atomic_load_seq_cst(p) atomic_load_explicit(p, memory_order_seq_cst)
#define plait_atomic_store_relaxed(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define plait_atomic_store_release(p, v) atomic_store_explicit(p, v, memory_order_release)
#define plait_atomic_store_seq_cst(p, v) atomic_store_explicit(p, v, memory_order_seq_cst)

#define plait_atomic_swap_acq_rel(p, v) atomic_exchange_explicit(p, v, memory_order_acq_rel)
#define plait_atomic_swap_seq_cst(p, v) atomic_exchange_explicit(p, v, memory_order_seq_cst)

#define plait_atomic_add_relaxed(p, v) atomic_fetch_add_explicit(p, v, memory_order_relaxed)
#define plait_atomic_add_acq_rel(p, v) atomic_fetch_add_explicit(p, v, memory_order_acq_rel)
#define plait_atomic_add_seq_cst(p, v) atomic_fetch_add_explicit(p, v, memory_order_seq_cst)
#define plait_atomic_sub_release(p, v) atomic_fetch_sub_explicit(p, v, memory_order_release)
#define plait_atomic_sub_acq_rel(p, v) atomic_fetch_sub_explicit(p, v, memory_order_acq_rel)
#define plait_atomic_sub_seq_cst(p, v) atomic_fetch_sub_explicit(p, v, memory_order_seq_cst)
#define plait_atomic_or_acq_rel(p, v) atomic_fetch_or_explicit(p, v, memory_order_acq_rel)
#define plait_atomic_or_seq_cst(p, v) atomic_fetch_or_explicit(p, v, memory_order_seq_cst)
#define plait_atomic_and_acq_rel(p, v) atomic_fetch_and_explicit(p, v, memory_order_acq_rel)
#define plait_atomic_and_seq_cst(p, v) atomic_fetch_and_explicit(p, v, memory_order_seq_cst)

/* Compare and swap: on failure *expected holds what was seen, read with relaxed order (acquire for
 * acq_rel and seq_cst where noted). Strong: never fails spuriously. */
#define plait_atomic_cas_relaxed(p, expected, v)                                                   \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_relaxed,                  \
                                            memory_order_relaxed)
#define plait_atomic_cas_acq_rel(p, expected, v)                                                   \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_acq_rel,                  \
                                            memory_order_acquire)
#define plait_atomic_cas_seq_cst(p, expected, v)                                                   \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_seq_cst,                  \
                                            memory_order_relaxed)

#define plait_atomic_fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)
#define plait_atomic_fence_acquire() atomic_thread_fence(memory_order_acquire)
#define plait_atomic_fence_release() atomic_thread_fence(memory_order_release)

#endif
#endif
