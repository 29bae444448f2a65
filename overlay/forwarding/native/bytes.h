/* Numbers in packets and sums over them, little and big endian. */
#ifndef OVERLAY_BYTES_H
#define OVERLAY_BYTES_H

#include "slice.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BIG(bits, value) __builtin_bswap##bits(value)
#define LITTLE(bits, value) (value)
#else
#define BIG(bits, value) (value)
#define LITTLE(bits, value) __builtin_bswap##bits(value)
#endif

/* Numbers at a pointer whose bytes are known to exist, such as get16() and put16_le(), and in a slice, such as read16()
 * and write16_le(). */
#define NUMBERS(bits, suffix, order)                                                                                   \
    static inline uint##bits##_t get##bits##suffix(const uint8_t *at) {                                                \
        uint##bits##_t value;                                                                                          \
        memcpy(&value, at, sizeof value);                                                                              \
        return order(bits, value);                                                                                     \
    }                                                                                                                  \
    static inline void put##bits##suffix(uint8_t *at, uint64_t number) {                                               \
        uint##bits##_t value = order(bits, (uint##bits##_t)number);                                                    \
        memcpy(at, &value, sizeof value);                                                                              \
    }                                                                                                                  \
    static inline uint##bits##_t read##bits##suffix(struct slice slice, uint32_t at) {                                 \
        uint8_t *found;                                                                                                \
        return slice_find(slice, at, bits / 8, &found) ? get##bits##suffix(found) : 0;                                 \
    }                                                                                                                  \
    static inline void write##bits##suffix(struct slice slice, uint32_t at, uint64_t number) {                         \
        uint8_t *found;                                                                                                \
        if (!slice_find(slice, at, bits / 8, &found))                                                                  \
            NO_ROOM();                                                                                                 \
        else                                                                                                           \
            put##bits##suffix(found, number);                                                                          \
    }

NUMBERS(16, , BIG)
NUMBERS(32, , BIG)
NUMBERS(16, _le, LITTLE)
NUMBERS(32, _le, LITTLE)
NUMBERS(64, _le, LITTLE)

static inline uint8_t read8(struct slice slice, uint32_t at) {
    uint8_t *found;
    return slice_find(slice, at, 1, &found) ? *found : 0;
}

static inline void write8(struct slice slice, uint32_t at, uint32_t value) {
    uint8_t *found;
    if (!slice_find(slice, at, 1, &found))
        NO_ROOM();
    else
        *found = (uint8_t)value;
}

/* One's complement sums (RFC 1071) add 32-bit words in the machine's order into 64 bits: folding and, on a little
 * endian machine, swapping the bytes at the end gives the result of big endian words. */
static inline uint64_t sum_bytes(struct slice slice) {
    uint64_t sum = 0, other = 0, pair[2];
    uint32_t word;
    const uint8_t *at;
    while (slice_take(&slice, sizeof pair, &at)) { /* two chains of additions are as fast as one */
        memcpy(pair, at, sizeof pair);
        sum += (pair[0] & UINT32_MAX) + (pair[0] >> 32);
        other += (pair[1] & UINT32_MAX) + (pair[1] >> 32);
    }
    sum += other;
    while (slice_take(&slice, sizeof word, &at)) {
        memcpy(&word, at, sizeof word);
        sum += word;
    }
    if (slice.size) {
        word = 0;
        memcpy(&word, slice.bytes, slice.size);
        sum += word;
    }
    return sum;
}

/* Return a sum of sum_bytes(), of an even number of bytes before each but the last, as a big endian number folded to
 * 16 bits: 0 only if all bytes were 0. */
static inline uint32_t fold(uint64_t sum) {
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    uint32_t folded = (uint32_t)(sum & 0xFFFF) + (uint32_t)(sum >> 16);
    folded = (folded & 0xFFFF) + (folded >> 16);
    folded = (folded & 0xFFFF) + (folded >> 16);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    folded = (folded & 0xFF) << 8 | folded >> 8;
#endif
    return folded;
}

/* Fold a sum of big endian numbers to 16 bits. */
static inline uint32_t fold16(uint32_t sum) {
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (sum & 0xFFFF) + (sum >> 16);
}

#endif
