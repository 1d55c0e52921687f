/* Tests of the flat format: values, the writer's limits and failures, the reader's checks, random
 * graphs. */
#include "test.h"

#include "core/checksum.h"
#include "flat_graph.h"
#include "flat_walk.h"

/* ---- an allocator that counts, and fails when told ---- */

typedef struct counting {
    int live;
    int calls;
    int fail_at; /* this call and all after it fail; -1: none */
    size_t limit;
} counting_t;

static bool is_refused(counting_t *counting, size_t size)
{
    int call = counting->calls++;
    return (counting->fail_at >= 0 && call >= counting->fail_at) ||
           (counting->limit != 0 && size > counting->limit);
}

static void *counting_allocate(void *context, size_t size)
{
    counting_t *counting = context;
    if (is_refused(counting, size))
        return NULL;
    counting->live++;
    return malloc(size);
}

static void *counting_resize(void *context, void *block, size_t size)
{
    counting_t *counting = context;
    if (is_refused(counting, size))
        return NULL;
    if (block == NULL)
        counting->live++;
    return realloc(block, size);
}

static void counting_release(void *context, void *block)
{
    counting_t *counting = context;
    if (block != NULL)
        counting->live--;
    free(block);
}

#define COUNTING(name)                                                                             \
    counting_t name##_state = {.fail_at = -1};                                                     \
    plait_alloc_t name = {&name##_state, counting_allocate, counting_resize, counting_release}

static const plait_flat_value_t none = (PLAIT_FLAT_TAG_CONST << 48) | PLAIT_FLAT_NONE;

/* ---- values and checksums ---- */

TEST(values)
{
    static const int64_t numbers[] = {0, 1, -1, 255, PLAIT_FLAT_INT_MAX, PLAIT_FLAT_INT_MIN};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        plait_flat_value_t value = plait_flat_int(numbers[i]);
        CHECK(plait_flat_int_fits(numbers[i]));
        CHECK(plait_flat_is_int(value) && plait_flat_is_value(value));
        CHECK(!plait_flat_is_double(value) && !plait_flat_is_const(value) &&
              !plait_flat_is_ref(value));
        CHECK_EQ(plait_flat_to_int(value), numbers[i]);
    }
    CHECK(!plait_flat_int_fits(PLAIT_FLAT_INT_MAX + 1));
    CHECK(!plait_flat_int_fits(PLAIT_FLAT_INT_MIN - 1));
    CHECK(plait_flat_is_value(plait_flat_const(PLAIT_FLAT_CONST_COUNT - 1)));
    CHECK(!plait_flat_is_value(plait_flat_const(PLAIT_FLAT_CONST_COUNT)));
    CHECK(!plait_flat_is_value(UINT64_C(0xFFFC) << 48));
    CHECK(!plait_flat_is_value(UINT64_MAX));
}

TEST(doubles)
{
    static const uint64_t plain[] = {0,
                                     UINT64_C(1) << 63,
                                     1,
                                     0x3FF0000000000000,
                                     0x7FF0000000000000,
                                     0xFFF0000000000000,
                                     0x7FF8000000000000,
                                     0xFFF8000000000000};
    static const uint64_t tagged[] = {0xFFF9000000000000, 0xFFFB000000000004, UINT64_MAX};
    plait_flat_value_t value;
    double number;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        memcpy(&number, &plain[i], sizeof number);
        CHECK(plait_flat_from_double(number, &value));
        CHECK_EQ(value, plain[i]);
        number = plait_flat_to_double(value);
        CHECK(memcmp(&number, &plain[i], sizeof number) == 0);
    }
    for (size_t i = 0; i < sizeof tagged / sizeof *tagged; i++) {
        memcpy(&number, &tagged[i], sizeof number);
        CHECK(!plait_flat_from_double(number, &value));
    }
}

/* The definition, a bit at a time. */
static uint32_t crc32c_bits(const unsigned char *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? UINT32_C(0x82F63B78) : 0);
    }
    return ~crc;
}

