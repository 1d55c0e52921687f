/* Tests of src/prim and of the small units beside it (error, alloc).
 * Design: docs/design/prim.md */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plait/alloc.h"
#include "plait/error.h"
#include "prim/prim.h"

#ifdef __linux__
#include <fcntl.h>
#include <limits.h>

#include "prim/linux/cgroup.h"
#endif

enum { MILLISECOND = 1000000 };

/* ---- error, alloc ---- */

TEST(error_texts)
{
    CHECK_STR_EQ(plait_error_text(PLAIT_OK), "success");
    CHECK_STR_EQ(plait_error_text(PLAIT_NOMEM), "out of memory");
    CHECK_STR_EQ(plait_error_text(PLAIT_CLOSED), "closed");
    CHECK_STR_EQ(plait_error_text(-12345), "unknown code");
}

TEST(alloc_system)
{
    const plait_alloc_t *alloc = &plait_alloc_system;
    char *block = alloc->allocate(alloc->context, 0);
    REQUIRE(block != NULL);
    block = alloc->resize(alloc->context, block, 1000);
    REQUIRE(block != NULL);
    CHECK_EQ((uintptr_t)block % 16, 0);
    memset(block, 1, 1000);
    block = alloc->resize(alloc->context, block, 0);
    CHECK(block != NULL);
    alloc->release(alloc->context, block);
    alloc->release(alloc->context, NULL);
    block = alloc->resize(alloc->context, NULL, 10);
    CHECK(block != NULL);
    alloc->release(alloc->context, block);
}

TEST(large_blocks_are_blocks_like_others)
{
    const plait_alloc_t *alloc = &plait_alloc_system;
    size_t size = PLAIT_PRIM_LARGE + 12345;
    unsigned char *block = alloc->allocate(alloc->context, 100);
    REQUIRE(block != NULL);
    memset(block, 7, 100);
    block = alloc->resize(alloc->context, block, size);
    REQUIRE(block != NULL);
    CHECK_EQ(block[99], 7);
    memset(block, 9, size);
    plait_prim_expect_filling(block, size); /* too late, and harmless */
    plait_prim_expect_filling(block + 1, 3);
    for (size_t at = 0; at < size; at += 1000)
        CHECK_EQ(block[at], 9);
    CHECK_EQ(block[size - 1], 9);
    alloc->release(alloc->context, block);
}

/* ---- time and processor ---- */

TEST(clock_never_runs_back)
{
    int64_t earlier = plait_prim_now();
    for (int i = 0; i < 10000; i++) {
        int64_t now = plait_prim_now();
        if (!CHECK(now >= earlier))
            break;
        earlier = now;
    }
    plait_prim_relax();
    plait_prim_yield();
}

TEST(cpu_count)
{
    int count = plait_prim_cpu_count();
    CHECK(count >= 1);
    CHECK(count <= sysconf(_SC_NPROCESSORS_ONLN));
    size_t page = plait_prim_page_size();
    CHECK(page >= 4096 && (page & (page - 1)) == 0);
}

/* ---- waiting ---- */

TEST(wait_returns_at_once_when_the_word_differs)
{
    uint32_t word = 1;
    CHECK_EQ(plait_prim_wait(&word, 2, PLAIT_PRIM_FOREVER, false), PLAIT_OK);
    CHECK_EQ(plait_prim_wait(&word, 2, PLAIT_PRIM_FOREVER, true), PLAIT_OK);
}

TEST(wait_ends_at_its_deadline)
{
    uint32_t word = 1;
    CHECK_EQ(plait_prim_wait(&word, 1, 0, false), PLAIT_TIMEOUT);
    CHECK_EQ(plait_prim_wait(&word, 1, -5, false), PLAIT_TIMEOUT);
    int64_t deadline = plait_prim_now() + 20 * MILLISECOND;
    int code;
    do
        code = plait_prim_wait(&word, 1, deadline, false);
    while (code == PLAIT_OK);
    CHECK_EQ(code, PLAIT_TIMEOUT);
    CHECK(plait_prim_now() >= deadline);
}

struct ping_pong {
    _Atomic uint32_t word;
    bool shared;
    int rounds;
};

/* The thread with index i may move while word % 2 == i. */
static void play_ping_pong(int index, void *argument)
{
    struct ping_pong *game = argument;
    for (int i = 0; i < game->rounds; i++) {
        uint32_t seen;
        while ((seen = atomic_load(&game->word)) % 2 != (uint32_t)index)
            plait_prim_wait(&game->word, seen, PLAIT_PRIM_FOREVER, game->shared);
        atomic_store(&game->word, seen + 1);
        plait_prim_wake(&game->word, 1, game->shared);
    }
}

