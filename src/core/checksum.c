/* checksum: CRC-32C by the processor's instruction, or by tables eight bytes at a time.
 *
 * Invariants: both ways give the same result for every input; the tables are constants of the
 * program. Any thread. Design: docs/design/flat.md
 */
#include "checksum.h"

#include <string.h>

/* A CRC is linear: an entry is the XOR of the entries of its index's bits. So eight constants make
 * a table, and there is no table to initialise or to check in. */
#define ENTRY(i, k0, k1, k2, k3, k4, k5, k6, k7)                                                   \
    (((i) & 1 ? k0 : 0u) ^ ((i) & 2 ? k1 : 0u) ^ ((i) & 4 ? k2 : 0u) ^ ((i) & 8 ? k3 : 0u) ^       \
     ((i) & 16 ? k4 : 0u) ^ ((i) & 32 ? k5 : 0u) ^ ((i) & 64 ? k6 : 0u) ^ ((i) & 128 ? k7 : 0u))
#define ENTRIES_4(i, ...)                                                                          \
    ENTRY(i, __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), ENTRY((i) + 2, __VA_ARGS__),               \
        ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)                                                                         \
    ENTRIES_4(i, __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__), ENTRIES_4((i) + 8, __VA_ARGS__),   \
        ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)                                                                         \
    ENTRIES_16(i, __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__),                                 \
        ENTRIES_16((i) + 32, __VA_ARGS__), ENTRIES_16((i) + 48, __VA_ARGS__)
#define TABLE(...)                                                                                 \
    {ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),        \
     ENTRIES_64(192, __VA_ARGS__)}

/* Table n: a byte's effect after n further bytes. Polynomial 0x1EDC6F41, reflected 0x82F63B78. */
static const uint32_t tables[8][256] = {
    TABLE(0xF26B8303, 0xE13B70F7, 0xC79A971F, 0x8AD958CF, 0x105EC76F, 0x20BD8EDE, 0x417B1DBC,
          0x82F63B78),
    TABLE(0x13A29877, 0x274530EE, 0x4E8A61DC, 0x9D14C3B8, 0x3FC5F181, 0x7F8BE302, 0xFF17C604,
          0xFBC3FAF9),
    TABLE(0xA541927E, 0x4F6F520D, 0x9EDEA41A, 0x38513EC5, 0x70A27D8A, 0xE144FB14, 0xC76580D9,
          0x8B277743),
    TABLE(0xDD45AAB8, 0xBF672381, 0x7B2231F3, 0xF64463E6, 0xE964B13D, 0xD725148B, 0xABA65FE7,
          0x52A0C93F),
    TABLE(0x38116FAC, 0x7022DF58, 0xE045BEB0, 0xC5670B91, 0x8F2261D3, 0x1BA8B557, 0x37516AAE,
          0x6EA2D55C),
    TABLE(0xEF306B19, 0xDB8CA0C3, 0xB2F53777, 0x6006181F, 0xC00C303E, 0x85F4168D, 0x0E045BEB,
          0x1C08B7D6),
    TABLE(0x68032CC8, 0xD0065990, 0xA5E0C5D1, 0x4E2DFD53, 0x9C5BFAA6, 0x3D5B83BD, 0x7AB7077A,
          0xF56E0EF4),
    TABLE(0x493C7D27, 0x9278FA4E, 0x211D826D, 0x423B04DA, 0x847609B4, 0x0D006599, 0x1A00CB32,
          0x34019664),
};

uint32_t plait__checksum_crc32c_table(uint32_t crc, const void *data, size_t size)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        word ^= crc;
        crc = tables[7][word & 0xFF] ^ tables[6][(word >> 8) & 0xFF] ^
              tables[5][(word >> 16) & 0xFF] ^ tables[4][(word >> 24) & 0xFF] ^
              tables[3][(word >> 32) & 0xFF] ^ tables[2][(word >> 40) & 0xFF] ^
              tables[1][(word >> 48) & 0xFF] ^ tables[0][word >> 56];
    }
    for (; size > 0; p++, size--)
        crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(uint32_t crc, const void *data,
                                                                     size_t size)
{
    const unsigned char *p = data;
    uint64_t state = (uint32_t)~crc;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        state = _mm_crc32_u64(state, word);
    }
    crc = (uint32_t)state;
    for (; size > 0; p++, size--)
        crc = _mm_crc32_u8(crc, *p);
    return ~crc;
}

uint32_t plait_checksum_crc32c(uint32_t crc, const void *data, size_t size)
{
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_instruction(crc, data, size);
    return plait__checksum_crc32c_table(crc, data, size);
}

#else

uint32_t plait_checksum_crc32c(uint32_t crc, const void *data, size_t size)
{
    return plait__checksum_crc32c_table(crc, data, size);
}

#endif