TEST(checksums)
{
    unsigned char data[300];
    uint64_t random = test_random_start(1);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)test_random(&random);
    CHECK_EQ(plait_checksum_crc32c(0, "123456789", 9), 0xE3069283);
    CHECK_EQ(plait__checksum_crc32c_table(0, "123456789", 9), 0xE3069283);
    for (size_t size = 0; size < 256; size++) {
        const unsigned char *from = data + size % 17;
        uint32_t expected = crc32c_bits(from, size);
        size_t half = size / 3;
        CHECK_EQ(plait_checksum_crc32c(0, from, size), expected);
        CHECK_EQ(plait__checksum_crc32c_table(0, from, size), expected);
        uint32_t part = plait_checksum_crc32c(0, from, half);
        CHECK_EQ(plait_checksum_crc32c(part, from + half, size - half), expected);
    }
}

/* ---- random graphs ---- */

static uint64_t choose_randomly(void *context, uint64_t limit)
{
    return test_random_below(context, limit);
}

static void check_graph(graph_t *graph)
{
    COUNTING(alloc);
    plait_flat_writer_t writer;
    void *message[2] = {NULL, NULL};
    size_t size[2];
    for (unsigned flags = 0; flags < 2; flags++) {
        REQUIRE(plait_flat_writer_init(&writer, &alloc, flags * 4096) == PLAIT_OK);
        REQUIRE(graph_write(graph, &writer, flags, &message[flags], &size[flags]) == PLAIT_OK);
        plait_flat_writer_fini(&writer);
        CHECK(graph_equals(graph, message[flags], size[flags]));
        CHECK_EQ(plait_flat_is_valid(message[flags], size[flags], &alloc), PLAIT_OK);
        CHECK_EQ(flat_walk(message[flags], size[flags]), PLAIT_OK);
    }
    CHECK_EQ(size[0], size[1]);
    CHECK(memcmp((char *)message[0] + 32, (char *)message[1] + 32, size[0] - 32) == 0);
    alloc.release(alloc.context, message[0]);
    alloc.release(alloc.context, message[1]);
    CHECK_EQ(alloc_state.live, 0);
}

TEST(random_graphs)
{
    static graph_t graph;
    uint64_t random = test_random_start(2);
    for (int i = test_scaled(20000); i > 0; i--) {
        graph_make(&graph, (graph_source_t){choose_randomly, &random});
        check_graph(&graph);
    }
}

/* Whatever happens to a message, it is told or it is read: never more. */
TEST(damaged_graphs)
{
    static graph_t graph;
    uint64_t random = test_random_start(3);
    plait_flat_writer_t writer;
    REQUIRE(plait_flat_writer_init(&writer, &plait_alloc_system, 0) == PLAIT_OK);
    for (int i = test_scaled(2000); i > 0; i--) {
        void *message;
        size_t size;
        graph_make(&graph, (graph_source_t){choose_randomly, &random});
        REQUIRE(graph_write(&graph, &writer, 0, &message, &size) == PLAIT_OK);
        /* Without spare room behind it, so that a sanitizer sees every byte too far. */
        message = plait_alloc_system.resize(plait_alloc_system.context, message, size);
        REQUIRE(message != NULL);
        for (int damage = 0; damage < 40; damage++) {
            unsigned char *at = (unsigned char *)message + test_random_below(&random, size);
            *at = (unsigned char)test_random(&random);
            int walked = flat_walk(message, size);
            int valid = plait_flat_is_valid(message, size, &plait_alloc_system);
            CHECK(walked <= 0 && valid <= 0);
            CHECK(valid != PLAIT_OK || walked == PLAIT_OK);
        }
        plait_alloc_system.release(plait_alloc_system.context, message);
        REQUIRE(plait_flat_writer_init(&writer, &plait_alloc_system, 0) == PLAIT_OK);
    }
    plait_flat_writer_fini(&writer);
}