TEST(wake_is_never_lost)
{
    for (int shared = 0; shared < 2; shared++) {
        struct ping_pong game = {.shared = shared != 0, .rounds = test_scaled(4000)};
        test_run_threads(2, play_ping_pong, &game);
        CHECK_EQ(atomic_load(&game.word), 2 * game.rounds);
    }
}

static void ignore_signal(int number)
{
    (void)number;
}

struct interrupted {
    uint32_t word;
    atomic_int code;
    atomic_uintptr_t thread;
};

static void wait_forever(void *argument)
{
    struct interrupted *state = argument;
    sigset_t user;
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &user, NULL);
    atomic_store(&state->thread, (uintptr_t)pthread_self());
    int code;
    do
        code = plait_prim_wait(&state->word, 0, PLAIT_PRIM_FOREVER, false);
    while (code == PLAIT_OK);
    atomic_store(&state->code, code);
}

/* Also with SA_RESTART, where the kernel would restart a wait without a deadline. */
TEST(wait_reports_a_signal)
{
    const int flags[] = {0, SA_RESTART};
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = flags[i]}, previous;
        REQUIRE(sigaction(SIGUSR1, &action, &previous) == 0);
        struct interrupted state = {.word = 0};
        plait_prim_thread_t thread;
        REQUIRE(plait_prim_thread_start(&thread, wait_forever, &state, NULL, 0) == PLAIT_OK);
        while (atomic_load(&state.thread) == 0)
            plait_prim_yield();
        while (atomic_load(&state.code) ==
               0) { /* a signal before the wait begins is not seen by it */
            pthread_kill((pthread_t)atomic_load(&state.thread), SIGUSR1);
            test_sleep(MILLISECOND);
        }
        plait_prim_thread_join(thread);
        CHECK_EQ(atomic_load(&state.code), PLAIT_INTERRUPTED);
        sigaction(SIGUSR1, &previous, NULL);
    }
}

/* ---- threads ---- */

struct thread_facts {
    uint64_t id;
    char name[16];
    sigset_t mask;
};

static void gather_facts(void *argument)
{
    struct thread_facts *facts = argument;
    facts->id = plait_prim_thread_id();
    pthread_getname_np(pthread_self(), facts->name, sizeof facts->name);
    pthread_sigmask(SIG_SETMASK, NULL, &facts->mask);
}

TEST(thread_start)
{
    struct thread_facts facts = {0};
    plait_prim_thread_t thread;
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    REQUIRE(plait_prim_thread_start(&thread, gather_facts, &facts, "plait-worker-12345", 100000) ==
            PLAIT_OK);
    plait_prim_thread_join(thread);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK(facts.id != 0 && facts.id != plait_prim_thread_id());
    CHECK_STR_EQ(facts.name, "plait-worker-12");
    const int blocked[] = {SIGINT, SIGTERM, SIGUSR1, SIGCHLD, SIGALRM, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof blocked / sizeof *blocked; i++) {
        CHECK_EQ(sigismember(&facts.mask, blocked[i]), 1);
        CHECK_EQ(sigismember(&after, blocked[i]), sigismember(&before, blocked[i]));
    }
    const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        CHECK_EQ(sigismember(&facts.mask, open[i]), 0);
}

static void set_flag(void *argument)
{
    atomic_store((atomic_int *)argument, 1);
}

TEST(thread_detach)
{
    static atomic_int flag;
    plait_prim_thread_t thread;
    atomic_store(&flag, 0);
    REQUIRE(plait_prim_thread_start(&thread, set_flag, &flag, NULL, 0) == PLAIT_OK);
    plait_prim_thread_detach(thread);
    while (atomic_load(&flag) == 0)
        plait_prim_yield();
    CHECK_EQ(plait_prim_thread_start(&thread, set_flag, &flag, NULL, SIZE_MAX), PLAIT_INVALID);
}

/* ---- lock ---- */

struct counter {
    plait_prim_lock_t lock;
    int rounds;
    int value; /* guarded by lock */
};

static void count_under_lock(int index, void *argument)
{
    struct counter *counter = argument;
    for (int i = 0; i < counter->rounds; i++) {
        plait_prim_lock(&counter->lock);
        int seen = counter->value;
        if ((i + index) % 64 == 0)
            plait_prim_yield(); /* let the others find it locked */
        counter->value = seen + 1;
        plait_prim_unlock(&counter->lock);
    }
}

