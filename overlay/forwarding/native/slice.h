/* Bytes and their bound: the only place where a pointer is computed.
 *
 * Lengths are checked where bytes enter, and a refusal there has a name (enum reason) or is left to Python.  After
 * that, bytes travel as a slice, which knows its end, and every access checks it: outside, a read gives 0, a write
 * changes nothing, and a part is empty.  That limits the effect of a mistake after the first check; the fuzzer stops at
 * a refused write.
 *
 * Nowhere else are pointers added to, subtracted, indexed or made from numbers: elements of our own structures are
 * those of arrays of a known size, by index.  tests/overlay/forwarding/native/test_pointers.py enforces this. */
#ifndef OVERLAY_SLICE_H
#define OVERLAY_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

struct slice {
    uint8_t *bytes; /* not NULL if the slice is accessed */
    uint32_t size;
};

static inline struct slice no_bytes(void) { return (struct slice){(uint8_t *)(uintptr_t)"", 0}; }

/* Return the *size* bytes at *bytes*, which the caller knows to exist; of 4 GiB or more, the beginning. */
static inline struct slice slice_of(const void *bytes, size_t size) {
    return (struct slice){(uint8_t *)(uintptr_t)bytes, size < UINT32_MAX ? (uint32_t)size : UINT32_MAX};
}

/* Set *found* to the *size* bytes from *at* on; false, and it is the beginning, unless all of them are inside. */
static inline bool slice_find(struct slice slice, uint32_t at, uint32_t size, uint8_t **found) {
    bool is_inside = (uint64_t)at + size <= slice.size;
    *found = is_inside ? slice.bytes + at : slice.bytes;
    return is_inside;
}

/* Return the *size* bytes from *at* on; an empty slice unless all of them are inside. */
static inline struct slice slice_part(struct slice slice, uint32_t at, uint32_t size) {
    uint8_t *found;
    bool is_inside = slice_find(slice, at, size, &found);
    return (struct slice){found, is_inside ? size : 0};
}

/* Return all bytes from *at* on; an empty slice if that is after the end. */
static inline struct slice slice_from(struct slice slice, uint32_t at) {
    return slice_part(slice, at, at <= slice.size ? slice.size - at : 0);
}

/* Set *taken* to the next *size* bytes, and let *rest* begin after them; false, with nothing taken, if there are
 * fewer. */
static inline bool slice_take(struct slice *rest, uint32_t size, const uint8_t **taken) {
    *taken = rest->bytes;
    if (rest->size < size)
        return false;
    rest->bytes += size;
    rest->size -= size;
    return true;
}

/* Return the bytes of part *i* of the *count* parts of a message; an empty slice if there are not that many. */
static inline struct slice slice_of_part(const struct iovec *parts, size_t count, size_t i) {
    return i < count ? slice_of(parts[i].iov_base, parts[i].iov_len) : no_bytes();
}

/* Return the field *offset* bytes into a structure, and the structure around such a field: the offset is a constant, an
 * offsetof(). */
static inline void *field_at(void *structure, size_t offset) { return (char *)structure + offset; }

static inline void *structure_of(const void *field, size_t offset) { return (char *)(uintptr_t)field - offset; }

/* Operations on the bytes of slices, all by means of the above */

static inline struct iovec iovec_of(struct slice slice) { return (struct iovec){slice.bytes, slice.size}; }

#ifndef NO_ROOM /* tests/fuzz/native.py defines it as a trap */
#define NO_ROOM() ((void)0)
#endif

/* Write *size* bytes at *at*; nothing unless there is room for all of them. */
static inline void slice_put(struct slice to, uint32_t at, const void *bytes, uint32_t size) {
    uint8_t *found;
    if (!slice_find(to, at, size, &found))
        NO_ROOM();
    else if (size)
        memcpy(found, bytes, size);
}

static inline void slice_copy(struct slice to, uint32_t at, struct slice what) {
    slice_put(to, at, what.bytes, what.size);
}

/* The same for bytes that may be part of the slice itself. */
static inline void slice_move(struct slice to, uint32_t at, struct slice what) {
    uint8_t *found;
    if (!slice_find(to, at, what.size, &found))
        NO_ROOM();
    else if (what.size)
        memmove(found, what.bytes, what.size);
}

static inline void slice_clear(struct slice slice) {
    if (slice.size)
        memset(slice.bytes, 0, slice.size);
}

/* Return whether both have *size* bytes from *at* on, and they are equal. */
static inline bool slice_same_at(struct slice one, struct slice other, uint32_t at, uint32_t size) {
    uint8_t *first, *second;
    return slice_find(one, at, size, &first) && slice_find(other, at, size, &second) && memcmp(first, second, size) == 0;
}

/* Return whether *size* bytes from *at* on are those at *bytes*. */
static inline bool slice_has_at(struct slice slice, uint32_t at, const void *bytes, uint32_t size) {
    uint8_t *found;
    return slice_find(slice, at, size, &found) && memcmp(found, bytes, size) == 0;
}

#endif
