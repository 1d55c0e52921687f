/* table: a small hash table from non-zero 64-bit keys to 64-bit values, for one thread.
 *
 * Used where a dict would make objects of the keys: memos of encoder and decoder, a worker's
 * functions. It grows, and never shrinks but by clear.
 */
#ifndef PLAIT_BINDING_TABLE_H
#define PLAIT_BINDING_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TABLE_INLINE 8

typedef struct table_entry {
    uint64_t key; /* 0: free */
    uint64_t value;
} table_entry_t;

typedef struct table {
    table_entry_t
        *entries; /* a power of two of them; or the first TABLE_INLINE below, searched in order */
    size_t capacity; /* of entries; 0 while inline */
    size_t count;
    table_entry_t few[TABLE_INLINE];
} table_t;

void table_init(table_t *table);
void table_fini(table_t *table);

/* Forgets everything; keeps a moderate capacity. */
void table_clear(table_t *table);

bool table_get(const table_t *table, uint64_t key, uint64_t *value);

/* Adds a key that is not there yet. False without memory. */
bool table_add(table_t *table, uint64_t key, uint64_t value);

/* Entry after entry: start with *position 0. */
bool table_next(const table_t *table, size_t *position, uint64_t *key, uint64_t *value);

#endif
