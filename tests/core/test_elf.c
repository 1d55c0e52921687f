/* elf: what is read of shared objects, what is changed in them, and what is refused. */
#include "elf_build.h"
#include "isolate/elf.h"
#include "test.h"

static const unsigned machines[] = {EM_X86_64, EM_AARCH64};

static void read_names(unsigned machine, bool gnu_hash)
{
    elf_built_t built;
    plait_elf_t elf;
    const char *name;
    size_t position = 0;
    elf_build(&built, machine, gnu_hash);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK_EQ(elf.machine, machine);
    CHECK_EQ(elf.symbol_count, 5);
    CHECK_STR_EQ(plait_elf_soname(&elf), "thing.cpython.so");
    CHECK_STR_EQ(plait_elf_search_path(&elf), "$ORIGIN/../thing.libs");
    REQUIRE(plait_elf_next_needed(&elf, &position, &name) == PLAIT_OK);
    CHECK_STR_EQ(name, "libpyhelp.so.1");
    REQUIRE(plait_elf_next_needed(&elf, &position, &name) == PLAIT_OK);
    CHECK_STR_EQ(name, "libplain.so.2");
    CHECK_EQ(plait_elf_next_needed(&elf, &position, &name), PLAIT_EMPTY);
    CHECK(plait_elf_uses_python(&elf));
    CHECK(!plait_elf_has_text_relocations(&elf));
}

TEST(names_and_symbols_are_read)
{
    for (int machine = 0; machine < 2; machine++) {
        read_names(machines[machine], true);
        read_names(machines[machine], false);
    }
}

TEST(a_library_without_python_symbols_is_plain)
{
    elf_built_t built;
    plait_elf_t elf;
    elf_build(&built, EM_X86_64, true);
    elf_symbol(&built, 1, "malloc", STB_GLOBAL, SHN_UNDEF);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK(!plait_elf_uses_python(&elf)); /* PyInit_thing is its own */
}

TEST(slots_are_found_on_both_machines)
{
    for (int machine = 0; machine < 2; machine++) {
        elf_built_t built;
        plait_elf_t elf;
        plait_elf_slot_t slot;
        size_t position = 0, found = 0;
        int64_t addends = 0;
        elf_build(&built, machines[machine], true);
        REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
        while (plait_elf_next_slot(&elf, &position, &slot) == PLAIT_OK) {
            if (strcmp(slot.symbol, "PyGILState_Ensure") != 0)
                continue;
            found++;
            addends += slot.addend;
            CHECK(slot.address == ELF_SLOTS + 8 || slot.address == ELF_SLOTS + 16 ||
                  slot.address == ELF_SLOTS + 0x100);
        }
        CHECK_EQ(found, 3);
        CHECK_EQ(addends, 16);
    }
}

TEST(addends_of_got_entries_count_on_aarch64_only)
{
    for (int machine = 0; machine < 2; machine++) {
        elf_built_t built;
        plait_elf_t elf;
        plait_elf_slot_t slot;
        size_t position = 0;
        bool arm = machines[machine] == EM_AARCH64;
        elf_build(&built, machines[machine], true);
        elf_relocation(&built, ELF_RELA, 1, 1, arm ? R_AARCH64_GLOB_DAT : R_X86_64_GLOB_DAT, 24);
        REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
        REQUIRE(plait_elf_next_slot(&elf, &position, &slot) == PLAIT_OK);
        CHECK_EQ(slot.addend, arm ? 24 : 0);
    }
}

TEST(segments_are_told)
{
    elf_built_t built;
    plait_elf_t elf;
    plait_elf_segment_t segment;
    size_t position = 0;
    elf_build(&built, EM_X86_64, true);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    REQUIRE(plait_elf_next_segment(&elf, &position, &segment) == PLAIT_OK);
    CHECK(segment.executable && !segment.writable && !segment.relocated);
    CHECK_EQ(segment.size, ELF_DYNAMIC);
    REQUIRE(plait_elf_next_segment(&elf, &position, &segment) == PLAIT_OK);
    CHECK(segment.writable && !segment.executable);
    CHECK_EQ(segment.memory, 0x1800);
    REQUIRE(plait_elf_next_segment(&elf, &position, &segment) == PLAIT_OK);
    CHECK(segment.relocated);
    CHECK_EQ(plait_elf_next_segment(&elf, &position, &segment), PLAIT_EMPTY);
}

