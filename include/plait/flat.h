/* flat: position-independent, immutable images of Python data.
 *
 * The same bytes are a task's message, a shared object and a file. docs/format/ specifies them byte
 * by byte; this header is the writer (values are put one by one, containers before their items, so
 * that cycles can be written) and the reader (bodies are looked up one by one, each access checked:
 * a reader never trusts its input). Neither knows Python: the binding turns objects into values and
 * back.
 *
 * A message is a header and then bodies, each 8-aligned. A *value* is one 64-bit word: a double as
 * it is, or one of three tags in the top 16 bits, which no double but some NaNs has: a 48-bit
 * integer, a constant, or a reference to a body (its offset / 8). A *body* is one head word (type,
 * flags, length) and its payload: bytes, or words that are values again.
 *
 * Design: docs/design/flat.md. Byte by byte: docs/format/flat.md.
 *
 * Threads: a writer belongs to one thread; a finished message may be read by any number of threads
 * at once.
 */
#ifndef PLAIT_FLAT_H
#define PLAIT_FLAT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "plait/alloc.h"
#include "plait/error.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the flat format is little-endian, and so must be the machine"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- values ---- */

typedef uint64_t plait_flat_value_t;

#define PLAIT_FLAT_TAG_INT UINT64_C(0xFFF9)   /* low 48 bits: two's complement */
#define PLAIT_FLAT_TAG_CONST UINT64_C(0xFFFA) /* low 48 bits: a PLAIT_FLAT_CONST_ */
#define PLAIT_FLAT_TAG_REF UINT64_C(0xFFFB)   /* low 48 bits: offset / 8 of a body */

enum {
    PLAIT_FLAT_NONE = 0,
    PLAIT_FLAT_FALSE = 1,
    PLAIT_FLAT_TRUE = 2,
    PLAIT_FLAT_ELLIPSIS = 3,
    PLAIT_FLAT_NOT_IMPLEMENTED = 4,
    PLAIT_FLAT_CONST_COUNT
};

#define PLAIT_FLAT_PAYLOAD_MASK ((UINT64_C(1) << 48) - 1)
#define PLAIT_FLAT_INT_MAX ((INT64_C(1) << 47) - 1)
#define PLAIT_FLAT_INT_MIN (-(INT64_C(1) << 47))

static inline bool plait_flat_is_double(plait_flat_value_t value)
{
    return (value >> 48) < PLAIT_FLAT_TAG_INT;
}

static inline bool plait_flat_is_int(plait_flat_value_t value)
{
    return (value >> 48) == PLAIT_FLAT_TAG_INT;
}

static inline bool plait_flat_is_const(plait_flat_value_t value)
{
    return (value >> 48) == PLAIT_FLAT_TAG_CONST;
}

static inline bool plait_flat_is_ref(plait_flat_value_t value)
{
    return (value >> 48) == PLAIT_FLAT_TAG_REF;
}

static inline plait_flat_value_t plait_flat_const(unsigned which)
{
    return (PLAIT_FLAT_TAG_CONST << 48) | which;
}

static inline bool plait_flat_int_fits(int64_t number)
{
    return number >= PLAIT_FLAT_INT_MIN && number <= PLAIT_FLAT_INT_MAX;
}

/* `number` must fit: larger integers are INT bodies. */
static inline plait_flat_value_t plait_flat_int(int64_t number)
{
    return (PLAIT_FLAT_TAG_INT << 48) | ((uint64_t)number & PLAIT_FLAT_PAYLOAD_MASK);
}

static inline int64_t plait_flat_to_int(plait_flat_value_t value)
{
    return (int64_t)(value << 16) >> 16;
}

/* True where the double's own bits serve as its value; else it is a NaN that needs a FLOAT body. */
static inline bool plait_flat_from_double(double number, plait_flat_value_t *value)
{
    memcpy(value, &number, sizeof number);
    return plait_flat_is_double(*value);
}

static inline double plait_flat_to_double(plait_flat_value_t value)
{
    double number;
    memcpy(&number, &value, sizeof number);
    return number;
}

/* ---- bodies ---- */

/* X(name, number, shape): BYTES: `length` bytes follow, padded with zeros to 8. FIXED_n: n bytes,
 * length is n. WORDS: `length` values follow. WORDS_n: n values, length is n. PAIRS: 2 * `length`
 * values. TEXT: `length` code points of the width in the flags, padded like BYTES. BUFFER: zeros up
 * to the next multiple of 64 from the message's start, then `length` bytes, padded like BYTES. */
