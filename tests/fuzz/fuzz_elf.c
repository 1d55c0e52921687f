/* Any bytes as a shared object: an answer, and no access outside of them, edits included.
 *
 * The input is laid over a small well-formed file, since a fuzzer cannot guess one: its first two
 * bytes say where, and of which machine; inputs whose first byte is 0xFF stand for themselves.
 */
#include <stdlib.h>

#include "elf_build.h"
#include "isolate/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(plait_elf_t *elf)
{
    plait_elf_segment_t segment;
    plait_elf_slot_t slot;
    size_t position = 0, length = 0, count;
    const char *name;
    char other[ELF_BUILT_SIZE + 1];
    while (plait_elf_next_needed(elf, &position, &name) == PLAIT_OK)
        length += strlen(name);
    position = 0;
    while (plait_elf_next_slot(elf, &position, &slot) == PLAIT_OK)
        length += strlen(slot.symbol);
    position = 0;
    while (plait_elf_next_segment(elf, &position, &segment) == PLAIT_OK)
        length += segment.size;
    name = plait_elf_search_path(elf);
    length += name != NULL ? strlen(name) : 0;
    length += plait_elf_uses_python(elf) + plait_elf_has_text_relocations(elf);
    length += plait_elf_divide_unique(elf);
    name = plait_elf_soname(elf);
    if (name != NULL && strlen(name) < sizeof other) {
        char from[sizeof other];
        strcpy(from, name);
        memset(other, 'x', strlen(from));
        other[strlen(from)] = '\0';
        (void)plait_elf_rename(elf, from, other, &count);
    }
    if (length == SIZE_MAX)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    elf_built_t built;
    plait_elf_t elf;
    size_t total = ELF_BUILT_SIZE;
    if (size < 2)
        return 0;
    elf_build(&built, data[0] & 0x80 ? EM_AARCH64 : EM_X86_64, data[0] & 0x40);
    if (data[0] == 0xFF) {
        total = size - 1 < total ? size - 1 : total;
        memcpy(built.bytes, data + 1, total);
    } else {
        size_t place = ((size_t)(data[0] & 0x3F) << 8 | data[1]) % total;
        memcpy(built.bytes + place, data + 2, size - 2 < total - place ? size - 2 : total - place);
    }
    unsigned char *exact = malloc(total > 0 ? total : 1); /* without spare room behind it */
    if (exact == NULL)
        return 0;
    memcpy(exact, built.bytes, total);
    if (plait_elf_open(&elf, exact, total) == PLAIT_OK) {
        look(&elf);
        look(&elf); /* what was edited is as harmless */
    }
    free(exact);
    return 0;
}
