/* flat_walk: follows a message as a decoder does, and touches every byte that it is given.
 *
 * For the tests and the fuzzers: a message of any bytes must give an answer in linear time, and no
 * access outside of it. Depth is limited, what is built is charged, shared bodies are remembered.
 * Any thread.
 */
#ifndef PLAIT_TESTS_CORE_FLAT_WALK_H
#define PLAIT_TESTS_CORE_FLAT_WALK_H

#include <stdlib.h>

#include "plait/flat.h"

enum { FLAT_WALK_DEPTH_MAX = 1000 };

typedef struct flat_walk {
    plait_flat_reader_t reader;
    size_t budget;
    size_t bodies;
    unsigned char *known; /* a byte per word of the message: a shared body that was met */
    uint64_t sum;         /* of all payload bytes, so that they are read */
} flat_walk_t;

static inline int flat_walk_value(flat_walk_t *walk, plait_flat_value_t value, int depth)
{
    plait_flat_body_t body;
    if (!plait_flat_is_ref(value))
        return plait_flat_is_value(value) ? PLAIT_OK : PLAIT_CORRUPT;
    if (depth > FLAT_WALK_DEPTH_MAX)
        return PLAIT_DEPTH;
    int result = plait_flat_get(&walk->reader, value, &body);
    if (result != PLAIT_OK)
        return result;
    if (body.flags & PLAIT_FLAT_FLAG_SHARED) {
        unsigned char *known = &walk->known[value & PLAIT_FLAT_PAYLOAD_MASK];
        if (*known)
            return PLAIT_OK;
        *known = 1;
    }
    result = plait_flat_charge(&walk->budget, &body);
    if (result == PLAIT_OK && ++walk->bodies > plait_flat_body_limit(&walk->reader))
        abort(); /* the bytes' budget is the tighter one */
    if (result == PLAIT_OK && body.type == PLAIT_FLAT_STR)
        result = plait_flat_check_text(&body);
    for (size_t i = 0; body.words == 0 && i < body.byte_count; i++)
        walk->sum += body.bytes[i];
    for (size_t i = 0; result == PLAIT_OK && i < body.words; i++)
        result = flat_walk_value(walk, plait_flat_word(&body, i), depth + 1);
    return result;
}

/* PLAIT_OK or the error that a decoder meets first. */
static inline int flat_walk(const void *message, size_t size)
{
    flat_walk_t walk = {.budget = size};
    int result = plait_flat_open(&walk.reader, message, size);
    if (result != PLAIT_OK)
        return result;
    walk.known = calloc(size / 8, 1);
    if (walk.known == NULL)
        return PLAIT_NOMEM;
    result = flat_walk_value(&walk, walk.reader.root, 0);
    free(walk.known);
    return result;
}

#endif
