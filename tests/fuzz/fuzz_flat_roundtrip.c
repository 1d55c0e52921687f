/* The fuzzer's bytes as choices: they make a graph of values, the writer writes it, the reader must
 * give the same graph again. Allocations fail where the first byte says so. docs/format/flat.md
 */
#include <stdlib.h>

#include "flat_graph.h"
#include "flat_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct bytes {
    const uint8_t *data;
    size_t size;
} bytes_t;

/* As many bytes as the limit needs; zeros when they have run out, which every graph ends with. */
static uint64_t choose(void *context, uint64_t limit)
{
    bytes_t *bytes = context;
    uint64_t number = 0;
    for (uint64_t rest = limit - 1; rest > 0 && bytes->size > 0; rest >>= 8, bytes->size--)
        number = number << 8 | *bytes->data++;
    return number % limit;
}

/* Successes left, then failures; negative: it never fails. */
static void *allocate(void *context, size_t size)
{
    int *left = context;
    return *left != 0 ? (*left)--, malloc(size) : NULL;
}

static void *resize(void *context, void *block, size_t size)
{
    int *left = context;
    return *left != 0 ? (*left)--, realloc(block, size) : NULL;
}

static void release(void *context, void *block)
{
    free(block);
}

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static graph_t graph;
    if (size == 0)
        return 0;
    bytes_t bytes = {data + 1, size - 1};
    int left = data[0] < 16 ? data[0] : -1;
    const plait_alloc_t alloc = {&left, allocate, resize, release};
    plait_flat_writer_t writer;
    void *message = NULL;
    size_t message_size = 0;
    graph_make(&graph, (graph_source_t){choose, &bytes});
    int result = plait_flat_writer_init(&writer, &alloc, 0);
    if (result == PLAIT_OK)
        result = graph_write(&graph, &writer, data[0] & 1, &message, &message_size);
    check(result == PLAIT_OK || (result == PLAIT_NOMEM && left == 0));
    if (result == PLAIT_OK) {
        check(graph_equals(&graph, message, message_size));
        check(flat_walk(message, message_size) == PLAIT_OK);
        check(plait_flat_is_valid(message, message_size, &plait_alloc_system) == PLAIT_OK);
    }
    free(message);
    plait_flat_writer_fini(&writer);
    return 0;
}
