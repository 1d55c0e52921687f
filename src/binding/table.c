/* table: open addressing with linear probing, and no table at all for the first few entries. */
#include "binding/table.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 32
#define KEPT_CAPACITY 1024

static size_t slot_of(uint64_t key, size_t capacity)
{
    uint64_t hash = key * UINT64_C(0x9E3779B97F4A7C15); /* Fibonacci hashing: Knuth, TAOCP 3, 6.4 */
    return (size_t)(hash >> 32) & (capacity - 1);
}

void table_init(table_t *table)
{
    table->entries = NULL;
    table->capacity = 0;
    table->count = 0;
}

void table_fini(table_t *table)
{
    free(table->entries);
    table_init(table);
}

void table_clear(table_t *table)
{
    if (table->capacity > KEPT_CAPACITY || table->count < table->capacity / 8)
        table_fini(
            table); /* clearing costs by capacity, and must not cost much more than adding did */
    else if (table->capacity > 0)
        memset(table->entries, 0, table->capacity * sizeof *table->entries);
    table->count = 0;
}

bool table_get(const table_t *table, uint64_t key, uint64_t *value)
{
    if (table->capacity == 0) {
        for (size_t index = 0; index < table->count; index++)
            if (table->few[index].key == key) {
                *value = table->few[index].value;
                return true;
            }
        return false;
    }
    size_t slot = slot_of(key, table->capacity);
    while (table->entries[slot].key != 0) {
        if (table->entries[slot].key == key) {
            *value = table->entries[slot].value;
            return true;
        }
        slot = (slot + 1) & (table->capacity - 1);
    }
    return false;
}

static void insert(table_entry_t *entries, size_t capacity, table_entry_t entry)
{
    size_t slot = slot_of(entry.key, capacity);
    while (entries[slot].key != 0)
        slot = (slot + 1) & (capacity - 1);
    entries[slot] = entry;
}

static bool grow(table_t *table)
{
    size_t capacity = table->capacity == 0 ? FIRST_CAPACITY : table->capacity * 2;
    table_entry_t *entries = calloc(capacity, sizeof *entries);
    if (entries == NULL)
        return false;
    size_t position = 0;
    table_entry_t entry;
    while (table_next(table, &position, &entry.key, &entry.value))
        insert(entries, capacity, entry);
    free(table->entries);
    table->entries = entries;
    table->capacity = capacity;
    return true;
}

bool table_add(table_t *table, uint64_t key, uint64_t value)
{
    table_entry_t entry = {key, value};
    if (table->capacity == 0 && table->count < TABLE_INLINE) {
        table->few[table->count++] = entry;
        return true;
    }
    if (table->count * 2 >= table->capacity && !grow(table))
        return false;
    insert(table->entries, table->capacity, entry);
    table->count++;
    return true;
}

bool table_next(const table_t *table, size_t *position, uint64_t *key, uint64_t *value)
{
    const table_entry_t *entries = table->capacity == 0 ? table->few : table->entries;
    size_t end = table->capacity == 0 ? table->count : table->capacity;
    while (*position < end) {
        const table_entry_t *entry = &entries[(*position)++];
        if (entry->key != 0) {
            *key = entry->key;
            *value = entry->value;
            return true;
        }
    }
    return false;
}
