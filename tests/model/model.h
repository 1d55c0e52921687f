/* What the models share: an allocator, the parts of prim that the core waits with, and a runner.
 *
 * A model file, compiled with -DPLAIT_MODEL, includes this header and then the shipped .c files,
 * defines suites (classes after rl::test_suite), and ends with MODEL_MAIN(name, searches). The
 * program prints a line for each search and exits with 1 at the first that fails, which is what a
 * mutant is expected to do; `-v` prints the history of a failure. With -DMODEL_ONLY=suite it has
 * that suite only (which compiles faster), and takes arguments: full, bound N, or random N; a
 * further one is as -v.
 */
#ifndef PLAIT_TESTS_MODEL_MODEL_H
#define PLAIT_TESTS_MODEL_MODEL_H

#include <ctime>
#include <streambuf>

#include "core/atomic.h"
#include "plait/alloc.h"
#include "plait/error.h"
#include "prim/prim.h"

namespace plait_model
{

/* ---- the allocator ---- */

static int allocations_left; /* before allocate says NULL; negative: never */

/* Memory for a block: fresh, or, as the search decides, that of a dead block of the same size. */
static char *block_memory(size_t size)
{
    for (size_t i = dead_count; i-- > 0;) {
        if (dead_blocks[i].size == size && rl::rand(2) == 1) {
            char *start = dead_blocks[i].start;
            dead_blocks[i] = dead_blocks[--dead_count];
            return start;
        }
    }
    return (char *)::malloc(size + sizeof(rl::var<int>));
}

static void *allocate(void *, size_t size)
{
    if (allocations_left == 0)
        return NULL;
    if (allocations_left > 0)
        allocations_left--;
    if (block_count == BLOCKS_MAX)
        too_many("blocks");
    size = (size + 15) & ~(size_t)15;
    rl::preemption_disabler whole(rl::ctx());
    block made;
    made.start = block_memory(size);
    made.size = size;
    made.shadow = ::new ((void *)(made.start + size)) rl::var<int>(0);
    blocks[block_count++] = made;
    return made.start;
}

static void release(void *, void *address)
{
    if (!address)
        return;
    rl::preemption_disabler whole(rl::ctx());
    block *found = block_of(address);
    if (!found || found->start != address) {
        rl::ctx().fail_test("release of a block that is not live", rl::test_result_double_free,
                            RL_INFO);
        return;
    }
    (*found->shadow)(RL_INFO).store(1); /* a race with any access that is not ordered before */
    destroy_in(found->start, found->size);
    found->shadow->~var();
    if (dead_count == BLOCKS_MAX)
        too_many("released blocks");
    dead_blocks[dead_count++] = *found;
    *found = blocks[--block_count];
}

static void *resize(void *, void *, size_t)
{
    too_many("calls of resize: not modelled");
    return NULL;
}

static const plait_alloc_t allocator = {NULL, allocate, resize, release};

/* A structure of the core in a block of its own, made in before() and given back in after(). */
template<typename T>
static T *make()
{
    return (T *)allocate(NULL, sizeof(T));
}

template<typename T>
static void unmake(T *object)
{
    release(NULL, object);
}

/* ---- a futex ----
 *
 * As the kernel has it: compare and enqueue are one step with respect to wake, on the newest value
 * of the word. Unlike Relacy's own futex it orders nothing else, so that the code under test cannot
 * lean on it.
 */

enum { FUTEX_WORDS_MAX = 8, FUTEX_THREADS_MAX = 8 };

struct futex_queue {
    const volatile void *word;
    rl::waitset<FUTEX_THREADS_MAX> waiters;
};

static futex_queue futex_queues[FUTEX_WORDS_MAX];
static size_t futex_count;
static unsigned spurious_left; /* how many waits may still end for nothing in this execution */

static inline futex_queue *futex_at(const volatile void *word)
{
    for (size_t i = 0; i < futex_count; i++)
        if (futex_queues[i].word == word)
            return &futex_queues[i];
    if (futex_count == FUTEX_WORDS_MAX)
        too_many("futex words");
    futex_queues[futex_count].word = word;
    futex_queues[futex_count].waiters = rl::waitset<FUTEX_THREADS_MAX>();
    return &futex_queues[futex_count++];
}

/* Last in after(). */
static inline void end()
{
    RL_ASSERT(block_count == 0); /* nothing leaked */
    RL_ASSERT(atomic_count == 0);
}

/* First in before(): nothing remains of the execution before. */
static inline void begin(unsigned spurious = 0)
{
    reset();
    before_access = NULL;
    futex_count = 0;
    allocations_left = -1;
    spurious_left = spurious;
}

} /* namespace plait_model */

