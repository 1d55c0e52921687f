/* Tests of region.c: layout, addresses, opening, claiming spans.
 * Design: docs/design/region.md */
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/region_span.h"
#include "plait/region.h"

#define MIB ((size_t)1 << 20)
#define SPAN PLAIT__SPAN_SIZE

static uint32_t usable(const plait_region_t *region)
{
    return region->span_count - region->first_span;
}

static uint32_t count_claimed(const plait_region_t *region)
{
    uint32_t count = 0;
    for (uint32_t span = region->first_span; span < region->span_count; span++)
        count += plait__region_is_claimed(region, span);
    return count;
}

/* ---- create, addresses ---- */

TEST(create_rounds_up_to_spans)
{
    const size_t sizes[] = {1, SPAN, 2 * SPAN, 2 * SPAN + 1, MIB, 100 * MIB + 5, (size_t)1 << 34};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int shared = 0; shared < 2; shared++) {
            plait_region_t *region;
            REQUIRE(plait_region_create(&region, sizes[i], shared != 0) == PLAIT_OK);
            CHECK(plait_region_size(region) >= sizes[i]);
            CHECK_EQ(plait_region_size(region) % SPAN, 0);
            CHECK((plait_region_descriptor(region) >= 0) == (shared != 0));
            CHECK(usable(region) >= 1);
            CHECK_EQ(count_claimed(region), 0);
            plait_region_close(region);
        }
}

TEST(create_refuses_sizes_out_of_range)
{
    plait_region_t *region;
    CHECK_EQ(plait_region_create(&region, 0, false), PLAIT_INVALID);
    CHECK_EQ(plait_region_create(&region, SIZE_MAX, false), PLAIT_INVALID);
    CHECK_EQ(plait_region_create(&region, (size_t)1 << 50, true), PLAIT_INVALID);
    plait_region_close(NULL);
}

TEST(at_checks_its_range)
{
    plait_region_t *region;
    REQUIRE(plait_region_create(&region, MIB, false) == PLAIT_OK);
    size_t size = plait_region_size(region);
    plait_offset_t first = (plait_offset_t)region->first_span * SPAN;
    CHECK(plait_region_at(region, 0, 1) == NULL);
    CHECK(plait_region_at(region, first - 1, 1) == NULL); /* the tables are nobody's business */
    CHECK(plait_region_at(region, first, size - first) == region->base + first);
    CHECK(plait_region_at(region, first, size - first + 1) == NULL);
    CHECK(plait_region_at(region, size - 1, 1) != NULL);
    CHECK(plait_region_at(region, size, 0) != NULL);
    CHECK(plait_region_at(region, size, 1) == NULL);
    CHECK(plait_region_at(region, size + 1, 0) == NULL);
    CHECK(plait_region_at(region, UINT64_MAX, 1) == NULL);
    CHECK(plait_region_at(region, size - 1, SIZE_MAX) == NULL);
    char outside;
    CHECK_EQ(plait_region_offset(region, region->base + first), first);
    CHECK_EQ(plait_region_offset(region, &outside), 0);
    CHECK_EQ(plait_region_offset(region, NULL), 0);
    CHECK_EQ(plait_region_offset(region, region->base + size), 0);
    plait_region_close(region);
}

/* ---- open ---- */

TEST(open_maps_the_same_memory)
{
    plait_region_t *region, *other;
    REQUIRE(plait_region_create(&region, 4 * MIB, true) == PLAIT_OK);
    size_t size = plait_region_size(region);
    int descriptor = dup(plait_region_descriptor(region));
    REQUIRE(plait_region_open(&other, descriptor, size) == PLAIT_OK);
    CHECK(other->base != region->base);
    uint32_t span, again;
    REQUIRE(plait__region_claim_spans(region, 1, &span) == PLAIT_OK);
    REQUIRE(plait__region_claim_spans(other, 1, &again) == PLAIT_OK);
    CHECK(span != again);
    memset(plait__region_span_base(region, span), 5, SPAN);
    CHECK_EQ(*(char *)plait__region_span_base(other, span), 5);
    CHECK_EQ(count_claimed(other), 2);
    plait_region_close(other);
    plait_region_close(region);
}

