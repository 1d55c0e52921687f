/* What the two programs of heap tests share: a region with a heap, patterns, a random step,
 * messages. */
#ifndef PLAIT_TESTS_CORE_HEAP_HELPERS_H
#define PLAIT_TESTS_CORE_HEAP_HELPERS_H

#include "test.h"

#include <errno.h>
#include <sys/wait.h>

#include "core/heap_internal.h"
#include "plait/heap.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SPAN PLAIT__SPAN_SIZE

struct place {
    plait_region_t *region;
    plait_heap_t *heap;
};

static inline struct place open_place(size_t size, bool shared)
{
    struct place place = {NULL, NULL};
    if (plait_region_create(&place.region, size, shared) != PLAIT_OK ||
        plait_heap_create(&place.heap, place.region) != PLAIT_OK) {
        fprintf(stderr, "cannot make a region and a heap\n");
        abort();
    }
    return place;
}

static inline uint32_t count_claimed(const plait_region_t *region)
{
    uint32_t count = 0;
    for (uint32_t span = region->first_span; span < region->span_count; span++)
        count += plait__region_is_claimed(region, span);
    return count;
}

static inline void close_place(struct place *place)
{
    CHECK(plait_heap_is_valid(place->heap));
    plait_heap_close(place->heap);
    CHECK_EQ(count_claimed(place->region), 0);
    plait_region_close(place->region);
}

static inline plait_heap_stats_t stats_of(plait_heap_t *heap)
{
    plait_heap_stats_t stats;
    plait_heap_stats(heap, &stats);
    return stats;
}

/* A pattern over the whole block that tells its seed and the place in it. */
static inline void fill(void *block, size_t size, uint64_t seed)
{
    uint8_t *bytes = block;
    for (size_t i = 0; i < size; i += size > 4096 ? 509 : 1)
        bytes[i] = (uint8_t)(seed + i * 131);
    if (size > 0)
        bytes[size - 1] = (uint8_t)(seed + (size - 1) * 131);
}

static inline bool is_filled(const void *block, size_t size, uint64_t seed, size_t filled_size)
{
    const uint8_t *bytes = block;
    for (size_t i = 0; i < size; i += filled_size > 4096 ? 509 : 1)
        if (bytes[i] != (uint8_t)(seed + i * 131))
            return false;
    return size == 0 || size < filled_size || bytes[size - 1] == (uint8_t)(seed + (size - 1) * 131);
}

/* Many small sizes, some middling, few large. */
static inline size_t random_size(uint64_t *random)
{
    uint64_t kind = test_random_below(random, 100);
    if (kind < 60)
        return test_random_below(random, 300);
    if (kind < 85)
        return test_random_below(random, 5000);
    if (kind < 95)
        return test_random_below(random, 70 * KIB);
    return test_random_below(random, 600 * KIB);
}

static inline int wait_for(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A block that a test holds, and what it wrote there. */
struct slot {
    uint8_t *block;
    size_t size;
    uint64_t seed;
};

static inline void shadow_step(plait_heap_t *heap, struct slot *slot, uint64_t *random)
{
    size_t size = random_size(random);
    if (slot->block == NULL) {
        slot->block = plait_heap_allocate_owner(heap, size);
        slot->size = slot->block != NULL ? size : 0;
    } else if (test_random_below(random, 3) == 0) {
        uint8_t *resized = plait_heap_resize_owner(heap, slot->block, size);
        if (resized == NULL)
            return;
        CHECK(is_filled(resized, size < slot->size ? size : slot->size, slot->seed, slot->size));
        slot->block = resized;
        slot->size = size;
    } else {
        CHECK(is_filled(slot->block, slot->size, slot->seed, slot->size));
        plait_heap_release_owner(heap, slot->block);
        slot->block = NULL;
        return;
    }
    if (slot->block != NULL) {
        slot->seed = test_random(random);
        fill(slot->block, slot->size, slot->seed);
    }
}

/* A message that tells whether it is intact. */
struct letter {
    uint64_t seed;
    size_t size;
    uint8_t rest[];
};

static inline bool is_intact(const struct letter *letter)
{
    return is_filled(letter->rest, letter->size, letter->seed, letter->size);
}

#endif
