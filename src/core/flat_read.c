/* flat, the reader: the header, and what each type's head may say.
 *
 * Invariants: no byte outside [message, message + size) is read, whatever the message says; nothing
 * here keeps state. Any thread; a message may be read by many at once. is_valid is in flat_valid.c.
 * Design: docs/design/flat.md; the bytes and what is rejected: docs/format/flat.md
 */
#include "plait/flat.h"

#include "checksum.h"
#include "flat_check.h"

/* Shapes by name: least length, spread, alignment - 1, is_words, the shift for each width. */
#define ANY(least) (least), PLAIT_FLAT_LENGTH_MAX - (least)
#define SHAPE_BYTES(least) ANY(least), 7, 0, 0, 0, 0, 0
#define SHAPE_FIXED_8(least) 8, 0, 7, 0, 0, 0, 0, 0
#define SHAPE_FIXED_16(least) 16, 0, 7, 0, 0, 0, 0, 0
#define SHAPE_TEXT(least) ANY(least), 7, 0, 0, 0, 1, 2
#define SHAPE_WORDS(least) ANY(least), 7, 1, 3, 3, 3, 3
#define SHAPE_WORDS_1(least) 1, 0, 7, 1, 3, 3, 3, 3
#define SHAPE_WORDS_2(least) 2, 0, 7, 1, 3, 3, 3, 3
#define SHAPE_WORDS_3(least) 3, 0, 7, 1, 3, 3, 3, 3
#define SHAPE_PAIRS(least) ANY(least), 7, 1, 4, 4, 4, 4
#define SHAPE_BUFFER(least) ANY(least), PLAIT_FLAT_BUFFER_ALIGNMENT - 1, 0, 0, 0, 0, 0

/* An INT of fewer than 6 bytes would fit a value; a PICKLE has its BYTES. */
#define LEAST(number) ((number) == PLAIT_FLAT_INT ? 6 : (number) == PLAIT_FLAT_PICKLE ? 1 : 0)
#define FLAGS(number)                                                                              \
    (PLAIT_FLAT_FLAG_SHARED | ((number) == PLAIT_FLAT_INT      ? PLAIT_FLAT_FLAG_NEGATIVE          \
                               : (number) == PLAIT_FLAT_BUFFER ? PLAIT_FLAT_FLAG_READONLY          \
                               : (number) == PLAIT_FLAT_STR    ? 3 << PLAIT_FLAT_WIDTH_SHIFT       \
                                                               : 0))

#define SHAPE_ENTRY(flags, ...) SHAPE_ENTRY_(flags, __VA_ARGS__)
#define SHAPE_ENTRY_(all, least, spread, mask, words, s0, s1, s2, s3)                              \
    {.length_least = (least),                                                                      \
     .length_spread = (spread),                                                                    \
     .shift = {s0, s1, s2, s3},                                                                    \
     .flags = (all),                                                                               \
     .start_mask = (mask),                                                                         \
     .is_words = (words)},

const plait__flat_shape_t plait__flat_shapes[PLAIT_FLAT_TYPE_END] = {
    {.length_least = UINT64_MAX}, /* type 0 is none: no length is right */
#define DEFINE(name, number, shape)                                                                \
    [number] = SHAPE_ENTRY(FLAGS(number), SHAPE_##shape(LEAST(number)))
    PLAIT_FLAT_TYPES(DEFINE)
#undef DEFINE
};

uint32_t plait__flat_checksum(const unsigned char *message, size_t size)
{
    const size_t field = offsetof(plait_flat_header_t, checksum);
    const size_t end = sizeof(plait_flat_header_t);
    uint32_t crc = plait_checksum_crc32c(0, message, field);
    return plait_checksum_crc32c(crc, message + end, size - end);
}

int plait_flat_open(plait_flat_reader_t *reader, const void *message, size_t size)
{
    plait_flat_header_t header;
    if ((uintptr_t)message % 8 != 0)
        return PLAIT_INVALID;
    if (size < sizeof header)
        return PLAIT_CORRUPT;
    memcpy(&header, message, sizeof header);
    if (header.magic != PLAIT_FLAT_MAGIC)
        return PLAIT_CORRUPT;
    if (header.version != PLAIT_FLAT_VERSION)
        return PLAIT_UNSUPPORTED;
    if (header.size != size || size % 8 != 0 || size > PLAIT_FLAT_SIZE_MAX)
        return PLAIT_CORRUPT;
    uint64_t expected = 0;
    if (header.flags == PLAIT_FLAT_HAS_CHECKSUM)
        expected = plait__flat_checksum(message, size);
    else if (header.flags != 0)
        return PLAIT_CORRUPT;
    if (header.checksum != expected)
        return PLAIT_CORRUPT;
    *reader = (plait_flat_reader_t){.base = message, .size = size, .root = header.root};
    return PLAIT_OK;
}

/* All bits of the payload that `mask` selects, ORed. */
static uint64_t any_bits(const plait_flat_body_t *body, uint64_t mask)
{
    uint64_t bits = 0, word = 0;
    size_t i = 0;
    for (; i + 8 <= body->byte_count; i += 8) {
        memcpy(&word, body->bytes + i, sizeof word);
        bits |= word;
    }
    word = 0;
    if (i < body->byte_count)
        memcpy(&word, body->bytes + i, body->byte_count - i);
    return (bits | word) & mask;
}

static uint32_t largest(const plait_flat_body_t *body)
{
    uint32_t most = 0;
    for (size_t i = 0; i < body->byte_count; i += 4) {
        uint32_t point;
        memcpy(&point, body->bytes + i, sizeof point);
        most = point > most ? point : most;
    }
    return most;
}

int plait_flat_check_text(const plait_flat_body_t *body)
{
    bool good = false;
    switch ((body->flags >> PLAIT_FLAT_WIDTH_SHIFT) & 3) {
    case PLAIT_FLAT_ASCII:
        good = plait_flat_is_ascii(body);
        break;
    case PLAIT_FLAT_LATIN1:
        good = any_bits(body, UINT64_C(0x8080808080808080)) != 0;
        break;
    case PLAIT_FLAT_UCS2:
        good = any_bits(body, UINT64_C(0xFF00FF00FF00FF00)) != 0;
        break;
    case PLAIT_FLAT_UCS4: {
        uint32_t most = largest(body);
        good = most >= 0x10000 && most <= 0x10FFFF;
        break;
    }
    }
    return good ? PLAIT_OK : PLAIT_CORRUPT;
}
