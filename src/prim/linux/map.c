/* prim/linux/map: maps of memory, private (anonymous) or shared (an unnamed file in memory).
 *
 * A shared map's file is sealed against shrinking and growing, so that no process that holds the
 * descriptor can turn another's access into SIGBUS. Any thread; one thread at a time for one map.
 * Design: docs/design/prim.md
 */
#define _GNU_SOURCE
#include "prim/prim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

size_t plait_prim_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* 0 where the sum would overflow. */
static size_t round_up_to_pages(size_t size)
{
    size_t page = plait_prim_page_size();
    if (size > (size_t)PTRDIFF_MAX - page)
        return 0;
    return (size + page - 1) / page * page;
}

static int code_of_errno(void)
{
    switch (errno) {
    case ENOMEM:
        return PLAIT_NOMEM;
    case EFBIG:
    case EOVERFLOW:
        return PLAIT_TOO_BIG;
    case EINVAL:
    case EBADF:
        return PLAIT_INVALID;
    default:
        return PLAIT_SYSTEM;
    }
}

static int map_descriptor(plait_prim_map_t *map, int descriptor, size_t size)
{
    void *base =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (base == MAP_FAILED)
        return code_of_errno();
    *map = (plait_prim_map_t){.base = base, .size = size, .descriptor = descriptor};
    return PLAIT_OK;
}

static int create_shared(plait_prim_map_t *map, size_t size)
{
    int descriptor = memfd_create("plait", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0)
        return code_of_errno();
    int code;
    if (ftruncate(descriptor, (off_t)size) != 0 ||
        fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        code = code_of_errno();
    else
        code = map_descriptor(map, descriptor, size);
    if (code != PLAIT_OK)
        close(descriptor);
    return code;
}

int plait_prim_map_create(plait_prim_map_t *map, size_t size, bool shared)
{
    size = round_up_to_pages(size);
    if (size == 0)
        return PLAIT_INVALID;
    if (shared)
        return create_shared(map, size);
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return code_of_errno();
    *map = (plait_prim_map_t){.base = base, .size = size, .descriptor = -1};
    return PLAIT_OK;
}

int plait_prim_map_open(plait_prim_map_t *map, int descriptor, size_t size)
{
    struct stat status;
    size = round_up_to_pages(size);
    if (size == 0)
        return PLAIT_INVALID;
    if (fstat(descriptor, &status) != 0)
        return code_of_errno();
    if (status.st_size < 0 || (uint64_t)status.st_size < size)
        return PLAIT_CORRUPT; /* touching the end would raise SIGBUS */
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return PLAIT_CORRUPT; /* not made by plait_prim_map_create */
    fcntl(descriptor, F_SETFD,
          FD_CLOEXEC); /* it was inherited; what is run here has no use for it */
    return map_descriptor(map, descriptor, size);
}

int plait_prim_map_discard(plait_prim_map_t *map, size_t offset, size_t size)
{
    size_t page = plait_prim_page_size();
    if (offset % page != 0 || size % page != 0 || offset > map->size || size > map->size - offset)
        return PLAIT_INVALID;
    if (size == 0)
        return PLAIT_OK;
    /* REMOVE punches a hole into the file; DONTNEED would leave a shared map's pages in it. */
    int advice = map->descriptor >= 0 ? MADV_REMOVE : MADV_DONTNEED;
    if (madvise((char *)map->base + offset, size, advice) != 0)
        return code_of_errno();
    return PLAIT_OK;
}

void plait_prim_map_close(plait_prim_map_t *map)
{
    munmap(map->base, map->size);
    if (map->descriptor >= 0)
        close(map->descriptor);
    *map = (plait_prim_map_t){.base = NULL, .size = 0, .descriptor = -1};
}

/* A fault for every 4 KiB costs more than the copy that causes it: with huge pages, filling 100 MB
 * takes less than half. Whole ones inside the block only, so that no neighbour is affected. */
void plait_prim_expect_filling(void *block, size_t size)
{
    const uintptr_t mask = ((uintptr_t)2 << 20) - 1;
    uintptr_t start = ((uintptr_t)block + mask) & ~mask, end = ((uintptr_t)block + size) & ~mask;
    if (end > start)
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE); /* refused: then as ever */
}
