/* Tests of src/core/block.c, of letters with blocks (src/core/wire.c), and of src/prim's drafts and
 * sockets. Design: docs/design/process.md */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/block.h"
#include "core/wire.h"

enum { SIZE = 3 << 20, CAPACITY = 1 << 12 };

static void fill(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t at = 0; at < size; at++)
        bytes[at] = (unsigned char)(at * 7 + seed);
}

static bool is_filled(const unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t at = 0; at < size; at++)
        if (bytes[at] != (unsigned char)(at * 7 + seed))
            return false;
    return true;
}

static plait_block_t *make_block(size_t size, unsigned seed)
{
    plait_block_t *block = NULL;
    if (plait_block_draft(&block, size) != PLAIT_OK)
        return NULL;
    fill(block->map.base, size, seed);
    return plait_block_seal(block, size) == PLAIT_OK ? block : NULL;
}

static int open_files(void)
{
    int count = 0;
    for (int descriptor = 0; descriptor < 1000; descriptor++)
        count += fcntl(descriptor, F_GETFD) >= 0;
    return count;
}

/* ---- blocks ---- */

TEST(a_draft_grows_and_is_sealed)
{
    plait_block_t *block;
    size_t size = 1000;
    REQUIRE(plait_block_draft(&block, size) == PLAIT_OK);
    fill(block->map.base, size, 1);
    REQUIRE(plait_block_resize(block, SIZE) == PLAIT_OK);
    CHECK(is_filled(block->map.base, size, 1));
    fill(block->map.base, SIZE, 2);
    unsigned char text[100];
    fill(text, sizeof text, 9);
    plait_prim_draft_write(&block->map, (char *)block->map.base + 5000, text, sizeof text);
    CHECK_EQ(memcmp((char *)block->map.base + 5000, text, sizeof text), 0);
    fill(block->map.base, SIZE, 2);
    REQUIRE(plait_block_seal(block, SIZE - 5) == PLAIT_OK);
    CHECK_EQ(block->map.size, SIZE - 5);
    CHECK(is_filled(block->map.base, SIZE - 5, 2));
    CHECK(ftruncate(block->map.descriptor, 0) != 0);
    CHECK(pwrite(block->map.descriptor, "x", 1, 0) < 0);
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, block->map.descriptor, 0) == MAP_FAILED);
    plait_block_release(block);
}

TEST(what_one_writes_no_other_sees)
{
    plait_block_t *block = make_block(SIZE, 3), *other;
    REQUIRE(block != NULL);
    REQUIRE(plait_block_open(&other, dup(block->map.descriptor)) == PLAIT_OK);
    CHECK_EQ(other->map.size, SIZE);
    CHECK(is_filled(other->map.base, SIZE, 3));
    *(unsigned char *)other->map.base = 255;
    CHECK(is_filled(block->map.base, SIZE, 3));
    plait_block_release(block);
    plait_block_release(other);
}

TEST(found_where_it_is_unchanged)
{
    plait_block_t *block = make_block(SIZE, 4), *another = make_block(SIZE, 5);
    REQUIRE(block != NULL && another != NULL);
    unsigned char *bytes = block->map.base;
    plait_block_t *found = plait_block_find(bytes + 100, SIZE - 100);
    CHECK(found == block);
    plait_block_release(found);
    CHECK(plait_block_find(bytes + 100, SIZE) == NULL); /* longer than it */
    CHECK(plait_block_find(&found, sizeof found) == NULL);
    bytes[SIZE / 2] = 1; /* now a page is a copy */
    CHECK(plait_block_find(bytes, SIZE) == NULL);
    found = plait_block_find(bytes, SIZE / 4); /* not among these */
    CHECK(found == block);
    plait_block_release(found);
    plait_block_release(block);
    CHECK(plait_block_find(bytes, 10) == NULL);
    plait_block_release(another);
}