/* Every byte of the header's constant part, changed, is noticed. */
TEST(open_refuses_a_corrupt_header)
{
    plait_region_t *region, *other;
    REQUIRE(plait_region_create(&region, 4 * MIB, true) == PLAIT_OK);
    size_t size = plait_region_size(region);
    int descriptor = plait_region_descriptor(region);
    for (size_t i = 0; i < 64; i++) {
        region->base[i] ^= 0x41;
        int own = dup(descriptor);
        CHECK_EQ(plait_region_open(&other, own, size), PLAIT_CORRUPT);
        CHECK_EQ(close(own), 0); /* it is still the caller's */
        region->base[i] ^= 0x41;
    }
    CHECK_EQ(plait_region_open(&other, descriptor, size - SPAN), PLAIT_CORRUPT);
    CHECK_EQ(plait_region_open(&other, descriptor, size + SPAN), PLAIT_CORRUPT);
    CHECK_EQ(plait_region_open(&other, descriptor, 0), PLAIT_INVALID);
    CHECK_EQ(plait_region_open(&other, -1, size), PLAIT_INVALID);
    memset(region->base, 0, 64);
    CHECK_EQ(plait_region_open(&other, descriptor, size), PLAIT_CORRUPT);
    plait_region_close(region);
}

TEST(open_refuses_other_files)
{
    plait_region_t *region;
    FILE *file = tmpfile();
    REQUIRE(file != NULL);
    REQUIRE(ftruncate(fileno(file), (off_t)MIB) == 0);
    CHECK_EQ(plait_region_open(&region, fileno(file), MIB), PLAIT_CORRUPT);
    fclose(file);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    CHECK(plait_region_open(&region, ends[0], MIB) < 0);
    close(ends[0]);
    close(ends[1]);
}

/* ---- claiming ---- */

TEST(claim_everything_and_again)
{
    plait_region_t *region;
    REQUIRE(plait_region_create(&region, 20 * MIB, false) == PLAIT_OK);
    for (int round = 0; round < 3; round++) {
        uint32_t first, count = 0;
        while (plait__region_claim_spans(region, 1, &first) == PLAIT_OK)
            count++;
        CHECK_EQ(count, usable(region));
        CHECK_EQ(plait__region_claim_spans(region, 2, &first), PLAIT_FULL);
        for (uint32_t span = region->first_span; span < region->span_count; span++)
            plait__region_release_spans(region, span, 1);
        CHECK_EQ(count_claimed(region), 0);
        REQUIRE(plait__region_claim_spans(region, usable(region), &first) == PLAIT_OK);
        CHECK_EQ(first, region->first_span);
        plait__region_release_spans(region, first, usable(region));
    }
    uint32_t first;
    CHECK_EQ(plait__region_claim_spans(region, 0, &first), PLAIT_FULL);
    CHECK_EQ(plait__region_claim_spans(region, usable(region) + 1, &first), PLAIT_FULL);
    CHECK_EQ(plait__region_claim_spans(region, UINT32_MAX, &first), PLAIT_FULL);
    CHECK_EQ(plait__region_claim_spans_at(region, 0, 1), PLAIT_FULL);
    CHECK_EQ(plait__region_claim_spans_at(region, region->span_count, 1), PLAIT_FULL);
    CHECK_EQ(plait__region_claim_spans_at(region, region->span_count - 1, 2), PLAIT_FULL);
    plait_region_close(region);
}

/* Random runs against an array of bytes. */
TEST(claim_agrees_with_a_shadow)
{
    plait_region_t *region;
    enum { RUNS = 64 };
    static uint8_t taken[512];
    struct {
        uint32_t first, count;
    } runs[RUNS] = {{0, 0}};
    uint64_t random = test_random_start(0);
    REQUIRE(plait_region_create(&region, sizeof taken * SPAN, false) == PLAIT_OK);
    memset(taken, 0, sizeof taken);
    for (int i = 0; i < test_scaled(20000); i++) {
        uint32_t slot = (uint32_t)test_random_below(&random, RUNS);
        if (runs[slot].count != 0) {
            plait__region_release_spans(region, runs[slot].first, runs[slot].count);
            memset(taken + runs[slot].first, 0, runs[slot].count);
            runs[slot].count = 0;
            continue;
        }
        uint32_t first = 0, count = 1 + (uint32_t)test_random_below(&random, i % 3 == 0 ? 100 : 8);
        if (plait__region_claim_spans(region, count, &first) != PLAIT_OK) {
            uint32_t longest = 0, now = 0;
            for (uint32_t span = region->first_span; span < region->span_count; span++) {
                now = taken[span] ? 0 : now + 1;
                longest = now > longest ? now : longest;
            }
            CHECK(longest < count); /* it is full only when it is */
            continue;
        }
        CHECK(first >= region->first_span && first + count <= region->span_count);
        for (uint32_t span = first; span < first + count; span++) {
            CHECK_EQ(taken[span], 0);
            taken[span] = 1;
        }
        runs[slot].first = first;
        runs[slot].count = count;
    }
    plait_region_close(region);
}

