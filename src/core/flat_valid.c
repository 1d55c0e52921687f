/* flat, the validator: whether a message keeps every rule of the format.
 *
 * Two passes over the bodies as they lie, no recursion: the first finds where they start and checks
 * what each says of itself, the second checks what they say of each other. Time is linear in the
 * message's size. Invariants: as flat_read.c. Any thread. Design: docs/design/flat.md; the rules:
 * docs/format/flat.md
 */
#include "plait/flat.h"

#define MASK_OF(type) (UINT32_C(1) << (type))
#define NEVER_HASHABLE                                                                             \
    (MASK_OF(PLAIT_FLAT_LIST) | MASK_OF(PLAIT_FLAT_DICT) | MASK_OF(PLAIT_FLAT_SET) |               \
     MASK_OF(PLAIT_FLAT_BYTEARRAY))

typedef struct walk {
    plait_flat_reader_t reader;
    uint64_t *starts; /* a bit per word of the message: a body starts here */
    uint64_t *seen;   /* the same: a value refers to it */
} walk_t;

static bool test_bit(const uint64_t *bits, size_t index)
{
    return (bits[index / 64] >> (index % 64)) & 1;
}

static void set_bit(uint64_t *bits, size_t index)
{
    bits[index / 64] |= UINT64_C(1) << (index % 64);
}

static bool is_zero(const unsigned char *from, const unsigned char *end)
{
    unsigned char bits = 0;
    while (from < end)
        bits |= *from++;
    return bits == 0;
}

/* ---- a body by itself ---- */

/* An INT has no other form: no leading zeros, and it would not fit a value. */
static bool is_canonical_int(const plait_flat_body_t *body)
{
    uint64_t magnitude = 0;
    if (body->bytes[body->byte_count - 1] == 0)
        return false;
    if (body->byte_count > 6)
        return true;
    memcpy(&magnitude, body->bytes, body->byte_count);
    return magnitude >
           (uint64_t)PLAIT_FLAT_INT_MAX + (body->flags & PLAIT_FLAT_FLAG_NEGATIVE ? 1 : 0);
}

static bool is_body_good(const plait_flat_body_t *body)
{
    switch (body->type) {
    case PLAIT_FLAT_INT:
        return is_canonical_int(body);
    case PLAIT_FLAT_FLOAT:
        return !plait_flat_is_double(plait_flat_word(body, 0));
    case PLAIT_FLAT_STR:
        return plait_flat_check_text(body) == PLAIT_OK;
    case PLAIT_FLAT_FUNCTION:
        return false; /* reserved */
    default:
        return true;
    }
}

static int find_bodies(walk_t *walk)
{
    size_t offset = sizeof(plait_flat_header_t);
    while (offset < walk->reader.size) {
        plait_flat_body_t body;
        int result = plait_flat_get(&walk->reader, plait__flat_ref(offset), &body);
        if (result != PLAIT_OK)
            return result;
        const unsigned char *end = body.bytes + body.byte_count;
        const unsigned char *next = end + (-(uintptr_t)body.byte_count & 7);
        if (!is_zero(walk->reader.base + offset + 8, body.bytes) || !is_zero(end, next) ||
            !is_body_good(&body))
            return PLAIT_CORRUPT;
        set_bit(walk->starts, offset / 8);
        offset = (size_t)(next - walk->reader.base);
    }
    return PLAIT_OK;
}

/* ---- what bodies say of each other ---- */

/* Takes note of a value wherever one stands. */
static bool note_value(walk_t *walk, plait_flat_value_t value)
{
    if (!plait_flat_is_ref(value))
        return plait_flat_is_value(value);
    uint64_t index = value & PLAIT_FLAT_PAYLOAD_MASK;
    if (index >= walk->reader.size / 8 || !test_bit(walk->starts, (size_t)index))
        return false;
    if (test_bit(walk->seen, (size_t)index))
        return (walk->reader.base[index * 8 + 1] & PLAIT_FLAT_FLAG_SHARED) != 0;
    set_bit(walk->seen, (size_t)index);
    return true;
}

/* The functions below come after note_value: references are good by then. */

static bool is_of_type(const walk_t *walk, plait_flat_value_t value, uint32_t types)
{
    return plait_flat_is_ref(value) &&
           (types >> walk->reader.base[(value & PLAIT_FLAT_PAYLOAD_MASK) * 8] & 1) != 0;
}

static bool is_of_type_or_none(const walk_t *walk, plait_flat_value_t value, uint32_t types)
{
    return value == plait_flat_const(PLAIT_FLAT_NONE) || is_of_type(walk, value, types);
}

static bool is_between(plait_flat_value_t value, int64_t least, int64_t most)
{
    int64_t number = plait_flat_to_int(value);
    return plait_flat_is_int(value) && number >= least && number <= most;
}

static bool is_date(const plait_flat_value_t word[3])
{
    static const unsigned char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (!is_between(word[0], 1, 9999) || !is_between(word[1], 1, 12))
        return false;
    int64_t year = plait_flat_to_int(word[0]), month = plait_flat_to_int(word[1]);
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return is_between(word[2], 1, days[month - 1] + (month == 2 && is_leap ? 1 : 0));
}

static bool is_timedelta(const plait_flat_value_t word[3])
{
    return is_between(word[0], -999999999, 999999999) && is_between(word[1], 0, 86399) &&
           is_between(word[2], 0, 999999);
}