int plait_prim_wait(const volatile void *word, uint32_t expected, int64_t deadline, bool)
{
    using namespace plait_model;
    rl::context &c = rl::ctx();
    c.sched();
    rl::atomic<uint32_t> *value = (rl::atomic<uint32_t> *)const_cast<void *>(word);
    if (touch(value, RL_INFO)->debug_value() != expected) {
        /* The kernel has read the word in this thread's name, so the thread itself will not read
         * older values that it has seen before: what Relacy notes for a yield. */
        c.threadx_->last_yield_ = c.threadx_->own_acq_rel_order_;
        return PLAIT_OK;
    }
    bool spurious = spurious_left > 0;
    if (spurious)
        spurious_left--;
    rl::unpark_reason reason = futex_at(word)->waiters.park_current(
        c, deadline != PLAIT_PRIM_FOREVER, spurious, false, RL_INFO);
    if (reason == rl::unpark_reason_timeout)
        return PLAIT_TIMEOUT;
    return reason == rl::unpark_reason_spurious ? PLAIT_INTERRUPTED : PLAIT_OK;
}

void plait_prim_wake(const volatile void *word, int count, bool)
{
    rl::context &c = rl::ctx();
    if (plait_model::before_access)
        plait_model::before_access();
    c.sched();
    for (; count > 0; count--)
        if (!plait_model::futex_at(word)->waiters.unpark_one(c, RL_INFO))
            break;
}

void plait_prim_relax(void)
{
    rl::yield(1, RL_INFO);
}

void plait_prim_yield(void)
{
    rl::yield(1, RL_INFO);
}

namespace plait_model
{

/* ---- the runner ---- */

static bool verbose;

struct silence : std::streambuf {
    int overflow(int c)
    {
        return c;
    }
};

/* Runs one search and prints its line; exits at a failure. (Not by rl::simulate, which would
 * compile every scheduler for every suite.) */
template<typename suite, typename scheduler>
static void search(const char *name, const char *how, rl::test_params &params)
{
    rl::ostringstream log, state;
    silence none;
    std::ostream nowhere(&none);
    params.output_stream = &log;
    params.progress_stream = &nowhere;
    params.execution_depth_limit = 2000;
    std::clock_t start = std::clock();
    rl::test_result_e result = rl::run_test<suite, scheduler>(params, state, false);
    double seconds = (double)(std::clock() - start) / CLOCKS_PER_SEC;
    bool passed = result == rl::test_result_success;
    printf("%-4s %-28s %-10s %9llu executions %6.1f s%s%s\n", passed ? "ok" : "FAIL", name, how,
           (unsigned long long)params.stop_iteration, seconds, passed ? "" : "  ",
           passed ? "" : rl::test_result_str(result));
    fflush(stdout);
    if (passed)
        return;
    if (verbose) { /* once more, with its history */
        params.initial_state = state.str();
        params.collect_history = true;
        rl::run_test<suite, scheduler>(params, state, true);
        fputs(log.str().c_str(), stdout);
    }
    exit(1);
}

static const unsigned FULL = 100000; /* a bound that no execution reaches */

/* Searches all executions with at most `bound` preemptions. */
template<typename suite>
static void exhaust(const char *name, unsigned bound)
{
    rl::test_params params;
    char how[24];
    if (bound == FULL)
        snprintf(how, sizeof how, "full");
    else
        snprintf(how, sizeof how, "bound %u", bound);
    params.search_type = rl::sched_bound;
    params.context_bound = bound;
    search<suite, rl::context_bound_scheduler<suite::params::thread_count>>(name, how, params);
}

/* Random executions, which also let a load be late by two stores where the searches let it be by
 * one. */
template<typename suite>
static void sample(const char *name, unsigned executions)
{
    rl::test_params params;
    params.search_type = rl::sched_random;
    params.iteration_count = executions;
    search<suite, rl::random_scheduler<suite::params::thread_count>>(name, "random", params);
}

template<typename suite>
static void search_as_told(const char *name, int argc, char **argv)
{
    unsigned amount = argc > 2 ? (unsigned)atoi(argv[2]) : FULL;
    if (argc > 1 && strcmp(argv[1], "random") == 0)
        sample<suite>(name, amount);
    else
        exhaust<suite>(name, amount);
}

} /* namespace plait_model */

#define MODEL_NAME_(text) #text
#define MODEL_NAME(suite) MODEL_NAME_(suite)

/* `searches` is a macro of three parameters: E(suite, bound, name) for a search, S(suite,
 * executions, name) for random executions, and the name, which it passes on. */
#define MODEL_EXHAUST(suite, bound, model) plait_model::exhaust<suite>(model "." #suite, bound);
#define MODEL_SAMPLE(suite, executions, model)                                                     \
    plait_model::sample<suite>(model "." #suite, executions);
#ifdef MODEL_ONLY
#define MODEL_MAIN(model, searches)                                                                \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        plait_model::verbose = argc > 3;                                                           \
        plait_model::search_as_told<MODEL_ONLY>(#model "." MODEL_NAME(MODEL_ONLY), argc, argv);    \
        return 0;                                                                                  \
    }
#else
#define MODEL_MAIN(model, searches)                                                                \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        plait_model::verbose = argc > 1 && strcmp(argv[1], "-v") == 0;                             \
        searches(MODEL_EXHAUST, MODEL_SAMPLE, #model) return 0;                                    \
    }
#endif

#endif
