/* copy: where copies live, and how little of them. See copy.h.
 *
 * A copy lives in memory (memfd), or else in a file of a folder that may hold programs. It is
 * opened under a name that was never used before in this process: the loader compares names first,
 * and would give out the old library for a name that it knows. As soon as it is loaded, the name
 * goes, and what the copy has in common with the source (all of its code) is mapped from there, so
 * that all interpreters, and processes, share those pages.
 */
#define _GNU_SOURCE
#include "isolate/copy.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/atomic.h"
#include "prim/prim.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3 */
#endif

enum { PATH_SIZE = 4096, SERIAL_BITS = 30 };

/* ---- the source ---- */

int plait_source_open(plait_source_t *source, const char *path)
{
    struct stat status;
    *source = (plait_source_t){.descriptor = open(path, O_RDONLY | O_CLOEXEC)};
    if (source->descriptor < 0)
        return PLAIT_SYSTEM;
    if (fstat(source->descriptor, &status) != 0)
        goto fail;
    if (!S_ISREG(status.st_mode) || status.st_size == 0) {
        close(source->descriptor);
        return PLAIT_CORRUPT;
    }
    source->size = (size_t)status.st_size;
    source->bytes =
        mmap(NULL, source->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, source->descriptor, 0);
    if (source->bytes == MAP_FAILED)
        goto fail;
    int code = plait_elf_open(&source->elf, source->bytes, source->size);
    if (code != PLAIT_OK)
        plait_source_close(source);
    return code;
fail:
    close(source->descriptor);
    return PLAIT_SYSTEM;
}

void plait_source_close(plait_source_t *source)
{
    munmap(source->bytes, source->size);
    close(source->descriptor);
}

/* ---- the copy ---- */

typedef struct copy {
    int descriptor;
    char path[PATH_SIZE];
    bool named; /* a file that is to be removed */
} copy_t;

static uint32_t next_serial(void)
{
    static PLAIT_ATOMIC(uint32_t) serial;
    /* Relaxed: only the numbers must differ. */
    return plait_atomic_add_relaxed(&serial, 1);
}

/* Spells /proc/self/fd/N as it was never spelled before: descriptors are used again, names must not
 * be. Each bit of a serial number is one slash, or a slash and a dot. */
static void spell_descriptor(char *path, int descriptor)
{
    uint32_t serial = next_serial();
    char *end = stpcpy(path, "/proc/self/fd");
    for (int bit = 0; bit < SERIAL_BITS; bit++)
        end = stpcpy(end, (serial >> bit) & 1 ? "/." : "/");
    snprintf(end, PATH_SIZE - (size_t)(end - path), "/%d", descriptor);
}

static bool create_in_memory(copy_t *copy, const char *label)
{
    char name[100];
    snprintf(name, sizeof name, "plait:%s", label);
    copy->named = false;
    copy->descriptor = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);
    if (copy->descriptor < 0 && errno == EINVAL)
        copy->descriptor = memfd_create(name, MFD_CLOEXEC);
    if (copy->descriptor < 0)
        return false;
    spell_descriptor(copy->path, copy->descriptor);
    if (access(copy->path, R_OK) == 0) /* without /proc it cannot be opened by name */
        return true;
    close(copy->descriptor);
    return false;
}

