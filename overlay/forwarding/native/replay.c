/* Which counters of a keypair have been received: the sliding window of RFC 6479, with the same answers as
 * overlay/crypto/replay.py for every sequence of counters. */
#include "native.h"

enum { WORDS = 128, WINDOW = (WORDS - 1) * 64 };

static inline uint64_t bit(uint64_t counter) { return (uint64_t)1 << (counter & 63); }

static inline uint64_t *word(struct window *window, uint64_t counter) {
    return &window->words[(counter >> 6) % WORDS];
}

/* Return whether *counter* is new, inside the window and below REJECT_AFTER_MESSAGES.  Nothing is recorded. */
bool window_check(const struct window *window, uint64_t counter) {
    if (counter >= window->newest)
        return counter < REJECT_AFTER_MESSAGES;
    if (window->newest - 1 - counter > WINDOW)
        return false;
    return !(window->words[(counter >> 6) % WORDS] & bit(counter));
}

/* Extend the window to *counter*, which is newer than any: newly used words are cleared. */
static void advance(struct window *window, uint64_t counter) {
    uint64_t from = window->newest ? (window->newest - 1) >> 6 : 0, to = counter >> 6;
    uint64_t steps = to - from > WORDS ? WORDS : to - from;
    for (uint64_t step = 0; step < steps; step++)
        window->words[(to - step) % WORDS] = 0;
    window->newest = counter + 1;
}

/* Check and mark in one. */
bool window_accept(struct window *window, uint64_t counter) {
    if (!window_check(window, counter))
        return false;
    if (counter >= window->newest)
        advance(window, counter);
    *word(window, counter) |= bit(counter);
    return true;
}

/* Record *count* consecutive counters from *first* on if all are newer than any seen; otherwise record nothing. */
bool window_accept_run(struct window *window, uint64_t first, uint64_t count) {
    if (first < window->newest || first > REJECT_AFTER_MESSAGES || count > REJECT_AFTER_MESSAGES - first)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        advance(window, first + i);
        *word(window, first + i) |= bit(first + i);
    }
    return true;
}