TEST(failing_allocations)
{
    static graph_t graph;
    uint64_t random = test_random_start(4);
    for (int i = test_scaled(1000); i > 0; i--) {
        graph_make(&graph, (graph_source_t){choose_randomly, &random});
        int result = PLAIT_NOMEM;
        for (int fail_at = 0; result != PLAIT_OK; fail_at++) {
            COUNTING(alloc);
            plait_flat_writer_t writer;
            void *message = NULL;
            size_t size = 0;
            alloc_state.fail_at = fail_at;
            result = plait_flat_writer_init(&writer, &alloc, 0);
            if (result == PLAIT_OK)
                result = graph_write(&graph, &writer, 0, &message, &size);
            CHECK(result == PLAIT_OK || result == PLAIT_NOMEM);
            if (result == PLAIT_OK) {
                alloc_state.fail_at = 0;
                CHECK_EQ(plait_flat_is_valid(message, size, &alloc), PLAIT_NOMEM);
                alloc.release(alloc.context, message);
            } else if (fail_at > 0) { /* a writer that failed is good again after reset */
                alloc_state.fail_at = -1;
                plait_flat_writer_reset(&writer);
                CHECK_EQ(graph_write(&graph, &writer, 0, &message, &size), PLAIT_OK);
                CHECK(graph_equals(&graph, message, size));
                alloc.release(alloc.context, message);
            }
            plait_flat_writer_fini(&writer);
            CHECK_EQ(alloc_state.live, 0);
        }
    }
}

/* ---- the writer ---- */

TEST(growth)
{
    COUNTING(alloc);
    plait_flat_writer_t writer;
    plait_flat_value_t value;
    static char big[100000];
    REQUIRE(plait_flat_writer_init(&writer, &alloc, 0) == PLAIT_OK);
    for (int i = 0; i < 10000; i++)
        CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "abc", 3, &value), PLAIT_OK);
    CHECK(alloc_state.calls < 14);
    plait_flat_writer_fini(&writer);

    alloc_state.calls = 0;
    REQUIRE(plait_flat_writer_init(&writer, &alloc, 0) == PLAIT_OK);
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, big, sizeof big, &value), PLAIT_OK);
    CHECK_EQ(alloc_state.calls, 1);
    CHECK_EQ(writer.capacity, 32 + 8 + sizeof big);
    /* Where doubling is refused, what is needed may still be had. */
    alloc_state.limit = 150000;
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "abc", 3, &value), PLAIT_OK);
    CHECK_EQ(writer.capacity, 32 + 8 + sizeof big + 16);
    plait_flat_writer_fini(&writer);
    CHECK_EQ(alloc_state.live, 0);
}

TEST(too_big)
{
    COUNTING(alloc);
    plait_flat_writer_t writer;
    plait_flat_value_t value;
    void *data;
    const size_t limit = (size_t)PLAIT_FLAT_LENGTH_MAX;
    CHECK_EQ(plait_flat_writer_init(&writer, &alloc, SIZE_MAX), PLAIT_TOO_BIG);
    plait_flat_writer_fini(&writer);
    REQUIRE(plait_flat_writer_init(&writer, &alloc, 0) == PLAIT_OK);
    alloc_state.fail_at = 0;
    const size_t sizes[] = {limit + 1, SIZE_MAX / 8, SIZE_MAX - 7, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "", size, &value),
                 PLAIT_TOO_BIG);
        CHECK_EQ(plait_flat_put_text(&writer, PLAIT_FLAT_UCS4, "", size, &value), PLAIT_TOO_BIG);
        CHECK_EQ(plait_flat_put_ascii(&writer, "", size, &value), PLAIT_TOO_BIG);
        CHECK_EQ(plait_flat_put_words(&writer, PLAIT_FLAT_LIST, size, size, &value), PLAIT_TOO_BIG);
        CHECK_EQ(plait_flat_put_buffer(&writer, 0, size, &data, &value), PLAIT_TOO_BIG);
    }
    /* 2**48 - 1 words are 8 bytes less than the largest message: with a header they are too many.
     */
    CHECK_EQ(plait_flat_put_words(&writer, PLAIT_FLAT_LIST, limit, limit, &value), PLAIT_TOO_BIG);
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "", limit, &value), PLAIT_NOMEM);
    CHECK_EQ(plait_flat_put_buffer(&writer, 0, limit, &data, &value), PLAIT_NOMEM);
    plait_flat_writer_fini(&writer);
    CHECK_EQ(alloc_state.live, 0);
}

