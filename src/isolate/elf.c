/* elf: reading and editing shared objects in memory; see elf.h. Facts: the System V ABI's chapters
 * on object files and dynamic linking, its supplements for x86-64 and AArch64, and elf(5).
 */
#include "isolate/elf.h"

#include <elf.h>
#include <string.h>

/* ---- checked access ---- */

static bool fits(const plait_elf_t *elf, size_t offset, size_t count, size_t each)
{
    return offset <= elf->size && count <= (elf->size - offset) / each;
}

static Elf64_Phdr program_header(const plait_elf_t *elf, size_t index)
{
    Elf64_Phdr header;
    memcpy(&header, elf->bytes + elf->headers + index * sizeof header, sizeof header);
    return header;
}

static Elf64_Dyn dynamic_entry(const plait_elf_t *elf, size_t index)
{
    Elf64_Dyn entry;
    memcpy(&entry, elf->bytes + elf->dynamic + index * sizeof entry, sizeof entry);
    return entry;
}

static Elf64_Sym symbol_entry(const plait_elf_t *elf, size_t index)
{
    Elf64_Sym symbol;
    memcpy(&symbol, elf->bytes + elf->symbols + index * sizeof symbol, sizeof symbol);
    return symbol;
}

static uint32_t word(const plait_elf_t *elf, size_t offset)
{
    uint32_t value;
    memcpy(&value, elf->bytes + offset, sizeof value);
    return value;
}

/* NULL where the offset lies outside. Every string ends, since the last byte of all is a NUL. */
static const char *string(const plait_elf_t *elf, uint64_t offset)
{
    if (offset >= elf->strings_size)
        return NULL;
    return (const char *)elf->bytes + elf->strings + offset;
}

/* Where the bytes that are loaded at an address lie in the file, and how many follow them there. */
static bool locate(const plait_elf_t *elf, uint64_t address, size_t *offset, size_t *room)
{
    for (size_t index = 0; index < elf->header_count; index++) {
        Elf64_Phdr header = program_header(elf, index);
        if (header.p_type != PT_LOAD || address < header.p_vaddr ||
            address - header.p_vaddr >= header.p_filesz)
            continue;
        *offset = (size_t)(header.p_offset + (address - header.p_vaddr));
        *room = (size_t)(header.p_filesz - (address - header.p_vaddr));
        return true;
    }
    return false;
}

/* Whether something was said in the dynamic section, and what: the last time, as the loader reads it. */
static bool find_dynamic(const plait_elf_t *elf, int64_t tag, uint64_t *value)
{
    bool found = false;
    for (size_t index = 0; index < elf->dynamic_count; index++) {
        Elf64_Dyn entry = dynamic_entry(elf, index);
        if (entry.d_tag == tag) {
            *value = entry.d_un.d_val;
            found = true;
        }
    }
    return found;
}

/* ---- opening ---- */

static int open_headers(plait_elf_t *elf)
{
    Elf64_Ehdr header;
    if (elf->size < SELFMAG || memcmp(elf->bytes, ELFMAG, SELFMAG) != 0)
        return PLAIT_CORRUPT;
    if (elf->size < sizeof header)
        return PLAIT_CORRUPT;
    memcpy(&header, elf->bytes, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_type != ET_DYN ||
        (header.e_machine != EM_X86_64 && header.e_machine != EM_AARCH64))
        return PLAIT_UNSUPPORTED;
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phoff > elf->size ||
        !fits(elf, (size_t)header.e_phoff, header.e_phnum, sizeof(Elf64_Phdr)))
        return PLAIT_CORRUPT;
    elf->machine = header.e_machine;
    elf->headers = (size_t)header.e_phoff;
    elf->header_count = header.e_phnum;
    return PLAIT_OK;
}

static int open_segments(plait_elf_t *elf)
{
    for (size_t index = 0; index < elf->header_count; index++) {
        Elf64_Phdr header = program_header(elf, index);
        if (header.p_type != PT_LOAD && header.p_type != PT_DYNAMIC)
            continue;
        if (header.p_offset > elf->size || header.p_filesz > elf->size - header.p_offset)
            return PLAIT_CORRUPT;
        if (header.p_type == PT_LOAD &&
            (header.p_memsz < header.p_filesz || header.p_vaddr + header.p_memsz < header.p_vaddr))
            return PLAIT_CORRUPT;
        if (header.p_type == PT_DYNAMIC) {
            elf->dynamic = (size_t)header.p_offset;
            elf->dynamic_count = (size_t)header.p_filesz / sizeof(Elf64_Dyn);
        }
    }
    for (size_t index = 0; index < elf->dynamic_count; index++) {
        if (dynamic_entry(elf, index).d_tag == DT_NULL)
            elf->dynamic_count = index;
    }
    return elf->dynamic_count == 0 ? PLAIT_UNSUPPORTED : PLAIT_OK;
}

