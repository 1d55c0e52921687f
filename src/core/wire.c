/* wire: letters over a ring.
 *
 * A letter's record holds its words, the sizes of its blobs, and then, one after another and each
 * aligned, those blobs that are small for the ring. The others follow in records of type
 * PIECE, first to last. Who may call: see wire.h. Design: docs/design/process.md
 */
#include "core/wire.h"

#include <stdlib.h>
#include <string.h>

#define PIECE (UINT32_MAX - 1)

/* What precedes the blobs in a letter's record. */
typedef struct opening {
    uint64_t words[PLAIT_LETTER_WORDS];
    uint64_t sizes[PLAIT_LETTER_BLOBS];
} opening_t;

_Static_assert(sizeof(opening_t) == 64, "blobs are aligned");

static size_t aligned(size_t size)
{
    return (size + PLAIT_RING_ALIGNMENT - 1) & ~(size_t)(PLAIT_RING_ALIGNMENT - 1);
}

static bool is_inline(const plait_ring_t *ring, size_t size)
{
    return size <= plait_ring_limit(ring) / (2 * PLAIT_LETTER_BLOBS);
}

/* How many of the letter's bytes the next piece has. */
static size_t piece_size(const plait_ring_t *ring, size_t left)
{
    size_t most = plait_ring_limit(ring) / 2; /* one is written while another is read */
    return left < most ? left : most;
}

/* ---- sending ---- */

static int send_pieces(plait_ring_t *ring, const plait_letter_t *letter, const plait_blob_t *blob)
{
    for (size_t done = 0, size; done < blob->size; done += size) {
        void *payload;
        int result;
        size = piece_size(ring, blob->size - done);
        do
            result = plait_ring_reserve_spsc(ring, PIECE, letter->number, size, PLAIT_PRIM_FOREVER,
                                             &payload);
        while (result == PLAIT_INTERRUPTED);
        if (result != PLAIT_OK)
            return result;
        memcpy(payload, (const char *)blob->bytes + done, size);
        plait_ring_commit_spsc(ring);
    }
    return PLAIT_OK;
}

int plait_wire_send_spsc(plait_ring_t *ring, const plait_letter_t *letter)
{
    opening_t opening;
    size_t size = sizeof opening;
    memcpy(opening.words, letter->words, sizeof opening.words);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        if (letter->blobs[index].size > PLAIT_BLOB_MAX)
            return PLAIT_TOO_BIG;
        opening.sizes[index] = letter->blobs[index].size;
        if (is_inline(ring, letter->blobs[index].size))
            size += aligned(letter->blobs[index].size);
    }
    void *payload;
    int result = plait_ring_reserve_spsc(ring, letter->type, letter->number, size,
                                         PLAIT_PRIM_FOREVER, &payload);
    if (result != PLAIT_OK)
        return result;
    char *at = memcpy(payload, &opening, sizeof opening);
    at += sizeof opening;
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        const plait_blob_t *blob = &letter->blobs[index];
        if (blob->size == 0 || !is_inline(ring, blob->size))
            continue;
        memcpy(at, blob->bytes, blob->size);
        at += aligned(blob->size);
    }
    plait_ring_commit_spsc(ring);
    for (int index = 0; index < PLAIT_LETTER_BLOBS && result == PLAIT_OK; index++)
        if (!is_inline(ring, letter->blobs[index].size))
            result = send_pieces(ring, letter, &letter->blobs[index]);
    return result;
}

/* ---- receiving ---- */

static void drop_blobs(plait_letter_t *letter)
{
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        if (!letter->in_ring[index]) {
            free(letter->blobs[index].bytes);
            letter->blobs[index].bytes = NULL;
        }
}

/* Blobs that lie in the record itself. */
static int take_inline(const plait_ring_t *ring, const plait_ring_record_t *record, bool copy,
                       plait_letter_t *letter)
{
    size_t at = sizeof(opening_t);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        plait_blob_t *blob = &letter->blobs[index];
        if (blob->size == 0 || !is_inline(ring, blob->size))
            continue;
        if (at > record->size || blob->size > record->size - at)
            return PLAIT_CORRUPT;
        blob->bytes = (char *)record->payload + at;
        letter->in_ring[index] = !copy;
        if (copy) {
            void *own = malloc(blob->size);
            if (own != NULL)
                memcpy(own, blob->bytes, blob->size);
            blob->bytes = own;
            if (own == NULL)
                return PLAIT_NOMEM;
        }
        at += aligned(blob->size);
    }
    return PLAIT_OK;
}

static int take_pieces(plait_ring_t *ring, const plait_letter_t *letter, plait_blob_t *blob)
{
    blob->bytes = malloc(blob->size); /* without it the pieces are taken and dropped */
    for (size_t done = 0, size; done < blob->size; done += size) {
        plait_ring_record_t record;
        int result;
        do
            result = plait_ring_peek_spsc(ring, PLAIT_PRIM_FOREVER, &record);
        while (result == PLAIT_INTERRUPTED);
        if (result != PLAIT_OK)
            return result;
        size = piece_size(ring, blob->size - done);
        if (record.type != PIECE || record.number != letter->number || record.size != size)
            return PLAIT_CORRUPT;
        if (blob->bytes != NULL)
            memcpy((char *)blob->bytes + done, record.payload, size);
        plait_ring_consume_spsc(ring);
    }
    return blob->bytes == NULL ? PLAIT_NOMEM : PLAIT_OK;
}

static bool has_pieces(const plait_ring_t *ring, const plait_letter_t *letter)
{
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        if (!is_inline(ring, letter->blobs[index].size))
            return true;
    return false;
}

int plait_wire_receive_spsc(plait_ring_t *ring, bool copy, int64_t deadline, plait_letter_t *letter)
{
    plait_ring_record_t record;
    opening_t opening;
    int result = plait_ring_peek_spsc(ring, deadline, &record);
    if (result != PLAIT_OK)
        return result;
    if (record.size < sizeof opening || record.type == PIECE)
        return PLAIT_CORRUPT;
    memcpy(&opening, record.payload, sizeof opening);
    *letter = (plait_letter_t){.type = record.type, .number = record.number};
    memcpy(letter->words, opening.words, sizeof opening.words);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        if (opening.sizes[index] > PLAIT_BLOB_MAX)
            return PLAIT_CORRUPT;
        letter->blobs[index].size = (size_t)opening.sizes[index];
    }
    /* The record must go before pieces can be looked at. */
    bool more = has_pieces(ring, letter);
    result = take_inline(ring, &record, copy || more, letter);
    letter->opened = !more;
    if (more || result != PLAIT_OK)
        plait_ring_consume_spsc(ring);
    for (int index = 0; index < PLAIT_LETTER_BLOBS && more; index++) {
        int taken = PLAIT_OK;
        if (!is_inline(ring, letter->blobs[index].size) && result != PLAIT_CORRUPT &&
            result != PLAIT_CLOSED)
            taken = take_pieces(ring, letter, &letter->blobs[index]);
        if (taken != PLAIT_OK)
            result = taken;
    }
    if (result != PLAIT_OK)
        drop_blobs(letter);
    return result;
}

void plait_wire_finish_spsc(plait_ring_t *ring, plait_letter_t *letter)
{
    if (letter->opened)
        plait_ring_consume_spsc(ring);
    letter->opened = false;
    drop_blobs(letter);
}