TEST(writer_states)
{
    plait_flat_writer_t writer;
    plait_flat_value_t value;
    void *first, *second;
    size_t size;
    REQUIRE(plait_flat_writer_init(&writer, &plait_alloc_system, 0) == PLAIT_OK);
    CHECK_EQ(plait_flat_finish(&writer, none, 2, &first, &size), PLAIT_INVALID);
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, NULL, 0, &value), PLAIT_OK);
    plait_flat_writer_reset(&writer);
    REQUIRE(plait_flat_finish(&writer, none, 0, &first, &size) == PLAIT_OK);
    CHECK_EQ(size, sizeof(plait_flat_header_t));
    CHECK_EQ(plait_flat_is_valid(first, size, &plait_alloc_system), PLAIT_OK);
    /* after finish it is empty, and can be used again */
    REQUIRE(plait_flat_finish(&writer, none, 0, &second, &size) == PLAIT_OK);
    CHECK_EQ(plait_flat_is_valid(second, size, &plait_alloc_system), PLAIT_OK);
    plait_flat_writer_reset(&writer);
    plait_flat_writer_fini(&writer);
    plait_flat_writer_fini(&writer);
    plait_alloc_system.release(plait_alloc_system.context, first);
    plait_alloc_system.release(plait_alloc_system.context, second);
}

/* Small messages into the caller's room, each from the same block; rewinding to any mark. */
TEST(finish_into)
{
    COUNTING(alloc);
    plait_flat_writer_t writer;
    plait_flat_value_t value, other;
    _Alignas(8) unsigned char room[48];
    size_t size;
    REQUIRE(plait_flat_writer_init(&writer, &alloc, 0) == PLAIT_OK);
    for (int i = 0; i < 3; i++) {
        size_t mark = plait_flat_writer_mark(&writer);
        CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "abcdefgh", 8, &value),
                 PLAIT_OK);
        plait_flat_writer_rewind(&writer, mark);
        CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "ijk", 3, &value), PLAIT_OK);
        CHECK_EQ(plait_flat_finish_into(&writer, value, 0, room, sizeof room, &size), PLAIT_OK);
        CHECK_EQ(size, sizeof room);
        CHECK_EQ(plait_flat_is_valid(room, size, &plait_alloc_system), PLAIT_OK);
    }
    CHECK_EQ(alloc_state.calls, 1);
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "123456789", 9, &value), PLAIT_OK);
    CHECK_EQ(plait_flat_finish_into(&writer, value, 0, room, sizeof room, &size), PLAIT_FULL);
    CHECK_EQ(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, "0", 1, &other), PLAIT_OK);
    plait_flat_writer_fini(&writer);
    CHECK_EQ(alloc_state.live, 0);
}

/* Blocks are full of rubbish before they are written: no byte of it may reach a message. */
TEST(padding_is_zero)
{
    static _Alignas(64) unsigned char rubbish[1024];
    static const unsigned char content[200] = {1, 2, 3};
    for (size_t size = 0; size < 200; size++) {
        plait_flat_writer_t writer = {.base = rubbish, .used = 32, .capacity = sizeof rubbish};
        plait_flat_value_t value;
        void *data;
        memset(rubbish, 0xEE, sizeof rubbish);
        REQUIRE(plait_flat_put_bytes(&writer, PLAIT_FLAT_BYTES, 0, content, size, &value) == 0);
        for (size_t i = 40 + size; i < writer.used; i++)
            CHECK_EQ(rubbish[i], 0);
        size_t offset = writer.used;
        REQUIRE(plait_flat_put_buffer(&writer, 0, size, &data, &value) == 0);
        size_t start = (size_t)((unsigned char *)data - rubbish);
        CHECK(start % 64 == 0 && start >= offset + 8 && start < offset + 8 + 64);
        for (size_t i = offset + 8; i < start; i++)
            CHECK_EQ(rubbish[i], 0);
        for (size_t i = start + size; i < writer.used; i++)
            CHECK_EQ(rubbish[i], 0);
        CHECK_EQ(writer.used, start + (size + 7) / 8 * 8);
    }
}

/* ---- the reader ---- */

/* A message in words: a header and `count` words of `body`; the root is its first body. */
typedef struct image {
    uint64_t words[64];
    size_t size;
} image_t;

static image_t image_of(size_t count, const uint64_t *body)
{
    image_t image = {.size = 32 + count * 8};
    plait_flat_header_t header = {PLAIT_FLAT_MAGIC, PLAIT_FLAT_VERSION,  0,
                                  image.size,       plait__flat_ref(32), 0};
    memcpy(image.words, &header, sizeof header);
    memcpy(image.words + 4, body, count * 8);
    return image;
}

