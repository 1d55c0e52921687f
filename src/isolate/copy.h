/* copy: one file's bytes as another file that the loader will take for a new one.
 *
 * Any thread; reads and writes files. Design: docs/design/isolate.md
 */
#ifndef PLAIT_ISOLATE_COPY_H
#define PLAIT_ISOLATE_COPY_H

#include <stdbool.h>
#include <stddef.h>

#include "isolate/elf.h"

/* A shared object, opened and mapped privately: edits stay in this process. */
typedef struct plait_source {
    int descriptor;
    void *bytes;
    size_t size;
    plait_elf_t elf;
} plait_source_t;

/* PLAIT_OK, PLAIT_SYSTEM (errno says why), PLAIT_CORRUPT or PLAIT_UNSUPPORTED. */
int plait_source_open(plait_source_t *source, const char *path);
void plait_source_close(plait_source_t *source);

/* Loads a copy of the source, edits included, as dlopen(RTLD_NOW | RTLD_LOCAL) would load it, with
 * what is the same in both mapped from the source. The handle, or NULL with `why` filled. */
void *plait_source_load(plait_source_t *source, const char *label, char *why, size_t why_size);

#endif
