/* Tests of src/core/child.c, channel.c and src/prim's children: this program starts itself again, as
 * a child that answers, dies, or writes nonsense. Design: docs/design/process.md */
#include "test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/child.h"

#define SECOND INT64_C(1000000000)

/* ---- the child's side ---- */

static int be_a_child(const char *mode);

/* Answers every request with its bytes plus one, until one of type 0. */
static int answer_all(plait_channel_t *channel)
{
    for (;;) {
        plait_ring_record_t request;
        void *payload;
        if (plait_ring_peek_spsc(&channel->requests, PLAIT_PRIM_FOREVER, &request) != PLAIT_OK)
            return 11;
        if (request.type == 0)
            return 7;
        if (plait_ring_reserve_spsc(&channel->replies, request.type, request.number, request.size,
                                    PLAIT_PRIM_FOREVER, &payload) != PLAIT_OK)
            return 12;
        for (uint32_t i = 0; i < request.size; i++)
            ((unsigned char *)payload)[i] =
                (unsigned char)(((unsigned char *)request.payload)[i] + 1);
        plait_ring_consume_spsc(&channel->requests);
        plait_ring_commit_spsc(&channel->replies);
    }
}

static int scribble(plait_channel_t *channel, uint64_t seed)
{
    uint64_t random = seed;
    volatile uint64_t *words = channel->map.base;
    size_t count = seed % 2 == 0 ? sizeof(plait_channel_shared_t) / 8 : channel->map.size / 8;
    for (int i = 0; i < 3000000; i++)
        words[test_random_below(&random, count)] =
            test_random(&random) >> test_random_below(&random, 64);
    return 0;
}

static int wait_to_be_interrupted(plait_channel_t *channel)
{
    uint32_t seen = 0;
    uint64_t number;
    while ((number = plait_channel_interrupted(channel)) == 0)
        plait_channel_await_interrupt(channel, &seen);
    return (int)number;
}

/* Says in the third ring's first record what it was told, and waits for nothing twice. */
static int hear(plait_channel_t *channel)
{
    plait_ring_record_t record;
    uint64_t told = plait_channel_await_told(channel, 0);
    if (plait_ring_peek_spsc(&channel->results, PLAIT_PRIM_FOREVER, &record) != PLAIT_OK)
        return 1;
    bool used = plait_channel_use_interrupt(channel, record.number);
    if (!used || plait_channel_use_interrupt(channel, record.number))
        return 2;
    plait_channel_put_interrupt_back(channel, record.number);
    return told == record.number && plait_channel_interrupted(channel) == told ? (int)told : 3;
}

/* Makes copies that are children of that mode. */
static int be_a_template(const char *mode)
{
    int socket, result;
    if (!plait_template_open())
        return 9;
    while ((result = plait_template_hear(&socket)) == PLAIT_OK) {
        int pid = plait_prim_fork();
        if (pid == 0) {
            plait_template_become(socket);
            return be_a_child(mode);
        }
        plait_template_made(socket, pid);
    }
    return result == PLAIT_CLOSED ? 7 : 10;
}

static void sleep_for_ever(void *argument)
{
    (void)argument;
    pause();
}

static int be_a_template_with_threads(void)
{
    plait_prim_thread_t thread;
    if (plait_prim_thread_start(&thread, sleep_for_ever, NULL, "", 0) != PLAIT_OK)
        return 11;
    return be_a_template("answer");
}

static int be_a_child(const char *mode)
{
    if (strncmp(mode, "template ", 9) == 0)
        return be_a_template(mode + 9);
    if (strcmp(mode, "threads") == 0)
        return be_a_template_with_threads();
    plait_channel_t channel;
    if (plait_channel_open(&channel, PLAIT_PRIM_CHILD_DESCRIPTOR) != PLAIT_OK)
        return 9;
    if (!plait_prim_child_follow(channel.shared->starter))
        return 8;
    if (channel.requests.patience == 0)
        return 13;
    plait_prim_child_ignore_interrupts();
    if (strcmp(mode, "answer") == 0)
        return answer_all(&channel);
    if (strncmp(mode, "scribble", 8) == 0)
        return scribble(&channel, strtoull(mode + 8, NULL, 10));
    if (strcmp(mode, "crash") == 0) {
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's handler */
        raise(SIGSEGV);
    }
    if (strcmp(mode, "interrupt") == 0)
        return wait_to_be_interrupted(&channel);
    if (strcmp(mode, "hear") == 0)
        return hear(&channel);
    if (strcmp(mode, "many files") == 0) {
        DIR *folder = opendir("/proc/self/fd");
        int count = 0;
        while (readdir(folder) != NULL)
            count++;
        return count - 2; /* without . and .. */
    }
    pause();
    return 0;
}

