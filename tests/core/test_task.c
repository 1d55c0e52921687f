/* Tests of core/task: a task is run or cancelled, never both; whoever waits wakes, whoever watches
 * is told once. A lost wake-up shows as a hang, which alarm turns into a failure. */
#include "test.h"

#include "plait/task.h"

#include <signal.h>
#include <unistd.h>

enum { MILLISECOND = 1000000 };

static atomic_int destroyed;

static void count_destroyed(plait_task_t *task)
{
    atomic_fetch_add(&destroyed, 1);
}

static int64_t soon(void)
{
    return plait_prim_now() + 2 * MILLISECOND;
}

TEST(last_release_destroys)
{
    plait_task_t task;
    atomic_store(&destroyed, 0);
    plait_task_init(&task, count_destroyed);
    plait_task_retain(&task);
    plait_task_release(&task);
    CHECK_EQ(destroyed, 0);
    plait_task_release(&task);
    CHECK_EQ(destroyed, 1);
}

TEST(claimed_is_not_cancelled)
{
    plait_task_t task;
    bool first = true;
    plait_task_init(&task, count_destroyed);
    CHECK_EQ(plait_task_state(&task), 0);
    CHECK(plait_task_claim_worker(&task));
    CHECK(!plait_task_cancel(&task, &first));
    CHECK(!first);
    CHECK(!plait_task_is_final(plait_task_state(&task)));
    plait_task_complete_worker(&task);
    CHECK(!plait_task_cancel(&task, &first));
    CHECK_EQ(plait_task_state(&task), PLAIT_TASK_RUNNING | PLAIT_TASK_DONE);
}

TEST(cancelled_is_not_claimed)
{
    plait_task_t task;
    bool first = false;
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_cancel(&task, &first));
    CHECK(first);
    CHECK(plait_task_cancel(&task, &first));
    CHECK(!first);
    CHECK(!plait_task_claim_worker(&task));
    CHECK(plait_task_is_final(plait_task_state(&task)));
    CHECK_EQ(plait_task_wait(&task, PLAIT_PRIM_FOREVER), PLAIT_OK);
}

TEST(held_is_not_cancelled_until_let_go)
{
    plait_task_t task;
    bool first = true;
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_hold_worker(&task));
    CHECK(!plait_task_cancel(&task, &first));
    CHECK(!first);
    CHECK(!plait_task_expire(&task));
    CHECK(!plait_task_is_final(plait_task_state(&task)));
    plait_task_let_go(&task);
    CHECK_EQ(plait_task_state(&task), 0);
    CHECK(plait_task_cancel(&task, &first));
    CHECK(first);
    CHECK(!plait_task_hold_worker(&task));
    CHECK(!plait_task_claim_worker(&task));
}

TEST(held_is_claimed)
{
    plait_task_t task;
    bool first;
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_hold_worker(&task));
    CHECK(plait_task_claim_worker(&task));
    CHECK(!plait_task_cancel(&task, &first));
    plait_task_complete_worker(&task);
    CHECK(plait_task_is_final(plait_task_state(&task)));
}

TEST(wait_ends_at_its_deadline)
{
    plait_task_t task;
    plait_task_init(&task, count_destroyed);
    CHECK_EQ(plait_task_wait(&task, 0), PLAIT_TIMEOUT);
    int64_t deadline = soon();
    CHECK_EQ(plait_task_wait(&task, deadline), PLAIT_TIMEOUT);
    CHECK(plait_prim_now() >= deadline);
    CHECK(plait_task_claim_worker(&task));
    CHECK_EQ(plait_task_wait(&task, soon()), PLAIT_TIMEOUT);
    plait_task_complete_worker(&task);
    CHECK_EQ(plait_task_wait(&task, 0), PLAIT_OK);
}

TEST(watch_tells_with_a_reference)
{
    plait_task_t task;
    plait_mailbox_t mailbox;
    plait_link_t *link;
    atomic_store(&destroyed, 0);
    plait_mailbox_init(&mailbox);
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_watch(&task, &mailbox));
    CHECK(plait_task_claim_worker(&task));
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &link), PLAIT_TIMEOUT);
    plait_task_complete_worker(&task);
    plait_task_release(&task);
    CHECK_EQ(destroyed, 0);
    REQUIRE(plait_mailbox_take(&mailbox, 0, &link) == PLAIT_OK);
    CHECK(plait_task_of_link(link) == &task);
    CHECK(link->next == NULL);
    plait_task_release(&task);
    CHECK_EQ(destroyed, 1);
}