TEST(renaming_reaches_every_place)
{
    elf_built_t built;
    plait_elf_t elf;
    const char *name;
    size_t position = 0, count;
    Elf64_Verneed need;
    elf_build(&built, EM_X86_64, true);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK_EQ(plait_elf_rename(&elf, "libpyhelp.so.1", "00000help.so.1", &count), PLAIT_OK);
    CHECK_EQ(count, 2); /* DT_NEEDED and the version */
    REQUIRE(plait_elf_next_needed(&elf, &position, &name) == PLAIT_OK);
    CHECK_STR_EQ(name, "00000help.so.1");
    memcpy(&need, built.bytes + ELF_VERNEED, sizeof need);
    CHECK_STR_EQ((char *)built.bytes + ELF_STRINGS + need.vn_file, "00000help.so.1");
    CHECK_EQ(plait_elf_rename(&elf, "thing.cpython.so", "00001.cpython.so", &count), PLAIT_OK);
    CHECK_EQ(count, 1);
    CHECK_STR_EQ(plait_elf_soname(&elf), "00001.cpython.so");
    CHECK(elf.edited_from >= ELF_STRINGS && elf.edited_to <= ELF_STRINGS + built.strings_size);
    CHECK_EQ(plait_elf_rename(&elf, "absent.so", "00002t.so", &count), PLAIT_OK);
    CHECK_EQ(count, 0);
    CHECK_EQ(plait_elf_rename(&elf, "libplain.so.2", "short", &count), PLAIT_INVALID);
}

TEST(a_name_that_is_the_end_of_another_stays)
{
    elf_built_t built;
    plait_elf_t elf;
    size_t count;
    elf_build(&built, EM_X86_64, true);
    /* the SONAME, as the end of a needed name */
    Elf64_Dyn entry = {.d_tag = DT_SONAME, .d_un.d_val = elf_string(&built, "plain.so.2")};
    memcpy(built.bytes + ELF_DYNAMIC + 2 * sizeof entry, &entry, sizeof entry);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK_STR_EQ(plait_elf_soname(&elf), "plain.so.2");
    CHECK_EQ(plait_elf_rename(&elf, "plain.so.2", "00000.so.2", &count), PLAIT_UNSUPPORTED);
    CHECK_EQ(elf.edited_from, elf.edited_to);
}

TEST(unique_symbols_become_global)
{
    elf_built_t built;
    plait_elf_t elf;
    Elf64_Sym symbol;
    elf_build(&built, EM_X86_64, true);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK_EQ(plait_elf_divide_unique(&elf), 1);
    memcpy(&symbol, built.bytes + ELF_SYMBOLS + 4 * sizeof symbol, sizeof symbol);
    CHECK_EQ(ELF64_ST_BIND(symbol.st_info), STB_GLOBAL);
    CHECK_EQ(ELF64_ST_TYPE(symbol.st_info), STT_FUNC);
    CHECK_EQ(plait_elf_divide_unique(&elf), 0);
}

/* ---- what is refused ---- */

static int open_spoilt(size_t offset, uint64_t value, size_t size)
{
    elf_built_t built;
    plait_elf_t elf;
    elf_build(&built, EM_X86_64, true);
    memcpy(built.bytes + offset, &value, size);
    return plait_elf_open(&elf, built.bytes, sizeof built.bytes);
}

static int open_with(int64_t tag, uint64_t value)
{
    elf_built_t built;
    plait_elf_t elf;
    elf_build(&built, EM_X86_64, true);
    for (size_t index = 0; index < built.dynamic_count; index++) {
        Elf64_Dyn entry;
        unsigned char *place = built.bytes + ELF_DYNAMIC + index * sizeof entry;
        memcpy(&entry, place, sizeof entry);
        if (entry.d_tag == tag)
            entry.d_un.d_val = value;
        memcpy(place, &entry, sizeof entry);
    }
    return plait_elf_open(&elf, built.bytes, sizeof built.bytes);
}