#define IMAGE(...) image_of(sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})
#define HEAD(type, flags, length) plait_flat_head(PLAIT_FLAT_##type, flags, length)
#define REF(index)                                                                                 \
    plait__flat_ref(32 + (index) * 8) /* the body at word `index` after the header  \
                                                      */

static int is_valid(image_t image)
{
    return plait_flat_is_valid(image.words, image.size, &plait_alloc_system);
}

static int get_root(image_t image)
{
    plait_flat_reader_t reader;
    plait_flat_body_t body;
    int result = plait_flat_open(&reader, image.words, image.size);
    return result != PLAIT_OK ? result : plait_flat_get(&reader, reader.root, &body);
}

#define CHECK_BOTH(image, expected)                                                                \
    (CHECK_EQ(get_root(image), expected), CHECK_EQ(is_valid(image), expected))

TEST(headers)
{
    plait_flat_reader_t reader;
    plait_flat_header_t good = {PLAIT_FLAT_MAGIC, PLAIT_FLAT_VERSION, 0, 32, none, 0}, bad;
    _Alignas(8) unsigned char moved[40];
    memcpy(moved + 4, &good, sizeof good);
    CHECK_EQ(plait_flat_open(&reader, &good, 32), PLAIT_OK);
    CHECK_EQ(plait_flat_open(&reader, moved + 4, 32), PLAIT_INVALID);
    for (size_t size = 0; size < 32; size++)
        CHECK_EQ(plait_flat_open(&reader, &good, size), PLAIT_CORRUPT);
#define CHECK_HEADER(field, change, expected)                                                      \
    bad = good, bad.field = change, CHECK_EQ(plait_flat_open(&reader, &bad, 32), expected)
    CHECK_HEADER(magic, 0, PLAIT_CORRUPT);
    CHECK_HEADER(version, 0, PLAIT_UNSUPPORTED);
    CHECK_HEADER(version, 2, PLAIT_UNSUPPORTED);
    CHECK_HEADER(flags, 2, PLAIT_CORRUPT);
    CHECK_HEADER(flags, 1, PLAIT_CORRUPT);
    CHECK_HEADER(size, 24, PLAIT_CORRUPT);
    CHECK_HEADER(size, 40, PLAIT_CORRUPT);
    CHECK_HEADER(size, UINT64_MAX, PLAIT_CORRUPT);
    CHECK_HEADER(checksum, 1, PLAIT_CORRUPT);
    CHECK_HEADER(root, UINT64_MAX, PLAIT_OK); /* the decoder's business, and the validator's */
    CHECK_EQ(plait_flat_is_valid(&bad, 32, &plait_alloc_system), PLAIT_CORRUPT);
}

TEST(heads)
{
    image_t image = IMAGE(HEAD(TUPLE, 0, 1), none);
    CHECK_BOTH(image, PLAIT_OK);
    for (unsigned type = 0; type < 256; type++) {
        for (unsigned flags = 0; flags < 256; flags++) {
            uint64_t lengths[] = {25, PLAIT_FLAT_LENGTH_MAX, PLAIT_FLAT_LENGTH_MAX / 8 + 1,
                                  PLAIT_FLAT_LENGTH_MAX / 16 + 1, 200};
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                image.words[4] = plait_flat_head(type, flags, lengths[i]);
                CHECK_BOTH(image, PLAIT_CORRUPT);
            }
        }
    }
    CHECK_BOTH(IMAGE(HEAD(DICT, PLAIT_FLAT_FLAG_INDEXED, 0)), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(SET, PLAIT_FLAT_FLAG_INDEXED, 0)), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(FLOAT, 0, 7), 0), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(UUID, 0, 8), 0, 0), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(SLICE, 0, 2), 0, 0, 0), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(PICKLE, 0, 0), 0), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(INT, 0, 5), 0x0123456789), PLAIT_CORRUPT);
}

