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
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define FINAL (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define LARGE_PAGE ((size_t)2 << 20)

/* From this size on, the kernel's copy to a draft is faster than one that faults for every page. */
#define WRITE_LEAST ((size_t)64 << 10)

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

/* Maps a file whole, so that its large pages can be mapped as such. */
static void *map_file(int descriptor, size_t size, int flags)
{
    const int both = PROT_READ | PROT_WRITE;
    if (size < LARGE_PAGE)
        return mmap(NULL, size, both, flags, descriptor, 0);
    size_t page = plait_prim_page_size(), pages = (size + page - 1) / page * page;
    unsigned char *room = mmap(NULL, pages + LARGE_PAGE, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    size_t lead = (LARGE_PAGE - (uintptr_t)room % LARGE_PAGE) % LARGE_PAGE;
    void *base = mmap(room + lead, size, both, flags | MAP_FIXED, descriptor, 0);
    if (base == MAP_FAILED) {
        munmap(room, pages + LARGE_PAGE);
        return MAP_FAILED;
    }
    if (lead > 0)
        munmap(room, lead);
    munmap(room + lead + pages, LARGE_PAGE - lead);
    return base;
}

/* A draft's map. It is not for children of a fork: a seal would be refused while one has it. */
static void *map_draft(int descriptor, size_t size)
{
    void *base = map_file(descriptor, size, MAP_SHARED);
    if (base != MAP_FAILED)
        madvise(base, size, MADV_DONTFORK);
    return base;
}

static bool allocate(int descriptor, size_t from, size_t size)
{
    int failed;
    do
        failed = fallocate(descriptor, 0, (off_t)from, (off_t)size);
    while (failed != 0 && errno == EINTR);
    return failed == 0;
}

/* Makes large pages of what is empty of a draft from `from` on, as far as there are any: to fill, map,
 * read and free ordinary ones takes longer than to copy what is in them. Whether it was done. */
static bool make_large_pages(const plait_prim_map_t *map, size_t from)
{
    size_t start = (from + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    size_t end = map->size / LARGE_PAGE * LARGE_PAGE;
    if (start >= end)
        return false;
    /* What is to become one must have a page already. */
    for (size_t at = start; at < end; at += LARGE_PAGE)
        if (!allocate(map->descriptor, at, 1))
            return false;
    return madvise((char *)map->base + start, end - start, MADV_COLLAPSE) == 0;
}

/* Has all of a draft's pages from `from` on be there. */
static int fill_in(plait_prim_map_t *map, size_t from)
{
    map->large_pages = make_large_pages(map, from);
    return allocate(map->descriptor, from, map->size - from) ? PLAIT_OK : code_of_errno();
}

/* Makes a draft's file and map longer, and elsewhere; or leaves it as it is. */
static int extend(plait_prim_map_t *map, size_t size)
{
    plait_prim_map_t longer = {.size = size, .descriptor = map->descriptor};
    if (ftruncate(longer.descriptor, (off_t)size) != 0)
        return code_of_errno();
    longer.base = map_draft(longer.descriptor, size);
    if (longer.base == MAP_FAILED)
        return code_of_errno();
    int code = fill_in(&longer, map->size);
    if (code != PLAIT_OK) {
        munmap(longer.base, size);
        return code;
    }
    if (map->base != NULL)
        munmap(map->base, map->size);
    *map = longer;
    return PLAIT_OK;
}

int plait_prim_draft_create(plait_prim_map_t *map, size_t size)
{
    if (size == 0 || size > PTRDIFF_MAX)
        return PLAIT_INVALID;
    int descriptor = memfd_create("plait-block", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0)
        return code_of_errno();
    *map = (plait_prim_map_t){.descriptor = descriptor};
    int code = extend(map, size);
    if (code != PLAIT_OK)
        close(descriptor);
    return code;
}

int plait_prim_draft_resize(plait_prim_map_t *map, size_t size)
{
    if (size == 0 || size > PTRDIFF_MAX)
        return PLAIT_INVALID;
    return size > map->size ? extend(map, size) : PLAIT_OK; /* sealing cuts it */
}

#ifdef __SSE2__
/* What is to be overwritten is not read first, and what is written is not what the caller needs next. */
static void copy_past_caches(unsigned char *to, const unsigned char *from, size_t size)
{
    size_t lead = (16 - (uintptr_t)to % 16) % 16, done = lead;
    memcpy(to, from, lead);
    for (; size - done >= 64; done += 64) {
        const __m128i_u *in = (const __m128i_u *)(const void *)(from + done);
        __m128i *out = (__m128i *)(void *)(to + done), a = in[0], b = in[1], c = in[2], d = in[3];
        _mm_stream_si128(out, a);
        _mm_stream_si128(out + 1, b);
        _mm_stream_si128(out + 2, c);
        _mm_stream_si128(out + 3, d);
    }
    _mm_sfence();
    memcpy(to + done, from + done, size - done);
}
#else
static void copy_past_caches(unsigned char *to, const unsigned char *from, size_t size)
{
    memcpy(to, from, size);
}
#endif

void plait_prim_draft_write(const plait_prim_map_t *map, void *at, const void *bytes, size_t size)
{
    size_t offset = (size_t)((char *)at - (char *)map->base), done = 0;
    if (map->large_pages && size >= LARGE_PAGE) {
        copy_past_caches(at, bytes, size);
        return;
    }
    while (!map->large_pages && size - done >= WRITE_LEAST) {
        ssize_t some = pwrite(map->descriptor, (const char *)bytes + done, size - done,
                              (off_t)(offset + done));
        if (some < 0 && errno == EINTR)
            continue;
        if (some <= 0)
            break;
        done += (size_t)some;
    }
    memcpy((char *)at + done, (const char *)bytes + done, size - done);
}

static int map_privately(plait_prim_map_t *map, int descriptor, size_t size)
{
    void *base = map_file(descriptor, size, MAP_PRIVATE | MAP_NORESERVE);
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
    struct statfs system;
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || (seals & FINAL) != FINAL || fstat(descriptor, &status) != 0 ||
        fstatfs(descriptor, &system) != 0)
        return PLAIT_CORRUPT;
    /* One of a pool of large pages may fail to be copied on a write, and a page that is not there yet
     * may not be to be had. */
    if (system.f_type != TMPFS_MAGIC || status.st_size <= 0 || status.st_size > PTRDIFF_MAX ||
        (uint64_t)status.st_blocks < ((uint64_t)status.st_size + 511) / 512)
        return PLAIT_CORRUPT;
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