static int open_strings(plait_elf_t *elf)
{
    uint64_t address = 0, size = 0;
    size_t room;
    if (!find_dynamic(elf, DT_STRTAB, &address) || !find_dynamic(elf, DT_STRSZ, &size) ||
        size == 0 || !locate(elf, address, &elf->strings, &room) || size > room ||
        elf->bytes[elf->strings + size - 1] != '\0')
        return PLAIT_CORRUPT;
    elf->strings_size = (size_t)size;
    return PLAIT_OK;
}

static int open_relocations(plait_elf_t *elf)
{
    static const int64_t tags[2][2] = {{DT_RELA, DT_RELASZ}, {DT_JMPREL, DT_PLTRELSZ}};
    for (size_t table = 0; table < 2; table++) {
        uint64_t address = 0, size = 0;
        size_t room;
        if (!find_dynamic(elf, tags[table][0], &address) ||
            !find_dynamic(elf, tags[table][1], &size) || size == 0)
            continue;
        if (!locate(elf, address, &elf->relocations[table], &room) || size > room)
            return PLAIT_CORRUPT;
        elf->relocation_count[table] = (size_t)size / sizeof(Elf64_Rela);
    }
    return PLAIT_OK;
}

/* DT_GNU_HASH does not say how many symbols there are: the last chain's end does. */
static int count_by_gnu_hash(const plait_elf_t *elf, uint64_t address, size_t *count)
{
    size_t table, room, last = 0;
    if (!locate(elf, address, &table, &room) || room < 16)
        return PLAIT_CORRUPT;
    size_t buckets = word(elf, table), first = word(elf, table + 4), bloom = word(elf, table + 8);
    size_t words = room / 4, skip = 4 + 2 * bloom;
    if (skip > words || buckets > words - skip)
        return PLAIT_CORRUPT;
    for (size_t index = 0; index < buckets; index++) {
        size_t start = word(elf, table + 4 * (skip + index));
        if (start > last)
            last = start;
    }
    *count = first;
    if (last == 0)
        return PLAIT_OK;
    if (last < first)
        return PLAIT_CORRUPT;
    for (size_t chain = skip + buckets + (last - first); chain < words; chain++, last++) {
        if (word(elf, table + 4 * chain) & 1) {
            *count = last + 1;
            return PLAIT_OK;
        }
    }
    return PLAIT_CORRUPT;
}

static int count_symbols(const plait_elf_t *elf, size_t *count)
{
    uint64_t address = 0;
    size_t table, room;
    *count = 0;
    if (find_dynamic(elf, DT_HASH, &address)) {
        if (!locate(elf, address, &table, &room) || room < 8)
            return PLAIT_CORRUPT;
        *count = word(elf, table + 4);
    } else if (find_dynamic(elf, DT_GNU_HASH, &address)) {
        int status = count_by_gnu_hash(elf, address, count);
        if (status != PLAIT_OK)
            return status;
    }
    /* Those that are only referred to may come after all that are hashed. */
    for (size_t table_index = 0; table_index < 2; table_index++) {
        for (size_t index = 0; index < elf->relocation_count[table_index]; index++) {
            Elf64_Rela relocation;
            memcpy(&relocation,
                   elf->bytes + elf->relocations[table_index] + index * sizeof relocation,
                   sizeof relocation);
            size_t symbol = (size_t)ELF64_R_SYM(relocation.r_info);
            if (symbol != 0 && symbol >= *count)
                *count = symbol + 1;
        }
    }
    return PLAIT_OK;
}

static int open_symbols(plait_elf_t *elf)
{
    uint64_t address = 0;
    size_t room, count;
    int status = count_symbols(elf, &count);
    if (status != PLAIT_OK || count == 0)
        return status;
    if (!find_dynamic(elf, DT_SYMTAB, &address) || !locate(elf, address, &elf->symbols, &room) ||
        count > room / sizeof(Elf64_Sym))
        return PLAIT_CORRUPT;
    elf->symbol_count = count;
    return PLAIT_OK;
}

static bool are_apart(size_t first, size_t first_size, size_t second, size_t second_size)
{
    return first + first_size <= second || second + second_size <= first;
}

