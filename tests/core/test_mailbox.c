/* Tests of core/mailbox: nothing lost, the order of each sender kept, nobody left asleep. A lost
 * wake-up shows as a hang, which alarm turns into a failure. */
#include "test.h"

#include "plait/mailbox.h"

#include <signal.h>
#include <unistd.h>

enum { MILLISECOND = 1000000 };

static int64_t soon(void)
{
    return plait_prim_now() + 2 * MILLISECOND;
}

TEST(takes_all_oldest_first)
{
    plait_mailbox_t mailbox;
    plait_link_t links[3], *taken = NULL;
    plait_mailbox_init(&mailbox);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++)
            plait_mailbox_push(&mailbox, &links[i]);
        CHECK_EQ(plait_mailbox_take(&mailbox, PLAIT_PRIM_FOREVER, &taken), PLAIT_OK);
        for (int i = 0; i < 3; i++, taken = taken->next)
            CHECK(taken == &links[i]);
        CHECK(taken == NULL);
        CHECK_EQ(plait_mailbox_take(&mailbox, 0, &taken), PLAIT_TIMEOUT);
    }
}

TEST(take_ends_at_its_deadline)
{
    plait_mailbox_t mailbox;
    plait_link_t link, *taken;
    plait_mailbox_init(&mailbox);
    int64_t deadline = soon();
    CHECK_EQ(plait_mailbox_take(&mailbox, deadline, &taken), PLAIT_TIMEOUT);
    CHECK(plait_prim_now() >= deadline);
    plait_mailbox_push(&mailbox, &link);
    CHECK_EQ(plait_mailbox_take(&mailbox, 1, &taken), PLAIT_OK); /* long past, but it is there */
    CHECK(taken == &link);
}

TEST(closed_when_empty)
{
    plait_mailbox_t mailbox;
    plait_link_t link, *taken;
    plait_mailbox_init(&mailbox);
    plait_mailbox_push(&mailbox, &link);
    plait_mailbox_close(&mailbox);
    plait_mailbox_close(&mailbox);
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &taken), PLAIT_OK);
    CHECK(taken == &link && link.next == NULL);
    CHECK_EQ(plait_mailbox_take(&mailbox, 0, &taken), PLAIT_CLOSED);
    CHECK_EQ(plait_mailbox_take(&mailbox, PLAIT_PRIM_FOREVER, &taken), PLAIT_CLOSED);
}

/* ---- a receiver asleep ---- */

struct sleeper {
    plait_mailbox_t mailbox;
    pthread_t thread;
    int expected;
    atomic_int state; /* 1: about to sleep, 2: awake again */
    void (*rouse)(struct sleeper *sleeper);
};

static void sleeper_thread(int index, void *argument)
{
    struct sleeper *sleeper = argument;
    if (index == 0) {
        plait_link_t *taken;
        sleeper->thread = pthread_self();
        atomic_store(&sleeper->state, 1);
        CHECK_EQ(plait_mailbox_take(&sleeper->mailbox, PLAIT_PRIM_FOREVER, &taken),
                 sleeper->expected);
        atomic_store(&sleeper->state, 2);
        return;
    }
    while (atomic_load(&sleeper->state) == 0)
        sched_yield();
    test_sleep(MILLISECOND);
    sleeper->rouse(sleeper);
}

static void run_sleeper(int expected, void (*rouse)(struct sleeper *sleeper))
{
    struct sleeper sleeper = {.expected = expected, .rouse = rouse};
    plait_mailbox_init(&sleeper.mailbox);
    alarm(60);
    test_run_threads(2, sleeper_thread, &sleeper);
    alarm(0);
}

static void rouse_by_closing(struct sleeper *sleeper)
{
    plait_mailbox_close(&sleeper->mailbox);
}

static void rouse_by_pushing(struct sleeper *sleeper)
{
    static plait_link_t link;
    plait_mailbox_push(&sleeper->mailbox, &link);
}

static void ignore_signal(int number) {}

static void rouse_by_signal(struct sleeper *sleeper)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    while (atomic_load(&sleeper->state) != 2) {
        pthread_kill(sleeper->thread, SIGUSR1);
        test_sleep(MILLISECOND);
    }
}

TEST(close_wakes)
{
    run_sleeper(PLAIT_CLOSED, rouse_by_closing);
}