TEST(watch_of_a_final_task_is_refused)
{
    plait_task_t task;
    plait_mailbox_t mailbox;
    plait_link_t *link;
    bool first;
    plait_mailbox_init(&mailbox);
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_cancel(&task, &first));
    CHECK(!plait_task_watch(&task, &mailbox));
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &link), PLAIT_TIMEOUT);
}

TEST(cancel_tells_the_watcher_once)
{
    plait_task_t task;
    plait_mailbox_t mailbox;
    plait_link_t *link;
    bool first;
    plait_mailbox_init(&mailbox);
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_watch(&task, &mailbox));
    CHECK(plait_task_cancel(&task, &first));
    CHECK(plait_task_cancel(&task, &first));
    CHECK(!plait_task_claim_worker(&task));
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &link), PLAIT_OK);
    CHECK(link->next == NULL);
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &link), PLAIT_TIMEOUT);
}

TEST(expired_is_final)
{
    plait_task_t task;
    bool first = true;
    plait_task_init(&task, count_destroyed);
    CHECK(plait_task_expire(&task));
    CHECK(!plait_task_expire(&task));
    CHECK_EQ(plait_task_state(&task), PLAIT_TASK_EXPIRED);
    CHECK(plait_task_is_final(plait_task_state(&task)));
    CHECK(!plait_task_cancel(&task, &first));
    CHECK(!first);
    CHECK_EQ(plait_task_wait(&task, 0), PLAIT_OK);
    CHECK(!plait_task_claim_worker(&task));
}

TEST(claimed_or_cancelled_does_not_expire)
{
    plait_task_t claimed, cancelled;
    bool first;
    plait_task_init(&claimed, count_destroyed);
    CHECK(plait_task_claim_worker(&claimed));
    CHECK(!plait_task_expire(&claimed));
    plait_task_complete_worker(&claimed);
    CHECK(!plait_task_expire(&claimed));
    plait_task_init(&cancelled, count_destroyed);
    CHECK(plait_task_cancel(&cancelled, &first));
    CHECK(!plait_task_expire(&cancelled));
    CHECK_EQ(plait_task_state(&cancelled), PLAIT_TASK_CANCELLED);
}

/* ---- a signal ends a wait ---- */

static void ignore_signal(int number) {}

struct interrupted {
    plait_task_t task;
    pthread_t waiter;
    atomic_int waiting;
    atomic_bool ended;
};

static void be_interrupted(int index, void *argument)
{
    struct interrupted *all = argument;
    if (index == 0) {
        all->waiter = pthread_self();
        atomic_store(&all->waiting, 1);
        CHECK_EQ(plait_task_wait(&all->task, PLAIT_PRIM_FOREVER), PLAIT_INTERRUPTED);
        atomic_store(&all->ended, true);
        return;
    }
    while (!atomic_load(&all->waiting))
        sched_yield();
    while (!atomic_load(&all->ended)) { /* the first may come before it sleeps */
        pthread_kill(all->waiter, SIGUSR1);
        test_sleep(MILLISECOND);
    }
}

TEST(signal_interrupts_a_wait)
{
    struct interrupted all = {0};
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    plait_task_init(&all.task, count_destroyed);
    alarm(60);
    test_run_threads(2, be_interrupted, &all);
    alarm(0);
}

/* ---- many tasks, through which several threads go at once ---- */

enum { SLICE = 64 };

struct trial {
    plait_task_t task;
    int outcome;       /* written by the worker */
    atomic_int ran;    /* how many claims succeeded */
    atomic_int firsts; /* how many cancels said that they did it */
    atomic_int told;   /* how often it came through the mailbox */
    bool watched;      /* what watch said */
};

struct trials {
    struct trial *trials;
    int count;
    bool cancels; /* else the watcher's tasks are all run */
    plait_mailbox_t notifier;
    atomic_int step; /* all threads stay within one slice of each other, so that they meet */
};

static void work_on(struct trials *all, struct trial *trial)
{
    if (!plait_task_claim_worker(&trial->task))
        return;
    atomic_fetch_add(&trial->ran, 1);
    trial->outcome = 7;
    plait_task_complete_worker(&trial->task);
}

static void cancel(struct trials *all, struct trial *trial)
{
    bool first;
    if (!all->cancels)
        return;
    bool cancelled = plait_task_cancel(&trial->task, &first);
    CHECK(cancelled || !first);
    if (first)
        atomic_fetch_add(&trial->firsts, 1);
}

