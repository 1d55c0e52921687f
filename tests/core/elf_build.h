/* elf_build: a small shared object, byte by byte, for tests of the reader.
 *
 * Its addresses are its file offsets. One read-only segment holds headers and tables, one writable
 * segment the dynamic section and the slots. Fields of elf_built_t say where things lie, so that
 * tests can spoil them.
 */
#ifndef PLAIT_TESTS_CORE_ELF_BUILD_H
#define PLAIT_TESTS_CORE_ELF_BUILD_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ELF_BUILT_SIZE = 0x2000,
    ELF_HEADERS = 64,
    ELF_STRINGS = 0x400,
    ELF_SYMBOLS = 0x800,
    ELF_HASH = 0xA00,
    ELF_RELA = 0xB00,
    ELF_JMPREL = 0xC00,
    ELF_VERNEED = 0xD00,
    ELF_DYNAMIC = 0x1000,
    ELF_SLOTS = 0x1800
};

typedef struct elf_built {
    _Alignas(16) unsigned char bytes[ELF_BUILT_SIZE];
    size_t strings_size;
    size_t dynamic_count;
} elf_built_t;

/* The string's offset in the string table; a string that is there as the end of another is shared,
 * as linkers do. */
static inline uint32_t elf_string(elf_built_t *built, const char *text)
{
    char *strings = (char *)built->bytes + ELF_STRINGS;
    size_t size = strlen(text) + 1;
    for (size_t at = 0; at + size <= built->strings_size; at++)
        if (memcmp(strings + at, text, size) == 0)
            return (uint32_t)at;
    memcpy(strings + built->strings_size, text, size);
    built->strings_size += size;
    return (uint32_t)(built->strings_size - size);
}

static inline void elf_dynamic(elf_built_t *built, int64_t tag, uint64_t value)
{
    Elf64_Dyn entry = {.d_tag = tag, .d_un.d_val = value};
    memcpy(built->bytes + ELF_DYNAMIC + built->dynamic_count * sizeof entry, &entry, sizeof entry);
    built->dynamic_count++;
}

static inline void elf_header(elf_built_t *built, unsigned index, Elf64_Phdr header)
{
    memcpy(built->bytes + ELF_HEADERS + index * sizeof header, &header, sizeof header);
}

static inline void elf_symbol(elf_built_t *built, unsigned index, const char *name, unsigned bind,
                              unsigned section)
{
    Elf64_Sym symbol = {.st_name = elf_string(built, name),
                        .st_info = (unsigned char)ELF64_ST_INFO(bind, STT_FUNC),
                        .st_shndx = (uint16_t)section,
                        .st_value = section != SHN_UNDEF ? 0x100 : 0};
    memcpy(built->bytes + ELF_SYMBOLS + index * sizeof symbol, &symbol, sizeof symbol);
}

static inline void elf_relocation(elf_built_t *built, size_t table, unsigned index, unsigned symbol,
                                  unsigned type, int64_t addend)
{
    Elf64_Rela relocation = {.r_offset = ELF_SLOTS + (table == ELF_RELA ? 0 : 0x100) + 8 * index,
                             .r_info = ELF64_R_INFO((uint64_t)symbol, type),
                             .r_addend = addend};
    memcpy(built->bytes + table + index * sizeof relocation, &relocation, sizeof relocation);
}

static inline void elf_build_headers(elf_built_t *built, unsigned machine)
{
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_DYN,
                         .e_machine = (uint16_t)machine,
                         .e_version = EV_CURRENT,
                         .e_phoff = ELF_HEADERS,
                         .e_ehsize = sizeof(Elf64_Ehdr),
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 4};
    memcpy(built->bytes, &header, sizeof header);
    elf_header(built, 0,
               (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_flags = PF_R | PF_X,
                            .p_filesz = ELF_DYNAMIC,
                            .p_memsz = ELF_DYNAMIC});
    elf_header(built, 1,
               (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_flags = PF_R | PF_W,
                            .p_offset = ELF_DYNAMIC,
                            .p_vaddr = ELF_DYNAMIC,
                            .p_filesz = 0x1000,
                            .p_memsz = 0x1800});
    elf_header(built, 2,
               (Elf64_Phdr){.p_type = PT_DYNAMIC,
                            .p_flags = PF_R | PF_W,
                            .p_offset = ELF_DYNAMIC,
                            .p_vaddr = ELF_DYNAMIC,
                            .p_filesz = 0x400,
                            .p_memsz = 0x400});
    elf_header(built, 3,
               (Elf64_Phdr){.p_type = PT_GNU_RELRO,
                            .p_flags = PF_R,
                            .p_offset = ELF_DYNAMIC,
                            .p_vaddr = ELF_DYNAMIC,
                            .p_filesz = 0x900,
                            .p_memsz = 0x900});
}