TEST(references)
{
    image_t image = IMAGE(HEAD(LIST, 0, 1), REF(2), HEAD(BYTES, 0, 0));
    CHECK_BOTH(image, PLAIT_OK);
    uint64_t bad[] = {
        0,    plait__flat_ref(0), plait__flat_ref(24), REF(3), PLAIT_FLAT_PAYLOAD_MASK,
        none, plait_flat_int(4)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        image.words[2] =
            bad[i] == PLAIT_FLAT_PAYLOAD_MASK ? bad[i] | PLAIT_FLAT_TAG_REF << 48 : bad[i];
        CHECK_EQ(get_root(image), PLAIT_CORRUPT);
    }
    /* Into a payload; twice without saying so; to itself without saying so. */
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 1), REF(2), HEAD(BYTES, 0, 8), 0)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 1), REF(3), HEAD(BYTES, 0, 8), HEAD(BYTES, 0, 0))),
             PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 2), REF(3), REF(3), HEAD(BYTES, 0, 0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 2), REF(3), REF(3), HEAD(BYTES, 1, 0))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 1), REF(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 1, 1), REF(0))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 1), UINT64_MAX)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(LIST, 0, 0), HEAD(BYTES, 0, 0))), PLAIT_OK); /* met by nobody */
    /* A BUFFER at the very end, and one whose data would start beyond it. */
    CHECK_BOTH(IMAGE(HEAD(BUFFER, 0, 0), 0, 0, 0), PLAIT_OK);
    CHECK_BOTH(IMAGE(HEAD(BUFFER, 0, 0), 0, 0), PLAIT_CORRUPT);
    CHECK_BOTH(IMAGE(HEAD(BUFFER, 2, 3), 0, 0, 0, 0x030201), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(BUFFER, 2, 3), 0, 1, 0, 0x030201)), PLAIT_CORRUPT);
}

TEST(payloads)
{
    const uint64_t nan_head = HEAD(FLOAT, 0, 8);
    CHECK_EQ(is_valid(IMAGE(nan_head, UINT64_MAX)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(nan_head, 0xFFF8000000000000)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(INT, 0, 6), 0x800000000000)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(INT, 0, 6), 0x7FFFFFFFFFFF)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(INT, 2, 6), 0x800000000000)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(INT, 2, 6), 0x800000000001)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(INT, 0, 7), 0x00FFFFFFFFFFFF)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(BYTES, 0, 3), 0x00636261)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(BYTES, 0, 3), 0x64636261)), PLAIT_CORRUPT); /* padding */
    CHECK_EQ(is_valid(IMAGE(HEAD(FUNCTION, 0, 1), none)), PLAIT_CORRUPT);    /* reserved */
}

/* check_text of `bytes` bytes at the width of that number. */
static int text_of(unsigned width, size_t bytes, const void *data)
{
    static const unsigned shift[4] = {0, 0, 1, 2};
    image_t image = IMAGE(0, 0, 0, 0, 0, 0, 0, 0);
    plait_flat_reader_t reader;
    plait_flat_body_t body;
    image.words[4] = HEAD(STR, width << PLAIT_FLAT_WIDTH_SHIFT, bytes >> shift[width]);
    memcpy(image.words + 5, data, bytes);
    CHECK_EQ(plait_flat_open(&reader, image.words, image.size), PLAIT_OK);
    CHECK_EQ(plait_flat_get(&reader, reader.root, &body), PLAIT_OK);
    CHECK_EQ(body.byte_count, bytes);
    return plait_flat_check_text(&body);
}