/* Before main: glibc hands constructors what main gets. */
__attribute__((constructor)) static void maybe_a_child(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--child") == 0)
        _exit(be_a_child(argv[2]));
}

static int start(plait_child_t *child, const char *mode)
{
    const char *arguments[] = {"test_child", "--child", mode, NULL};
    return plait_child_start(child, "/proc/self/exe", arguments, NULL);
}

/* ---- the parent's side ---- */

static int ask(plait_child_t *child, uint64_t number, size_t size)
{
    void *payload;
    int result = plait_ring_reserve_spsc(&child->channel.requests, 1, number, size,
                                         PLAIT_PRIM_FOREVER, &payload);
    if (result != PLAIT_OK)
        return result;
    memset(payload, (int)(number & 127), size);
    plait_ring_commit_spsc(&child->channel.requests);
    plait_ring_record_t reply;
    result = plait_ring_peek_spsc(&child->channel.replies, PLAIT_PRIM_FOREVER, &reply);
    if (result != PLAIT_OK)
        return result;
    CHECK_EQ(reply.number, number);
    CHECK_EQ(reply.size, size);
    if (size > 0)
        CHECK_EQ(((unsigned char *)reply.payload)[size - 1], (number & 127) + 1);
    plait_ring_consume_spsc(&child->channel.replies);
    return PLAIT_OK;
}

static void tell_to_end(plait_child_t *child)
{
    void *payload;
    CHECK_EQ(
        plait_ring_reserve_spsc(&child->channel.requests, 0, 0, 0, PLAIT_PRIM_FOREVER, &payload),
        PLAIT_OK);
    plait_ring_commit_spsc(&child->channel.requests);
}

TEST(questions_and_answers)
{
    plait_child_t child;
    plait_child_death_t death;
    uint64_t random = test_random_start(1);
    REQUIRE(start(&child, "answer") == PLAIT_OK);
    CHECK(child.channel.replies.patience > 0); /* so many questions take a tenth of the time */
    int pid = child.watch.process.pid;
    for (uint64_t number = 1; number < (uint64_t)test_scaled(5000); number++)
        REQUIRE(ask(&child, number, (size_t)test_random_below(&random, 5000)) == PLAIT_OK);
    REQUIRE(ask(&child, 1, plait_ring_limit(&child.channel.requests)) == PLAIT_OK);
    tell_to_end(&child);
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.pid, pid);
    CHECK_EQ(death.end, PLAIT_PRIM_EXITED);
    CHECK_EQ(death.number, 7);
    CHECK(kill(pid, 0) != 0); /* reaped */
}

static void start_one(int index, void *argument)
{
    (void)index;
    REQUIRE(start(argument, "answer") == PLAIT_OK);
}

TEST(it_does_not_go_with_the_thread_that_asked_for_it)
{
    plait_child_t child;
    plait_child_death_t death;
    test_run_threads(1, start_one, &child);
    for (uint64_t number = 1; number < 100; number++)
        REQUIRE(ask(&child, number, 100) == PLAIT_OK);
    CHECK(!plait_child_has_ended(&child));
    tell_to_end(&child);
    while (!plait_child_has_ended(&child))
        test_sleep(1000000);
    CHECK(kill(child.watch.process.pid, 0) != 0); /* reaped */
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.number, 7);
}

TEST(a_crash_is_told)
{
    plait_child_t child;
    plait_child_death_t death;
    REQUIRE(start(&child, "crash") == PLAIT_OK);
    CHECK_EQ(ask(&child, 1, 10), PLAIT_CLOSED);
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_SIGNALED);
    CHECK_EQ(death.number, SIGSEGV);
}

TEST(killed_while_it_is_asked)
{
    uint64_t random = test_random_start(2);
    for (int round = 0; round < test_scaled(100); round++) {
        plait_child_t child;
        plait_child_death_t death;
        REQUIRE(start(&child, "answer") == PLAIT_OK);
        uint64_t last = test_random_below(&random, 50), number = 1;
        while (number < last && ask(&child, number, 100) == PLAIT_OK)
            number++;
        plait_prim_child_kill(&child.watch.process);
        while (ask(&child, ++number, 100) == PLAIT_OK)
            continue;
        plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
        CHECK_EQ(death.end, PLAIT_PRIM_SIGNALED);
        CHECK_EQ(death.number, SIGKILL);
    }
}