/* What is edited (strings, symbols) must not be what the checks of the other steps rest on. */
static int open_edits(plait_elf_t *elf)
{
    size_t headers_size = elf->header_count * sizeof(Elf64_Phdr);
    size_t symbols_size = elf->symbol_count * sizeof(Elf64_Sym);
    if (!are_apart(elf->strings, elf->strings_size, elf->headers, headers_size) ||
        !are_apart(elf->symbols, symbols_size, elf->headers, headers_size) ||
        !are_apart(elf->symbols, symbols_size, elf->strings, elf->strings_size))
        return PLAIT_CORRUPT;
    return PLAIT_OK;
}

int plait_elf_open(plait_elf_t *elf, void *bytes, size_t size)
{
    *elf = (plait_elf_t){.bytes = bytes, .size = size};
    int (*const steps[])(plait_elf_t *) = {open_headers,     open_segments, open_strings,
                                           open_relocations, open_symbols,  open_edits};
    for (size_t index = 0; index < sizeof steps / sizeof steps[0]; index++) {
        int status = steps[index](elf);
        if (status != PLAIT_OK)
            return status;
    }
    return PLAIT_OK;
}

/* ---- reading ---- */

static const char *find_string(const plait_elf_t *elf, int64_t tag)
{
    uint64_t offset = 0;
    return find_dynamic(elf, tag, &offset) ? string(elf, offset) : NULL;
}

const char *plait_elf_soname(const plait_elf_t *elf)
{
    return find_string(elf, DT_SONAME);
}

const char *plait_elf_search_path(const plait_elf_t *elf)
{
    const char *path = find_string(elf, DT_RUNPATH);
    return path != NULL ? path : find_string(elf, DT_RPATH);
}

int plait_elf_next_needed(const plait_elf_t *elf, size_t *position, const char **name)
{
    while (*position < elf->dynamic_count) {
        Elf64_Dyn entry = dynamic_entry(elf, (*position)++);
        if (entry.d_tag != DT_NEEDED)
            continue;
        *name = string(elf, entry.d_un.d_val);
        if (*name != NULL)
            return PLAIT_OK;
    }
    return PLAIT_EMPTY;
}

bool plait_elf_uses_python(const plait_elf_t *elf)
{
    for (size_t index = 1; index < elf->symbol_count; index++) {
        Elf64_Sym symbol = symbol_entry(elf, index);
        const char *name = symbol.st_shndx == SHN_UNDEF ? string(elf, symbol.st_name) : NULL;
        if (name != NULL && (strncmp(name, "Py", 2) == 0 || strncmp(name, "_Py", 3) == 0))
            return true;
    }
    return false;
}

bool plait_elf_has_text_relocations(const plait_elf_t *elf)
{
    uint64_t value = 0;
    return find_dynamic(elf, DT_TEXTREL, &value) ||
           (find_dynamic(elf, DT_FLAGS, &value) && (value & DF_TEXTREL) != 0);
}

/* Whether a relocation is "the symbol's address plus the addend", and nothing else. */
static bool fills_slot(unsigned machine, uint32_t type)
{
    if (machine == EM_X86_64)
        return type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT || type == R_X86_64_64;
    return type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT || type == R_AARCH64_ABS64;
}

/* On x86-64 the addend counts for R_X86_64_64 alone (psABI, table of relocation types). */
static int64_t addend_of(unsigned machine, const Elf64_Rela *relocation)
{
    if (machine == EM_X86_64 && ELF64_R_TYPE(relocation->r_info) != R_X86_64_64)
        return 0;
    return relocation->r_addend;
}

static bool is_loaded(const plait_elf_t *elf, uint64_t address, uint64_t size)
{
    for (size_t index = 0; index < elf->header_count; index++) {
        Elf64_Phdr header = program_header(elf, index);
        if (header.p_type == PT_LOAD && address >= header.p_vaddr && header.p_memsz >= size &&
            address - header.p_vaddr <= header.p_memsz - size)
            return true;
    }
    return false;
}

int plait_elf_next_slot(const plait_elf_t *elf, size_t *position, plait_elf_slot_t *slot)
{
    size_t first = elf->relocation_count[0], total = first + elf->relocation_count[1];
    while (*position < total) {
        size_t index = (*position)++;
        size_t table = index < first ? 0 : 1;
        Elf64_Rela relocation;
        memcpy(&relocation,
               elf->bytes + elf->relocations[table] +
                   (index - (table == 0 ? 0 : first)) * sizeof relocation,
               sizeof relocation);
        size_t number = (size_t)ELF64_R_SYM(relocation.r_info);
        if (number == 0 || !fills_slot(elf->machine, (uint32_t)ELF64_R_TYPE(relocation.r_info)))
            continue;
        slot->symbol = string(elf, symbol_entry(elf, number).st_name);
        slot->address = relocation.r_offset;
        slot->addend = addend_of(elf->machine, &relocation);
        if (slot->symbol == NULL || !is_loaded(elf, slot->address, sizeof(uint64_t)))
            return PLAIT_CORRUPT;
        return PLAIT_OK;
    }
    return PLAIT_EMPTY;
}

