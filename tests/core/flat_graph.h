/* flat_graph: graphs of values, made from choices, written as a message and compared with one.
 *
 * For test_flat (choices are random numbers) and fuzz_flat_roundtrip (choices are the fuzzer's
 * bytes). A graph is an array of nodes, one per body; a node's items are values whose references
 * hold a node's index instead of an offset. Items of mutable containers and tuples go anywhere, so
 * there is sharing and there are cycles; every graph keeps all rules of docs/format/flat.md. Owned
 * by one thread; no memory of its own besides the graph.
 */
#ifndef PLAIT_TESTS_CORE_FLAT_GRAPH_H
#define PLAIT_TESTS_CORE_FLAT_GRAPH_H

#include "plait/flat.h"

enum { GRAPH_NODES_MAX = 64, GRAPH_ITEMS_MAX = 16, GRAPH_BYTES_MAX = 160 };

/* Where choices come from: a number in [0, limit). */
typedef struct graph_source {
    uint64_t (*choose)(void *context, uint64_t limit);
    void *context;
} graph_source_t;

typedef struct graph_node {
    unsigned type;
    unsigned flags; /* without FLAG_SHARED */
    uint64_t length;
    size_t size; /* bytes in data */
    unsigned char data[GRAPH_BYTES_MAX];
    size_t count; /* values in items */
    plait_flat_value_t items[GRAPH_ITEMS_MAX];
    plait_flat_value_t written; /* 0: not yet */
    plait_flat_value_t read;    /* 0: not yet */
    int references;             /* values that were written */
} graph_node_t;

typedef struct graph {
    graph_source_t source;
    plait_flat_value_t root;
    size_t count;
    graph_node_t nodes[GRAPH_NODES_MAX];
} graph_t;

static inline uint64_t graph_choose(graph_t *graph, uint64_t limit)
{
    return graph->source.choose(graph->source.context, limit);
}

static inline plait_flat_value_t graph_ref(size_t index)
{
    return (PLAIT_FLAT_TAG_REF << 48) | index;
}

static inline graph_node_t *graph_at(graph_t *graph, plait_flat_value_t ref)
{
    return &graph->nodes[ref & PLAIT_FLAT_PAYLOAD_MASK];
}

/* ---- making ---- */

static inline plait_flat_value_t graph_add(graph_t *graph, unsigned type, uint64_t length)
{
    graph_node_t *node = &graph->nodes[graph->count];
    memset(node, 0, sizeof *node);
    node->type = type;
    node->length = length;
    return graph_ref(graph->count++);
}

static inline uint64_t graph_bits(graph_t *graph)
{
    return graph_choose(graph, UINT64_C(1) << 32) << 32 | graph_choose(graph, UINT64_C(1) << 32);
}

/* An integer, a constant or a double. */
static inline plait_flat_value_t graph_immediate(graph_t *graph)
{
    plait_flat_value_t value;
    switch (graph_choose(graph, 4)) {
    case 0:
        return plait_flat_const((unsigned)graph_choose(graph, PLAIT_FLAT_CONST_COUNT));
    case 1:
        return plait_flat_int((int64_t)graph_choose(graph, 256) - 128);
    case 2:
        return plait_flat_int((int64_t)(graph_bits(graph) << 16) >> 16);
    default:
        value = graph_bits(graph);
        return plait_flat_is_double(value) ? value : 0;
    }
}

static inline plait_flat_value_t graph_add_bytes(graph_t *graph, unsigned type, size_t size)
{
    plait_flat_value_t ref = graph_add(graph, type, size);
    graph_node_t *node = graph_at(graph, ref);
    node->size = size;
    for (size_t i = 0; i < size; i++)
        node->data[i] = (unsigned char)graph_choose(graph, 256);
    return ref;
}

static inline plait_flat_value_t graph_add_int(graph_t *graph)
{
    plait_flat_value_t ref = graph_add_bytes(graph, PLAIT_FLAT_INT, 6 + graph_choose(graph, 12));
    graph_node_t *node = graph_at(graph, ref);
    node->data[node->size - 1] |= 0x80; /* at least 2**47 */
    node->data[0] |= 1;                 /* and not -2**47 */
    node->flags = graph_choose(graph, 2) ? PLAIT_FLAT_FLAG_NEGATIVE : 0;
    return ref;
}

static inline plait_flat_value_t graph_add_float(graph_t *graph)
{
    plait_flat_value_t ref = graph_add_bytes(graph, PLAIT_FLAT_FLOAT, 8);
    graph_node_t *node = graph_at(graph, ref);
    node->data[7] = 0xFF;
    node->data[6] = (unsigned char)(0xF9 + node->data[6] % 7);
    return ref;
}