#define PLAIT_FLAT_TYPES(X)                                                                        \
    X(INT, 1, BYTES)        /* magnitude, little-endian, no leading zeros; FLAG_NEGATIVE */        \
    X(FLOAT, 2, FIXED_8)    /* a NaN whose bits look like a tag */                                 \
    X(COMPLEX, 3, FIXED_16) /* real, imaginary */                                                  \
    X(STR, 4, TEXT)                                                                                \
    X(BYTES, 5, BYTES)                                                                             \
    X(BYTEARRAY, 6, BYTES)                                                                         \
    X(TUPLE, 7, WORDS)                                                                             \
    X(LIST, 8, WORDS)                                                                              \
    X(SET, 9, WORDS)                                                                               \
    X(FROZENSET, 10, WORDS)                                                                        \
    X(DICT, 11, PAIRS)                                                                             \
    X(RANGE, 12, WORDS_3)                                                                          \
    X(SLICE, 13, WORDS_3)                                                                          \
    X(DATE, 14, WORDS_3)      /* year, month, day */                                               \
    X(TIME, 15, WORDS_3)      /* microseconds since midnight, fold, tzinfo or None */              \
    X(DATETIME, 16, WORDS_2)  /* DATE body, TIME body */                                           \
    X(TIMEDELTA, 17, WORDS_3) /* days, seconds, microseconds */                                    \
    X(TIMEZONE, 18, WORDS_2)  /* TIMEDELTA body, name or None */                                   \
    X(UUID, 19, FIXED_16)     /* big-endian; is_safe is not kept */                                \
    X(DECIMAL, 20, WORDS_1)   /* its exact text */                                                 \
    X(GLOBAL, 21, WORDS_2)    /* module name, qualified name: a class or function by reference */  \
    X(ENUM, 22, WORDS_2)      /* its class (GLOBAL), member name */                                \
    X(BUFFER, 23, BUFFER)     /* aligned bytes; FLAG_READONLY */                                   \
    X(PICKLE, 24, WORDS)      /* BYTES body with a pickle-5, then its out-of-band BUFFERs */       \
    X(FUNCTION, 25, WORDS)    /* reserved */

enum {
#define PLAIT__DEFINE(name, number, shape) PLAIT_FLAT_##name = number,
    PLAIT_FLAT_TYPES(PLAIT__DEFINE)
#undef PLAIT__DEFINE
        PLAIT_FLAT_TYPE_END
};

/* Flags of a head, 8 bits. */
enum {
    PLAIT_FLAT_FLAG_SHARED = 1,   /* any type: more than one value refers to this body */
    PLAIT_FLAT_FLAG_NEGATIVE = 2, /* INT */
    PLAIT_FLAT_FLAG_READONLY = 2, /* BUFFER */
    PLAIT_FLAT_FLAG_INDEXED = 2,  /* DICT, SET, FROZENSET: reserved, rejected so far */
    PLAIT_FLAT_WIDTH_SHIFT = 1    /* STR: two bits, one of the widths below */
};

/* Widths: the narrowest that holds the text. Bytes per code point are 1, 1, 2, 4. */
enum { PLAIT_FLAT_ASCII = 0, PLAIT_FLAT_LATIN1 = 1, PLAIT_FLAT_UCS2 = 2, PLAIT_FLAT_UCS4 = 3 };

static inline uint64_t plait_flat_head(unsigned type, unsigned flags, uint64_t length)
{
    return (uint64_t)type | (uint64_t)flags << 8 | length << 16;
}

#define PLAIT_FLAT_LENGTH_MAX PLAIT_FLAT_PAYLOAD_MASK /* of a body, in its own units */
#define PLAIT_FLAT_SIZE_MAX (UINT64_C(1) << 51)       /* of a message: as far as references reach */

/* ---- the header of a message ---- */

#define PLAIT_FLAT_MAGIC UINT32_C(0x74696C70) /* "plit" */
#define PLAIT_FLAT_VERSION 1
#define PLAIT_FLAT_BUFFER_ALIGNMENT 64

enum { PLAIT_FLAT_HAS_CHECKSUM = 1 };

