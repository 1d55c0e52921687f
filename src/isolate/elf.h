/* elf: what a private image needs to know of a shared object, and what it changes in it.
 *
 * A reader and editor of 64-bit little-endian ELF shared objects (x86-64, aarch64) in memory. It
 * looks at the dynamic section alone, as the loader does: names, symbols, relocations. It never
 * trusts its input: every offset is checked once, when the file is opened, or where it is followed,
 * and malformed bytes give PLAIT_CORRUPT, never an access outside of them.
 *
 * No function blocks or allocates. One thread at a time may use a plait_elf_t.
 * Design: docs/design/isolate.md
 */
#ifndef PLAIT_ISOLATE_ELF_H
#define PLAIT_ISOLATE_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plait/error.h"

/* An opened file. Everything but the edited range is const once it is open. */
typedef struct plait_elf {
    unsigned char *bytes; /* borrowed */
    size_t size;
    unsigned machine;           /* EM_X86_64 or EM_AARCH64 */
    size_t headers;             /* file offset of the program headers */
    size_t header_count;        /* how many they are */
    size_t dynamic;             /* file offset of the dynamic section */
    size_t dynamic_count;       /* entries before its DT_NULL */
    size_t strings;             /* file offset of its strings; they end with a NUL */
    size_t strings_size;        /* at least 1 */
    size_t symbols;             /* file offset of its symbols */
    size_t symbol_count;        /* 0 where there are none */
    size_t relocations[2];      /* file offsets of DT_RELA and DT_JMPREL */
    size_t relocation_count[2]; /* 0 where there are none */
    size_t edited_from;         /* file offsets between which bytes were changed; */
    size_t edited_to;           /* from == to: none */
} plait_elf_t;

/* Opens `size` bytes, which stay the caller's and must outlive the plait_elf_t; writable if the
 * functions that edit are to be used. PLAIT_CORRUPT: no ELF file, or a malformed one.
 * PLAIT_UNSUPPORTED: an ELF file of another kind (no shared object, 32 bits, another machine). */
int plait_elf_open(plait_elf_t *elf, void *bytes, size_t size);

/* The strings that the functions below return lie in the file's bytes. */

/* The name it goes by for those that need it; NULL where it has none. */
const char *plait_elf_soname(const plait_elf_t *elf);

/* One by one, the names of the objects it needs: *position is 0 first. PLAIT_OK, or PLAIT_EMPTY. */
int plait_elf_next_needed(const plait_elf_t *elf, size_t *position, const char **name);

/* Where it wants them searched: DT_RUNPATH, else DT_RPATH; NULL where it has neither. */
const char *plait_elf_search_path(const plait_elf_t *elf);

/* Whether it refers to a symbol of CPython's API that it does not define. */
bool plait_elf_uses_python(const plait_elf_t *elf);

/* Whether it has relocations in segments that are not writable. */
bool plait_elf_has_text_relocations(const plait_elf_t *elf);

/* A word that the loader sets to a symbol's address. */
typedef struct plait_elf_slot {
    const char *symbol;
    uint64_t
        address; /* of the word, relative to where the object is loaded; 8 bytes lie in a segment */
    int64_t addend; /* to be added to the symbol's address */
} plait_elf_slot_t;

/* One by one, its slots: *position is 0 first. PLAIT_OK, PLAIT_EMPTY at the end, or PLAIT_CORRUPT. */
int plait_elf_next_slot(const plait_elf_t *elf, size_t *position, plait_elf_slot_t *slot);

/* A part of the file that is mapped. */
typedef struct plait_elf_segment {
    uint64_t address; /* relative to where the object is loaded */
    uint64_t memory;  /* bytes there; at least `size` */
    size_t offset;    /* in the file */
    size_t size;      /* in the file */
    bool readable, writable, executable;
    bool relocated; /* PT_GNU_RELRO, not a PT_LOAD: made read-only after relocation */
} plait_elf_segment_t;

/* One by one, its loaded segments and the part that becomes read-only: *position is 0 first.
 * PLAIT_OK, or PLAIT_EMPTY. */
int plait_elf_next_segment(const plait_elf_t *elf, size_t *position, plait_elf_segment_t *segment);

/* Replaces the name `from` by `to`, of the same length, where it is its own name, one it needs, or
 * one that it needs versions of. *count: in how many places. PLAIT_INVALID: other lengths.
 * PLAIT_UNSUPPORTED: the name is the end of a longer string. PLAIT_CORRUPT. */
int plait_elf_rename(plait_elf_t *elf, const char *from, const char *to, size_t *count);

/* Makes each symbol that the loader would unite over the whole process (STB_GNU_UNIQUE) an ordinary
 * global one. Returns how many. */
size_t plait_elf_divide_unique(plait_elf_t *elf);

#endif
