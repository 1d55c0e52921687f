/* The golden files: what the writer makes is what they hold, they are valid, and no damage to them
 * crashes a reader. PLAIT_GOLDEN=write writes them anew; PLAIT_GOLDEN_DIR is where they are, if not
 * beside this file.
 */
#include "test.h"

#include <sys/stat.h>

#include "flat_golden.h"
#include "flat_walk.h"

static void path_of(const golden_t *golden, char *path, size_t size)
{
    const char *folder = getenv("PLAIT_GOLDEN_DIR"), *slash = strrchr(__FILE__, '/');
    int length = slash != NULL ? (int)(slash - __FILE__ + 1) : 0;
    if (folder != NULL)
        snprintf(path, size, "%s/%s.flat", folder, golden->name);
    else
        snprintf(path, size, "%.*sgolden/%s.flat", length, __FILE__, golden->name);
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL);
    CHECK_EQ(fwrite(data, 1, size, file), size);
    CHECK_EQ(fclose(file), 0);
}

static void check_file(const char *path, const void *expected, size_t size)
{
    unsigned char *data = malloc(size + 1);
    FILE *file = fopen(path, "rb");
    if (CHECK(file != NULL) && CHECK(data != NULL)) {
        CHECK_EQ(fread(data, 1, size + 1, file), size); /* and not a byte more */
        CHECK(memcmp(data, expected, size) == 0);
        CHECK_EQ(plait_flat_is_valid(data, size, &plait_alloc_system), PLAIT_OK);
        CHECK_EQ(flat_walk(data, size), PLAIT_OK);
    }
    if (file != NULL)
        fclose(file);
    free(data);
}

TEST(files)
{
    const char *mode = getenv("PLAIT_GOLDEN");
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        char path[4096];
        size_t size;
        unsigned char *message = golden_build(&goldens[i], goldens[i].flags, &size);
        path_of(&goldens[i], path, sizeof path);
        if (mode != NULL && strcmp(mode, "write") == 0)
            write_file(path, message, size);
        check_file(path, message, size);
        free(message);
    }
}

TEST(every_type)
{
    bool met[PLAIT_FLAT_TYPE_END] = {false};
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        plait_flat_reader_t reader;
        plait_flat_body_t body;
        size_t size;
        unsigned char *message = golden_build(&goldens[i], 0, &size);
        CHECK_EQ(plait_flat_open(&reader, message, size), PLAIT_OK);
        for (size_t offset = sizeof(plait_flat_header_t); offset < size;) {
            if (!CHECK(plait_flat_get(&reader, plait__flat_ref(offset), &body) == PLAIT_OK))
                break;
            met[body.type] = true;
            offset = ((size_t)(body.bytes - reader.base) + body.byte_count + 7) / 8 * 8;
        }
        free(message);
    }
    for (int type = 1; type < PLAIT_FLAT_FUNCTION; type++)
        CHECK(met[type]);
}

/* Every value of every byte. With a checksum nothing but the original is accepted. */
static void check_flips(const golden_t *golden, unsigned flags)
{
    size_t size;
    plait_flat_reader_t reader;
    unsigned char *message = golden_build(golden, flags, &size);
    for (size_t at = 0; at < size; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            message[at] ^= (unsigned char)flip;
            int walked = flat_walk(message, size);
            int valid = plait_flat_is_valid(message, size, &plait_alloc_system);
            CHECK(walked <= 0 && valid <= 0);
            CHECK(valid != PLAIT_OK || walked == PLAIT_OK);
            if (flags & PLAIT_FLAT_HAS_CHECKSUM)
                CHECK(plait_flat_open(&reader, message, size) != PLAIT_OK);
            message[at] ^= (unsigned char)flip;
        }
    }
    CHECK_EQ(plait_flat_is_valid(message, size, &plait_alloc_system), PLAIT_OK);
    free(message);
}

TEST(flips)
{
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        check_flips(&goldens[i], 0);
        check_flips(&goldens[i], PLAIT_FLAT_HAS_CHECKSUM);
    }
}

/* Cut anywhere, as it is and with a size that says so. */
static void check_cuts(const golden_t *golden, unsigned flags)
{
    size_t size;
    unsigned char *message = golden_build(golden, flags, &size);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *part = malloc(cut + 1);
        const uint64_t claimed = cut;
        REQUIRE(part != NULL);
        memcpy(part, message, cut);
        CHECK_EQ(flat_walk(part, cut), PLAIT_CORRUPT);
        CHECK_EQ(plait_flat_is_valid(part, cut, &plait_alloc_system), PLAIT_CORRUPT);
        if (cut >= sizeof(plait_flat_header_t)) {
            memcpy(part + offsetof(plait_flat_header_t, size), &claimed, sizeof claimed);
            int walked = flat_walk(part, cut);
            CHECK(walked == PLAIT_CORRUPT || (flags == 0 && walked == PLAIT_OK));
            CHECK_EQ(plait_flat_is_valid(part, cut, &plait_alloc_system), PLAIT_CORRUPT);
        }
        free(part);
    }
    free(message);
}

TEST(cuts)
{
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        check_cuts(&goldens[i], 0);
        check_cuts(&goldens[i], PLAIT_FLAT_HAS_CHECKSUM);
    }
}
