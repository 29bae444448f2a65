/* Moments and counters that several lanes and Python read and write at the same time.
 *
 * Loads and stores are relaxed: each value is independent, and the second of two writers sees the value of the first or
 * overwrites it, as if the two packets had come in the other order. */
#ifndef OVERLAY_ATOMICS_H
#define OVERLAY_ATOMICS_H

#include "native.h"

static inline double get_time(const double *at) {
    double value;
    __atomic_load(at, &value, __ATOMIC_RELAXED);
    return value;
}

/* Write only a changed value: a cache line that nobody writes stays in the cache of every lane. */
static inline void set_time(double *at, double value) {
    if (get_time(at) != value)
        __atomic_store(at, &value, __ATOMIC_RELAXED);
}

static inline uint64_t get_counter(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }

/* Take *count* counters of *at* that nobody else gets, and return the first in *first*; false, with nothing taken, if
 * one of them would reach *limit*. */
static inline bool take_counters(uint64_t *at, uint64_t count, uint64_t limit, uint64_t *first) {
    *first = get_counter(at);
    do {
        if (count > limit || *first > limit - count)
            return false;
    } while (!__atomic_compare_exchange_n(at, first, *first + count, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return true;
}

/* Return whether the drain of *lane* must end with the present packet, because Python waits for it. */
static inline bool is_wanted(const struct lane *lane) {
    return lane->is_wanted != NULL && __atomic_load_n(lane->is_wanted, __ATOMIC_RELAXED);
}

static inline struct counts *counts_of(const struct lane *lane, const struct peer *peer) {
    return &peer->traffic->lanes[lane->number];
}

#endif
