/* image: which objects are copied, under which names, with which slots changed. See image.h. */
#define _GNU_SOURCE
#include "isolate/image.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/atomic.h"
#include "isolate/copy.h"
#include "isolate/threads.h"
#include "prim/prim.h"

enum { WHY_SIZE = 512, SERIAL_DIGITS = 5, DEPTH_MAX = 64 };

/* An extension or a library, loaded in this set or found to be shared. */
typedef struct image {
    struct image *next;
    char *path;         /* resolved; of the original */
    char *name;         /* its SONAME; NULL where it has none */
    char *private_name; /* the one it got instead; NULL where it got none or is shared */
    void *handle;       /* NULL while it is being loaded */
    bool private;       /* not the library that everybody gets: known by private_name */
} image_t;

/* OpenBLAS keeps one number of threads for the process. The main interpreter's shall stay as it is,
 * so workers have another image: one for all of them, since it knows nothing of Python. Never freed,
 * as images never are. */
static struct {
    plait_prim_lock_t lock;
    image_t *first; /* under the lock */
} pooled;

struct plait_images {
    const plait_override_t *overrides;
    size_t override_count;
    image_t *first;
    plait_threads_t limited;
    char why[WHY_SIZE];
};

/* The objects that led to the one that is being loaded, whose search paths hold for it, too. */
typedef struct search {
    const struct search *below;
    const char *path; /* of the object */
    const plait_elf_t *elf;
    unsigned depth;
} search_t;

plait_images_t *plait_images_new(const plait_override_t *overrides, size_t count)
{
    plait_images_t *images = calloc(1, sizeof *images);
    if (images != NULL) {
        images->overrides = overrides;
        images->override_count = count;
    }
    return images;
}

static void image_free(image_t *image)
{
    free(image->path);
    free(image->name);
    free(image->private_name);
    free(image);
}

void plait_images_free(plait_images_t *images)
{
    if (images == NULL)
        return;
    while (images->first != NULL) {
        image_t *image = images->first;
        images->first = image->next;
        image_free(image);
    }
    free(images);
}

const char *plait_images_error(const plait_images_t *images)
{
    return images->why;
}

