/* region: one map of memory that holds a heap, addressed by offsets.
 *
 * A region may be private to the process or shared with child processes, which map it at other
 * addresses: inside it there are only offsets from its base and fixed-width fields, never pointers.
 * The first bytes are a header with magic, version and size, checked when a region is opened.
 * Design: docs/design/region.md
 */
#ifndef PLAIT_REGION_H
#define PLAIT_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plait/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t plait_offset_t; /* from the region's base; 0 is "none" */

typedef struct plait_region plait_region_t;

/* Reserves `size` bytes (rounded up to whole spans) of address space, committed as touched, and
 * formats it. `shared`: other processes can open it by plait_region_descriptor. */
int plait_region_create(plait_region_t **region, size_t size, bool shared);

/* Maps a region that another process made; takes the descriptor over on success. PLAIT_CORRUPT
 * where the header is not a region's. */
int plait_region_open(plait_region_t **region, int descriptor, size_t size);

/* Unmaps. Nobody in this process may use memory of the region any more. */
void plait_region_close(plait_region_t *region);

int plait_region_descriptor(const plait_region_t *region);
size_t plait_region_size(const plait_region_t *region);

/* Offset <-> pointer in this process. `at` checks that [offset, offset + size) lies inside: NULL
 * otherwise. */
void *plait_region_at(const plait_region_t *region, plait_offset_t offset, size_t size);
plait_offset_t plait_region_offset(const plait_region_t *region, const void *pointer);

#ifdef __cplusplus
}
#endif
#endif
