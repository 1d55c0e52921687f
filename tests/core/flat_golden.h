/* flat_golden: the messages of tests/core/golden, each built by a function of its own.
 *
 * The files guard the format: a change of any byte of them is a change of docs/format/flat.md and
 * of its version. Together they have every type. For test_flat_golden only.
 */
#ifndef PLAIT_TESTS_CORE_FLAT_GOLDEN_H
#define PLAIT_TESTS_CORE_FLAT_GOLDEN_H

#include <stdlib.h>

#include "plait/flat.h"

typedef plait_flat_writer_t golden_writer_t;
typedef plait_flat_value_t golden_value_t;

#define GOLDEN_NONE plait_flat_const(PLAIT_FLAT_NONE)

static inline void golden_require(int result)
{
    if (result != PLAIT_OK)
        abort();
}

/* ---- bodies ---- */

static inline golden_value_t golden_bytes(golden_writer_t *writer, unsigned type, unsigned flags,
                                          const void *data, size_t size)
{
    golden_value_t value;
    golden_require(plait_flat_put_bytes(writer, type, flags, data, size, &value));
    return value;
}

static inline golden_value_t golden_text(golden_writer_t *writer, unsigned width, const void *data,
                                         size_t length)
{
    golden_value_t value;
    golden_require(plait_flat_put_text(writer, width, data, length, &value));
    return value;
}

static inline golden_value_t golden_ascii(golden_writer_t *writer, const char *text)
{
    return golden_text(writer, PLAIT_FLAT_ASCII, text, strlen(text));
}

static inline golden_value_t golden_words(golden_writer_t *writer, unsigned type, size_t words)
{
    golden_value_t value;
    size_t length = type == PLAIT_FLAT_DICT ? words / 2 : words;
    golden_require(plait_flat_put_words(writer, type, words, length, &value));
    return value;
}

/* Words that are set at once; items are put before their container, which is as good. */
static inline golden_value_t golden_record(golden_writer_t *writer, unsigned type, size_t count,
                                           const golden_value_t *items)
{
    golden_value_t value = golden_words(writer, type, count);
    for (size_t i = 0; i < count; i++)
        plait_flat_set(writer, value, i, items[i]);
    return value;
}

#define GOLDEN_RECORD(writer, type, ...)                                                           \
    golden_record(writer, type, sizeof((golden_value_t[]){__VA_ARGS__}) / sizeof(golden_value_t),  \
                  (golden_value_t[]){__VA_ARGS__})

static inline golden_value_t golden_buffer(golden_writer_t *writer, unsigned flags, size_t size)
{
    golden_value_t value;
    void *data;
    golden_require(plait_flat_put_buffer(writer, flags, size, &data, &value));
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)data)[i] = (unsigned char)(i + 1);
    return value;
}

static inline golden_value_t golden_timedelta(golden_writer_t *writer, int days, int seconds,
                                              int micros)
{
    return GOLDEN_RECORD(writer, PLAIT_FLAT_TIMEDELTA, plait_flat_int(days),
                         plait_flat_int(seconds), plait_flat_int(micros));
}

/* ---- messages ---- */

/* None */
static inline golden_value_t golden_none(golden_writer_t *writer)
{
    return GOLDEN_NONE;
}

/* (None, False, True, ..., NotImplemented, 0, -1, 2**47 - 1, -2**47, 0.0, -0.0, 1.5, inf, -nan) */
static inline golden_value_t golden_values(golden_writer_t *writer)
{
    return GOLDEN_RECORD(writer, PLAIT_FLAT_TUPLE, GOLDEN_NONE, plait_flat_const(PLAIT_FLAT_FALSE),
                         plait_flat_const(PLAIT_FLAT_TRUE), plait_flat_const(PLAIT_FLAT_ELLIPSIS),
                         plait_flat_const(PLAIT_FLAT_NOT_IMPLEMENTED), plait_flat_int(0),
                         plait_flat_int(-1), plait_flat_int(PLAIT_FLAT_INT_MAX),
                         plait_flat_int(PLAIT_FLAT_INT_MIN), 0, UINT64_C(0x8000000000000000),
                         UINT64_C(0x3FF8000000000000), UINT64_C(0x7FF0000000000000),
                         UINT64_C(0xFFF8000000000000));
}

/* [2**47, -2**47 - 1, 2**64 + 2, a NaN with the bits FFFB000000000004, 1.5-2j] */
static inline golden_value_t golden_numbers(golden_writer_t *writer)
{
    static const unsigned char above[6] = {0, 0, 0, 0, 0, 0x80}, below[6] = {1, 0, 0, 0, 0, 0x80};
    static const unsigned char wide[9] = {2, 0, 0, 0, 0, 0, 0, 0, 1};
    const uint64_t nan_bits = UINT64_C(0xFFFB000000000004);
    const double parts[2] = {1.5, -2.0};
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 5);
    plait_flat_set(writer, list, 0, golden_bytes(writer, PLAIT_FLAT_INT, 0, above, 6));
    plait_flat_set(writer, list, 1,
                   golden_bytes(writer, PLAIT_FLAT_INT, PLAIT_FLAT_FLAG_NEGATIVE, below, 6));
    plait_flat_set(writer, list, 2, golden_bytes(writer, PLAIT_FLAT_INT, 0, wide, 9));
    plait_flat_set(writer, list, 3, golden_bytes(writer, PLAIT_FLAT_FLOAT, 0, &nan_bits, 8));
    plait_flat_set(writer, list, 4, golden_bytes(writer, PLAIT_FLAT_COMPLEX, 0, parts, 16));
    return list;
}

