/* test: the harness of the C tests.
 *
 * A test file includes this header and defines tests with TEST(name) { ... }; `main` is here. The
 * program runs all tests, or those named on the command line, prints a line for each, and ends with
 * 'N passed, N failed'; it exits with 1 when something failed. `--list` prints the names.
 *
 * CHECK and CHECK_EQ may be used from any thread; they note a failure and go on. REQUIRE returns
 * from the function (which must return void) as well. Environment: PLAIT_TEST_SEED fixes the random
 * numbers, PLAIT_TEST_SCALE (percent, default 100) stretches or shortens the stress tests.
 */
#ifndef PLAIT_TESTS_CORE_TEST_H
#define PLAIT_TESTS_CORE_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEST_MAX = 256, TEST_THREADS_MAX = 64, TEST_MESSAGES_MAX = 20 };

struct test_case {
    const char *name;
    void (*run)(void);
};

static struct test_case test_cases[TEST_MAX];
static int test_count;
static atomic_int test_failures; /* of the test that runs */

static inline void test_register(const char *name, void (*run)(void))
{
    if (test_count == TEST_MAX) {
        fprintf(stderr, "too many tests\n");
        abort();
    }
    test_cases[test_count].name = name;
    test_cases[test_count].run = run;
    test_count++;
}

/* Defines and registers a test: TEST(name) { body } */
#define TEST(test_name)                                                                            \
    static void test_##test_name(void);                                                            \
    __attribute__((constructor)) static void test_register_##test_name(void)                       \
    {                                                                                              \
        test_register(#test_name, test_##test_name);                                               \
    }                                                                                              \
    static void test_##test_name(void)

/* Notes a failure; true while it should still be printed. */
static inline bool test_note_failure(const char *file, int line)
{
    int earlier = atomic_fetch_add(&test_failures, 1);
    if (earlier >= TEST_MESSAGES_MAX)
        return false;
    fprintf(stderr, "%s:%d: ", file, line);
    return true;
}

static inline bool test_check(bool passed, const char *file, int line, const char *text)
{
    if (!passed && test_note_failure(file, line))
        fprintf(stderr, "CHECK(%s)\n", text);
    return passed;
}

static inline bool test_check_eq(intmax_t left, intmax_t right, const char *file, int line,
                                 const char *text)
{
    if (left != right && test_note_failure(file, line))
        fprintf(stderr, "CHECK_EQ(%s): %" PRIdMAX " != %" PRIdMAX "\n", text, left, right);
    return left == right;
}

static inline bool test_check_str_eq(const char *left, const char *right, const char *file,
                                     int line, const char *text)
{
    bool passed = left != NULL && right != NULL && strcmp(left, right) == 0;
    if (!passed && test_note_failure(file, line))
        fprintf(stderr, "CHECK_STR_EQ(%s): \"%s\" != \"%s\"\n", text, left ? left : "(null)",
                right ? right : "(null)");
    return passed;
}

/* Each is an expression of type bool. CHECK_EQ takes integers, CHECK_STR_EQ strings. */
#define CHECK(condition) test_check(!!(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(left, right)                                                                      \
    test_check_eq((intmax_t)(left), (intmax_t)(right), __FILE__, __LINE__, #left ", " #right)
#define CHECK_STR_EQ(left, right)                                                                  \
    test_check_str_eq(left, right, __FILE__, __LINE__, #left ", " #right)

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!CHECK(condition))                                                                     \
            return;                                                                                \
    } while (0)

/* ---- random numbers ---- */

static uint64_t test_seed = 0x9e3779b97f4a7c15u;

/* A generator seeded for the caller: `stream` tells threads apart. */
static inline uint64_t test_random_start(uint64_t stream)
{
    return test_seed ^ (stream * 0xbf58476d1ce4e5b9u + 0x94d049bb133111ebu);
}

/* The next number (splitmix64). */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, limit); limit is not 0. */
static inline uint64_t test_random_below(uint64_t *state, uint64_t limit)
{
    return test_random(state) % limit;
}

/* ---- time and scale ---- */

static inline int64_t test_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void test_sleep(int64_t nanoseconds)
{
    struct timespec wait = {.tv_sec = nanoseconds / 1000000000,
                            .tv_nsec = nanoseconds % 1000000000};
    nanosleep(&wait, NULL);
}

/* `count` iterations, scaled by PLAIT_TEST_SCALE and made fewer under sanitizers; at least 1. */
static inline int test_scaled(int count)
{
    const char *text = getenv("PLAIT_TEST_SCALE");
    long percent = text != NULL ? strtol(text, NULL, 10) : 100;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    percent /= 4;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
    percent /= 4;
#endif
#endif
    long scaled = (long)count * percent / 100;
    return scaled < 1 ? 1 : (int)scaled;
}

/* ---- threads ---- */

struct test_thread {
    pthread_t handle;
    int index;
    void *argument;
    void (*run)(int index, void *argument);
    atomic_int *waiting; /* threads that have not reached the start yet */
};

static inline void *test_thread_main(void *raw)
{
    struct test_thread *thread = raw;
    atomic_fetch_sub(thread->waiting, 1);
    while (atomic_load(thread->waiting) > 0)
        sched_yield();
    thread->run(thread->index, thread->argument);
    return NULL;
}

/* Runs run(0, argument) .. run(count - 1, argument) in threads of their own that start together,
 * and waits for all of them. */
static inline void test_run_threads(int count, void (*run)(int index, void *argument),
                                    void *argument)
{
    struct test_thread threads[TEST_THREADS_MAX];
    atomic_int waiting;
    if (count > TEST_THREADS_MAX) {
        fprintf(stderr, "too many threads\n");
        abort();
    }
    atomic_init(&waiting, count);
    for (int i = 0; i < count; i++) {
        threads[i].index = i;
        threads[i].argument = argument;
        threads[i].run = run;
        threads[i].waiting = &waiting;
        if (pthread_create(&threads[i].handle, NULL, test_thread_main, &threads[i]) != 0) {
            fprintf(stderr, "cannot start a thread\n");
            abort();
        }
    }
    for (int i = 0; i < count; i++)
        pthread_join(threads[i].handle, NULL);
}

/* ---- main ---- */

static inline bool test_is_wanted(const char *name, int argc, char **argv)
{
    if (argc < 2)
        return true;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static inline bool test_run_case(const struct test_case *test)
{
    atomic_store(&test_failures, 0);
    int64_t start = test_now();
    test->run();
    double milliseconds = (double)(test_now() - start) / 1e6;
    int failures = atomic_load(&test_failures);
    printf("%-4s %s (%.1f ms)\n", failures == 0 ? "ok" : "FAIL", test->name, milliseconds);
    fflush(stdout);
    return failures == 0;
}

#ifndef TEST_NO_MAIN /* define it in the further files of a test program that has several */
int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (int i = 0; i < test_count; i++)
            printf("%s\n", test_cases[i].name);
        return 0;
    }
    const char *seed = getenv("PLAIT_TEST_SEED");
    if (seed != NULL)
        test_seed = strtoull(seed, NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash or a fork loses or repeats no line */
    for (int i = 0; i < test_count; i++) {
        if (!test_is_wanted(test_cases[i].name, argc, argv))
            continue;
        if (test_run_case(&test_cases[i]))
            passed++;
        else
            failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
#endif

#endif