__attribute__((format(printf, 3, 4))) static int fail(plait_images_t *images, int code,
                                                      const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(images->why, WHY_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* ---- the list ---- */

static image_t *find_image(image_t *first, const char *path)
{
    for (image_t *image = first; image != NULL; image = image->next)
        if (strcmp(image->path, path) == 0)
            return image;
    return NULL;
}

static image_t *image_new(const char *path, const char *name)
{
    image_t *image = calloc(1, sizeof *image);
    if (image == NULL)
        return NULL;
    image->path = strdup(path);
    image->name = name == NULL ? NULL : strdup(name);
    if (image->path == NULL || (name != NULL && image->name == NULL)) {
        image_free(image);
        return NULL;
    }
    return image;
}

static image_t *add_image(plait_images_t *images, const char *path, const char *name)
{
    image_t *image = image_new(path, name);
    if (image != NULL) {
        image->next = images->first;
        images->first = image;
    }
    return image;
}

static void drop_image(plait_images_t *images, image_t *dropped)
{
    for (image_t **link = &images->first; *link != NULL; link = &(*link)->next) {
        if (*link == dropped) {
            *link = dropped->next;
            image_free(dropped);
            return;
        }
    }
}

/* A name of the same length that no library of this process has: its first letters are a number. */
static char *make_private_name(const char *name)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    static PLAIT_ATOMIC(uint32_t) serial;
    char *made = strlen(name) > SERIAL_DIGITS ? strdup(name) : NULL;
    /* Relaxed: only the numbers must differ. */
    uint32_t number = plait_atomic_add_relaxed(&serial, 1);
    for (int digit = SERIAL_DIGITS - 1; made != NULL && digit >= 0; digit--, number /= 36)
        made[digit] = digits[number % 36];
    return made;
}

/* ---- dependencies ---- */

/* One folder of a search path, with $ORIGIN replaced; false where it is none that can be used. */
static bool expand_folder(const char *folder, size_t length, const char *object, char *expanded)
{
    static const char *const tokens[] = {"$ORIGIN", "${ORIGIN}"};
    size_t origin = (size_t)(base_name(object) - object), skip = 0;
    for (size_t index = 0; index < 2; index++) {
        size_t size = strlen(tokens[index]);
        if (length >= size && memcmp(folder, tokens[index], size) == 0)
            skip = size;
    }
    size_t prefix = skip > 0 ? origin : 0;
    if (length == 0 || prefix + 1 + length >= PATH_MAX || (skip == 0 && folder[0] != '/') ||
        memchr(folder + skip, '$', length - skip) != NULL)
        return false;
    memcpy(expanded, object, prefix);
    memcpy(expanded + prefix, folder + skip, length - skip);
    expanded[prefix + length - skip] = '\0';
    return true;
}

/* Where a needed library lies among what the objects bring along: in their search paths. */
static bool find_library(const search_t *search, const char *name, char *resolved)
{
    for (; search != NULL; search = search->below) {
        const char *folder = plait_elf_search_path(search->elf);
        while (folder != NULL && *folder != '\0') {
            char candidate[PATH_MAX + NAME_MAX + 2], expanded[PATH_MAX];
            size_t length = strcspn(folder, ":");
            if (expand_folder(folder, length, search->path, expanded) &&
                (size_t)snprintf(candidate, sizeof candidate, "%s/%s", expanded, name) <
                    sizeof candidate &&
                realpath(candidate, resolved) != NULL)
                return true;
            folder += length + (folder[length] == ':');
        }
    }
    return false;
}

static int load_object(plait_images_t *images, const char *path, const search_t *below,
                       image_t **loaded);

/* Loads what an object needs and brings along; the names of private ones are changed in it. */
static int load_dependencies(plait_images_t *images, plait_source_t *source, const search_t *search,
                             bool *any_private)
{
    size_t position = 0, count = 0;
    const char *name;
    char path[PATH_MAX];
    while (plait_elf_next_needed(&source->elf, &position, &name) == PLAIT_OK) {
        image_t *library;
        if (strchr(name, '/') != NULL || !find_library(search, name, path))
            continue;
        int status = load_object(images, path, search, &library);
        if (status != PLAIT_OK)
            return status;
        if (library == NULL || !library->private)
            continue;
        *any_private = true;
        if (library->private_name == NULL ||
            plait_elf_rename(&source->elf, library->name, library->private_name, &count) !=
                PLAIT_OK ||
            count == 0)
            return fail(images, PLAIT_UNSUPPORTED, "the name of %s in %s cannot be changed", name,
                        search->path);
    }
    return PLAIT_OK;
}

/* ---- slots ---- */

static const plait_override_t *find_override(const plait_images_t *images, const char *symbol)
{
    for (size_t index = 0; index < images->override_count; index++)
        if (strcmp(images->overrides[index].symbol, symbol) == 0)
            return &images->overrides[index];
    return NULL;
}

/* What the loader made read-only after relocation: whole pages only, as it does. */
static bool find_protected(const plait_elf_t *elf, uintptr_t base, uintptr_t *from, uintptr_t *to)
{
    plait_elf_segment_t segment;
    size_t position = 0, mask = plait_prim_page_size() - 1;
    while (plait_elf_next_segment(elf, &position, &segment) == PLAIT_OK) {
        if (!segment.relocated)
            continue;
        *from = (base + segment.address) & ~(uintptr_t)mask;
        *to = (base + segment.address + segment.memory) & ~(uintptr_t)mask;
        return *from < *to;
    }
    return false;
}

static bool is_writable(const plait_elf_t *elf, uint64_t address)
{
    plait_elf_segment_t segment;
    size_t position = 0;
    while (plait_elf_next_segment(elf, &position, &segment) == PLAIT_OK)
        if (!segment.relocated && segment.writable && address >= segment.address &&
            address - segment.address < segment.memory)
            return true;
    return false;
}

static int set_slots(const plait_images_t *images, const plait_elf_t *elf, uintptr_t base)
{
    plait_elf_slot_t slot;
    size_t position = 0;
    int status;
    while ((status = plait_elf_next_slot(elf, &position, &slot)) == PLAIT_OK) {
        const plait_override_t *override = find_override(images, slot.symbol);
        if (override == NULL)
            continue;
        if (!is_writable(elf, slot.address))
            return PLAIT_UNSUPPORTED;
        uintptr_t value = (uintptr_t) override->function + (uintptr_t)slot.addend;
        memcpy((void *)(base + slot.address), &value, sizeof value);
    }
    return status == PLAIT_EMPTY ? PLAIT_OK : status;
}

/* Only this image's own words, which nobody else knows yet, are changed: never the loader's. */
static int override_slots(plait_images_t *images, const plait_elf_t *elf, void *handle)
{
    struct link_map *map;
    uintptr_t from, to;
    if (images->override_count == 0)
        return PLAIT_OK;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0)
        return fail(images, PLAIT_SYSTEM, "%s", dlerror());
    bool is_protected = find_protected(elf, map->l_addr, &from, &to);
    if (is_protected && mprotect((void *)from, to - from, PROT_READ | PROT_WRITE) != 0)
        return fail(images, PLAIT_SYSTEM, "its tables cannot be made writable: %s",
                    strerror(errno));
    int status = set_slots(images, elf, map->l_addr);
    if (is_protected && mprotect((void *)from, to - from, PROT_READ) != 0)
        return fail(images, PLAIT_SYSTEM, "its tables cannot be made read-only: %s",
                    strerror(errno));
    return status == PLAIT_OK ? status : fail(images, status, "its tables are of an unknown kind");
}

/* ---- loading ---- */

/* Nobody who asks for the original by its name shall be given the copy. */
static bool change_name(plait_source_t *source, image_t *image)
{
    size_t count;
    if (image->name == NULL)
        return true;
    image->private_name = make_private_name(image->name);
    return image->private_name != NULL &&
           plait_elf_rename(&source->elf, image->name, image->private_name, &count) == PLAIT_OK;
}