static inline void elf_build_hash(elf_built_t *built, bool gnu)
{
    /* GNU: one bucket, symbols 3 and 4 hashed, one bloom word. System V: 5 symbols. */
    uint32_t by_gnu[] = {1, 3, 1, 0, 0xffffffff, 0xffffffff, 3, 0x10, 0x11};
    uint32_t by_sysv[] = {1, 5, 1, 0, 0, 0, 0, 0};
    if (gnu)
        memcpy(built->bytes + ELF_HASH, by_gnu, sizeof by_gnu);
    else
        memcpy(built->bytes + ELF_HASH, by_sysv, sizeof by_sysv);
    elf_dynamic(built, gnu ? DT_GNU_HASH : DT_HASH, ELF_HASH);
}

/* An extension that needs libpyhelp.so.1 (with a version of it) and libplain.so.2, refers to
 * PyGILState_Ensure (three slots) and malloc, and defines PyInit_thing and a unique symbol. */
static inline void elf_build(elf_built_t *built, unsigned machine, bool gnu_hash)
{
    bool arm = machine == EM_AARCH64;
    unsigned jump = arm ? R_AARCH64_JUMP_SLOT : R_X86_64_JUMP_SLOT;
    unsigned data = arm ? R_AARCH64_GLOB_DAT : R_X86_64_GLOB_DAT;
    unsigned plain = arm ? R_AARCH64_ABS64 : R_X86_64_64;
    unsigned relative = arm ? R_AARCH64_RELATIVE : R_X86_64_RELATIVE;
    memset(built, 0, sizeof *built);
    built->strings_size = 1;
    elf_build_headers(built, machine);
    elf_symbol(built, 1, "PyGILState_Ensure", STB_GLOBAL, SHN_UNDEF);
    elf_symbol(built, 2, "malloc", STB_GLOBAL, SHN_UNDEF);
    elf_symbol(built, 3, "PyInit_thing", STB_GLOBAL, 7);
    elf_symbol(built, 4, "registry", STB_GNU_UNIQUE, 7);
    elf_relocation(built, ELF_RELA, 0, 0, relative, 0x100);
    elf_relocation(built, ELF_RELA, 1, 1, data, 0);
    elf_relocation(built, ELF_RELA, 2, 1, plain, 16);
    elf_relocation(built, ELF_JMPREL, 0, 1, jump, 0);
    elf_relocation(built, ELF_JMPREL, 1, 2, jump, 0);
    Elf64_Verneed need = {.vn_version = 1, .vn_file = elf_string(built, "libpyhelp.so.1")};
    memcpy(built->bytes + ELF_VERNEED, &need, sizeof need);
    elf_dynamic(built, DT_NEEDED, elf_string(built, "libpyhelp.so.1"));
    elf_dynamic(built, DT_NEEDED, elf_string(built, "libplain.so.2"));
    elf_dynamic(built, DT_SONAME, elf_string(built, "thing.cpython.so"));
    elf_dynamic(built, DT_RUNPATH, elf_string(built, "$ORIGIN/../thing.libs"));
    elf_build_hash(built, gnu_hash);
    elf_dynamic(built, DT_SYMTAB, ELF_SYMBOLS);
    elf_dynamic(built, DT_RELA, ELF_RELA);
    elf_dynamic(built, DT_RELASZ, 3 * sizeof(Elf64_Rela));
    elf_dynamic(built, DT_JMPREL, ELF_JMPREL);
    elf_dynamic(built, DT_PLTRELSZ, 2 * sizeof(Elf64_Rela));
    elf_dynamic(built, DT_VERNEED, ELF_VERNEED);
    elf_dynamic(built, DT_VERNEEDNUM, 1);
    elf_dynamic(built, DT_STRTAB, ELF_STRINGS);
    elf_dynamic(built, DT_STRSZ, built->strings_size);
    elf_dynamic(built, DT_NULL, 0);
}

#endif
