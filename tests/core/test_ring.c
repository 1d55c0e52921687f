/* Tests of src/core/ring.c: order, room, sleeping, peers that are killed at any instant, and peers
 * that write nonsense. Design: docs/design/process.md */
#include "test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ring.h"

enum { CAPACITY = 4096, FOREVER_RECORDS = 1 << 30 };

#define SECOND INT64_C(1000000000)

/* The shared part and the bytes, in memory that a fork shares. */
struct place {
    plait_ring_shared_t shared;
    _Alignas(PLAIT_RING_ALIGNMENT) unsigned char data[CAPACITY];
};

static struct place *open_place(void)
{
    void *base =
        mmap(NULL, sizeof(struct place), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

static void close_place(struct place *place)
{
    munmap(place, sizeof *place);
}

static plait_ring_t side_of(struct place *place)
{
    plait_ring_t ring;
    plait_ring_init(&ring, &place->shared, place->data, CAPACITY);
    return ring;
}

/* The size and contents of record `number`. */
static size_t size_of(uint64_t number)
{
    uint64_t state = number + 1;
    return (size_t)test_random_below(&state, number % 7 == 0 ? CAPACITY / 2 - 16 : 100);
}

static int produce(plait_ring_t *ring, uint64_t number, int64_t deadline)
{
    size_t size = size_of(number);
    void *payload;
    int result =
        plait_ring_reserve_spsc(ring, (uint32_t)(number % 5), number, size, deadline, &payload);
    if (result == PLAIT_OK) {
        memset(payload, (int)(number & 255), size);
        plait_ring_commit_spsc(ring);
    }
    return result;
}

static int consume(plait_ring_t *ring, uint64_t number, int64_t deadline)
{
    plait_ring_record_t record;
    int result = plait_ring_peek_spsc(ring, deadline, &record);
    if (result != PLAIT_OK)
        return result;
    CHECK_EQ(record.number, number);
    CHECK_EQ(record.type, number % 5);
    CHECK_EQ(record.size, size_of(number));
    CHECK_EQ((uintptr_t)record.payload % PLAIT_RING_ALIGNMENT, 0);
    const unsigned char *bytes = record.payload;
    for (size_t i = 0; i < record.size; i++)
        if (!CHECK_EQ(bytes[i], number & 255))
            break;
    plait_ring_consume_spsc(ring);
    return PLAIT_OK;
}

/* ---- one thread ---- */

TEST(records_come_in_order_and_wrap)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    plait_ring_t in = side_of(place), out = side_of(place);
    CHECK_EQ(consume(&out, 0, 0), PLAIT_TIMEOUT);
    uint64_t sent = 0, received = 0;
    while (received < 10000) {
        int result = produce(&in, sent, 0);
        if (result == PLAIT_OK) {
            sent++;
            continue;
        }
        CHECK_EQ(result, PLAIT_TIMEOUT); /* full */
        CHECK(sent > received);
        while (received < sent)
            REQUIRE(consume(&out, received++, 0) == PLAIT_OK);
    }
    close_place(place);
}

TEST(sizes)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    plait_ring_t in = side_of(place), out = side_of(place);
    plait_ring_record_t record;
    void *payload;
    CHECK_EQ(plait_ring_limit(&in), CAPACITY / 2 - 16);
    CHECK_EQ(plait_ring_reserve_spsc(&in, 1, 2, plait_ring_limit(&in) + 1, 0, &payload),
             PLAIT_TOO_BIG);
    for (int i = 0; i < 5; i++) { /* the largest always fits an empty ring, wherever it stands */
        REQUIRE(plait_ring_reserve_spsc(&in, 1, 2, plait_ring_limit(&in), 0, &payload) == PLAIT_OK);
        plait_ring_commit_spsc(&in);
        REQUIRE(plait_ring_peek_spsc(&out, 0, &record) == PLAIT_OK);
        CHECK_EQ(record.size, plait_ring_limit(&in));
        REQUIRE(plait_ring_peek_spsc(&out, 0, &record) == PLAIT_OK); /* the same one */
        plait_ring_consume_spsc(&out);
        REQUIRE(plait_ring_reserve_spsc(&in, 3, 4, 0, 0, &payload) == PLAIT_OK);
        plait_ring_commit_spsc(&in);
        REQUIRE(plait_ring_peek_spsc(&out, 0, &record) == PLAIT_OK);
        CHECK_EQ(record.size, 0);
        plait_ring_consume_spsc(&out);
    }
    close_place(place);
}