static inline plait_flat_value_t graph_add_text(graph_t *graph)
{
    static const uint32_t floors[4] = {0, 0x80, 0x100, 0x10000};
    static const uint32_t ends[4] = {0x80, 0x100, 0x10000, 0x110000};
    static const unsigned sizes[4] = {1, 1, 2, 4};
    unsigned width = (unsigned)graph_choose(graph, 4);
    size_t length = graph_choose(graph, 24) + (width != PLAIT_FLAT_ASCII ? 1 : 0);
    plait_flat_value_t ref = graph_add(graph, PLAIT_FLAT_STR, length);
    graph_node_t *node = graph_at(graph, ref);
    size_t special = length > 0 ? graph_choose(graph, length) : 0;
    node->flags = width << PLAIT_FLAT_WIDTH_SHIFT;
    node->size = length * sizes[width];
    for (size_t i = 0; i < length; i++) {
        uint32_t floor = i == special ? floors[width] : 0;
        uint32_t point = floor + (uint32_t)graph_choose(graph, ends[width] - floor);
        memcpy(node->data + i * sizes[width], &point, sizes[width]); /* little-endian */
    }
    return ref;
}

static inline plait_flat_value_t graph_add_words(graph_t *graph, unsigned type, size_t count,
                                                 plait_flat_value_t a, plait_flat_value_t b,
                                                 plait_flat_value_t c)
{
    const plait_flat_value_t items[3] = {a, b, c};
    plait_flat_value_t ref = graph_add(graph, type, count);
    graph_node_t *node = graph_at(graph, ref);
    node->count = count;
    memcpy(node->items, items, count * sizeof *items);
    return ref;
}

static inline plait_flat_value_t graph_some_int(graph_t *graph, int64_t least, int64_t most)
{
    return plait_flat_int(least + (int64_t)graph_choose(graph, (uint64_t)(most - least) + 1));
}

static inline plait_flat_value_t graph_add_timedelta(graph_t *graph, int64_t days)
{
    plait_flat_value_t first = graph_some_int(graph, -days, days);
    plait_flat_value_t second = graph_some_int(graph, 1, 86399);
    return graph_add_words(graph, PLAIT_FLAT_TIMEDELTA, 3, first, second,
                           graph_some_int(graph, 0, 999999));
}

static inline plait_flat_value_t graph_add_timezone(graph_t *graph)
{
    plait_flat_value_t delta = graph_add_timedelta(graph, 0),
                       name = plait_flat_const(PLAIT_FLAT_NONE);
    if (graph_choose(graph, 2))
        name = graph_add_text(graph);
    return graph_add_words(graph, PLAIT_FLAT_TIMEZONE, 2, delta, name, 0);
}

static inline plait_flat_value_t graph_add_date(graph_t *graph)
{
    plait_flat_value_t year = graph_some_int(graph, 1, 9999), month = graph_some_int(graph, 1, 12);
    return graph_add_words(graph, PLAIT_FLAT_DATE, 3, year, month, graph_some_int(graph, 1, 28));
}

static inline plait_flat_value_t graph_add_time(graph_t *graph)
{
    plait_flat_value_t zone = plait_flat_const(PLAIT_FLAT_NONE);
    if (graph_choose(graph, 2))
        zone = graph_add_timezone(graph);
    plait_flat_value_t micros = graph_some_int(graph, 0, INT64_C(86399999999));
    return graph_add_words(graph, PLAIT_FLAT_TIME, 3, micros, graph_some_int(graph, 0, 1), zone);
}

static inline plait_flat_value_t graph_add_range(graph_t *graph)
{
    plait_flat_value_t start = graph_add_int(graph);
    plait_flat_value_t stop = graph_choose(graph, 2) ? start : plait_flat_int(-1);
    return graph_add_words(graph, PLAIT_FLAT_RANGE, 3, start, stop, graph_some_int(graph, 1, 9));
}

static inline plait_flat_value_t graph_add_global(graph_t *graph)
{
    plait_flat_value_t module = graph_add_text(graph);
    return graph_add_words(graph, PLAIT_FLAT_GLOBAL, 2, module, graph_add_text(graph), 0);
}

static inline plait_flat_value_t graph_add_buffer(graph_t *graph)
{
    plait_flat_value_t ref = graph_add_bytes(graph, PLAIT_FLAT_BUFFER, graph_choose(graph, 150));
    graph_at(graph, ref)->flags = graph_choose(graph, 2) ? PLAIT_FLAT_FLAG_READONLY : 0;
    return ref;
}

static inline plait_flat_value_t graph_add_pickle(graph_t *graph)
{
    plait_flat_value_t bytes = graph_add_bytes(graph, PLAIT_FLAT_BYTES, graph_choose(graph, 40));
    size_t buffers = graph_choose(graph, 3);
    plait_flat_value_t first = buffers > 0 ? graph_add_buffer(graph) : 0;
    plait_flat_value_t second = buffers > 1 ? graph_add_buffer(graph) : 0;
    return graph_add_words(graph, PLAIT_FLAT_PICKLE, 1 + buffers, bytes, first, second);
}