TEST(lock_excludes)
{
    struct counter counter = {.rounds = test_scaled(20000)};
    test_run_threads(4, count_under_lock, &counter);
    CHECK_EQ(counter.value, 4 * counter.rounds);
    CHECK_EQ(counter.lock.word, 0);
}

/* ---- maps ---- */

TEST(map_private)
{
    plait_prim_map_t map;
    size_t page = plait_prim_page_size();
    REQUIRE(plait_prim_map_create(&map, 3 * page - 1, false) == PLAIT_OK);
    CHECK_EQ(map.size, 3 * page);
    CHECK_EQ(map.descriptor, -1);
    unsigned char *bytes = map.base;
    CHECK_EQ(bytes[3 * page - 1], 0);
    memset(bytes, 7, 3 * page);
    CHECK_EQ(plait_prim_map_discard(&map, page, page), PLAIT_OK);
    CHECK_EQ(bytes[page - 1], 7);
    CHECK_EQ(bytes[page], 0);
    CHECK_EQ(bytes[2 * page], 7);
    CHECK_EQ(plait_prim_map_discard(&map, 1, page), PLAIT_INVALID);
    CHECK_EQ(plait_prim_map_discard(&map, page, 3 * page), PLAIT_INVALID);
    CHECK_EQ(plait_prim_map_discard(&map, page, 0), PLAIT_OK);
    plait_prim_map_close(&map);
    CHECK(map.base == NULL);
}

TEST(map_shared_is_one_memory)
{
    plait_prim_map_t map, other;
    size_t page = plait_prim_page_size();
    REQUIRE(plait_prim_map_create(&map, 2 * page, true) == PLAIT_OK);
    REQUIRE(plait_prim_map_open(&other, dup(map.descriptor), 2 * page) == PLAIT_OK);
    unsigned char *here = map.base, *there = other.base;
    CHECK(here != there);
    here[page] = 42;
    CHECK_EQ(there[page], 42);
    CHECK_EQ(plait_prim_map_discard(&other, page, page), PLAIT_OK);
    CHECK_EQ(here[page], 0);
    plait_prim_map_close(&other);
    here[0] = 1;
    plait_prim_map_close(&map);
}

TEST(map_refusals)
{
    plait_prim_map_t map, other;
    size_t page = plait_prim_page_size();
    CHECK_EQ(plait_prim_map_create(&map, 0, false), PLAIT_INVALID);
    CHECK_EQ(plait_prim_map_create(&map, SIZE_MAX, true), PLAIT_INVALID);
    CHECK(plait_prim_map_create(&map, SIZE_MAX / 4, false) < 0);
    CHECK(plait_prim_map_create(&map, SIZE_MAX / 4, true) < 0);
    CHECK_EQ(plait_prim_map_open(&map, -1, page), PLAIT_INVALID);
    REQUIRE(plait_prim_map_create(&map, page, true) == PLAIT_OK);
    CHECK_EQ(plait_prim_map_open(&other, map.descriptor, 2 * page), PLAIT_CORRUPT);
    CHECK(ftruncate(map.descriptor, 0) != 0); /* sealed: nobody can take the memory away */
    plait_prim_map_close(&map);
    FILE *file = tmpfile();
    REQUIRE(file != NULL);
    CHECK(ftruncate(fileno(file), (off_t)page) == 0);
    CHECK_EQ(plait_prim_map_open(&other, fileno(file), page), PLAIT_CORRUPT); /* can be cut short */
    fclose(file);
}

/* ---- processes ---- */

static int exit_code_of(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(fork_count)
{
    uint32_t before = plait_prim_fork_count();
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = plait_prim_fork_count() == before + 1 ? fork() : -1;
        if (grandchild == 0)
            _exit(plait_prim_fork_count() == before + 2 ? 0 : 1);
        _exit(grandchild < 0 ? 1 : exit_code_of(grandchild));
    }
    REQUIRE(child > 0);
    CHECK_EQ(exit_code_of(child), 0);
    CHECK_EQ(plait_prim_fork_count(), before);
}

TEST(wait_works_between_processes)
{
    plait_prim_map_t map;
    REQUIRE(plait_prim_map_create(&map, plait_prim_page_size(), true) == PLAIT_OK);
    struct ping_pong *game = map.base;
    game->shared = true;
    game->rounds = test_scaled(1000);
    pid_t child = fork();
    if (child == 0) {
        play_ping_pong(1, game);
        _exit(0);
    }
    REQUIRE(child > 0);
    play_ping_pong(0, game);
    CHECK_EQ(exit_code_of(child), 0);
    CHECK_EQ(atomic_load(&game->word), 2 * game->rounds);
    plait_prim_map_close(&map);
}