TEST(push_wakes)
{
    run_sleeper(PLAIT_OK, rouse_by_pushing);
}

TEST(signal_interrupts)
{
    run_sleeper(PLAIT_INTERRUPTED, rouse_by_signal);
}

/* ---- many senders ---- */

enum { SENDERS_MAX = 4 };

struct letter {
    plait_link_t link; /* first */
    int sender, number;
};

struct post {
    plait_mailbox_t mailbox;
    int senders;
    int count; /* letters of each */
    bool dawdle;
    int64_t patience; /* of the receiver; 0: forever */
    struct letter *letters;
    int next[SENDERS_MAX]; /* receiver: the number expected of each */
    atomic_int sending;
};

static void post_send(struct post *post, int sender)
{
    uint64_t random = test_random_start((uint64_t)sender);
    for (int i = 0; i < post->count; i++) {
        struct letter *letter = &post->letters[sender * post->count + i];
        letter->sender = sender;
        letter->number = i;
        plait_mailbox_push(&post->mailbox, &letter->link);
        if (post->dawdle && test_random_below(&random, 8) == 0)
            test_sleep((int64_t)test_random_below(&random, 40000));
    }
    if (atomic_fetch_sub(&post->sending, 1) == 1)
        plait_mailbox_close(&post->mailbox);
}

static void post_receive(struct post *post)
{
    for (;;) {
        plait_link_t *link;
        int64_t deadline = post->patience ? plait_prim_now() + post->patience : PLAIT_PRIM_FOREVER;
        int result = plait_mailbox_take(&post->mailbox, deadline, &link);
        if (result == PLAIT_CLOSED)
            return;
        if (result == PLAIT_TIMEOUT) {
            CHECK(post->patience != 0);
            continue;
        }
        CHECK_EQ(result, PLAIT_OK);
        for (; link != NULL; link = link->next) {
            struct letter *letter = (struct letter *)link;
            CHECK_EQ(letter->number, post->next[letter->sender]);
            post->next[letter->sender]++;
        }
    }
}

static void post_thread(int index, void *argument)
{
    struct post *post = argument;
    if (index < post->senders)
        post_send(post, index);
    else
        post_receive(post);
}

static void run_post(int senders, int count, bool dawdle, int64_t patience)
{
    struct post post = {.senders = senders, .count = count, .dawdle = dawdle, .patience = patience};
    post.letters = calloc((size_t)(senders * count), sizeof *post.letters);
    REQUIRE(post.letters != NULL);
    plait_mailbox_init(&post.mailbox);
    atomic_store(&post.sending, senders);
    alarm(200);
    test_run_threads(senders + 1, post_thread, &post);
    alarm(0);
    for (int i = 0; i < senders; i++)
        CHECK_EQ(post.next[i], count);
    free(post.letters);
}

TEST(all_arrive_in_order)
{
    for (int senders = 1; senders <= SENDERS_MAX; senders++)
        run_post(senders, test_scaled(100000), false, 0);
}

TEST(all_arrive_when_slow)
{
    for (int senders = 1; senders <= 3; senders++)
        run_post(senders, test_scaled(4000), true, 0);
}

TEST(all_arrive_with_deadlines)
{
    for (int senders = 1; senders <= 3; senders++)
        run_post(senders, test_scaled(4000), true, 20000);
}

/* ---- two threads, a ball, two mailboxes: every hand-over sleeps and wakes ---- */

struct game {
    plait_mailbox_t mailboxes[2];
    int rounds;
};

static void play(int index, void *argument)
{
    struct game *game = argument;
    static plait_link_t ball;
    plait_link_t *taken;
    if (index == 0)
        plait_mailbox_push(&game->mailboxes[1], &ball);
    for (int round = 0; round < game->rounds; round++) {
        CHECK_EQ(plait_mailbox_take(&game->mailboxes[index], PLAIT_PRIM_FOREVER, &taken), PLAIT_OK);
        CHECK(taken == &ball && taken->next == NULL);
        if (index == 1 || round + 1 < game->rounds)
            plait_mailbox_push(&game->mailboxes[1 - index], taken);
    }
}

TEST(ping_pong)
{
    struct game game = {.rounds = test_scaled(50000)};
    plait_mailbox_init(&game.mailboxes[0]);
    plait_mailbox_init(&game.mailboxes[1]);
    alarm(200);
    test_run_threads(2, play, &game);
    alarm(0);
}