/* A body of `type` with all that it cannot do without: at most 6 nodes. Containers are still empty.
 */
static inline plait_flat_value_t graph_add_any(graph_t *graph, unsigned type)
{
    plait_flat_value_t part;
    switch (type) {
    case PLAIT_FLAT_INT:
        return graph_add_int(graph);
    case PLAIT_FLAT_FLOAT:
        return graph_add_float(graph);
    case PLAIT_FLAT_COMPLEX:
    case PLAIT_FLAT_UUID:
        return graph_add_bytes(graph, type, 16);
    case PLAIT_FLAT_STR:
        return graph_add_text(graph);
    case PLAIT_FLAT_BYTES:
    case PLAIT_FLAT_BYTEARRAY:
        return graph_add_bytes(graph, type, graph_choose(graph, 40));
    case PLAIT_FLAT_RANGE:
        return graph_add_range(graph);
    case PLAIT_FLAT_DATE:
        return graph_add_date(graph);
    case PLAIT_FLAT_TIME:
        return graph_add_time(graph);
    case PLAIT_FLAT_DATETIME:
        part = graph_add_date(graph);
        return graph_add_words(graph, type, 2, part, graph_add_time(graph), 0);
    case PLAIT_FLAT_TIMEDELTA:
        return graph_add_timedelta(graph, 999999999);
    case PLAIT_FLAT_TIMEZONE:
        return graph_add_timezone(graph);
    case PLAIT_FLAT_DECIMAL:
        part = graph_add_text(graph);
        return graph_add_words(graph, type, 1, part, 0, 0);
    case PLAIT_FLAT_GLOBAL:
        return graph_add_global(graph);
    case PLAIT_FLAT_ENUM:
        part = graph_add_global(graph);
        return graph_add_words(graph, type, 2, part, graph_add_text(graph), 0);
    case PLAIT_FLAT_BUFFER:
        return graph_add_buffer(graph);
    case PLAIT_FLAT_PICKLE:
        return graph_add_pickle(graph);
    default: /* a container */
        return graph_add(graph, type, 0);
    }
}

static inline bool graph_is_hashable(graph_t *graph, plait_flat_value_t value)
{
    unsigned type = plait_flat_is_ref(value) ? graph_at(graph, value)->type : 0;
    return type != PLAIT_FLAT_LIST && type != PLAIT_FLAT_DICT && type != PLAIT_FLAT_SET &&
           type != PLAIT_FLAT_BYTEARRAY;
}

static inline plait_flat_value_t graph_item(graph_t *graph)
{
    if (graph_choose(graph, 4) == 0)
        return graph_immediate(graph);
    return graph_ref(graph_choose(graph, graph->count));
}

/* Items for the containers, from all nodes there are. */
static inline void graph_fill(graph_t *graph, graph_node_t *node)
{
    bool is_dict = node->type == PLAIT_FLAT_DICT;
    bool is_set = node->type == PLAIT_FLAT_SET || node->type == PLAIT_FLAT_FROZENSET;
    if (node->type == PLAIT_FLAT_SLICE) {
        node->length = 3;
        node->count = 3;
    } else if (is_dict || is_set || node->type == PLAIT_FLAT_LIST ||
               node->type == PLAIT_FLAT_TUPLE) {
        node->length = graph_choose(graph, is_dict ? GRAPH_ITEMS_MAX / 2 : GRAPH_ITEMS_MAX);
        node->count = is_dict ? node->length * 2 : node->length;
    } else
        return;
    for (size_t i = 0; i < node->count; i++) {
        plait_flat_value_t item = graph_item(graph);
        if ((is_set || (is_dict && i % 2 == 0)) && !graph_is_hashable(graph, item))
            item = graph_immediate(graph);
        node->items[i] = item;
    }
}

static inline void graph_make(graph_t *graph, graph_source_t source)
{
    graph->source = source;
    graph->count = 0;
    graph_add(graph, PLAIT_FLAT_LIST, 0);
    size_t wanted = 1 + graph_choose(graph, GRAPH_NODES_MAX - 7);
    while (graph->count < wanted) {
        unsigned type = 1 + (unsigned)graph_choose(graph, PLAIT_FLAT_FUNCTION - 1);
        graph_add_any(graph, type);
    }
    for (size_t i = 0; i < graph->count; i++)
        graph_fill(graph, &graph->nodes[i]);
    graph->root = graph_choose(graph, 16) == 0 ? graph_item(graph) : graph_ref(0);
}

/* ---- writing ---- */