TEST(texts)
{
    CHECK_EQ(text_of(PLAIT_FLAT_ASCII, 0, ""), PLAIT_OK);
    CHECK_EQ(text_of(PLAIT_FLAT_LATIN1, 0, ""), PLAIT_CORRUPT);
    CHECK_EQ(text_of(PLAIT_FLAT_UCS2, 0, ""), PLAIT_CORRUPT);
    CHECK_EQ(text_of(PLAIT_FLAT_UCS4, 0, ""), PLAIT_CORRUPT);
    for (size_t at = 0; at < 20; at++) { /* one code point that is special, anywhere */
        unsigned char narrow[20];
        uint16_t medium[20] = {0};
        uint32_t wide[10] = {0};
        memset(narrow, 'a', sizeof narrow);
        CHECK_EQ(text_of(PLAIT_FLAT_ASCII, sizeof narrow, narrow), PLAIT_OK);
        CHECK_EQ(text_of(PLAIT_FLAT_LATIN1, sizeof narrow, narrow), PLAIT_CORRUPT);
        narrow[at] = 0x80;
        CHECK_EQ(text_of(PLAIT_FLAT_ASCII, sizeof narrow, narrow), PLAIT_CORRUPT);
        CHECK_EQ(text_of(PLAIT_FLAT_LATIN1, sizeof narrow, narrow), PLAIT_OK);
        medium[at] = 0xFF;
        CHECK_EQ(text_of(PLAIT_FLAT_UCS2, sizeof medium, medium), PLAIT_CORRUPT);
        medium[at] = 0xD800; /* Python's texts hold lone surrogates */
        CHECK_EQ(text_of(PLAIT_FLAT_UCS2, sizeof medium, medium), PLAIT_OK);
        wide[at / 2] = 0xFFFF;
        CHECK_EQ(text_of(PLAIT_FLAT_UCS4, sizeof wide, wide), PLAIT_CORRUPT);
        wide[at / 2] = 0x10FFFF;
        CHECK_EQ(text_of(PLAIT_FLAT_UCS4, sizeof wide, wide), PLAIT_OK);
        wide[at / 2] = 0x110000;
        CHECK_EQ(text_of(PLAIT_FLAT_UCS4, sizeof wide, wide), PLAIT_CORRUPT);
    }
}

/* ---- what types say of their items ---- */

#define INT(number) plait_flat_int(number)

TEST(dates)
{
    static const struct {
        int64_t word[3];
        bool is_good;
    } cases[] = {{{2024, 2, 29}, true},  {{2023, 2, 29}, false}, {{1900, 2, 29}, false},
                 {{2000, 2, 29}, true},  {{1, 1, 1}, true},      {{9999, 12, 31}, true},
                 {{0, 1, 1}, false},     {{10000, 1, 1}, false}, {{2020, 0, 1}, false},
                 {{2020, 13, 1}, false}, {{2020, 4, 31}, false}, {{2020, 4, 0}, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int64_t *word = cases[i].word;
        image_t image = IMAGE(HEAD(DATE, 0, 3), INT(word[0]), INT(word[1]), INT(word[2]));
        CHECK_EQ(is_valid(image), cases[i].is_good ? PLAIT_OK : PLAIT_CORRUPT);
    }
    CHECK_EQ(is_valid(IMAGE(HEAD(DATE, 0, 3), none, INT(1), INT(1))), PLAIT_CORRUPT);
}

TEST(times)
{
    const uint64_t time = HEAD(TIME, 0, 3), delta = HEAD(TIMEDELTA, 0, 3),
                   zone = HEAD(TIMEZONE, 0, 2);
    const int64_t day = INT64_C(86400000000);
    CHECK_EQ(is_valid(IMAGE(time, INT(day - 1), INT(1), none)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(time, INT(day), INT(0), none)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(time, INT(-1), INT(0), none)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(time, INT(0), INT(2), none)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(time, INT(0), INT(0), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(delta, INT(-999999999), INT(0), INT(0))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(delta, INT(1000000000), INT(0), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(delta, INT(0), INT(86400), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(delta, INT(0), INT(0), INT(1000000))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(zone, REF(3), none, delta, INT(0), INT(3600), INT(0))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(zone, REF(3), none, delta, INT(-1), INT(1), INT(0))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(zone, REF(3), none, delta, INT(-1), INT(0), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(zone, REF(3), none, delta, INT(1), INT(0), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(zone, REF(3), none, HEAD(BYTES, 0, 0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(zone, INT(0), none)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(DATETIME, 0, 2), REF(3), REF(3), HEAD(DATE, 1, 3), INT(1), INT(1),
                            INT(1))),
             PLAIT_CORRUPT);
}

TEST(records)
{
    const uint64_t text = HEAD(STR, 1, 0), bytes = HEAD(BYTES, 1, 0), range = HEAD(RANGE, 0, 3);
    CHECK_EQ(is_valid(IMAGE(range, INT(0), INT(9), INT(-1))), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(range, INT(0), INT(9), INT(0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(range, INT(0), none, INT(1))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(range, REF(4), INT(0), INT(1), text)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(SLICE, 0, 3), none, REF(4), none, text)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(DECIMAL, 0, 1), REF(2), text)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(DECIMAL, 0, 1), REF(2), bytes)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(DECIMAL, 0, 1), none)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(GLOBAL, 0, 2), REF(3), REF(3), text)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(GLOBAL, 0, 2), REF(3), none, text)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(ENUM, 0, 2), REF(3), REF(3), text)), PLAIT_CORRUPT);
    CHECK_EQ(
        is_valid(IMAGE(HEAD(ENUM, 0, 2), REF(3), REF(6), HEAD(GLOBAL, 0, 2), REF(6), REF(6), text)),
        PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(PICKLE, 0, 1), REF(2), bytes)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(PICKLE, 0, 1), REF(2), text)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(PICKLE, 0, 2), REF(3), REF(3), bytes)), PLAIT_CORRUPT);
}

