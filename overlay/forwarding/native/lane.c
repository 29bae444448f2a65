/* The memory of a lane, allocated once: nothing else is allocated except the buffers of incomplete units
 * (reassembly.c). */
#include "native.h"

#include <stdlib.h>

/* Free a lane and all that it allocated; NULL is ignored. */
void free_lane(struct lane *lane) {
    if (lane == NULL)
        return;
    for (int i = 0; i < UNITS_TOTAL; i++)
        free(lane->in.reassembly.partials[i].buffer.bytes);
    free(lane->out.train.bytes);
    free(lane->out.plain.bytes);
    free(lane->out.refused_bytes.bytes);
    free(lane->raw.rows.bytes);
    if (!lane->has_joined)
        free(lane->state);
    free(lane);
}

/* Attach *lane* to *first*, which outlives it: they share the state. */
void join_lane(struct lane *lane, const struct lane *first, uint32_t number) {
    free(lane->state);
    lane->state = first->state;
    lane->number = number;
    lane->has_joined = true;
}

/* Return a lane that calls *io* for I/O, without the buffers that the Python path reads into, too; NULL if memory is
 * short. */
struct lane *new_lane(const struct io *io) {
    struct lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return NULL;
    lane->io = io;
    lane->tun = lane->tun_out = -1;
    lane->state = calloc(1, sizeof *lane->state);
    lane->out.train = slice_of(malloc(TRAIN_BUFFER + ARENA_SLACK), TRAIN_BUFFER + ARENA_SLACK);
    lane->out.plain = slice_of(malloc(MAXIMUM_SEALED + ARENA_SLACK), MAXIMUM_SEALED + ARENA_SLACK);
    lane->out.refused_bytes = slice_of(malloc(REFUSED_BYTES), REFUSED_BYTES);
    lane->raw.rows = slice_of(calloc(1, raw_bytes()), raw_bytes());
    if (lane->state != NULL && lane->out.train.bytes != NULL && lane->out.plain.bytes != NULL &&
        lane->out.refused_bytes.bytes != NULL && lane->raw.rows.bytes != NULL)
        return lane;
    free_lane(lane);
    return NULL;
}
