/* prim/linux/sealed: memory that one process writes once and others then read.
 *
 * A draft is an unnamed file in memory all of whose pages are there, mapped to be written. Sealing
 * it makes its contents and size final for every process that has its descriptor, which the kernel
 * grants only while nobody has it mapped to write. From then on all maps of it are private: what a
 * process writes to its own map goes to copies of the pages, which it alone sees. Any thread; one at a
 * time for one draft. Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FINAL (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* Bits of /proc/self/pagemap. */
#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61)

static int code_of_errno(void)
{
    switch (errno) {
    case ENOMEM:
    case ENOSPC:
    case EFBIG: /* RLIMIT_FSIZE */
        return PLAIT_NOMEM;
    case EMFILE:
    case ENFILE:
        return PLAIT_FULL;
    default:
        return PLAIT_SYSTEM;
    }
}

static int reserve(int descriptor, size_t from, size_t size)
{
    int failed;
    do
        failed = fallocate(descriptor, 0, (off_t)from, (off_t)(size - from));
    while (failed != 0 && errno == EINTR);
    return failed == 0 ? PLAIT_OK : code_of_errno();
}

int plait_prim_draft_create(plait_prim_map_t *map, size_t size)
{
    if (size == 0 || size > PTRDIFF_MAX)
        return PLAIT_INVALID;
    int descriptor = memfd_create("plait-block", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0)
        return code_of_errno();
    int code = reserve(descriptor, 0, size);
    void *base = code != PLAIT_OK
                     ? MAP_FAILED
                     : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (base == MAP_FAILED) {
        code = code != PLAIT_OK ? code : code_of_errno();
        close(descriptor);
        return code;
    }
    *map = (plait_prim_map_t){.base = base, .size = size, .descriptor = descriptor};
    return PLAIT_OK;
}

int plait_prim_draft_resize(plait_prim_map_t *map, size_t size)
{
    if (size == 0 || size > PTRDIFF_MAX)
        return PLAIT_INVALID;
    int code = size > map->size ? reserve(map->descriptor, map->size, size) : PLAIT_OK;
    if (code != PLAIT_OK)
        return code;
    void *base = mremap(map->base, map->size, size, MREMAP_MAYMOVE);
    if (base == MAP_FAILED)
        return code_of_errno();
    map->base = base;
    map->size = size;
    return PLAIT_OK;
}

int plait_prim_draft_write(plait_prim_map_t *map, size_t offset, const void *bytes, size_t size)
{
    while (size > 0) {
        ssize_t done = pwrite(map->descriptor, bytes, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done == 0 ? PLAIT_SYSTEM : code_of_errno();
        bytes = (const char *)bytes + done;
        offset += (size_t)done;
        size -= (size_t)done;
    }
    return PLAIT_OK;
}

static int map_privately(plait_prim_map_t *map, int descriptor, size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor, 0);
    if (base == MAP_FAILED)
        return code_of_errno();
    *map = (plait_prim_map_t){.base = base, .size = size, .descriptor = descriptor};
    return PLAIT_OK;
}

int plait_prim_draft_seal(plait_prim_map_t *map, size_t size)
{
    int descriptor = map->descriptor;
    munmap(map->base, map->size);
    *map = (plait_prim_map_t){.base = NULL, .size = 0, .descriptor = -1};
    int code = size == 0 ? PLAIT_INVALID : PLAIT_OK;
    if (code == PLAIT_OK && (ftruncate(descriptor, (off_t)size) != 0 ||
                             fcntl(descriptor, F_ADD_SEALS, FINAL | F_SEAL_SEAL) != 0))
        code = code_of_errno();
    if (code == PLAIT_OK)
        code = map_privately(map, descriptor, size);
    if (code != PLAIT_OK)
        close(descriptor);
    return code;
}

int plait_prim_sealed_open(plait_prim_map_t *map, int descriptor)
{
    struct stat status;
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (fstat(descriptor, &status) != 0 || seals < 0 || (seals & FINAL) != FINAL)
        return PLAIT_CORRUPT;
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > PTRDIFF_MAX ||
        (uint64_t)status.st_blocks < ((uint64_t)status.st_size + 511) / 512)
        return PLAIT_CORRUPT; /* a page that is not there yet may not be to be had */
    return map_privately(map, descriptor, (size_t)status.st_size);
}

void plait_prim_map_forget_descriptor(plait_prim_map_t *map)
{
    close(map->descriptor);
    map->descriptor = -1;
}

bool plait_prim_sealed_is_unchanged(const void *at, size_t size)
{
    size_t page = plait_prim_page_size();
    uint64_t entries[1024];
    size_t next = (size_t)at / page, end = ((size_t)at + size + page - 1) / page;
    int pages = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    bool unchanged = pages >= 0;
    while (unchanged && next < end) {
        size_t count = end - next < 1024 ? end - next : 1024;
        ssize_t got = pread(pages, entries, count * 8, (off_t)(next * 8));
        if (got != (ssize_t)(count * 8))
            unchanged = false;
        for (size_t index = 0; unchanged && index < count; index++)
            /* a page that was written to is a copy, and no longer the file's */
            unchanged = !(entries[index] & (PAGE_PRESENT | PAGE_SWAPPED)) ||
                        (entries[index] & PAGE_OF_FILE);
        next += count;
    }
    if (pages >= 0)
        close(pages);
    return unchanged;
}

int plait_prim_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT32_MAX)
        return INT32_MAX;
    return (int)limit.rlim_cur;
}
