/* wire: letters over a ring.
 *
 * A letter's record holds its words, the sizes of its blobs, and then, one after another and each
 * aligned, those blobs that are small for the ring. The others follow in records of type
 * PIECE, first to last. The descriptors of blocks are in the socket before the record is committed,
 * in one message. Who may call: see wire.h. Design: docs/design/process.md
 */
#include "core/wire.h"

#include <stdlib.h>
#include <string.h>

#define PIECE (UINT32_MAX - 1)

/* What precedes the blobs in a letter's record. */
typedef struct opening {
    uint64_t words[PLAIT_LETTER_WORDS];
    uint64_t sizes[PLAIT_LETTER_BLOBS];
    uint32_t blocks[PLAIT_LETTER_BLOBS]; /* how many come over the socket, plus HAS_MESSAGE */
    uint64_t reserved;
} opening_t;

#define HAS_MESSAGE (UINT32_C(1) << 31)

_Static_assert(sizeof(opening_t) == 96, "blobs are aligned");
_Static_assert(PLAIT_LETTER_BLOBS *PLAIT_BUNDLE_MAX <= PLAIT_PRIM_DESCRIPTORS_MAX, "one message");

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

static bool has_message(const plait_letter_t *letter, int blob)
{
    return letter->bundles[blob] != NULL && letter->bundles[blob]->has_message;
}

/* What the ring carries of a blob. */
static size_t carried_size(const plait_letter_t *letter, int blob)
{
    return has_message(letter, blob) ? 0 : letter->blobs[blob].size;
}

static int send_blocks(int socket, const plait_letter_t *letter)
{
    int descriptors[PLAIT_LETTER_BLOBS * PLAIT_BUNDLE_MAX];
    unsigned count = 0;
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        const plait_bundle_t *bundle = letter->bundles[index];
        for (unsigned block = 0; bundle != NULL && block < bundle->count; block++)
            descriptors[count++] = bundle->blocks[block]->map.descriptor;
    }
    return count == 0 ? PLAIT_OK : plait_prim_socket_send(socket, descriptors, count);
}

/* Fills the opening; the size of the record, or 0 where a blob is too large. */
static size_t open_record(const plait_ring_t *ring, const plait_letter_t *letter,
                          opening_t *opening)
{
    size_t size = sizeof *opening;
    *opening = (opening_t){.reserved = 0};
    memcpy(opening->words, letter->words, sizeof opening->words);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        size_t carried = carried_size(letter, index);
        const plait_bundle_t *bundle = letter->bundles[index];
        if (carried > PLAIT_BLOB_MAX)
            return 0;
        opening->sizes[index] = carried;
        if (bundle != NULL)
            opening->blocks[index] = bundle->count | (bundle->has_message ? HAS_MESSAGE : 0);
        if (is_inline(ring, carried))
            size += aligned(carried);
    }
    return size;
}

int plait_wire_send_spsc(plait_ring_t *ring, int socket, const plait_letter_t *letter)
{
    opening_t opening;
    size_t size = open_record(ring, letter, &opening);
    if (size == 0)
        return PLAIT_TOO_BIG;
    void *payload;
    int result = plait_ring_reserve_spsc(ring, letter->type, letter->number, size,
                                         PLAIT_PRIM_FOREVER, &payload);
    if (result == PLAIT_OK)
        result = send_blocks(socket, letter);
    if (result != PLAIT_OK)
        return result;
    char *at = memcpy(payload, &opening, sizeof opening);
    at += sizeof opening;
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        size_t carried = carried_size(letter, index);
        if (carried == 0 || !is_inline(ring, carried))
            continue;
        memcpy(at, letter->blobs[index].bytes, carried);
        at += aligned(carried);
    }
    plait_ring_commit_spsc(ring);
    for (int index = 0; index < PLAIT_LETTER_BLOBS && result == PLAIT_OK; index++)
        if (!is_inline(ring, carried_size(letter, index)))
            result = send_pieces(ring, letter, &letter->blobs[index]);
    return result;
}

/* ---- receiving ---- */

static void drop_blobs(plait_letter_t *letter)
{
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        if (!letter->in_ring[index] && !has_message(letter, index))
            free(letter->blobs[index].bytes);
        letter->blobs[index].bytes = NULL;
        plait_bundle_free(letter->bundles[index]);
        letter->bundles[index] = NULL;
    }
}