static inline int graph_put(graph_t *graph, plait_flat_writer_t *writer, plait_flat_value_t item,
                            plait_flat_value_t *value);

static inline int graph_put_body(graph_node_t *node, plait_flat_writer_t *writer)
{
    void *data;
    int result;
    if (node->type == PLAIT_FLAT_STR && node->flags >> PLAIT_FLAT_WIDTH_SHIFT == PLAIT_FLAT_ASCII &&
        node->length % 2 == 0) /* the two ways are one */
        return plait_flat_put_ascii(writer, node->data, node->length, &node->written);
    if (node->type == PLAIT_FLAT_STR)
        return plait_flat_put_text(writer, node->flags >> PLAIT_FLAT_WIDTH_SHIFT, node->data,
                                   node->length, &node->written);
    if (node->type != PLAIT_FLAT_BUFFER)
        return plait_flat_put_bytes(writer, node->type, node->flags, node->data, node->size,
                                    &node->written);
    result = plait_flat_put_buffer(writer, node->flags, node->size, &data, &node->written);
    if (result == PLAIT_OK && node->size > 0)
        memcpy(data, node->data, node->size);
    return result;
}

static inline bool graph_has_words(const graph_node_t *node)
{
    return node->type >= PLAIT_FLAT_TUPLE && node->type != PLAIT_FLAT_UUID &&
           node->type != PLAIT_FLAT_BUFFER;
}

static inline int graph_put_items(graph_t *graph, graph_node_t *node, plait_flat_writer_t *writer)
{
    int result =
        plait_flat_put_words(writer, node->type, node->count, node->length, &node->written);
    for (size_t i = 0; result == PLAIT_OK && i < node->count; i++) {
        plait_flat_value_t value;
        result = graph_put(graph, writer, node->items[i], &value);
        if (result == PLAIT_OK)
            plait_flat_set(writer, node->written, i, value);
    }
    return result;
}

static inline int graph_put(graph_t *graph, plait_flat_writer_t *writer, plait_flat_value_t item,
                            plait_flat_value_t *value)
{
    int result = PLAIT_OK;
    *value = item;
    if (!plait_flat_is_ref(item))
        return PLAIT_OK;
    graph_node_t *node = graph_at(graph, item);
    node->references++;
    if (node->written != 0)
        plait_flat_mark_shared(writer, node->written);
    else if (graph_has_words(node))
        result = graph_put_items(graph, node, writer);
    else
        result = graph_put_body(node, writer);
    *value = node->written;
    return result;
}

/* The whole graph; a PLAIT_ code. *message as plait_flat_finish gives it. */
static inline int graph_write(graph_t *graph, plait_flat_writer_t *writer, unsigned flags,
                              void **message, size_t *size)
{
    plait_flat_value_t root;
    for (size_t i = 0; i < graph->count; i++) {
        graph->nodes[i].written = 0;
        graph->nodes[i].references = 0;
    }
    int result = graph_put(graph, writer, graph->root, &root);
    if (result == PLAIT_OK)
        result = plait_flat_finish(writer, root, flags, message, size);
    return result;
}

/* ---- comparing ---- */

/* Whether the message's value is the graph's item: same kind, content, sharing and cycles. */
static inline bool graph_compare(graph_t *graph, const plait_flat_reader_t *reader,
                                 plait_flat_value_t item, plait_flat_value_t value)
{
    plait_flat_body_t body;
    if (!plait_flat_is_ref(item))
        return value == item;
    graph_node_t *node = graph_at(graph, item);
    if (node->read != 0)
        return value == node->read;
    node->read = value;
    if (plait_flat_get(reader, value, &body) != PLAIT_OK)
        return false;
    unsigned shared = node->references > 1 ? PLAIT_FLAT_FLAG_SHARED : 0;
    if (body.type != node->type || body.flags != (node->flags | shared) ||
        body.length != node->length || body.words != node->count)
        return false;
    if (!graph_has_words(node))
        return body.byte_count == node->size && memcmp(body.bytes, node->data, node->size) == 0 &&
               (node->type != PLAIT_FLAT_STR || plait_flat_check_text(&body) == PLAIT_OK) &&
               (node->type != PLAIT_FLAT_BUFFER || (size_t)(body.bytes - reader->base) % 64 == 0);
    for (size_t i = 0; i < node->count; i++)
        if (!graph_compare(graph, reader, node->items[i], plait_flat_word(&body, i)))
            return false;
    return true;
}

/* Whether the message holds the graph that was written last. */
static inline bool graph_equals(graph_t *graph, const void *message, size_t size)
{
    plait_flat_reader_t reader;
    for (size_t i = 0; i < graph->count; i++)
        graph->nodes[i].read = 0;
    return plait_flat_open(&reader, message, size) == PLAIT_OK &&
           graph_compare(graph, &reader, graph->root, reader.root);
}

#endif
