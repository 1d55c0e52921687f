/* image: what is private and what is shared, what is overridden, what is left behind. The objects
 * that are loaded are built from images/; this program plays CPython for them. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/atomic.h"
#include "isolate/image.h"
#include "test.h"

/* ---- what the objects ask of "Python" ---- */

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int PyTest_Value(void);
EXPORTED int PyGILState_Ensure(void);

int PyTest_Value(void)
{
    return 1;
}

int PyGILState_Ensure(void)
{
    return 1;
}

static int ensure_of_ours(void)
{
    return 2;
}

/* ---- memory can be refused ---- */

static bool refuse_memory;

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);

int __wrap_memfd_create(const char *name, unsigned flags)
{
    if (!refuse_memory)
        return __real_memfd_create(name, flags);
    errno = ENOSYS;
    return -1;
}

/* ---- helpers ---- */

/* Beside this program. */
static const char *object_path(const char *name)
{
    static _Thread_local char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 200);
    if (length < 0)
        return NULL;
    path[length] = '\0';
    strcpy(strrchr(path, '/') + 1, "images/");
    return strcat(path, name);
}

static const plait_override_t overrides[] = {{"PyGILState_Ensure", (void (*)(void))ensure_of_ours}};

static plait_images_t *new_set(void)
{
    return plait_images_new(overrides, 1);
}

static int call(void *handle, const char *name)
{
    int (*function)(void);
    void *address = dlsym(handle, name);
    if (address == NULL)
        return -1;
    memcpy(&function, &address, sizeof function);
    return function();
}

static int count_entries(const char *folder)
{
    int count = 0;
    DIR *entries = opendir(folder);
    while (entries != NULL && readdir(entries) != NULL)
        count++;
    if (entries != NULL)
        closedir(entries);
    return count;
}

static void *load(plait_images_t *images)
{
    void *handle = NULL;
    int status = plait_images_load(images, object_path("image_thing.so"), &handle);
    if (status != PLAIT_OK)
        fprintf(stderr, "%s\n", plait_images_error(images));
    CHECK_EQ(status, PLAIT_OK);
    return handle;
}

/* ---- tests ---- */

TEST(each_set_has_static_data_of_its_own)
{
    plait_images_t *sets[3];
    int plain = 0;
    for (int index = 0; index < 3; index++) {
        sets[index] = new_set();
        void *handle = load(sets[index]);
        REQUIRE(handle != NULL);
        CHECK_EQ(call(handle, "thing_count"), 11);
        CHECK_EQ(call(handle, "thing_helper_count"), 1);
        CHECK_EQ(call(handle, "thing_unique_count"), 1);
        CHECK_EQ(call(handle, "thing_plain_count"), ++plain); /* shared by all */
    }
    for (int index = 0; index < 3; index++) {
        CHECK_EQ(call(load(sets[index]), "thing_count"), 12); /* once per set */
        plait_images_free(sets[index]);
    }
}

TEST(the_original_is_untouched)
{
    void *original = dlopen(object_path("image_thing.so"), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(original != NULL);
    plait_images_t *images = new_set();
    void *copy = load(images);
    REQUIRE(copy != NULL && copy != original);
    CHECK_EQ(call(original, "thing_count"), 11);
    CHECK_EQ(call(original, "thing_ask"), 1);
    CHECK_EQ(call(copy, "thing_ask"), 2);
    CHECK_EQ(call(copy, "thing_ask_by_pointer"), 2);
    CHECK_EQ(call(original, "thing_ask_by_pointer"), 1);
    plait_images_free(images);
    dlclose(original);
}

TEST(nothing_is_left_behind)
{
    char folder[] = "/tmp/plait-test-XXXXXX";
    REQUIRE(mkdtemp(folder) != NULL);
    int folder_before = count_entries(folder), open_before = count_entries("/proc/self/fd");
    setenv("TMPDIR", folder, 1);
    for (int round = 0; round < 4; round++) {
        refuse_memory = round % 2 == 1;
        plait_images_t *images = new_set();
        CHECK_EQ(call(load(images), "thing_count"), 11);
        CHECK_EQ(count_entries(folder), folder_before);
        CHECK_EQ(count_entries("/proc/self/fd"), open_before);
        plait_images_free(images);
    }
    refuse_memory = false;
    unsetenv("TMPDIR");
    rmdir(folder);
}

TEST(a_chosen_folder_keeps_the_copies)
{
    char folder[] = "/tmp/plait-test-XXXXXX", name[4096 + 300];
    REQUIRE(mkdtemp(folder) != NULL);
    plait_images_t *images = new_set();
    load(images); /* with what is loaded once for all sets */
    plait_images_free(images);
    setenv("PLAIT_IMAGE_DIR", folder, 1);
    images = new_set();
    CHECK_EQ(call(load(images), "thing_count"), 11);
    CHECK_EQ(count_entries(folder), 4); /* the extension, its helper, . and .. */
    plait_images_free(images);
    setenv("PLAIT_IMAGE_DIR", "/nonexistent", 1);
    images = new_set();
    void *handle;
    CHECK_EQ(plait_images_load(images, object_path("image_thing.so"), &handle), PLAIT_SYSTEM);
    CHECK(strstr(plait_images_error(images), "no place for a private copy") != NULL);
    plait_images_free(images);
    unsetenv("PLAIT_IMAGE_DIR");
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        unlink(name);
    }
    closedir(entries);
    rmdir(folder);
}

