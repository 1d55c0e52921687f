/* Tests of src/core/wire.c: letters of all sizes, a sender that dies between pieces, and nonsense.
 * Design: docs/design/process.md */
#include "test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/wire.h"

enum { CAPACITY = 1 << 17 };

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

static plait_ring_t side_of(struct place *place)
{
    plait_ring_t ring;
    plait_ring_init(&ring, &place->shared, place->data, CAPACITY);
    return ring;
}

/* A size for blob `index` of letter `number`: none, small, at the border, or in many pieces. */
static size_t size_of(uint64_t number, int index)
{
    uint64_t state = number * 2 + (uint64_t)index;
    switch (test_random_below(&state, 5)) {
    case 0:
        return 0;
    case 1:
        return (CAPACITY / 2 - 16) / 4 - 2 + (size_t)test_random_below(&state, 5);
    case 2:
        return (size_t)test_random_below(&state, 500000);
    default:
        return (size_t)test_random_below(&state, 300);
    }
}

static int send_letter(plait_ring_t *ring, uint64_t number)
{
    plait_letter_t letter = {
        .type = (uint32_t)(number % 9), .number = number, .words = {number, 2, 3}};
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        size_t size = size_of(number, index);
        letter.blobs[index] = (plait_blob_t){malloc(size + 1), size};
        memset(letter.blobs[index].bytes, (int)((number + (uint64_t)index) & 255), size);
    }
    int result = plait_wire_send_spsc(ring, -1, &letter);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        free(letter.blobs[index].bytes);
    return result;
}

static void check_blob(const plait_blob_t *blob, uint64_t number, int index)
{
    CHECK_EQ(blob->size, size_of(number, index));
    CHECK_EQ((uintptr_t)blob->bytes % PLAIT_RING_ALIGNMENT, 0);
    const unsigned char *bytes = blob->bytes;
    for (size_t i = 0; i < blob->size; i++)
        if (!CHECK_EQ(bytes[i], (number + (uint64_t)index) & 255))
            break;
}

static int receive_letter(plait_ring_t *ring, uint64_t number)
{
    plait_letter_t letter;
    int result = plait_wire_receive_spsc(ring, -1, number % 2 == 0, PLAIT_PRIM_FOREVER, &letter);
    if (result != PLAIT_OK)
        return result;
    CHECK_EQ(letter.type, number % 9);
    CHECK_EQ(letter.number, number);
    CHECK_EQ(letter.words[0], number);
    CHECK_EQ(letter.words[2], 3);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        check_blob(&letter.blobs[index], number, index);
    if (number % 2 == 0) { /* the caller's to keep */
        free(letter.blobs[0].bytes);
        letter.blobs[0].bytes = NULL;
    }
    plait_wire_finish_spsc(ring, &letter);
    return PLAIT_OK;
}

struct pair {
    plait_ring_t sides[2];
    uint64_t count;
};

static void be_a_side(int index, void *argument)
{
    struct pair *pair = argument;
    for (uint64_t number = 0; number < pair->count; number++)
        REQUIRE((index == 0 ? send_letter(&pair->sides[0], number)
                            : receive_letter(&pair->sides[1], number)) == PLAIT_OK);
}

TEST(letters_of_all_sizes)
{
    struct place *place = open_place();
    REQUIRE(place != NULL);
    struct pair pair = {.count = (uint64_t)test_scaled(1000)};
    pair.sides[0] = side_of(place);
    pair.sides[1] = side_of(place);
    test_run_threads(2, be_a_side, &pair);
    munmap(place, sizeof *place);
}

static void receive_or_kill(int index, void *argument)
{
    struct pair *pair = argument;
    if (index == 0) {
        uint64_t number = 0;
        int result;
        while ((result = receive_letter(&pair->sides[0], number)) == PLAIT_OK)
            number++;
        CHECK_EQ(result, PLAIT_CLOSED);
    } else {
        uint64_t random = test_random_start(pair->count);
        test_sleep((int64_t)test_random_below(&random, 3000000));
        kill((pid_t)pair->count, SIGKILL);
        CHECK_EQ(waitpid((pid_t)pair->count, NULL, 0), (pid_t)pair->count);
        plait_ring_abandon(&pair->sides[0]);
    }
}

TEST(a_sender_killed_at_any_instant)
{
    for (int round = 0; round < test_scaled(200); round++) {
        struct place *place = open_place();
        REQUIRE(place != NULL);
        pid_t child = fork();
        if (child == 0) {
            plait_ring_t own = side_of(place);
            for (uint64_t number = 0;; number++)
                if (send_letter(&own, number) != PLAIT_OK)
                    _exit(1);
        }
        REQUIRE(child > 0);
        struct pair pair = {.count = (uint64_t)child};
        pair.sides[0] = side_of(place);
        test_run_threads(2, receive_or_kill, &pair);
        munmap(place, sizeof *place);
    }
}

/* Records that are whole for the ring, with any contents. */
TEST(nonsense_in_records)
{
    uint64_t random = test_random_start(3);
    struct place *place = open_place();
    REQUIRE(place != NULL);
    for (int round = 0; round < test_scaled(3000); round++) {
        memset(&place->shared, 0, sizeof place->shared);
        plait_ring_t in = side_of(place), out = side_of(place);
        for (int i = 0; i < 4; i++) {
            size_t size = (size_t)test_random_below(&random, 200);
            unsigned char *payload;
            bool piece = test_random_below(&random, 3) == 0;
            void *got;
            REQUIRE(plait_ring_reserve_spsc(&in, piece ? UINT32_MAX - 1 : 1,
                                            test_random_below(&random, 2), size, 0,
                                            &got) == PLAIT_OK);
            payload = got;
            for (size_t at = 0; at < size; at++)
                payload[at] = (unsigned char)test_random_below(&random, at % 8 < 2 ? 256 : 2);
            plait_ring_commit_spsc(&in);
        }
        plait_ring_abandon(&out);
        for (int i = 0; i < 6; i++) {
            plait_letter_t letter;
            int result = plait_wire_receive_spsc(&out, -1, round % 2 == 0, 0, &letter);
            if (result == PLAIT_OK)
                plait_wire_finish_spsc(&out, &letter);
            else
                CHECK(result == PLAIT_CORRUPT || result == PLAIT_CLOSED || result == PLAIT_NOMEM);
        }
    }
    munmap(place, sizeof *place);
}