TEST(keys)
{
    const uint64_t list = HEAD(LIST, 0, 0), tuple = HEAD(TUPLE, 0, 0);
    CHECK_EQ(is_valid(IMAGE(HEAD(DICT, 0, 1), none, REF(3), list)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(DICT, 0, 1), REF(3), none, list)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(DICT, 0, 1), REF(3), none, tuple)), PLAIT_OK);
    CHECK_EQ(is_valid(IMAGE(HEAD(SET, 0, 1), REF(2), list)), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(FROZENSET, 0, 1), REF(2), HEAD(BYTEARRAY, 0, 0))), PLAIT_CORRUPT);
    CHECK_EQ(is_valid(IMAGE(HEAD(FROZENSET, 0, 1), REF(2), tuple)), PLAIT_OK);
}

/* ---- decoding is linear ---- */

/* A list that refers to one big body again and again: few bodies, but their bytes would be
 * quadratic. Also lists that overlap, each a word further on. */
TEST(bombs)
{
    enum { WORDS = 20000 };
    static uint64_t words[4 + 2 * WORDS];
    const size_t size = sizeof words;
    plait_flat_header_t header = {PLAIT_FLAT_MAGIC, PLAIT_FLAT_VERSION, 0, size, REF(0), 0};
    memcpy(words, &header, sizeof header);
    words[4] = HEAD(LIST, 0, WORDS - 1);
    for (size_t i = 1; i < WORDS; i++) {
        words[4 + i] = REF(WORDS);
        words[4 + WORDS + i] = none;
    }
    words[4 + WORDS] = HEAD(LIST, 0, WORDS - 1);
    CHECK_EQ(flat_walk(words, size), PLAIT_CORRUPT);
    CHECK_EQ(plait_flat_is_valid(words, size, &plait_alloc_system), PLAIT_CORRUPT);
    words[4 + WORDS] = HEAD(LIST, 1, WORDS - 1);
    CHECK_EQ(flat_walk(words, size), PLAIT_OK);
    CHECK_EQ(plait_flat_is_valid(words, size, &plait_alloc_system), PLAIT_OK);
    for (size_t i = 1; i < WORDS; i++) {
        words[4 + i] = REF(WORDS + i);
        words[4 + WORDS + i] = HEAD(LIST, 1, WORDS - 1 - i);
    }
    CHECK_EQ(flat_walk(words, size), PLAIT_CORRUPT);
    CHECK_EQ(plait_flat_is_valid(words, size, &plait_alloc_system), PLAIT_CORRUPT);
}

TEST(deep)
{
    enum { DEPTH = 100000 };
    plait_flat_writer_t writer;
    plait_flat_value_t root, outer, inner;
    void *message;
    size_t size;
    REQUIRE(plait_flat_writer_init(&writer, &plait_alloc_system, 0) == PLAIT_OK);
    REQUIRE(plait_flat_put_words(&writer, PLAIT_FLAT_LIST, 1, 1, &root) == PLAIT_OK);
    outer = root;
    for (int i = 0; i < DEPTH; i++, outer = inner) {
        REQUIRE(plait_flat_put_words(&writer, PLAIT_FLAT_LIST, 1, 1, &inner) == PLAIT_OK);
        plait_flat_set(&writer, outer, 0, inner);
    }
    REQUIRE(plait_flat_finish(&writer, root, 0, &message, &size) == PLAIT_OK);
    CHECK_EQ(flat_walk(message, size), PLAIT_DEPTH);
    CHECK_EQ(plait_flat_is_valid(message, size, &plait_alloc_system), PLAIT_OK);
    plait_alloc_system.release(plait_alloc_system.context, message);
}