TEST(release_gives_the_memory_back)
{
    for (int shared = 0; shared < 2; shared++) {
        plait_region_t *region;
        uint32_t first;
        REQUIRE(plait_region_create(&region, 8 * MIB, shared != 0) == PLAIT_OK);
        REQUIRE(plait__region_claim_spans(region, 16, &first) == PLAIT_OK);
        uint8_t *memory = plait__region_span_base(region, first);
        memset(memory, 1, 16 * SPAN);
        plait__region_release_spans(region, first, 16);
        unsigned char resident[16 * PLAIT__SPAN_SIZE / 4096];
        REQUIRE(mincore(memory, 16 * SPAN, resident) == 0);
        size_t pages = 0;
        for (size_t i = 0; i < 16 * SPAN / plait_prim_page_size(); i++)
            pages += resident[i] & 1;
        CHECK_EQ(pages, 0);
        plait_region_close(region);
    }
}

/* ---- several threads and processes ---- */

struct churn {
    plait_region_t *region;
    int rounds;
};

/* Claims runs, marks every span as its own, and sees that nobody else did. */
static void churn_spans(int index, void *argument)
{
    struct churn *churn = argument;
    plait_region_t *region = churn->region;
    uint64_t random = test_random_start((uint64_t)index);
    for (int i = 0; i < churn->rounds; i++) {
        uint32_t first, count = 1 + (uint32_t)test_random_below(&random, i % 4 == 0 ? 70 : 3);
        if (plait__region_claim_spans(region, count, &first) != PLAIT_OK)
            continue;
        uint64_t mark = (uint64_t)index << 32 | (uint64_t)i;
        for (uint32_t span = first; span < first + count; span++)
            *(uint64_t *)plait__region_span_base(region, span) = mark;
        if (i % 8 == 0)
            sched_yield();
        for (uint32_t span = first; span < first + count; span++)
            CHECK(*(uint64_t *)plait__region_span_base(region, span) == mark);
        plait__region_release_spans(region, first, count);
    }
}

TEST(threads_claim_apart)
{
    struct churn churn = {.rounds = test_scaled(3000)};
    REQUIRE(plait_region_create(&churn.region, 200 * SPAN, false) == PLAIT_OK);
    test_run_threads(4, churn_spans, &churn);
    CHECK_EQ(count_claimed(churn.region), 0);
    plait_region_close(churn.region);
}

static int wait_for(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(processes_claim_apart)
{
    struct churn churn = {.rounds = test_scaled(2000)};
    REQUIRE(plait_region_create(&churn.region, 200 * SPAN, true) == PLAIT_OK);
    size_t size = plait_region_size(churn.region);
    pid_t child = fork();
    if (child == 0) { /* through a map of its own, at another address */
        struct churn own = churn;
        if (plait_region_open(&own.region, dup(plait_region_descriptor(churn.region)), size) !=
            PLAIT_OK)
            _exit(2);
        churn_spans(1, &own);
        _exit(atomic_load(&test_failures) == 0 ? 0 : 1);
    }
    REQUIRE(child > 0);
    churn_spans(0, &churn);
    CHECK_EQ(wait_for(child), 0);
    CHECK_EQ(count_claimed(churn.region), 0);
    plait_region_close(churn.region);
}

/* A process killed while it claims loses some spans at most, and holds nobody up. */
TEST(killed_while_claiming)
{
    uint64_t random = test_random_start(0);
    for (int round = 0; round < test_scaled(40); round++) {
        struct churn churn = {.rounds = 100000000};
        REQUIRE(plait_region_create(&churn.region, 400 * SPAN, true) == PLAIT_OK);
        pid_t child = fork();
        if (child == 0) {
            churn_spans(1, &churn);
            _exit(0);
        }
        REQUIRE(child > 0);
        test_sleep((int64_t)test_random_below(&random, 2000000));
        kill(child, SIGKILL);
        wait_for(child);
        CHECK(count_claimed(churn.region) <= 70);
        churn.rounds = 50;
        churn_spans(0, &churn);
        plait_region_close(churn.region);
    }
}

/* Garbage in the bitmap and the hint: claims fail or overlap, but never leave the region. */
TEST(garbage_in_the_tables)
{
    uint64_t random = test_random_start(0);
    plait_region_t *region;
    REQUIRE(plait_region_create(&region, 300 * SPAN, false) == PLAIT_OK);
    for (int round = 0; round < test_scaled(2000); round++) {
        uint64_t *from = (uint64_t *)(void *)(region->base + 64);
        uint64_t *to = (uint64_t *)(void *)region->spans;
        for (uint64_t *word = from; word < to; word++)
            *word = test_random(&random) & test_random(&random);
        uint32_t first, count = 1 + (uint32_t)test_random_below(&random, 9);
        if (plait__region_claim_spans(region, count, &first) == PLAIT_OK)
            CHECK(first >= region->first_span && first + count <= region->span_count);
    }
    plait_region_close(region);
}