TEST(other_files_are_refused)
{
    CHECK_EQ(open_spoilt(0, 0, 1), PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(EI_CLASS, ELFCLASS32, 1), PLAIT_UNSUPPORTED);
    CHECK_EQ(open_spoilt(EI_DATA, ELFDATA2MSB, 1), PLAIT_UNSUPPORTED);
    CHECK_EQ(open_spoilt(offsetof(Elf64_Ehdr, e_machine), EM_386, 2), PLAIT_UNSUPPORTED);
    CHECK_EQ(open_spoilt(offsetof(Elf64_Ehdr, e_type), ET_REL, 2), PLAIT_UNSUPPORTED);
}

TEST(wild_headers_are_refused)
{
    CHECK_EQ(open_spoilt(offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 8, 8), PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(offsetof(Elf64_Ehdr, e_phnum), 0xffff, 2), PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(offsetof(Elf64_Ehdr, e_phentsize), 8, 2), PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(ELF_HEADERS + offsetof(Elf64_Phdr, p_filesz), UINT64_MAX, 8),
             PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(ELF_HEADERS + offsetof(Elf64_Phdr, p_vaddr), UINT64_MAX - 100, 8),
             PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(ELF_HEADERS + 2 * sizeof(Elf64_Phdr), PT_NULL, 4), PLAIT_UNSUPPORTED);
}

TEST(wild_tables_are_refused)
{
    CHECK_EQ(open_with(DT_STRTAB, UINT64_MAX), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_STRSZ, UINT64_MAX), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_STRSZ, 0), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_STRSZ, 4), PLAIT_CORRUPT); /* no NUL at its end */
    CHECK_EQ(open_with(DT_SYMTAB, ELF_DYNAMIC - 24), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_SYMTAB, ELF_STRINGS), PLAIT_CORRUPT); /* edits would spoil the other */
    CHECK_EQ(open_with(DT_SYMTAB, ELF_HEADERS), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_GNU_HASH, ELF_DYNAMIC - 8), PLAIT_CORRUPT);
    CHECK_EQ(open_with(DT_RELASZ, UINT64_MAX), PLAIT_CORRUPT);
    CHECK_EQ(open_spoilt(ELF_HASH, 0x40000000, 4), PLAIT_CORRUPT);      /* buckets */
    CHECK_EQ(open_spoilt(ELF_HASH + 8, 0x7fffffff, 4), PLAIT_CORRUPT);  /* bloom words */
    CHECK_EQ(open_spoilt(ELF_HASH + 24, 0xffffffff, 4), PLAIT_CORRUPT); /* a chain */
}

TEST(every_truncation_is_refused_or_harmless)
{
    elf_built_t built;
    elf_build(&built, EM_AARCH64, false);
    for (size_t size = 0; size < sizeof built.bytes; size += 7) {
        unsigned char *exact = malloc(size + (size == 0)); /* so that ASan sees the end */
        plait_elf_t elf;
        memcpy(exact, built.bytes, size);
        CHECK(plait_elf_open(&elf, exact, size) != PLAIT_OK);
        free(exact);
    }
}

TEST(a_slot_outside_of_the_object_is_refused)
{
    elf_built_t built;
    plait_elf_t elf;
    plait_elf_slot_t slot;
    size_t position = 0;
    uint64_t wild = UINT64_MAX - 4;
    elf_build(&built, EM_X86_64, true);
    memcpy(built.bytes + ELF_RELA + sizeof(Elf64_Rela), &wild, sizeof wild);
    REQUIRE(plait_elf_open(&elf, built.bytes, sizeof built.bytes) == PLAIT_OK);
    CHECK_EQ(plait_elf_next_slot(&elf, &position, &slot), PLAIT_CORRUPT);
}