/* Strictly between minus and plus one day, as Python has it. */
static bool is_timezone(const walk_t *walk, const plait_flat_value_t word[2])
{
    plait_flat_body_t delta;
    if (!is_of_type(walk, word[0], MASK_OF(PLAIT_FLAT_TIMEDELTA)) ||
        !is_of_type_or_none(walk, word[1], MASK_OF(PLAIT_FLAT_STR)) ||
        plait_flat_get(&walk->reader, word[0], &delta) != PLAIT_OK)
        return false;
    if (plait_flat_word(&delta, 0) == plait_flat_int(0))
        return true;
    return plait_flat_word(&delta, 0) == plait_flat_int(-1) &&
           (plait_flat_word(&delta, 1) != plait_flat_int(0) ||
            plait_flat_word(&delta, 2) != plait_flat_int(0));
}

static bool is_range(const walk_t *walk, const plait_flat_value_t word[3])
{
    for (int i = 0; i < 3; i++)
        if (!plait_flat_is_int(word[i]) && !is_of_type(walk, word[i], MASK_OF(PLAIT_FLAT_INT)))
            return false;
    return word[2] != plait_flat_int(0);
}

/* Bodies of one to three words whose items have types of their own. */
static bool is_record(const walk_t *walk, const plait_flat_body_t *body)
{
    plait_flat_value_t word[3] = {0, 0, 0};
    const uint32_t str = MASK_OF(PLAIT_FLAT_STR);
    memcpy(word, body->bytes, body->byte_count);
    switch (body->type) {
    case PLAIT_FLAT_RANGE:
        return is_range(walk, word);
    case PLAIT_FLAT_DATE:
        return is_date(word);
    case PLAIT_FLAT_TIME:
        return is_between(word[0], 0, INT64_C(86400) * 1000000 - 1) && is_between(word[1], 0, 1) &&
               is_of_type_or_none(walk, word[2], ~UINT32_C(0));
    case PLAIT_FLAT_DATETIME:
        return is_of_type(walk, word[0], MASK_OF(PLAIT_FLAT_DATE)) &&
               is_of_type(walk, word[1], MASK_OF(PLAIT_FLAT_TIME));
    case PLAIT_FLAT_TIMEDELTA:
        return is_timedelta(word);
    case PLAIT_FLAT_TIMEZONE:
        return is_timezone(walk, word);
    case PLAIT_FLAT_DECIMAL:
        return is_of_type(walk, word[0], str);
    case PLAIT_FLAT_GLOBAL:
        return is_of_type(walk, word[0], str) && is_of_type(walk, word[1], str);
    case PLAIT_FLAT_ENUM:
        return is_of_type(walk, word[0], MASK_OF(PLAIT_FLAT_GLOBAL)) &&
               is_of_type(walk, word[1], str);
    default: /* SLICE */
        return true;
    }
}

static bool are_hashable(const walk_t *walk, const plait_flat_body_t *body, size_t step)
{
    for (size_t i = 0; i < body->words; i += step)
        if (is_of_type(walk, plait_flat_word(body, i), NEVER_HASHABLE))
            return false;
    return true;
}

static bool is_pickle(const walk_t *walk, const plait_flat_body_t *body)
{
    if (!is_of_type(walk, plait_flat_word(body, 0), MASK_OF(PLAIT_FLAT_BYTES)))
        return false;
    for (size_t i = 1; i < body->words; i++)
        if (!is_of_type(walk, plait_flat_word(body, i), MASK_OF(PLAIT_FLAT_BUFFER)))
            return false;
    return true;
}

static bool are_items_good(walk_t *walk, const plait_flat_body_t *body)
{
    for (size_t i = 0; i < body->words; i++)
        if (!note_value(walk, plait_flat_word(body, i)))
            return false;
    switch (body->type) {
    case PLAIT_FLAT_TUPLE:
    case PLAIT_FLAT_LIST:
        return true;
    case PLAIT_FLAT_SET:
    case PLAIT_FLAT_FROZENSET:
        return are_hashable(walk, body, 1);
    case PLAIT_FLAT_DICT:
        return are_hashable(walk, body, 2);
    case PLAIT_FLAT_PICKLE:
        return is_pickle(walk, body);
    default:
        return body->words == 0 || is_record(walk, body);
    }
}

static int follow_references(walk_t *walk)
{
    size_t count = walk->reader.size / 8;
    if (!note_value(walk, walk->reader.root))
        return PLAIT_CORRUPT;
    for (size_t index = 0; index < count; index++) {
        plait_flat_body_t body;
        if (!test_bit(walk->starts, index))
            continue;
        int result = plait_flat_get(&walk->reader, plait__flat_ref(index * 8), &body);
        if (result != PLAIT_OK)
            return result;
        if (!are_items_good(walk, &body))
            return PLAIT_CORRUPT;
    }
    return PLAIT_OK;
}

int plait_flat_is_valid(const void *message, size_t size, const plait_alloc_t *alloc)
{
    walk_t walk;
    int result = plait_flat_open(&walk.reader, message, size);
    if (result != PLAIT_OK)
        return result;
    size_t count = (size / 8 + 63) / 64;
    uint64_t *bits = alloc->allocate(alloc->context, 2 * count * sizeof *bits);
    if (bits == NULL)
        return PLAIT_NOMEM;
    memset(bits, 0, 2 * count * sizeof *bits);
    walk.starts = bits;
    walk.seen = bits + count;
    result = find_bodies(&walk);
    if (result == PLAIT_OK)
        result = follow_references(&walk);
    alloc->release(alloc->context, bits);
    return result;
}
