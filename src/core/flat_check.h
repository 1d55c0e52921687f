/* flat, shared between writer, reader and validator: not for anybody else. Design:
 * docs/design/flat.md */
#ifndef PLAIT_FLAT_CHECK_H
#define PLAIT_FLAT_CHECK_H

#include "plait/flat.h"

/* CRC-32C of a message (at least a header) without its checksum field. Any thread. */
uint32_t plait__flat_checksum(const unsigned char *message, size_t size);

#endif