/* Opens the blocks of a letter, all of whose descriptors are taken over. */
static int open_blocks(plait_letter_t *letter, const int *descriptors)
{
    int result = PLAIT_OK;
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        plait_bundle_t *bundle = letter->bundles[index];
        for (unsigned block = 0; bundle != NULL && block < bundle->count; block++) {
            int descriptor = *descriptors++;
            if (result == PLAIT_OK)
                result = plait_block_open(&bundle->blocks[block], descriptor);
            else
                plait_prim_descriptor_close(descriptor);
        }
        if (result == PLAIT_OK && has_message(letter, index))
            letter->blobs[index] =
                (plait_blob_t){bundle->blocks[0]->map.base, bundle->blocks[0]->map.size};
    }
    return result;
}

/* The blocks that the opening tells of, which are in the socket. */
static int take_blocks(int socket, const opening_t *opening, plait_letter_t *letter)
{
    int descriptors[PLAIT_LETTER_BLOBS * PLAIT_BUNDLE_MAX];
    unsigned all = 0;
    int result = PLAIT_OK;
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        uint32_t count = opening->blocks[index] & ~HAS_MESSAGE;
        bool with_message = (opening->blocks[index] & HAS_MESSAGE) != 0;
        if (count > PLAIT_BUNDLE_MAX || (with_message && (count == 0 || opening->sizes[index] > 0)))
            return PLAIT_CORRUPT;
        if (count == 0)
            continue;
        all += count;
        letter->bundles[index] = plait_bundle_new(count);
        if (letter->bundles[index] == NULL)
            result = PLAIT_NOMEM;
        else
            letter->bundles[index]->has_message = with_message;
    }
    if (all == 0)
        return PLAIT_OK;
    int taken = plait_prim_socket_receive(socket, descriptors, all);
    if (taken == PLAIT_OK && result == PLAIT_OK)
        return open_blocks(letter, descriptors);
    for (unsigned index = 0; taken == PLAIT_OK && index < all; index++)
        plait_prim_descriptor_close(descriptors[index]);
    return taken != PLAIT_OK ? taken : result;
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

/* Reads what comes first of a record. */
static int read_opening(const plait_ring_record_t *record, opening_t *opening,
                        plait_letter_t *letter)
{
    if (record->size < sizeof *opening || record->type == PIECE)
        return PLAIT_CORRUPT;
    memcpy(opening, record->payload, sizeof *opening);
    *letter = (plait_letter_t){.type = record->type, .number = record->number};
    memcpy(letter->words, opening->words, sizeof opening->words);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++) {
        if (opening->sizes[index] > PLAIT_BLOB_MAX)
            return PLAIT_CORRUPT;
        letter->blobs[index].size = (size_t)opening->sizes[index];
    }
    return PLAIT_OK;
}

/* Whether the next step is taken: also where there was no memory in the one before. This letter is
 * lost then, but not those that follow. */
static bool goes_on(int result)
{
    return result == PLAIT_OK || result == PLAIT_NOMEM;
}

int plait_wire_receive_spsc(plait_ring_t *ring, int socket, bool copy, int64_t deadline,
                            plait_letter_t *letter)
{
    plait_ring_record_t record;
    opening_t opening;
    int result = plait_ring_peek_spsc(ring, deadline, &record);
    if (result == PLAIT_OK)
        result = read_opening(&record, &opening, letter);
    if (result != PLAIT_OK)
        return result;
    /* The record must go before pieces can be looked at. */
    bool more = has_pieces(ring, letter);
    result = take_inline(ring, &record, copy || more, letter);
    letter->opened = !more;
    if (more)
        plait_ring_consume_spsc(ring);
    for (int index = 0; index < PLAIT_LETTER_BLOBS && more && goes_on(result); index++)
        if (!is_inline(ring, letter->blobs[index].size)) {
            int taken = take_pieces(ring, letter, &letter->blobs[index]);
            result = taken == PLAIT_OK ? result : taken;
        }
    if (goes_on(result)) {
        int taken = take_blocks(socket, &opening, letter);
        result = taken == PLAIT_OK ? result : taken;
    }
    if (result != PLAIT_OK)
        plait_wire_finish_spsc(ring, letter);
    return result;
}

void plait_wire_leave_ring_spsc(plait_ring_t *ring, plait_letter_t *letter)
{
    if (letter->opened)
        plait_ring_consume_spsc(ring);
    letter->opened = false;
}

void plait_wire_finish_spsc(plait_ring_t *ring, plait_letter_t *letter)
{
    plait_wire_leave_ring_spsc(ring, letter);
    drop_blobs(letter);
}