TEST(what_was_sent_comes_before_the_end)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    plait_ring_t in = side_of(place), out = side_of(place);
    CHECK_EQ(produce(&in, 0, 0), PLAIT_OK);
    CHECK_EQ(produce(&in, 1, 0), PLAIT_OK);
    plait_ring_abandon(&out);
    CHECK_EQ(consume(&out, 0, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(consume(&out, 1, PLAIT_PRIM_FOREVER), PLAIT_OK);
    CHECK_EQ(consume(&out, 2, PLAIT_PRIM_FOREVER), PLAIT_CLOSED);
    uint64_t sent = 2;
    int result;
    plait_ring_abandon(&in);
    while ((result = produce(&in, sent, PLAIT_PRIM_FOREVER)) == PLAIT_OK)
        sent++;
    CHECK_EQ(result, PLAIT_CLOSED);
    close_place(place);
}

TEST(deadlines)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    plait_ring_t in = side_of(place), out = side_of(place);
    CHECK_EQ(consume(&out, 0, plait_prim_now() + SECOND / 100), PLAIT_TIMEOUT);
    uint64_t sent = 0;
    int result;
    while ((result = produce(&in, sent, plait_prim_now() + SECOND / 100)) == PLAIT_OK)
        sent++;
    CHECK_EQ(result, PLAIT_TIMEOUT);
    close_place(place);
}

TEST(patience_in_vain_is_shown_ever_less_often)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    plait_ring_t in = side_of(place), out = side_of(place);
    out.patience = 1000;
    const unsigned shown[] = {0, 2, 6, 10, 14, 18}; /* in the waits of these numbers */
    unsigned times = 0;
    for (unsigned wait = 0; wait < 20; wait++) {
        uint32_t before = out.hasty;
        CHECK_EQ(consume(&out, 0, plait_prim_now() + 5000), PLAIT_TIMEOUT);
        if (out.hasty < before)
            continue;
        REQUIRE(times < sizeof shown / sizeof *shown);
        CHECK_EQ(wait, shown[times++]);
    }
    CHECK_EQ(times, sizeof shown / sizeof *shown);
    CHECK_EQ(produce(&in, 0, 0), PLAIT_OK);
    CHECK_EQ(consume(&out, 0, PLAIT_PRIM_FOREVER), PLAIT_OK);
    close_place(place);
}

/* ---- two threads ---- */

struct pair {
    struct place *place;
    plait_ring_t sides[2];
    uint64_t count;
};

static void be_a_side(int index, void *argument)
{
    struct pair *pair = argument;
    for (uint64_t number = 0; number < pair->count; number++) {
        int result = index == 0 ? produce(&pair->sides[0], number, PLAIT_PRIM_FOREVER)
                                : consume(&pair->sides[1], number, PLAIT_PRIM_FOREVER);
        REQUIRE(result == PLAIT_OK);
    }
}

static void run_two_threads(int64_t patience)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    struct pair pair = {.place = place, .count = (uint64_t)test_scaled(50000)};
    pair.sides[0] = side_of(place);
    pair.sides[1] = side_of(place);
    pair.sides[0].patience = pair.sides[1].patience = patience;
    test_run_threads(2, be_a_side, &pair);
    close_place(place);
}

TEST(two_threads)
{
    run_two_threads(0);
}

TEST(two_patient_threads)
{
    run_two_threads(SECOND / 50000);
}

/* A third thread ends the wait of either side. */
static void wait_or_abandon(int index, void *argument)
{
    struct pair *pair = argument;
    if (index == 0) {
        uint64_t number = 0;
        int result;
        while ((result = produce(&pair->sides[0], number, PLAIT_PRIM_FOREVER)) == PLAIT_OK)
            number++;
        CHECK_EQ(result, PLAIT_CLOSED);
    } else if (index == 1) {
        plait_ring_record_t record;
        CHECK_EQ(plait_ring_peek_spsc(&pair->sides[1], PLAIT_PRIM_FOREVER, &record), PLAIT_CLOSED);
    } else {
        uint64_t random = test_random_start(pair->count);
        test_sleep((int64_t)test_random_below(&random, 300000));
        plait_ring_abandon(&pair->sides[0]);
        plait_ring_abandon(&pair->sides[1]);
    }
}

TEST(abandoned_while_both_wait)
{
    for (int round = 0; round < test_scaled(300); round++) {
        struct place *one = open_place(), *two = open_place();
        REQUIRE(one != NULL && two != NULL);
        struct pair pair = {.count = (uint64_t)round};
        pair.sides[0] = side_of(one); /* nobody reads this one */
        pair.sides[1] = side_of(two); /* nobody writes that one */
        test_run_threads(3, wait_or_abandon, &pair);
        close_place(one);
        close_place(two);
    }
}

/* ---- peers that are killed ---- */