static bool create_in_folder(copy_t *copy, const char *folder, const char *label)
{
    uint64_t chance;
    if (folder == NULL || folder[0] != '/' || getrandom(&chance, sizeof chance, 0) < 0)
        return false;
    int length =
        snprintf(copy->path, PATH_SIZE, "%s/plait-%ld-%u-%016llx-%s", folder, (long)getpid(),
                 (unsigned)next_serial(), (unsigned long long)chance, label);
    if (length < 0 || length >= PATH_SIZE)
        return false;
    copy->named = true;
    copy->descriptor = open(copy->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return copy->descriptor >= 0;
}

static bool write_all(int descriptor, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(descriptor, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* Whether code may be run from there. */
static bool is_executable(int descriptor)
{
    size_t page = plait_prim_page_size();
    void *probe = mmap(NULL, page, PROT_READ | PROT_EXEC, MAP_PRIVATE, descriptor, 0);
    if (probe == MAP_FAILED)
        return false;
    munmap(probe, page);
    return true;
}

static void discard(copy_t *copy)
{
    int kept = errno;
    if (copy->named)
        unlink(copy->path);
    close(copy->descriptor);
    errno = kept;
}

static bool fill(copy_t *copy, const plait_source_t *source)
{
    if (write_all(copy->descriptor, source->bytes, source->size) && is_executable(copy->descriptor))
        return true;
    discard(copy);
    return false;
}

/* In memory; else in the first folder that has room and may hold programs. PLAIT_IMAGE_DIR names
 * a folder to use instead, where copies stay, for debuggers and profilers. */
static bool create(copy_t *copy, const plait_source_t *source, const char *label)
{
    const char *chosen = getenv("PLAIT_IMAGE_DIR");
    if (chosen != NULL && chosen[0] != '\0') {
        if (!create_in_folder(copy, chosen, label) || !fill(copy, source))
            return false;
        copy->named = false;
        return true;
    }
    if (create_in_memory(copy, label) && fill(copy, source))
        return true;
    const char *const folders[] = {getenv("TMPDIR"), "/tmp",         "/dev/shm",
                                   "/var/tmp",       getenv("HOME"), getenv("XDG_RUNTIME_DIR")};
    for (size_t index = 0; index < sizeof folders / sizeof folders[0]; index++) {
        if (create_in_folder(copy, folders[index], label) && fill(copy, source))
            return true;
    }
    return false;
}

/* ---- sharing what is the same ---- */

typedef struct extent {
    size_t from, to;
} extent_t;

/* The file's pages that a segment's mapping covers. */
static extent_t pages_of(const plait_elf_segment_t *segment)
{
    size_t mask = plait_prim_page_size() - 1;
    return (extent_t){segment->offset & ~mask, (segment->offset + segment->size + mask) & ~mask};
}

static bool overlap(extent_t first, extent_t second)
{
    return first.from < second.to && second.from < first.to;
}

/* Whether a segment's pages are the same in the copy as in the source. */
static bool is_shareable(const plait_elf_t *elf, const plait_elf_segment_t *segment)
{
    size_t mask = plait_prim_page_size() - 1;
    return !segment->relocated && !segment->writable && segment->size > 0 &&
           segment->size == segment->memory && ((segment->address ^ segment->offset) & mask) == 0 &&
           !(elf->edited_from < elf->edited_to &&
             overlap(pages_of(segment), (extent_t){elf->edited_from, elf->edited_to}));
}

/* The copy's memory of a shared segment, less what other segments still map of it. */
static void release_pages(const plait_source_t *source, int copy, const plait_elf_segment_t *shared)
{
    size_t mask = plait_prim_page_size() - 1, position = 0;
    extent_t inner = {(shared->offset + mask) & ~mask, (shared->offset + shared->size) & ~mask};
    plait_elf_segment_t other;
    while (plait_elf_next_segment(&source->elf, &position, &other) == PLAIT_OK) {
        if (!other.relocated && !is_shareable(&source->elf, &other) &&
            overlap(pages_of(&other), inner))
            return;
    }
    if (inner.from < inner.to) /* only memory is lost where it fails */
        (void)fallocate(copy, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)inner.from,
                        (off_t)(inner.to - inner.from));
}

static void share_pages(const plait_source_t *source, int copy, uintptr_t base)
{
    plait_elf_segment_t segment;
    size_t position = 0, mask = plait_prim_page_size() - 1;
    if (plait_elf_has_text_relocations(&source->elf))
        return;
    while (plait_elf_next_segment(&source->elf, &position, &segment) == PLAIT_OK) {
        if (!is_shareable(&source->elf, &segment))
            continue;
        extent_t pages = pages_of(&segment);
        int protection = (segment.readable ? PROT_READ : 0) | (segment.executable ? PROT_EXEC : 0);
        void *start = (void *)((base + segment.address) & ~(uintptr_t)mask);
        if (mmap(start, pages.to - pages.from, protection, MAP_PRIVATE | MAP_FIXED,
                 source->descriptor, (off_t)pages.from) != MAP_FAILED)
            release_pages(source, copy, &segment);
    }
}

/* ---- loading ---- */

/* The loader's last complaint, without the copy's name, which says nothing to anybody. */
static const char *complaint(const copy_t *copy)
{
    const char *text = dlerror();
    size_t length = strlen(copy->path);
    if (text == NULL)
        return "unknown error";
    return strncmp(text, copy->path, length) == 0 && strncmp(text + length, ": ", 2) == 0
               ? text + length + 2
               : text;
}

void *plait_source_load(plait_source_t *source, const char *label, char *why, size_t why_size)
{
    copy_t copy;
    struct link_map *map;
    if (!create(&copy, source, label)) {
        snprintf(why, why_size,
                 "no place for a private copy (tried memory and temporary folders): %s",
                 strerror(errno));
        return NULL;
    }
    void *handle = dlopen(copy.path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        snprintf(why, why_size, "%s", complaint(&copy));
    else if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0)
        share_pages(source, copy.descriptor, map->l_addr);
    discard(&copy);
    return handle;
}
