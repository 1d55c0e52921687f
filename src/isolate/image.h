/* image: private copies of shared objects, so that each interpreter has an extension's static data
 * for itself.
 *
 * The loader maps a file once per process, however often it is opened; a copy, being another file,
 * is mapped anew. So are the libraries that an extension brings along and that use CPython's API,
 * under names of their own. Those that don't (libarrow, libgfortran) are loaded as ever, one for all;
 * OpenBLAS once for all sets together, since it computes with one thread there (threads.h).
 * A copy has no name in the file system once it is loaded, so nothing of it can be left behind.
 *
 * A set of images belongs to one interpreter: one thread at a time may use it. Images stay mapped
 * until the process ends, since nothing tells when their last thread has left them.
 * Design: docs/design/isolate.md
 */
#ifndef PLAIT_ISOLATE_IMAGE_H
#define PLAIT_ISOLATE_IMAGE_H

#include <stddef.h>

#include "plait/error.h"

/* A function that an image gets in place of the one that the loader found for the symbol. */
typedef struct plait_override {
    const char *symbol;
    void (*function)(void); /* of whatever type the symbol has */
} plait_override_t;

typedef struct plait_images plait_images_t;

/* An empty set, whose images get these overrides; they must outlive it. NULL without memory. */
plait_images_t *plait_images_new(const plait_override_t *overrides, size_t count);

/* Forgets the set; its images stay mapped. NULL is allowed. */
void plait_images_free(plait_images_t *images);

/* Loads a private image of the extension at `path`, once per set, and what it depends on: *handle
 * is as of dlopen. Its constructors run. Reads and writes files. On an error (PLAIT_NOMEM, _SYSTEM,
 * _CORRUPT, _UNSUPPORTED) plait_images_error says what went wrong. */
int plait_images_load(plait_images_t *images, const char *path, void **handle);

/* Another thread uses the set from now on: what holds for each calling thread is said again there. */
void plait_images_enter_thread(plait_images_t *images);

/* What the last error was about; never NULL. */
const char *plait_images_error(const plait_images_t *images);

#endif