/* Watches as the thread of a child's starter does. */
static void kill_later(int index, void *argument)
{
    struct pair *pair = argument;
    if (index == 0) {
        uint64_t random = test_random_start(pair->count + 77);
        test_sleep((int64_t)test_random_below(&random, 2000000));
        pid_t child = (pid_t)pair->count;
        kill(child, SIGKILL);
        CHECK_EQ(waitpid(child, NULL, 0), child);
        plait_ring_abandon(&pair->sides[0]);
    } else {
        uint64_t number = 0;
        int result;
        bool writes = pair->place == NULL;
        do
            result = writes ? produce(&pair->sides[0], number++, PLAIT_PRIM_FOREVER)
                            : consume(&pair->sides[0], number++, PLAIT_PRIM_FOREVER);
        while (result == PLAIT_OK);
        CHECK_EQ(result, PLAIT_CLOSED);
    }
}

/* Every record is whole or not there, and the survivor hears of the end. */
TEST(a_peer_killed_at_any_instant)
{
    for (int round = 0; round < test_scaled(400); round++) {
        struct place *place = open_place();
        REQUIRE(place != NULL);
        bool parent_writes = round % 2 == 0;
        pid_t child = fork();
        if (child == 0) {
            plait_ring_t own = side_of(place);
            for (uint64_t number = 0; number < FOREVER_RECORDS; number++)
                if ((parent_writes ? consume(&own, number, PLAIT_PRIM_FOREVER)
                                   : produce(&own, number, PLAIT_PRIM_FOREVER)) != PLAIT_OK)
                    _exit(1);
            _exit(0);
        }
        REQUIRE(child > 0);
        struct pair pair = {.place = parent_writes ? NULL : place, .count = (uint64_t)child};
        pair.sides[0] = side_of(place);
        test_run_threads(2, kill_later, &pair);
        close_place(place);
    }
}

/* ---- peers that write nonsense ---- */

/* Any answer but an access outside: records lie inside the ring. */
static void look_at_nonsense(struct place *place, plait_ring_t *in, plait_ring_t *out)
{
    plait_ring_record_t record;
    void *payload;
    int result = plait_ring_peek_spsc(out, 0, &record);
    if (result == PLAIT_OK) {
        unsigned char *payload_at = record.payload;
        CHECK(payload_at >= place->data && payload_at <= place->data + CAPACITY);
        CHECK(record.size <= (size_t)(place->data + CAPACITY - payload_at));
        plait_ring_consume_spsc(out);
    } else {
        CHECK(result == PLAIT_CORRUPT || result == PLAIT_TIMEOUT);
    }
    result = plait_ring_reserve_spsc(in, 1, 1, 100, 0, &payload);
    if (result == PLAIT_OK) {
        unsigned char *payload_at = payload;
        CHECK(payload_at >= place->data && payload_at + 100 <= place->data + CAPACITY);
        plait_ring_commit_spsc(in);
    } else {
        CHECK(result == PLAIT_CORRUPT || result == PLAIT_TIMEOUT);
    }
}

TEST(nonsense_in_every_word)
{
    uint64_t random = test_random_start(5);
    for (int round = 0; round < test_scaled(20000); round++) {
        static struct place place;
        plait_ring_t in, out;
        memset(&place.shared, 0, sizeof place.shared);
        in = side_of(&place);
        out = side_of(&place);
        out.position = in.position = test_random_below(&random, 1000) * PLAIT_RING_ALIGNMENT;
        uint64_t *words = (uint64_t *)(void *)place.data;
        for (size_t i = 0; i < CAPACITY / 8; i++)
            words[i] = test_random(&random) >> test_random_below(&random, 64);
        bool near = round % 2 == 0; /* positions that look right, contents that are not */
        atomic_store(&place.shared.tail,
                     near ? out.position + test_random_below(&random, CAPACITY / 16) * 16
                          : test_random(&random));
        atomic_store(&place.shared.head,
                     near ? in.position - test_random_below(&random, CAPACITY / 16) * 16
                          : test_random(&random));
        for (int look = 0; look < 4; look++)
            look_at_nonsense(&place, &in, &out);
    }
}

/* The same while the peer goes on scribbling. */
TEST(a_peer_that_scribbles)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    pid_t child = fork();
    if (child == 0) {
        uint64_t random = test_random_start(9);
        volatile uint64_t *words = (volatile uint64_t *)(void *)place;
        for (;;)
            words[test_random_below(&random, sizeof *place / 8)] =
                test_random(&random) >> test_random_below(&random, 64) << 4;
    }
    REQUIRE(child > 0);
    for (int round = 0; round < test_scaled(200000); round++) {
        plait_ring_t in = side_of(place), out = side_of(place);
        look_at_nonsense(place, &in, &out);
    }
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    close_place(place);
}
