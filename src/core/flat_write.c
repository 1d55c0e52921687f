/* flat, the writer: values in, one message out.
 *
 * Invariants: base is NULL or a block of `capacity` bytes of which `used` hold the header's room
 * and whole bodies; `used` is a multiple of 8; every padding byte is zero, so that equal calls give
 * equal bytes. A writer belongs to one thread. Design: docs/design/flat.md; the bytes:
 * docs/format/flat.md
 */
#include "plait/flat.h"

#include "flat_check.h"

#define CAPACITY_LEAST 256

/* What one body may ask for, so that sums of sizes stay far from overflow on any machine. */
#define UNITS_MAX                                                                                  \
    (SIZE_MAX / 16 < PLAIT_FLAT_LENGTH_MAX ? SIZE_MAX / 16 : (size_t)PLAIT_FLAT_LENGTH_MAX)
#define BYTES_MAX (SIZE_MAX / 2 < PLAIT_FLAT_SIZE_MAX ? SIZE_MAX / 2 : (size_t)PLAIT_FLAT_SIZE_MAX)

static size_t pad(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static void store(unsigned char *at, uint64_t word)
{
    memcpy(at, &word, sizeof word);
}

/* The first block of an empty writer, for `size` bytes of bodies. */
static int make_block(plait_flat_writer_t *writer, size_t size)
{
    if (size > BYTES_MAX - sizeof(plait_flat_header_t) - 7)
        return PLAIT_TOO_BIG;
    size_t capacity = pad(size + sizeof(plait_flat_header_t));
    if (capacity < CAPACITY_LEAST)
        capacity = CAPACITY_LEAST;
    writer->base = writer->alloc->allocate(writer->alloc->context, capacity);
    if (writer->base == NULL)
        return PLAIT_NOMEM;
    writer->capacity = capacity;
    writer->used = sizeof(plait_flat_header_t);
    return PLAIT_OK;
}

int plait_flat_writer_init(plait_flat_writer_t *writer, const plait_alloc_t *alloc, size_t hint)
{
    *writer = (plait_flat_writer_t){.alloc = alloc};
    return hint == 0 ? PLAIT_OK : make_block(writer, hint);
}

void plait_flat_writer_fini(plait_flat_writer_t *writer)
{
    if (writer->base != NULL)
        writer->alloc->release(writer->alloc->context, writer->base);
    *writer = (plait_flat_writer_t){.alloc = writer->alloc};
}

void plait_flat_writer_reset(plait_flat_writer_t *writer)
{
    if (writer->base != NULL)
        writer->used = sizeof(plait_flat_header_t);
}

int plait__flat_grow(plait_flat_writer_t *writer, size_t extra)
{
    if (writer->base == NULL)
        return make_block(writer, extra);
    if (extra > BYTES_MAX - writer->used)
        return PLAIT_TOO_BIG;
    const plait_alloc_t *alloc = writer->alloc;
    size_t needed = writer->used + extra;
    size_t capacity = writer->capacity > needed / 2 ? writer->capacity * 2 : needed;
    unsigned char *base = alloc->resize(alloc->context, writer->base, capacity);
    if (base == NULL && capacity > needed) {
        /* A region that is almost full may still have what is needed now. */
        capacity = needed;
        base = alloc->resize(alloc->context, writer->base, capacity);
    }
    if (base == NULL)
        return PLAIT_NOMEM;
    writer->base = base;
    writer->capacity = capacity;
    return PLAIT_OK;
}

int plait_flat_put_bytes(plait_flat_writer_t *writer, unsigned type, unsigned flags,
                         const void *data, size_t size, plait_flat_value_t *value)
{
    if (size > UNITS_MAX)
        return PLAIT_TOO_BIG;
    return plait__flat_put_payload(writer, plait_flat_head(type, flags, size), data, size, value);
}

int plait_flat_put_text(plait_flat_writer_t *writer, unsigned width, const void *data,
                        size_t length, plait_flat_value_t *value)
{
    if (length > UNITS_MAX)
        return PLAIT_TOO_BIG;
    size_t size = length << plait__flat_shapes[PLAIT_FLAT_STR].shift[width & 3];
    uint64_t head = plait_flat_head(PLAIT_FLAT_STR, (width & 3) << PLAIT_FLAT_WIDTH_SHIFT, length);
    return plait__flat_put_payload(writer, head, data, size, value);
}

int plait_flat_put_words(plait_flat_writer_t *writer, unsigned type, size_t words, size_t length,
                         plait_flat_value_t *value)
{
    if (words > UNITS_MAX || length > words)
        return PLAIT_TOO_BIG;
    size_t offset;
    int result = plait__flat_extend(writer, 8 + words * 8, &offset);
    if (result != PLAIT_OK)
        return result;
    unsigned char *body = writer->base + offset;
    store(body, plait_flat_head(type, 0, length));
    for (size_t i = 1; i <= words; i++)
        store(body + i * 8, plait_flat_const(PLAIT_FLAT_NONE));
    *value = plait__flat_ref(offset);
    return PLAIT_OK;
}

int plait_flat_put_buffer(plait_flat_writer_t *writer, unsigned flags, size_t size, void **data,
                          plait_flat_value_t *value)
{
    if (size > UNITS_MAX)
        return PLAIT_TOO_BIG;
    int made = writer->base == NULL ? make_block(writer, size + PLAIT_FLAT_BUFFER_ALIGNMENT) : 0;
    if (made != PLAIT_OK)
        return made;
    const size_t mask = PLAIT_FLAT_BUFFER_ALIGNMENT - 1;
    size_t lead = ((writer->used + 8 + mask) & ~mask) - writer->used;
    size_t offset;
    int result = plait__flat_extend(writer, lead + pad(size), &offset);
    if (result != PLAIT_OK)
        return result;
    unsigned char *body = writer->base + offset;
    /* The last word first: without data it is the head's or lies in the lead. */
    store(body + lead + pad(size) - 8, 0);
    store(body, plait_flat_head(PLAIT_FLAT_BUFFER, flags, size));
    memset(body + 8, 0, lead - 8);
    *data = body + lead;
    *value = plait__flat_ref(offset);
    return PLAIT_OK;
}

/* Writes the header over its room at the start of the block. */
static int seal(plait_flat_writer_t *writer, plait_flat_value_t root, unsigned flags)
{
    if ((flags & ~(unsigned)PLAIT_FLAT_HAS_CHECKSUM) != 0)
        return PLAIT_INVALID;
    int result = writer->base == NULL ? make_block(writer, 0) : PLAIT_OK;
    if (result != PLAIT_OK)
        return result;
    plait_flat_header_t header = {
        .magic = PLAIT_FLAT_MAGIC,
        .version = PLAIT_FLAT_VERSION,
        .flags = (uint16_t)flags,
        .size = writer->used,
        .root = root,
    };
    memcpy(writer->base, &header, sizeof header);
    if (flags & PLAIT_FLAT_HAS_CHECKSUM) {
        header.checksum = plait__flat_checksum(writer->base, writer->used);
        memcpy(writer->base, &header, sizeof header);
    }
    return PLAIT_OK;
}

int plait_flat_finish(plait_flat_writer_t *writer, plait_flat_value_t root, unsigned flags,
                      void **message, size_t *size)
{
    int result = seal(writer, root, flags);
    if (result != PLAIT_OK)
        return result;
    *message = writer->base;
    *size = writer->used;
    *writer = (plait_flat_writer_t){.alloc = writer->alloc};
    return PLAIT_OK;
}

int plait_flat_finish_into(plait_flat_writer_t *writer, plait_flat_value_t root, unsigned flags,
                           void *room, size_t capacity, size_t *size)
{
    if (writer->used > capacity || capacity < sizeof(plait_flat_header_t))
        return PLAIT_FULL;
    int result = seal(writer, root, flags);
    if (result != PLAIT_OK)
        return result;
    memcpy(room, writer->base, writer->used);
    *size = writer->used;
    plait_flat_writer_reset(writer);
    return PLAIT_OK;
}