TEST(one_that_does_not_end_is_killed)
{
    plait_child_t child;
    plait_child_death_t death;
    REQUIRE(start(&child, "pause") == PLAIT_OK);
    plait_child_end(&child, plait_prim_now() + SECOND / 10, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_SIGNALED);
    CHECK_EQ(death.number, SIGKILL);
}

TEST(interrupts_arrive)
{
    plait_child_t child;
    plait_child_death_t death;
    REQUIRE(start(&child, "interrupt") == PLAIT_OK);
    plait_channel_interrupt(&child.channel, 42);
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_EXITED);
    CHECK_EQ(death.number, 42);
}

TEST(a_child_is_told)
{
    plait_child_t child;
    plait_child_death_t death;
    void *payload;
    REQUIRE(start(&child, "hear") == PLAIT_OK);
    plait_channel_interrupt(&child.channel, 42);
    plait_channel_tell(&child.channel, 42);
    REQUIRE(plait_ring_reserve_spsc(&child.channel.results, 0, 42, 0, PLAIT_PRIM_FOREVER,
                                    &payload) == PLAIT_OK);
    plait_ring_commit_spsc(&child.channel.results);
    plait_prim_child_wait(&child.watch.process, PLAIT_PRIM_FOREVER);
    CHECK(plait_channel_use_interrupt(&child.channel, 42)); /* taken back */
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_EXITED);
    CHECK_EQ(death.number, 42);
}

TEST(what_cannot_be_run)
{
    plait_child_t child;
    const char *arguments[] = {"nothing", NULL};
    CHECK_EQ(plait_child_start(&child, "/nonexistent/program", arguments, NULL), PLAIT_SYSTEM);
    plait_template_t *template;
    CHECK_EQ(plait_template_start(&template, "/nonexistent/program", arguments, NULL),
             PLAIT_SYSTEM);
    CHECK(template == NULL);
}

TEST(a_child_gets_no_other_files)
{
    plait_child_t child, other;
    plait_child_death_t death;
    REQUIRE(start(&other, "answer") == PLAIT_OK);
    REQUIRE(start(&child, "many files") == PLAIT_OK);
    plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
    CHECK(death.number >= 4);
    /* 0 to 2, the channel's map and sockets, the folder's own; a sanitizer may have one */
    CHECK(death.number <= 8);
    plait_prim_child_kill(&other.watch.process);
    plait_child_end(&other, PLAIT_PRIM_FOREVER, &death);
}

/* Whatever it writes over the channel, the parent's waits end, and nothing outside is touched. */
TEST(nonsense_over_the_channel)
{
    for (int round = 0; round < test_scaled(12); round++) {
        plait_child_t child;
        plait_child_death_t death;
        char mode[32];
        snprintf(mode, sizeof mode, "scribble%d", round);
        REQUIRE(start(&child, mode) == PLAIT_OK);
        plait_channel_t *channel = &child.channel;
        for (uint64_t number = 1;; number++) {
            void *payload;
            plait_ring_record_t reply;
            int64_t soon = plait_prim_now() + SECOND / 1000;
            int asked = plait_ring_reserve_spsc(&channel->requests, 1, number, 300, soon, &payload);
            if (asked == PLAIT_OK)
                plait_ring_commit_spsc(&channel->requests);
            int answered = plait_ring_peek_spsc(&channel->replies, soon, &reply);
            if (answered == PLAIT_OK)
                plait_ring_consume_spsc(&channel->replies);
            if (answered == PLAIT_CORRUPT) /* what a proxy does with such a child */
                plait_prim_child_kill(&child.watch.process);
            if (plait_prim_child_wait(&child.watch.process, 0) == PLAIT_OK)
                break;
        }
        plait_child_end(&child, PLAIT_PRIM_FOREVER, &death);
        CHECK(death.end != PLAIT_PRIM_UNKNOWN);
    }
}

/* ---- copies of a template ---- */

static plait_template_t *start_template(const char *mode)
{
    plait_template_t *template;
    const char *arguments[] = {"test_child", "--child", mode, NULL};
    CHECK_EQ(plait_template_start(&template, "/proc/self/exe", arguments, NULL), PLAIT_OK);
    return template;
}