typedef struct plait_flat_header {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint64_t size;     /* of the whole message, a multiple of 8 */
    uint64_t root;     /* a value */
    uint64_t checksum; /* CRC-32C of all other bytes, or 0 */
} plait_flat_header_t;

_Static_assert(sizeof(plait_flat_header_t) == 32, "the header is 32 bytes");

/* ---- writing ---- */

typedef struct plait_flat_writer {
    const plait_alloc_t *alloc;
    unsigned char *base;
    size_t used;
    size_t capacity;
} plait_flat_writer_t;

/* `hint`: bytes expected, 0 where unknown. `alloc` outlives the writer. PLAIT_OK, PLAIT_TOO_BIG or
 * PLAIT_NOMEM; an error leaves nothing to free. */
int plait_flat_writer_init(plait_flat_writer_t *writer, const plait_alloc_t *alloc, size_t hint);

/* Frees the buffer; also fine after finish (which takes it away). */
void plait_flat_writer_fini(plait_flat_writer_t *writer);

/* Forgets what was written and keeps the buffer. */
void plait_flat_writer_reset(plait_flat_writer_t *writer);

/* Where the writer stands, and back to there: what was put since is forgotten. */
static inline size_t plait_flat_writer_mark(const plait_flat_writer_t *writer)
{
    return writer->used;
}

static inline void plait_flat_writer_rewind(plait_flat_writer_t *writer, size_t mark)
{
    if (mark == 0)
        plait_flat_writer_reset(writer); /* it had no block yet, or now has one */
    else
        writer->used = mark;
}

/* Slow path of plait__flat_extend. */
int plait__flat_grow(plait_flat_writer_t *writer, size_t extra);

/* Room for `size` more bytes (a multiple of 8), not initialised; *offset is where they start. */
static inline int plait__flat_extend(plait_flat_writer_t *writer, size_t size, size_t *offset)
{
    if (size > writer->capacity - writer->used) {
        int result = plait__flat_grow(writer, size);
        if (result != PLAIT_OK)
            return result;
    }
    *offset = writer->used;
    writer->used += size;
    return PLAIT_OK;
}

static inline plait_flat_value_t plait__flat_ref(size_t offset)
{
    return (PLAIT_FLAT_TAG_REF << 48) | (uint64_t)offset / 8;
}

/* Adds a body of `size` payload bytes, padded, which the caller knows not to be too big. As the
 * functions below. */
static inline int plait__flat_put_payload(plait_flat_writer_t *writer, uint64_t head,
                                          const void *data, size_t size, plait_flat_value_t *value)
{
    size_t offset, padded = (size + 7) & ~(size_t)7;
    int result = plait__flat_extend(writer, 8 + padded, &offset);
    if (result != PLAIT_OK)
        return result;
    unsigned char *body = writer->base + offset;
    /* Zeroes the last word, the padding's; without a payload that is the head's, written next. */
    memset(body + padded, 0, 8);
    memcpy(body, &head, sizeof head);
    if (size > 0)
        memcpy(body + 8, data, size);
    *value = plait__flat_ref(offset);
    return PLAIT_OK;
}

/* The functions below add one body and give the value that refers to it. They return PLAIT_OK,
 * PLAIT_NOMEM or PLAIT_TOO_BIG; after an error the writer is only good for reset and fini. */

/* A body of bytes (INT, BYTES, BYTEARRAY, FLOAT, COMPLEX, UUID): `data` is copied; it may be NULL
 * where size is 0. The caller keeps the type's rules: an INT is one that does not fit a value and
 * has no leading zeros, a FLOAT one that plait_flat_from_double refused. */
int plait_flat_put_bytes(plait_flat_writer_t *writer, unsigned type, unsigned flags,
                         const void *data, size_t size, plait_flat_value_t *value);

/* Text of `length` code points, stored at `width` as they are in memory; `width` is the narrowest
 * that holds them. */
int plait_flat_put_text(plait_flat_writer_t *writer, unsigned width, const void *data,
                        size_t length, plait_flat_value_t *value);

/* Likewise, for width ASCII: the quick way to put many texts. */
static inline int plait_flat_put_ascii(plait_flat_writer_t *writer, const void *data, size_t length,
                                       plait_flat_value_t *value)
{
    if (length > writer->capacity - writer->used)
        return plait_flat_put_text(writer, PLAIT_FLAT_ASCII, data, length, value);
    return plait__flat_put_payload(writer, plait_flat_head(PLAIT_FLAT_STR, 0, length), data, length,
                                   value);
}

