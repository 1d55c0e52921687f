/* checksum: CRC-32C (Castagnoli), as iSCSI and ext4 have it.
 *
 * Any thread; nothing is initialised at run time. Used by the flat format. Design:
 * docs/design/flat.md
 */
#ifndef PLAIT_CHECKSUM_H
#define PLAIT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of what `crc` covers followed by `data`; start with 0. Calls can be chained. Uses the
 * processor's instruction where it has one. */
uint32_t plait_checksum_crc32c(uint32_t crc, const void *data, size_t size);

/* The same, always by tables: for processors without the instruction, and for tests. */
uint32_t plait__checksum_crc32c_table(uint32_t crc, const void *data, size_t size);

#endif