TEST(copies_answer)
{
    plait_template_t *template = start_template("template answer");
    plait_child_t copies[3];
    plait_child_death_t death;
    for (int index = 0; index < 3; index++)
        REQUIRE(plait_child_copy(&copies[index], template) == PLAIT_OK);
    CHECK(plait_template_has_served(template));
    plait_template_release(template); /* the copies have references */
    for (uint64_t number = 1; number < 100; number++)
        for (int index = 0; index < 3; index++)
            REQUIRE(ask(&copies[index], number, 100) == PLAIT_OK);
    for (int index = 0; index < 3; index++) {
        int pid = copies[index].watch.process.pid;
        tell_to_end(&copies[index]);
        plait_child_end(&copies[index], PLAIT_PRIM_FOREVER, &death);
        CHECK_EQ(death.pid, pid);
        CHECK_EQ(death.end, PLAIT_PRIM_EXITED);
        CHECK_EQ(death.number, 7);
        CHECK(kill(pid, 0) != 0); /* reaped, also by the template */
    }
}

static void copy_and_kill(int index, void *argument)
{
    for (int round = 0; round < test_scaled(20); round++) {
        plait_child_t copy;
        plait_child_death_t death;
        REQUIRE(plait_child_copy(&copy, argument) == PLAIT_OK);
        if ((index + round) % 2 == 0)
            CHECK_EQ(ask(&copy, 1, 100), PLAIT_OK);
        plait_prim_child_kill(&copy.watch.process);
        plait_child_end(&copy, PLAIT_PRIM_FOREVER, &death);
        CHECK_EQ(death.end, PLAIT_PRIM_SIGNALED);
        CHECK_EQ(death.number, SIGKILL);
    }
}

TEST(several_threads_have_copies_made)
{
    plait_template_t *template = start_template("template answer");
    test_run_threads(4, copy_and_kill, template);
    plait_template_release(template);
}

TEST(copies_die_with_their_template)
{
    plait_template_t *template = start_template("template answer");
    plait_child_t copy, another;
    plait_child_death_t death;
    REQUIRE(plait_child_copy(&copy, template) == PLAIT_OK);
    CHECK_EQ(ask(&copy, 1, 100), PLAIT_OK);
    plait_template_end(template, 0, &death);
    CHECK_EQ(death.number, SIGKILL);
    CHECK(plait_template_has_ended(template));
    CHECK_EQ(ask(&copy, 2, 100), PLAIT_CLOSED);
    CHECK_EQ(plait_child_copy(&another, template), PLAIT_CLOSED);
    plait_child_end(&copy, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_SIGNALED);
    CHECK_EQ(death.number, SIGKILL);
    plait_template_release(template);
}

TEST(templates_that_make_no_copies)
{
    plait_child_t copy;
    plait_child_death_t death;
    plait_template_t *template = start_template("threads");
    for (int round = 0; round < 2; round++)
        CHECK_EQ(plait_child_copy(&copy, template), PLAIT_UNSUPPORTED);
    CHECK(plait_template_has_served(template));
    plait_template_release(template);

    template = start_template("crash");
    CHECK_EQ(plait_child_copy(&copy, template), PLAIT_CLOSED);
    CHECK(!plait_template_has_served(template));
    plait_template_end(template, PLAIT_PRIM_FOREVER, &death);
    CHECK_EQ(death.end, PLAIT_PRIM_EXITED);
    CHECK_EQ(death.number, 9); /* it took the socket for a child's */
    plait_template_release(template);
}

/* ---- the parent dies ---- */

/* Whether the process is gone or only waits to be reaped by init. */
static bool is_gone(int pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return true;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const char *end = size > 0 ? strrchr(text, ')') : NULL;
    return end == NULL || end[2] == 'Z' || end[2] == 'X';
}

TEST(children_die_with_their_parent)
{
    for (int round = 0; round < 4; round++) {
        int report[2];
        REQUIRE(pipe(report) == 0);
        pid_t parent = fork();
        if (parent == 0) {
            plait_child_t child;
            bool copied = round == 3;
            int result = copied ? plait_child_copy(&child, start_template("template pause"))
                                : start(&child, "pause");
            int pid = result == PLAIT_OK ? child.watch.process.pid : 0;
            if (write(report[1], &pid, sizeof pid) != sizeof pid)
                _exit(1);
            if (round == 1)
                _exit(0);
            pause();
        }
        REQUIRE(parent > 0);
        int pid = 0;
        CHECK_EQ(read(report[0], &pid, sizeof pid), sizeof pid);
        CHECK(pid > 0);
        if (round == 2)
            test_sleep(SECOND / 10); /* it has come to its pause by now */
        kill(parent, SIGKILL);
        CHECK_EQ(waitpid(parent, NULL, 0), parent);
        int64_t deadline = test_now() + 20 * SECOND;
        while (!is_gone(pid) && test_now() < deadline)
            test_sleep(SECOND / 100);
        CHECK(is_gone(pid));
        close(report[0]);
        close(report[1]);
    }
}
