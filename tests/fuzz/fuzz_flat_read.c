/* Any bytes as a flat message: an answer in linear time, and no access outside of them.
 *
 * The header's size and checksum are put right first in most inputs (all whose last byte is not
 * 0xFF), since a fuzzer cannot guess them. What the validator accepts, a decoder must be able to
 * walk. docs/format/flat.md
 */
#include <stdlib.h>

#include "core/flat_check.h"
#include "flat_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair(unsigned char *message, size_t size)
{
    plait_flat_header_t header;
    memcpy(&header, message, sizeof header);
    header.size = size;
    memcpy(message, &header, sizeof header);
    header.checksum = 0;
    if (header.flags & PLAIT_FLAT_HAS_CHECKSUM)
        header.checksum = plait__flat_checksum(message, size);
    memcpy(message, &header, sizeof header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* An exact copy, aligned, without spare room behind it. */
    unsigned char *message = malloc(size > 0 ? size : 1);
    if (message == NULL)
        return 0;
    if (size > 0)
        memcpy(message, data, size);
    if (size >= sizeof(plait_flat_header_t) && data[size - 1] != 0xFF)
        repair(message, size);
    int walked = flat_walk(message, size);
    int valid = plait_flat_is_valid(message, size, &plait_alloc_system);
    if (walked > 0 || valid > 0)
        abort();
    if (valid == PLAIT_OK && walked != PLAIT_OK && walked != PLAIT_DEPTH)
        abort();
    free(message);
    return 0;
}