/* ---- control groups, on a made-up tree ---- */

#ifdef __linux__

static char fake_root[64];

static void make_fake_root(void)
{
    strcpy(fake_root, "/tmp/plait-cgroup-XXXXXX");
    CHECK(mkdtemp(fake_root) != NULL);
}

static void remove_fake_root(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fake_root);
    CHECK_EQ(system(command), 0);
}

/* Writes a file below the fake root, with its folders. */
static void put_file(const char *path, const char *text)
{
    char full[PATH_MAX];
    snprintf(full, sizeof full, "%s%s", fake_root, path);
    for (char *slash = full + strlen(fake_root) + 1; (slash = strchr(slash, '/')) != NULL;
         slash++) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    REQUIRE(file != NULL);
    fputs(text, file);
    fclose(file);
}

static const char mounts_v2[] =
    "22 1 0:21 / /proc rw,relatime - proc proc rw\n"
    "30 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

TEST(cgroup_absent_means_no_limit)
{
    make_fake_root();
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0);
    put_file("/proc/self/cgroup", "0::/a\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0);
    put_file("/proc/self/mountinfo", mounts_v2);
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0);
    remove_fake_root();
}

TEST(cgroup_v2_takes_the_smallest_on_the_path)
{
    make_fake_root();
    put_file("/proc/self/cgroup", "0::/slice/app/leaf\n");
    put_file("/proc/self/mountinfo", mounts_v2);
    put_file("/sys/fs/cgroup/slice/app/leaf/cpu.max", "max 100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0);
    put_file("/sys/fs/cgroup/slice/app/leaf/cpu.max", "800000 100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 8);
    put_file("/sys/fs/cgroup/slice/cpu.max", "250000 100000\n"); /* 2.5 rounds up */
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 3);
    put_file("/sys/fs/cgroup/slice/app/cpu.max", "50000 100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 1);
    put_file("/sys/fs/cgroup/slice/app/cpu.max", "nonsense\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 3);
    put_file("/sys/fs/cgroup/slice/cpu.max", "99999999999999999999 1\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 8);
    remove_fake_root();
}

TEST(cgroup_v2_at_the_root)
{
    make_fake_root();
    put_file("/proc/self/cgroup", "0::/\n");
    put_file("/proc/self/mountinfo", mounts_v2);
    put_file("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 2);
    put_file("/proc/self/cgroup", "0::/../../elsewhere\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 2);
    put_file("/proc/self/cgroup", "0::no-slash\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 2);
    remove_fake_root();
}

TEST(cgroup_v1)
{
    make_fake_root();
    put_file("/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/docker/abc/inner\n0::/ignored\n");
    put_file("/proc/self/mountinfo",
             "31 1 0:27 /docker/abc /sys/fs/cg\\040cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
             "32 1 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    put_file("/sys/fs/cg cpu/inner/cpu.cfs_quota_us", "-1\n");
    put_file("/sys/fs/cg cpu/inner/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0);
    put_file("/sys/fs/cg cpu/cpu.cfs_quota_us", "300000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 0); /* no period */
    put_file("/sys/fs/cg cpu/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 3);
    put_file("/sys/fs/cg cpu/inner/cpu.cfs_quota_us", "120000\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 2);
    put_file("/proc/self/cgroup", "4:cpuacct,cpu:/somewhere/else\n");
    CHECK_EQ(plait__prim_cgroup_cpu_limit(fake_root), 3); /* only the mount's root is known */
    remove_fake_root();
}

/* Garbage in every file: any answer but a crash. */
TEST(cgroup_garbage)
{
    uint64_t random = test_random_start(1);
    make_fake_root();
    for (int round = 0; round < test_scaled(200); round++) {
        char text[256];
        static const char letters[] = "0:/ -cpu,max.\n\\0123grou2";
        for (int file = 0; file < 3; file++) {
            size_t length = test_random_below(&random, sizeof text);
            for (size_t i = 0; i < length; i++)
                text[i] = letters[test_random_below(&random, sizeof letters - 1)];
            text[length < sizeof text ? length : length - 1] = '\0';
            put_file(file == 0   ? "/proc/self/cgroup"
                     : file == 1 ? "/proc/self/mountinfo"
                                 : "/sys/fs/cgroup/cpu.max",
                     text);
        }
        CHECK(plait__prim_cgroup_cpu_limit(fake_root) >= 0);
    }
    remove_fake_root();
}

#endif