static int count_processors(void)
{
    cpu_set_t processors;
    return sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : -1;
}

TEST(libraries_of_images_compute_in_one_thread)
{
    int processors = count_processors();
    void *original = dlopen(object_path("image_thing.so"), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(original != NULL);
    plait_images_t *images = new_set(), *others = new_set();
    void *copy = load(images), *other = load(others);
    REQUIRE(copy != NULL && other != NULL);
    CHECK_EQ(call(copy, "thing_blas_threads_at_load"), 1);
    CHECK_EQ(call(copy, "thing_blas_threads"), 1);
    CHECK_EQ(call(copy, "thing_omp_threads"), 1);
    CHECK_EQ(call(original, "thing_blas_threads_at_load"), processors);
    CHECK_EQ(call(original, "thing_blas_threads"), processors);
    CHECK_EQ(count_processors(), processors);
    call(copy, "thing_blas_choose_three"); /* for all images, not for the original */
    CHECK_EQ(call(other, "thing_blas_threads"), 3);
    CHECK_EQ(call(original, "thing_blas_threads"), processors);
    plait_images_free(images);
    plait_images_free(others);
    dlclose(original);
}

/* Code is mapped from the original, and nowhere from a copy. */
TEST(code_is_shared)
{
    plait_images_t *images = new_set();
    void *handle = load(images);
    REQUIRE(handle != NULL);
    uintptr_t code = (uintptr_t)dlsym(handle, "thing_count");
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4600];
    bool found = false;
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2 && from <= code && code < to) {
            found = true;
            CHECK(strstr(line, "images/image_thing.so") != NULL);
            CHECK(strstr(line, "r-xp") != NULL);
        }
    }
    CHECK(found);
    fclose(maps);
    plait_images_free(images);
}

TEST(what_is_no_shared_object_is_refused)
{
    plait_images_t *images = new_set();
    void *handle;
    CHECK_EQ(plait_images_load(images, "/nonexistent.so", &handle), PLAIT_SYSTEM);
    CHECK(strstr(plait_images_error(images), "/nonexistent.so") != NULL);
    CHECK_EQ(plait_images_load(images, "/etc/passwd", &handle), PLAIT_CORRUPT);
    CHECK_EQ(plait_images_load(images, "/tmp", &handle), PLAIT_CORRUPT);
    CHECK(strstr(plait_images_error(images), "/tmp") != NULL);
    plait_images_free(images);
}

/* ThreadSanitizer does not see what the loader maps, and takes an address that one thread has
 * unmapped and another's image was mapped at for shared: there, a lock tells it the order. */
static pthread_mutex_t one_by_one = PTHREAD_MUTEX_INITIALIZER;

static void *load_often(void *argument)
{
    for (int round = 0; round < 20; round++) {
        if (PLAIT_TSAN)
            pthread_mutex_lock(&one_by_one);
        plait_images_t *images = new_set();
        CHECK_EQ(call(load(images), "thing_count"), 11);
        plait_images_free(images);
        if (PLAIT_TSAN)
            pthread_mutex_unlock(&one_by_one);
    }
    return argument;
}

TEST(sets_are_independent_of_each_other)
{
    pthread_t threads[4];
    for (int index = 0; index < 4; index++)
        REQUIRE(pthread_create(&threads[index], NULL, load_often, NULL) == 0);
    for (int index = 0; index < 4; index++)
        pthread_join(threads[index], NULL);
}