TEST(more_than_there_can_be)
{
    struct rlimit before, limit;
    plait_block_t *block;
    int files = open_files();
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    limit = (struct rlimit){SIZE, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK_EQ(plait_block_draft(&block, SIZE + 1), PLAIT_NOMEM);
    REQUIRE(plait_block_draft(&block, SIZE) == PLAIT_OK);
    CHECK_EQ(plait_block_resize(block, SIZE + 1), PLAIT_NOMEM);
    fill(block->map.base, SIZE, 6); /* still there */
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    plait_block_release(block);
    CHECK_EQ(open_files(), files);
}

TEST(so_many_keep_their_descriptors)
{
    struct rlimit before, limit;
    enum { MANY = 40, FILES = 80 };
    plait_block_t *blocks[MANY], *one = make_block(4096, 7);
    REQUIRE(one != NULL && getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = (struct rlimit){FILES, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int files = open_files(), kept = 0;
    for (int i = 0; i < MANY; i++) {
        REQUIRE(plait_block_open(&blocks[i], dup(one->map.descriptor)) == PLAIT_OK);
        kept += blocks[i]->map.descriptor >= 0;
    }
    CHECK(kept > 0 && kept <= FILES / 4);
    CHECK_EQ(open_files(), files + kept);
    plait_block_t *another;
    CHECK_EQ(plait_block_draft(&another, 4096), PLAIT_FULL);
    for (int i = 0; i < MANY; i++)
        plait_block_release(blocks[i]);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    plait_block_release(one);
}

TEST(nonsense_is_refused)
{
    plait_block_t *block;
    int files = open_files(), pipes[2], sparse = memfd_create("sparse", MFD_ALLOW_SEALING);
    plait_prim_map_t map;
    REQUIRE(plait_prim_map_create(&map, 4096, true) == PLAIT_OK); /* sealed, but can be written */
    CHECK_EQ(plait_block_open(&block, dup(map.descriptor)), PLAIT_CORRUPT);
    plait_prim_map_close(&map);
    REQUIRE(ftruncate(sparse, SIZE) == 0);
    CHECK(fcntl(sparse, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
    CHECK_EQ(plait_block_open(&block, sparse), PLAIT_CORRUPT);
    REQUIRE(pipe(pipes) == 0);
    CHECK_EQ(plait_block_open(&block, pipes[0]), PLAIT_CORRUPT);
    CHECK_EQ(plait_block_open(&block, pipes[1]), PLAIT_CORRUPT);
    CHECK_EQ(plait_block_open(&block, -1), PLAIT_CORRUPT);
    CHECK_EQ(open_files(), files);
}

/* ---- letters ---- */

struct place {
    plait_ring_shared_t shared;
    _Alignas(PLAIT_RING_ALIGNMENT) unsigned char data[CAPACITY];
};

static void open_ring(struct place *place, plait_ring_t *ring)
{
    memset(place, 0, sizeof *place);
    plait_ring_init(ring, &place->shared, place->data, CAPACITY);
}

/* A letter whose first blob is a block and refers to another, and whose second is small and refers to
 * one. */
static void make_letter(plait_letter_t *letter)
{
    *letter = (plait_letter_t){.type = 1, .number = 8, .words = {1, 2, 3}};
    letter->bundles[0] = plait_bundle_new(2);
    letter->bundles[1] = plait_bundle_new(1);
    letter->bundles[0]->has_message = true;
    letter->bundles[0]->blocks[0] = make_block(SIZE, 1);
    letter->bundles[0]->blocks[1] = make_block(SIZE + 1, 2);
    letter->bundles[1]->blocks[0] = make_block(SIZE + 2, 3);
    letter->blobs[0] = (plait_blob_t){letter->bundles[0]->blocks[0]->map.base, SIZE};
    letter->blobs[1] = (plait_blob_t){"small one", 10};
}

static void check_letter(const plait_letter_t *got)
{
    REQUIRE(got->bundles[0] != NULL && got->bundles[1] != NULL);
    CHECK(got->bundles[0]->has_message && !got->bundles[1]->has_message);
    CHECK_EQ(got->bundles[0]->count, 2);
    CHECK_EQ(got->bundles[1]->count, 1);
    CHECK_EQ(got->blobs[0].size, SIZE);
    CHECK(is_filled(got->blobs[0].bytes, SIZE, 1));
    CHECK(is_filled(got->bundles[0]->blocks[1]->map.base, SIZE + 1, 2));
    CHECK(is_filled(got->bundles[1]->blocks[0]->map.base, SIZE + 2, 3));
    CHECK_EQ(got->blobs[1].size, 10);
    CHECK_EQ(strcmp(got->blobs[1].bytes, "small one"), 0);
}

TEST(a_letter_with_blocks)
{
    static struct place place;
    plait_ring_t in, out;
    plait_letter_t letter, got;
    int sockets[2], files = open_files();
    open_ring(&place, &in);
    plait_ring_init(&out, &place.shared, place.data, CAPACITY);
    REQUIRE(plait_prim_socket_pair(sockets) == PLAIT_OK);
    make_letter(&letter);
    for (int copy = 0; copy < 2; copy++) {
        REQUIRE(plait_wire_send_spsc(&in, sockets[0], &letter) == PLAIT_OK);
        REQUIRE(plait_wire_receive_spsc(&out, sockets[1], copy == 1, 0, &got) == PLAIT_OK);
        check_letter(&got);
        plait_wire_finish_spsc(&out, &got);
        CHECK(got.bundles[0] == NULL && got.blobs[0].bytes == NULL);
    }
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        plait_bundle_free(letter.bundles[index]);
    plait_prim_descriptor_close(sockets[0]);
    plait_prim_descriptor_close(sockets[1]);
    CHECK_EQ(open_files(), files);
}

/* Descriptors that are not there, are others, or are more or fewer than the letter says. */
TEST(letters_that_lie_about_their_blocks)
{
    static struct place place;
    plait_letter_t letter, got;
    int files = open_files();
    make_letter(&letter);
    for (int lie = 0; lie < 4; lie++) {
        plait_ring_t in, out;
        int sockets[2], nothing[2], wrong[4] = {0, 1, 2, 0};
        open_ring(&place, &in);
        plait_ring_init(&out, &place.shared, place.data, CAPACITY);
        REQUIRE(plait_prim_socket_pair(sockets) == PLAIT_OK);
        REQUIRE(plait_prim_socket_pair(nothing) == PLAIT_OK);
        if (lie > 0)
            REQUIRE(plait_prim_socket_send(sockets[0], wrong,
                                           lie == 1   ? 2
                                           : lie == 2 ? 3
                                                      : 4) == PLAIT_OK);
        REQUIRE(plait_wire_send_spsc(&in, nothing[0], &letter) == PLAIT_OK);
        CHECK_EQ(plait_wire_receive_spsc(&out, sockets[1], true, 0, &got), PLAIT_CORRUPT);
        for (int side = 0; side < 2; side++) {
            plait_prim_descriptor_close(sockets[side]);
            plait_prim_descriptor_close(nothing[side]);
        }
    }
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        plait_bundle_free(letter.bundles[index]);
    CHECK_EQ(open_files(), files);
}

TEST(a_peer_that_is_gone)
{
    static struct place place;
    plait_ring_t in;
    plait_letter_t letter;
    int sockets[2], files = open_files();
    open_ring(&place, &in);
    REQUIRE(plait_prim_socket_pair(sockets) == PLAIT_OK);
    plait_prim_descriptor_close(sockets[1]);
    make_letter(&letter);
    CHECK_EQ(plait_wire_send_spsc(&in, sockets[0], &letter), PLAIT_CLOSED);
    plait_prim_descriptor_close(sockets[0]);
    for (int index = 0; index < PLAIT_LETTER_BLOBS; index++)
        plait_bundle_free(letter.bundles[index]);
    CHECK_EQ(open_files(), files);
}

TEST(lent_bytes_are_nobody_elses)
{
    plait_block_t *block = make_block(SIZE, 8), *first, *second, *third;
    REQUIRE(block != NULL);
    int files = open_files();
    first = plait_block_lend(block, 0, 1000);
    second = plait_block_lend(block, 500, 1000); /* some of them once more */
    third = plait_block_lend(block, 1000, 1000);
    REQUIRE(first == block && third == block && second != NULL && second != block);
    memset(block->map.base, 0, 2000);
    CHECK(is_filled(second->map.base, SIZE, 8));
    plait_block_release(second);
    CHECK_EQ(open_files(), files);
    plait_prim_map_forget_descriptor(&block->map);
    CHECK(plait_block_lend(block, 0, 1) == NULL);
    third = plait_block_lend(block, 3000, 1);
    CHECK(third == block);
    for (int i = 0; i < 4; i++)
        plait_block_release(block);
}

/* Large pages or not, wherever what is written begins and ends. */
TEST(drafts_are_written_to)
{
    enum { LARGEST = 9 << 20, PLACES = 6 };
    static const size_t places[PLACES] = {0, 1, 4096, 100003, (2 << 20) + 13, 5 << 20};
    static unsigned char source[LARGEST];
    fill(source, LARGEST, 1);
    for (size_t size = 1 << 20; size <= LARGEST; size += 4 << 20)
        for (int i = 0; i < PLACES; i++) {
            plait_prim_map_t map;
            size_t at = places[i] % size,
                   count = size - at - places[(i + 1) % PLACES] % (size - at);
            REQUIRE(plait_prim_draft_create(&map, size / 2) == PLAIT_OK);
            fill(map.base, size / 2, 2);
            REQUIRE(plait_prim_draft_resize(&map, size) == PLAIT_OK);
            plait_prim_draft_write(&map, (char *)map.base + at, source, count);
            REQUIRE(plait_prim_draft_seal(&map, size) == PLAIT_OK);
            CHECK(is_filled((unsigned char *)map.base + at, count, 1));
            unsigned char *bytes = map.base;
            for (size_t byte = 0; byte < size; byte++)
                if (byte < at || byte >= at + count) {
                    unsigned char before = byte < size / 2 ? (unsigned char)(byte * 7 + 2) : 0;
                    REQUIRE(bytes[byte] == before);
                }
            plait_prim_map_close(&map);
        }
}

TEST(a_fork_does_not_keep_a_draft_from_being_sealed)
{
    plait_block_t *block;
    REQUIRE(plait_block_draft(&block, SIZE) == PLAIT_OK);
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    CHECK_EQ(plait_block_seal(block, SIZE), PLAIT_OK);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    plait_block_release(block);
}
