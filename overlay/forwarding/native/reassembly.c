/* Units with missing fragments, like overlay/forwarding/bulk/reassembly.py: bounded in number, memory and time. */
#include "native.h"

#include "atomics.h"
#include "bytes.h"

#include <stdlib.h>

#define REASSEMBLY_TIME 1.0 /* bulk.units */

enum { BUFFER_BYTES = LEAD + MAXIMUM_SEALED, TAIL_BYTES = 65536 };

static bool has(const struct partial *partial, uint32_t number) {
    return partial->have[number / 64] >> number % 64 & 1;
}

static void mark(struct partial *partial, uint32_t number) {
    partial->have[number / 64] |= (uint64_t)1 << number % 64;
    partial->missing--;
}

void reassembly_forget(struct reassembly *reassembly, struct partial *partial) {
    partial->keypair = NULL;
    reassembly->used--;
}

void reassembly_forget_keypair(struct reassembly *reassembly, const struct keypair *keypair) {
    for (int i = 0; i < UNITS_TOTAL; i++)
        if (reassembly->partials[i].keypair == keypair)
            reassembly_forget(reassembly, &reassembly->partials[i]);
}

/* Count a unit as lost, and forget it. */
static void give_up(struct lane *lane, struct partial *partial) {
    struct bulk *bulk = partial->keypair->bulk;
    record_drop(lane, partial->keypair->peer, DROP_UNIT_INCOMPLETE, 1);
    if (bulk != NULL && partial->is_at_endpoint)
        __atomic_fetch_add(&bulk->missing, partial->missing, __ATOMIC_RELAXED); /* of whatever keypair */
    reassembly_forget(&lane->in.reassembly, partial);
}

static void give_up_oldest(struct lane *lane, struct partial *oldest) {
    if (oldest != NULL)
        give_up(lane, oldest);
}

static bool is_at(const struct partial *partial, const struct arrival *arrival) {
    return partial->source_size == arrival->source_size &&
           memcmp(&partial->source, &arrival->source, arrival->source_size) == 0;
}

/* Return the unit that a fragment belongs to; NULL if count or cipher contradict the earlier fragments. */
struct partial *reassembly_place(struct lane *lane, struct keypair *keypair, uint64_t counter, uint32_t count,
                                 uint32_t cipher, const struct arrival *arrival, double now, bool is_at_endpoint) {
    struct reassembly *reassembly = &lane->in.reassembly;
    struct partial *unused = NULL, *found = NULL, *oldest = NULL, *oldest_of_session = NULL, *oldest_elsewhere = NULL;
    uint32_t of_session = 0, elsewhere = 0;
    for (int i = 0; i < UNITS_TOTAL; i++) {
        struct partial *each = &reassembly->partials[i];
        if (each->keypair != NULL && each->began + REASSEMBLY_TIME <= now)
            give_up(lane, each);
        if (each->keypair == NULL) {
            if (unused == NULL)
                unused = each;
            continue;
        }
        if (each->keypair == keypair && each->counter == counter && is_at(each, arrival))
            found = each;
        if (oldest == NULL || each->order < oldest->order)
            oldest = each;
        if (!each->is_at_endpoint) {
            elsewhere++;
            if (oldest_elsewhere == NULL || each->order < oldest_elsewhere->order)
                oldest_elsewhere = each;
        } else if (each->keypair == keypair) {
            of_session++;
            if (oldest_of_session == NULL || each->order < oldest_of_session->order)
                oldest_of_session = each;
        }
    }
    if (found != NULL)
        return found->count == count && found->cipher == cipher ? found : NULL;
    if (is_at_endpoint && of_session >= UNITS_PER_SESSION) {
        give_up_oldest(lane, oldest_of_session);
        unused = oldest_of_session;
    } else if (!is_at_endpoint && elsewhere >= UNITS_FROM_ELSEWHERE) {
        give_up_oldest(lane, oldest_elsewhere);
        unused = oldest_elsewhere;
    } else if (unused == NULL) {
        give_up_oldest(lane, oldest);
        unused = oldest;
    }
    uint8_t *buffer = unused->buffer.bytes; /* kept for ever */
    if (buffer == NULL)
        buffer = malloc(BUFFER_BYTES + TAIL_BYTES);
    if (buffer == NULL)
        return NULL;
    *unused = (struct partial){
        .keypair = keypair,
        .buffer = slice_of(buffer, BUFFER_BYTES),
        .tail = slice_from(slice_of(buffer, BUFFER_BYTES + TAIL_BYTES), BUFFER_BYTES),
        .began = now,
        .counter = counter,
        .order = reassembly->order++,
        .count = count,
        .cipher = cipher,
        .missing = count,
        .source = arrival->source,
        .source_size = arrival->source_size,
        .is_at_endpoint = is_at_endpoint,
    };
    reassembly->used++;
    return unused;
}

/* Add *count* consecutive fragments from *number* on, whose pieces are in *rows*, *stride* bytes apart, and have
 * *width* bytes, the last of them *last*.  The first copy of each stays.  False if sizes contradict each other. */
bool reassembly_put(struct partial *partial, uint32_t number, struct slice rows, uint32_t count, uint32_t stride,
                    uint32_t width, uint32_t last, bool *is_whole) {
    bool is_end = number + count == partial->count;
    uint32_t whole = is_end ? count - 1 : count;
    if (!is_end && last != width)
        return false; /* only the last of a unit may be shorter */
    if (whole) {
        if (partial->piece == 0) {
            if ((partial->count - 1) * width >= MAXIMUM_SEALED)
                return false;
            partial->piece = width;
        } else if (partial->piece != width) {
            return false;
        }
    }
    for (uint32_t row = 0; row < whole; row++) {
        if (has(partial, number + row))
            continue;
        slice_copy(partial->buffer, LEAD + (number + row) * width, slice_part(rows, row * stride, width));
        mark(partial, number + row);
    }
    if (is_end && !has(partial, partial->count - 1)) {
        slice_copy(partial->tail, 0, slice_part(rows, (count - 1) * stride, last));
        partial->tail_size = last;
        mark(partial, partial->count - 1);
    }
    *is_whole = partial->missing == 0;
    return true;
}

/* Move the last fragment of a whole unit after the others; false if it is larger than they are, or the unit too
 * large. */
bool reassembly_finish(struct partial *partial, uint32_t *size) {
    uint32_t start = LEAD + (partial->count - 1) * partial->piece, end = start + partial->tail_size;
    if (end > BUFFER_BYTES || (partial->piece && partial->tail_size > partial->piece))
        return false;
    slice_copy(partial->buffer, start, slice_part(partial->tail, 0, partial->tail_size));
    *size = end;
    return true;
}