/* A container of `words` values, all None until plait_flat_set fills them in. `length` is what the
 * head says (for DICT: words / 2). */
int plait_flat_put_words(plait_flat_writer_t *writer, unsigned type, size_t words, size_t length,
                         plait_flat_value_t *value);

/* A BUFFER of `size` bytes at a multiple of PLAIT_FLAT_BUFFER_ALIGNMENT from the message's start;
 * *data is where the caller writes all of them before the next put, which may move it. They are as
 * aligned in memory as the block that the allocator gave. */
int plait_flat_put_buffer(plait_flat_writer_t *writer, unsigned flags, size_t size, void **data,
                          plait_flat_value_t *value);

/* Sets word `index` of a container that put_words made. */
static inline void plait_flat_set(plait_flat_writer_t *writer, plait_flat_value_t container,
                                  size_t index, plait_flat_value_t item)
{
    size_t offset = (size_t)(container & PLAIT_FLAT_PAYLOAD_MASK) * 8 + 8 + index * 8;
    assert(plait_flat_is_ref(container) && offset + 8 <= writer->used);
    memcpy(writer->base + offset, &item, sizeof item);
}

/* Marks a body that a second value is about to refer to. */
static inline void plait_flat_mark_shared(plait_flat_writer_t *writer, plait_flat_value_t value)
{
    assert(plait_flat_is_ref(value));
    writer->base[(size_t)(value & PLAIT_FLAT_PAYLOAD_MASK) * 8 + 1] |= PLAIT_FLAT_FLAG_SHARED;
}

/* Writes the header; the message is [*message, *message + *size), owned by the caller (free it with
 * the writer's allocator; the block may be larger than the message, resize shrinks it); the writer
 * is empty afterwards and can be used again. `flags`: 0 or PLAIT_FLAT_HAS_CHECKSUM, else
 * PLAIT_INVALID. */
int plait_flat_finish(plait_flat_writer_t *writer, plait_flat_value_t root, unsigned flags,
                      void **message, size_t *size);

/* Likewise, but copies the message to the caller's `room` (aligned to 8) and keeps the block for
 * the next one. PLAIT_FULL, with the writer as it was, if it does not fit. */
int plait_flat_finish_into(plait_flat_writer_t *writer, plait_flat_value_t root, unsigned flags,
                           void *room, size_t capacity, size_t *size);

/* ---- reading ---- */

typedef struct plait_flat_reader {
    const unsigned char *base;
    size_t size;
    uint64_t root;
} plait_flat_reader_t;

typedef struct plait_flat_body {
    unsigned type; /* one of PLAIT_FLAT_TYPES, its shape checked */
    unsigned flags;
    uint64_t length;            /* as in the head: bytes, code points, values or pairs */
    const unsigned char *bytes; /* the payload */
    size_t byte_count;          /* of the payload without padding */
    size_t words;               /* values in it; 0 for bodies of bytes */
} plait_flat_body_t;

/* Checks the header: magic, version, flags, that its size is `size`, and the checksum where there
 * is one. `message` is aligned to 8 (else PLAIT_INVALID) and stays where it is while the reader is
 * used. PLAIT_OK, PLAIT_CORRUPT, or PLAIT_UNSUPPORTED for another version of the format. */
int plait_flat_open(plait_flat_reader_t *reader, const void *message, size_t size);

/* True for a double, an integer, a constant that exists, or any reference; false for what no value
 * is. */
static inline bool plait_flat_is_value(plait_flat_value_t value)
{
    return (value >> 48) <= PLAIT_FLAT_TAG_REF &&
           (!plait_flat_is_const(value) ||
            (value & PLAIT_FLAT_PAYLOAD_MASK) < PLAIT_FLAT_CONST_COUNT);
}

/* What plait_flat_get checks of each type. */
typedef struct plait__flat_shape {
    uint64_t length_least;
    uint64_t length_spread; /* lengths are length_least to length_least + length_spread */
    uint8_t shift[4];       /* bytes per unit of length, as a power of two, by the flags' width */
    uint8_t flags;          /* all that may be set */
    uint8_t start_mask;     /* the payload's alignment - 1 */
    uint8_t is_words;
} plait__flat_shape_t;

extern const plait__flat_shape_t plait__flat_shapes[PLAIT_FLAT_TYPE_END];

