/* Numbers in packets and sums over them.  Little and big endian; nothing here checks a length. */
#ifndef OVERLAY_BYTES_H
#define OVERLAY_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static inline void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static inline uint16_t get16_le(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static inline uint32_t get32_le(const uint8_t *at) { return get16_le(at) | (uint32_t)get16_le(at + 2) << 16; }

static inline uint64_t get64_le(const uint8_t *at) { return get32_le(at) | (uint64_t)get32_le(at + 4) << 32; }

static inline void put16_le(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void put32_le(uint8_t *at, uint32_t value) {
    put16_le(at, value);
    put16_le(at + 2, value >> 16);
}

static inline void put64_le(uint8_t *at, uint64_t value) {
    put32_le(at, (uint32_t)value);
    put32_le(at + 4, (uint32_t)(value >> 32));
}

/* One's complement sums (RFC 1071) are taken of 32-bit words in the machine's order into 64 bits: folding and, on a
 * little endian machine, exchanging the bytes at the end give what big endian words would. */
static inline uint64_t sum_bytes(const uint8_t *at, size_t size) {
    uint64_t sum = 0, other = 0, one, two;
    uint32_t word;
    for (; size >= 16; size -= 16, at += 16) { /* two chains of additions are as fast as one */
        memcpy(&one, at, 8);
        memcpy(&two, at + 8, 8);
        sum += (one & UINT32_MAX) + (one >> 32);
        other += (two & UINT32_MAX) + (two >> 32);
    }
    sum += other;
    for (; size >= 4; size -= 4, at += 4) {
        memcpy(&word, at, 4);
        sum += word;
    }
    if (size) {
        word = 0;
        memcpy(&word, at, size);
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