int plait_elf_next_segment(const plait_elf_t *elf, size_t *position, plait_elf_segment_t *segment)
{
    while (*position < elf->header_count) {
        Elf64_Phdr header = program_header(elf, (*position)++);
        if (header.p_type != PT_LOAD && header.p_type != PT_GNU_RELRO)
            continue;
        *segment = (plait_elf_segment_t){
            .address = header.p_vaddr,
            .memory = header.p_memsz,
            .offset = (size_t)header.p_offset,
            .size = (size_t)header.p_filesz,
            .readable = (header.p_flags & PF_R) != 0,
            .writable = (header.p_flags & PF_W) != 0,
            .executable = (header.p_flags & PF_X) != 0,
            .relocated = header.p_type == PT_GNU_RELRO,
        };
        return PLAIT_OK;
    }
    return PLAIT_EMPTY;
}

/* ---- editing ---- */

static void note_edit(plait_elf_t *elf, size_t offset, size_t size)
{
    if (elf->edited_from == elf->edited_to) {
        elf->edited_from = offset;
        elf->edited_to = offset;
    }
    if (offset < elf->edited_from)
        elf->edited_from = offset;
    if (offset + size > elf->edited_to)
        elf->edited_to = offset + size;
}

/* One place that refers to a string. A linker lets a string that is the end of a longer one share
 * its bytes: such a one cannot be changed. */
static int rename_string(plait_elf_t *elf, uint64_t offset, const char *from, const char *to,
                         size_t *count)
{
    const char *name = string(elf, offset);
    if (name == NULL || (strcmp(name, from) != 0 && strcmp(name, to) != 0))
        return PLAIT_OK;
    if (offset > 0 && name[-1] != '\0')
        return PLAIT_UNSUPPORTED;
    size_t place = elf->strings + (size_t)offset;
    memcpy(elf->bytes + place, to, strlen(to));
    note_edit(elf, place, strlen(to));
    *count += 1;
    return PLAIT_OK;
}

/* DT_VERNEED: a chain of entries, each with the name of a needed object. */
static int rename_versions(plait_elf_t *elf, const char *from, const char *to, size_t *count)
{
    uint64_t address = 0, entries = 0;
    size_t offset, room;
    if (!find_dynamic(elf, DT_VERNEED, &address) || !find_dynamic(elf, DT_VERNEEDNUM, &entries))
        return PLAIT_OK;
    if (!locate(elf, address, &offset, &room))
        return PLAIT_CORRUPT;
    while (entries-- > 0) {
        Elf64_Verneed need;
        if (room < sizeof need)
            return PLAIT_CORRUPT;
        memcpy(&need, elf->bytes + offset, sizeof need);
        int status = rename_string(elf, need.vn_file, from, to, count);
        if (status != PLAIT_OK)
            return status;
        if (need.vn_next == 0)
            return PLAIT_OK;
        if (need.vn_next > room)
            return PLAIT_CORRUPT;
        offset += need.vn_next;
        room -= need.vn_next;
    }
    return PLAIT_OK;
}

int plait_elf_rename(plait_elf_t *elf, const char *from, const char *to, size_t *count)
{
    *count = 0;
    if (strlen(from) != strlen(to))
        return PLAIT_INVALID;
    for (size_t index = 0; index < elf->dynamic_count; index++) {
        Elf64_Dyn entry = dynamic_entry(elf, index);
        if (entry.d_tag != DT_NEEDED && entry.d_tag != DT_SONAME)
            continue;
        int status = rename_string(elf, entry.d_un.d_val, from, to, count);
        if (status != PLAIT_OK)
            return status;
    }
    return rename_versions(elf, from, to, count);
}

size_t plait_elf_divide_unique(plait_elf_t *elf)
{
    size_t count = 0;
    for (size_t index = 1; index < elf->symbol_count; index++) {
        Elf64_Sym symbol = symbol_entry(elf, index);
        if (ELF64_ST_BIND(symbol.st_info) != STB_GNU_UNIQUE)
            continue;
        size_t place = elf->symbols + index * sizeof symbol + offsetof(Elf64_Sym, st_info);
        elf->bytes[place] = ELF64_ST_INFO(STB_GLOBAL, ELF64_ST_TYPE(symbol.st_info));
        note_edit(elf, place, 1);
        count++;
    }
    return count;
}