static int load_privately(plait_images_t *images, plait_source_t *source, image_t *image)
{
    if (!change_name(source, image))
        return fail(images, PLAIT_UNSUPPORTED, "the name of %s cannot be changed", image->path);
    plait_elf_divide_unique(&source->elf);
    void *handle = plait_source_load(source, base_name(image->path), images->why, WHY_SIZE);
    if (handle == NULL)
        return PLAIT_SYSTEM;
    int status = override_slots(images, &source->elf, handle);
    if (status == PLAIT_OK)
        image->handle = handle; /* otherwise it stays mapped, without a name */
    return status;
}

static image_t *new_pooled(plait_images_t *images, plait_source_t *source, const image_t *image)
{
    plait_threads_guard_t guard;
    image_t *made = image_new(image->path, image->name);
    if (made == NULL) {
        fail(images, PLAIT_NOMEM, "%s: out of memory", image->path);
        return NULL;
    }
    plait_threads_guard(&guard);
    int status = load_privately(images, source, made);
    plait_threads_unguard(&guard);
    if (status != PLAIT_OK) {
        image_free(made);
        return NULL;
    }
    plait_threads_limit_pool(made->handle);
    return made;
}

/* The workers' own image of a library with a pool of threads. */
static int load_pooled(plait_images_t *images, plait_source_t *source, image_t *image)
{
    plait_prim_lock(&pooled.lock);
    image_t *found = find_image(pooled.first, image->path);
    if (found == NULL) {
        found = new_pooled(images, source, image);
        if (found != NULL) {
            found->next = pooled.first;
            pooled.first = found;
        }
    }
    plait_prim_unlock(&pooled.lock);
    if (found == NULL)
        return PLAIT_SYSTEM;
    image->private = true;
    image->handle = found->handle;
    image->private_name = strdup(found->private_name);
    return image->private_name != NULL
               ? PLAIT_OK
               : fail(images, PLAIT_NOMEM, "%s: out of memory", image->path);
}

static int load_shared(plait_images_t *images, image_t *image)
{
    image->handle = dlopen(image->path, RTLD_NOW | RTLD_LOCAL);
    return image->handle != NULL ? PLAIT_OK : fail(images, PLAIT_SYSTEM, "%s", dlerror());
}

static int load_image(plait_images_t *images, plait_source_t *source, image_t *image)
{
    if (image->private)
        return load_privately(images, source, image);
    return plait_threads_has_pool(image->name) ? load_pooled(images, source, image)
                                               : load_shared(images, image);
}

static int open_source(plait_images_t *images, plait_source_t *source, const char *path)
{
    int status = plait_source_open(source, path);
    if (status == PLAIT_OK)
        return status;
    return fail(images, status, "%s: %s", path,
                status == PLAIT_SYSTEM ? strerror(errno) : plait_error_text(status));
}

/* `below` NULL: an extension, always private; else a library, which is private if it uses CPython's
 * API or needs one that is. *loaded is NULL for one that is being loaded already, below. */
static int load_object(plait_images_t *images, const char *path, const search_t *below,
                       image_t **loaded)
{
    plait_source_t source;
    *loaded = find_image(images->first, path);
    if (*loaded != NULL) {
        if ((*loaded)->handle == NULL)
            *loaded = NULL;
        return PLAIT_OK;
    }
    unsigned depth = below == NULL ? 0 : below->depth + 1;
    if (depth > DEPTH_MAX)
        return fail(images, PLAIT_DEPTH, "%s: its libraries are nested too deeply", path);
    int status = open_source(images, &source, path);
    if (status != PLAIT_OK)
        return status;
    const char *name = plait_elf_soname(&source.elf);
    image_t *image = add_image(images, path, name);
    if (image == NULL) {
        status = fail(images, PLAIT_NOMEM, "%s: out of memory", path);
        goto done;
    }
    search_t search = {below, path, &source.elf, depth};
    image->private = below == NULL || plait_elf_uses_python(&source.elf);
    status = load_dependencies(images, &source, &search, &image->private);
    if (status == PLAIT_OK && image->private && below != NULL && name == NULL)
        status = fail(images, PLAIT_UNSUPPORTED,
                      "%s uses Python and has no SONAME, so no copy of it can be told apart", path);
    if (status == PLAIT_OK)
        status = load_image(images, &source, image);
    if (status == PLAIT_OK)
        *loaded = image;
    else
        drop_image(images, image);
done:
    plait_source_close(&source);
    return status;
}

int plait_images_load(plait_images_t *images, const char *path, void **handle)
{
    char resolved[PATH_MAX];
    image_t *image;
    if (realpath(path, resolved) == NULL)
        return fail(images, PLAIT_SYSTEM, "%s: %s", path, strerror(errno));
    int status = load_object(images, resolved, NULL, &image);
    if (status != PLAIT_OK)
        return status;
    *handle = image->handle;
    plait_threads_limit(&images->limited, image->handle);
    return PLAIT_OK;
}

void plait_images_enter_thread(plait_images_t *images)
{
    plait_threads_limit_again(&images->limited);
}