/* Looks up the body that a REF value names, checking offset, type, flags, length and bounds. O(1);
 * it does not look into the payload. PLAIT_OK, or PLAIT_CORRUPT (also for what is not a REF), then
 * *body is untouched. A STR body's code points are checked against its width by
 * plait_flat_check_text, since that is O(n). */
static inline int plait_flat_get(const plait_flat_reader_t *reader, plait_flat_value_t ref,
                                 plait_flat_body_t *body)
{
    uint64_t offset = (ref & PLAIT_FLAT_PAYLOAD_MASK) << 3;
    /* Both sides are multiples of 8, so the whole head lies inside. */
    if (!plait_flat_is_ref(ref) ||
        offset - sizeof(plait_flat_header_t) >= reader->size - sizeof(plait_flat_header_t))
        return PLAIT_CORRUPT;
    uint64_t head;
    memcpy(&head, reader->base + offset, sizeof head);
    unsigned type = head & 0xFF, flags = (head >> 8) & 0xFF;
    uint64_t length = head >> 16;
    if (type >= PLAIT_FLAT_TYPE_END)
        return PLAIT_CORRUPT;
    const plait__flat_shape_t *shape = &plait__flat_shapes[type];
    uint64_t start = (offset + 8 + shape->start_mask) & ~(uint64_t)shape->start_mask;
    uint64_t count = length << shape->shift[(flags >> PLAIT_FLAT_WIDTH_SHIFT) & 3];
    if ((flags & ~(unsigned)shape->flags) != 0 ||
        length - shape->length_least > shape->length_spread || start > reader->size ||
        count > reader->size - start)
        return PLAIT_CORRUPT;
    body->type = type;
    body->flags = flags;
    body->length = length;
    body->bytes = reader->base + start;
    body->byte_count = (size_t)count;
    body->words = shape->is_words ? (size_t)count / 8 : 0;
    return PLAIT_OK;
}

/* Whether the code points are what the width promises (also: not all would fit the next narrower
 * one). PLAIT_OK or PLAIT_CORRUPT. */
int plait_flat_check_text(const plait_flat_body_t *body);

/* Likewise, for a text of width ASCII, and quicker. */
static inline bool plait_flat_is_ascii(const plait_flat_body_t *body)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < body->byte_count;
         i += sizeof bits) { /* with the padding, which is zero */
        uint64_t word;
        memcpy(&word, body->bytes + i, sizeof word);
        bits |= word;
    }
    return (bits & UINT64_C(0x8080808080808080)) == 0;
}

/* Word `index` (< body->words) of a body of values. */
static inline plait_flat_value_t plait_flat_word(const plait_flat_body_t *body, size_t index)
{
    plait_flat_value_t value;
    memcpy(&value, body->bytes + index * 8, sizeof value);
    return value;
}

/* The most bodies that a well-formed message of this size can hold. It bounds how many a decoder
 * visits, not how many bytes it copies: see plait_flat_charge. */
static inline size_t plait_flat_body_limit(const plait_flat_reader_t *reader)
{
    return reader->size / 8;
}

/* What makes decoding linear whatever the message says. A decoder starts with *budget = reader.size
 * and charges every body that it builds; one it has built and remembers (FLAG_SHARED) is free.
 * Well-formed bodies do not overlap and are built once, so they cost no more than the message's
 * size; PLAIT_CORRUPT beyond. */
static inline int plait_flat_charge(size_t *budget, const plait_flat_body_t *body)
{
    /* A payload lies inside the message, whose size is a multiple of 8: rounding up cannot
     * overflow. */
    size_t span = sizeof(uint64_t) + ((body->byte_count + 7) & ~(size_t)7);
    if (span > *budget)
        return PLAIT_CORRUPT;
    *budget -= span;
    return PLAIT_OK;
}

/* Walks the whole message without recursion, in linear time: that bodies follow each other without
 * gap or overlap, every value and reference, every flag, every text, every padding byte, what each
 * type says of its items, and that bodies referred to twice say so. For files, tests and fuzzing.
 * What plait_flat_open answers, or PLAIT_CORRUPT, or PLAIT_NOMEM (it takes a quarter of a bit per
 * byte). */
int plait_flat_is_valid(const void *message, size_t size, const plait_alloc_t *alloc);

#ifdef __cplusplus
}
#endif
#endif