/* ["", "plait", "tress\u00e9", "\u7de8\u3080", "\U0001f9f5!"] */
static inline golden_value_t golden_texts(golden_writer_t *writer)
{
    static const uint16_t medium[2] = {0x7DE8, 0x3080};
    static const uint32_t wide[2] = {0x1F9F5, '!'};
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 5);
    plait_flat_set(writer, list, 0, golden_ascii(writer, ""));
    plait_flat_set(writer, list, 1, golden_ascii(writer, "plait"));
    plait_flat_set(writer, list, 2, golden_text(writer, PLAIT_FLAT_LATIN1, "tress\xe9", 6));
    plait_flat_set(writer, list, 3, golden_text(writer, PLAIT_FLAT_UCS2, medium, 2));
    plait_flat_set(writer, list, 4, golden_text(writer, PLAIT_FLAT_UCS4, wide, 2));
    return list;
}

/* [b"", b"flat", b"12345678", bytearray(b"\0\1"), UUID("00112233-4455-6677-8899-aabbccddeeff")] */
static inline golden_value_t golden_bytes_message(golden_writer_t *writer)
{
    unsigned char uuid[16];
    for (unsigned i = 0; i < 16; i++)
        uuid[i] = (unsigned char)(i * 0x11);
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 5);
    plait_flat_set(writer, list, 0, golden_bytes(writer, PLAIT_FLAT_BYTES, 0, NULL, 0));
    plait_flat_set(writer, list, 1, golden_bytes(writer, PLAIT_FLAT_BYTES, 0, "flat", 4));
    plait_flat_set(writer, list, 2, golden_bytes(writer, PLAIT_FLAT_BYTES, 0, "12345678", 8));
    plait_flat_set(writer, list, 3, golden_bytes(writer, PLAIT_FLAT_BYTEARRAY, 0, "\0\1", 2));
    plait_flat_set(writer, list, 4, golden_bytes(writer, PLAIT_FLAT_UUID, 0, uuid, 16));
    return list;
}

/* {"set": {1}, 2: frozenset({(), 3}), None: [[]]} */
static inline golden_value_t golden_containers(golden_writer_t *writer)
{
    golden_value_t dict = golden_words(writer, PLAIT_FLAT_DICT, 6);
    golden_value_t tuple = golden_words(writer, PLAIT_FLAT_TUPLE, 0);
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 0);
    plait_flat_set(writer, dict, 0, golden_ascii(writer, "set"));
    plait_flat_set(writer, dict, 1, GOLDEN_RECORD(writer, PLAIT_FLAT_SET, plait_flat_int(1)));
    plait_flat_set(writer, dict, 2, plait_flat_int(2));
    plait_flat_set(writer, dict, 3,
                   GOLDEN_RECORD(writer, PLAIT_FLAT_FROZENSET, tuple, plait_flat_int(3)));
    plait_flat_set(writer, dict, 4, GOLDEN_NONE);
    plait_flat_set(writer, dict, 5, GOLDEN_RECORD(writer, PLAIT_FLAT_LIST, list));
    return dict;
}

/* x = ["hi"]; x.append(x); x */
static inline golden_value_t golden_cycle(golden_writer_t *writer)
{
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 2);
    plait_flat_set(writer, list, 0, golden_ascii(writer, "hi"));
    plait_flat_mark_shared(writer, list);
    plait_flat_set(writer, list, 1, list);
    return list;
}

/* (range(0, 2**47, 3), slice(None, "b", x), x) with x = {} */
static inline golden_value_t golden_ranges(golden_writer_t *writer)
{
    static const unsigned char stop[6] = {0, 0, 0, 0, 0, 0x80};
    golden_value_t tuple = golden_words(writer, PLAIT_FLAT_TUPLE, 3);
    golden_value_t dict = golden_words(writer, PLAIT_FLAT_DICT, 0);
    golden_value_t text = golden_ascii(writer, "b");
    golden_value_t limit = golden_bytes(writer, PLAIT_FLAT_INT, 0, stop, 6);
    plait_flat_mark_shared(writer, dict);
    plait_flat_set(
        writer, tuple, 0,
        GOLDEN_RECORD(writer, PLAIT_FLAT_RANGE, plait_flat_int(0), limit, plait_flat_int(3)));
    plait_flat_set(writer, tuple, 1,
                   GOLDEN_RECORD(writer, PLAIT_FLAT_SLICE, GOLDEN_NONE, text, dict));
    plait_flat_set(writer, tuple, 2, dict);
    return tuple;
}

/* [datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-1), "west"), fold=1),
 *  date(1, 1, 1), time(0, 0, 1), timedelta(-999999999), timezone.utc] */