static void wait_for(struct trials *all, struct trial *trial)
{
    CHECK_EQ(plait_task_wait(&trial->task, PLAIT_PRIM_FOREVER), PLAIT_OK);
    uint32_t state = plait_task_state(&trial->task);
    CHECK(plait_task_is_final(state));
    if (state & PLAIT_TASK_DONE)
        CHECK_EQ(trial->outcome, 7);
}

static void wait_a_little(struct trials *all, struct trial *trial)
{
    while (plait_task_wait(&trial->task, plait_prim_now() + 20000) == PLAIT_TIMEOUT) {
    }
    CHECK(plait_task_is_final(plait_task_state(&trial->task)));
}

static void watch(struct trials *all, struct trial *trial)
{
    trial->watched = plait_task_watch(&trial->task, &all->notifier);
}

static void notify(struct trials *all)
{
    plait_link_t *link;
    while (plait_mailbox_take(&all->notifier, PLAIT_PRIM_FOREVER, &link) == PLAIT_OK) {
        while (link != NULL) {
            struct trial *trial = (struct trial *)plait_task_of_link(link);
            link = link->next;
            CHECK(plait_task_is_final(plait_task_state(&trial->task)));
            atomic_fetch_add(&trial->told, 1);
            plait_task_release(&trial->task);
        }
    }
}

/* The last is the notifier; the others go through the trials, a random little apart. */
static void trials_thread(int index, void *argument)
{
    static void (*const roles[])(struct trials *, struct trial *) = {
        work_on, cancel, cancel, watch, wait_for, wait_a_little,
    };
    enum { ROLES = sizeof roles / sizeof *roles };
    struct trials *all = argument;
    if (index == ROLES) {
        notify(all);
        return;
    }
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < all->count; i++) {
        if (i % SLICE == 0) {
            atomic_fetch_add(&all->step, 1);
            while (atomic_load(&all->step) < (i / SLICE + 1) * ROLES)
                sched_yield();
        }
        for (uint64_t spin = test_random_below(&random, 200); spin > 0; spin--)
            plait_prim_relax();
        roles[index](all, &all->trials[i]);
    }
    if (atomic_fetch_add(&all->step, 1) + 1 == (all->count / SLICE + 1) * ROLES)
        plait_mailbox_close(&all->notifier); /* all the others are through */
}

static void run_trials(bool cancels)
{
    struct trials all = {.count = test_scaled(20000) / SLICE * SLICE + SLICE, .cancels = cancels};
    all.trials = calloc((size_t)all.count, sizeof *all.trials);
    REQUIRE(all.trials != NULL);
    plait_mailbox_init(&all.notifier);
    atomic_store(&destroyed, 0);
    for (int i = 0; i < all.count; i++)
        plait_task_init(&all.trials[i].task, count_destroyed);
    alarm(200);
    test_run_threads(7, trials_thread, &all);
    alarm(0);
    int cancelled = 0;
    for (int i = 0; i < all.count; i++) {
        struct trial *trial = &all.trials[i];
        CHECK_EQ(trial->ran + trial->firsts, 1);
        CHECK_EQ(trial->told, trial->watched);
        cancelled += trial->firsts;
        plait_task_release(&trial->task);
    }
    CHECK_EQ(destroyed, all.count);
    CHECK(cancels || cancelled == 0);
    free(all.trials);
}

TEST(run_wait_watch)
{
    run_trials(false);
}

TEST(run_cancel_wait_watch)
{
    run_trials(true);
}

/* ---- identifiers ---- */

enum { IDS = 10000, ID_THREADS = 4 };

static void draw_ids(int index, void *argument)
{
    uint64_t *ids = (uint64_t *)argument + index * IDS;
    for (int i = 0; i < IDS; i++)
        ids[i] = plait_task_next_id();
}

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

TEST(ids_are_unique)
{
    uint64_t *ids = malloc(sizeof *ids * IDS * ID_THREADS);
    REQUIRE(ids != NULL);
    test_run_threads(ID_THREADS, draw_ids, ids);
    qsort(ids, IDS * ID_THREADS, sizeof *ids, compare_ids);
    CHECK(ids[0] != 0);
    for (int i = 1; i < IDS * ID_THREADS; i++)
        CHECK(ids[i] != ids[i - 1]);
    free(ids);
}