static inline golden_value_t golden_times(golden_writer_t *writer)
{
    const golden_value_t last = plait_flat_int(INT64_C(86399999999));
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 5);
    golden_value_t offset = golden_timedelta(writer, -1, 82800, 0);
    golden_value_t zone =
        GOLDEN_RECORD(writer, PLAIT_FLAT_TIMEZONE, offset, golden_ascii(writer, "west"));
    golden_value_t date = GOLDEN_RECORD(writer, PLAIT_FLAT_DATE, plait_flat_int(2024),
                                        plait_flat_int(2), plait_flat_int(29));
    golden_value_t time = GOLDEN_RECORD(writer, PLAIT_FLAT_TIME, last, plait_flat_int(1), zone);
    plait_flat_set(writer, list, 0, GOLDEN_RECORD(writer, PLAIT_FLAT_DATETIME, date, time));
    date = GOLDEN_RECORD(writer, PLAIT_FLAT_DATE, plait_flat_int(1), plait_flat_int(1),
                         plait_flat_int(1));
    plait_flat_set(writer, list, 1, date);
    time = GOLDEN_RECORD(writer, PLAIT_FLAT_TIME, plait_flat_int(1000000), plait_flat_int(0),
                         GOLDEN_NONE);
    plait_flat_set(writer, list, 2, time);
    plait_flat_set(writer, list, 3, golden_timedelta(writer, -999999999, 0, 0));
    offset = golden_timedelta(writer, 0, 0, 0);
    plait_flat_set(writer, list, 4,
                   GOLDEN_RECORD(writer, PLAIT_FLAT_TIMEZONE, offset, GOLDEN_NONE));
    return list;
}

/* (Decimal("-1.50"), socket.AddressFamily, socket.AddressFamily.AF_UNIX) */
static inline golden_value_t golden_names(golden_writer_t *writer)
{
    golden_value_t tuple = golden_words(writer, PLAIT_FLAT_TUPLE, 3);
    golden_value_t text = golden_ascii(writer, "-1.50");
    plait_flat_set(writer, tuple, 0, GOLDEN_RECORD(writer, PLAIT_FLAT_DECIMAL, text));
    golden_value_t module = golden_ascii(writer, "socket");
    golden_value_t name = golden_ascii(writer, "AddressFamily");
    golden_value_t class = GOLDEN_RECORD(writer, PLAIT_FLAT_GLOBAL, module, name);
    plait_flat_mark_shared(writer, class);
    plait_flat_set(writer, tuple, 1, class);
    text = golden_ascii(writer, "AF_UNIX");
    plait_flat_set(writer, tuple, 2, GOLDEN_RECORD(writer, PLAIT_FLAT_ENUM, class, text));
    return tuple;
}

/* [a read-only buffer of 5 bytes, an empty one, a pickle of a PickleBuffer with its 70 bytes out of
 * band] */
static inline golden_value_t golden_buffers(golden_writer_t *writer)
{
    static const unsigned char pickle[] = {0x80, 5, 0x97, '.'}; /* PROTO 5, NEXT_BUFFER, STOP */
    golden_value_t list = golden_words(writer, PLAIT_FLAT_LIST, 3);
    plait_flat_set(writer, list, 0, golden_buffer(writer, PLAIT_FLAT_FLAG_READONLY, 5));
    plait_flat_set(writer, list, 1, golden_buffer(writer, 0, 0));
    golden_value_t bytes = golden_bytes(writer, PLAIT_FLAT_BYTES, 0, pickle, sizeof pickle);
    golden_value_t buffer = golden_buffer(writer, 0, 70);
    plait_flat_set(writer, list, 2, GOLDEN_RECORD(writer, PLAIT_FLAT_PICKLE, bytes, buffer));
    return list;
}

typedef struct golden {
    const char *name;
    golden_value_t (*build)(golden_writer_t *writer);
    unsigned flags;
} golden_t;

static const golden_t goldens[] = {
    {"none", golden_none, 0},           {"values", golden_values, 0},
    {"numbers", golden_numbers, 0},     {"texts", golden_texts, 0},
    {"bytes", golden_bytes_message, 0}, {"containers", golden_containers, 0},
    {"cycle", golden_cycle, 0},         {"cycle_checksum", golden_cycle, PLAIT_FLAT_HAS_CHECKSUM},
    {"ranges", golden_ranges, 0},       {"times", golden_times, 0},
    {"names", golden_names, 0},         {"buffers", golden_buffers, 0},
};

enum { GOLDEN_COUNT = sizeof goldens / sizeof *goldens };

/* The message in a block of exactly its size, freed by the caller. */
static inline unsigned char *golden_build(const golden_t *golden, unsigned flags, size_t *size)
{
    golden_writer_t writer;
    void *message;
    golden_require(plait_flat_writer_init(&writer, &plait_alloc_system, 0));
    golden_require(plait_flat_finish(&writer, golden->build(&writer), flags, &message, size));
    message = plait_alloc_system.resize(plait_alloc_system.context, message, *size);
    if (message == NULL)
        abort();
    return message;
}

#endif
