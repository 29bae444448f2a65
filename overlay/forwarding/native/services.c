/* Flows of virtual services, and packets that a permit admits, like overlay/forwarding/services/vip.py and permits.py:
 * a decision is remembered here until Python says that it may have changed. */
#include "atomics.h"
#include "packet.h"

enum { FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, ESTABLISHED = 2, UDP_STATE = 8 };
enum { HEAD_V4 = 34, HEAD_V6 = 54, FRAGMENT_BITS = 0x3FFF, NO_OPTIONS = 0x45 };

static uint32_t flow_generation = 1, admission_generation = 1; /* of all lanes: older entries are forgotten */

/* Find the key of a packet whose ports are right after the IP header; false for any other. */
static bool key_of(struct slice packet, struct flow_key *key) {
    uint32_t protocol, at, size, length = packet.size;
    if (length >= HEAD_V4 && read8(packet, 0) == NO_OPTIONS && !(read16(packet, 6) & FRAGMENT_BITS)) {
        protocol = read8(packet, 9);
        at = 12;
        size = 12;
        key->flags = read8(packet, HEAD_V4 - 1);
    } else if (length >= HEAD_V6 && version_of(packet) == 6) {
        protocol = read8(packet, 6);
        at = 8;
        size = 36;
        key->flags = read8(packet, HEAD_V6 - 1);
    } else {
        return false;
    }
    memset(key->bytes, 0, sizeof key->bytes);
    slice_copy(slice_of(key->bytes, sizeof key->bytes), 0, slice_part(packet, at, size));
    if (protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP)
        key->bytes[size++] = (uint8_t)protocol;
    else if (protocol != PROTOCOL_TCP)
        return false;
    key->size = size;
    return true;
}

static uint32_t hash(const struct state *state, const struct flow_key *key) {
    uint64_t mixed = state->seed ^ key->size, words[sizeof key->bytes / 8];
    memcpy(words, key->bytes, sizeof words);
    for (uint32_t i = 0; i < sizeof words / sizeof *words; i++) {
        mixed = (mixed ^ words[i]) * 0x9E3779B97F4A7C15u;
        mixed ^= mixed >> 29;
    }
    return (uint32_t)((mixed * 0xBF58476D1CE4E5B9u) >> 40);
}

static bool are_equal(const struct flow_key *one, const struct flow_key *other) {
    return one->size == other->size && memcmp(one->bytes, other->bytes, sizeof one->bytes) == 0;
}

/* Set *key* to the bytes of a flow's key that Python passed; false if they cannot be one. */
bool flow_key_set(struct flow_key *key, struct slice bytes) {
    memset(key, 0, sizeof *key);
    if (bytes.size > MOST_KEY)
        return false;
    slice_copy(slice_of(key->bytes, sizeof key->bytes), 0, bytes);
    key->size = bytes.size;
    return true;
}

void flows_forget(void) { flow_generation++; }

void admissions_forget(void) { admission_generation++; }

/* The same if *peer*, which is about to be removed, has admissions. */
void admissions_forget_peer(const struct peer *peer) {
    if (peer->admitted == admission_generation)
        admissions_forget();
}

/* Remember a flow, in place of the oldest of its set. */
void flows_add(struct state *state, const struct flow_key *key, double *seen, const uint8_t *states,
               struct server *server) {
    struct known_flow(*set)[FLOW_WAYS] = &state->flows[hash(state, key) % FLOW_SETS];
    memmove(&(*set)[1], &(*set)[0], (FLOW_WAYS - 1) * sizeof (*set)[0]);
    (*set)[0] = (struct known_flow){*key, seen, states, server, flow_generation};
}

void flows_remove(struct state *state, const struct flow_key *key) {
    struct known_flow(*set)[FLOW_WAYS] = &state->flows[hash(state, key) % FLOW_SETS];
    for (int way = 0; way < FLOW_WAYS; way++)
        if ((*set)[way].generation == flow_generation && are_equal(&(*set)[way].key, key))
            (*set)[way].generation = 0;
}

/* Return the flow of *packet* if the packet changes only the time at which the flow was seen; NULL for any other. */
struct known_flow *flows_find(struct state *state, struct slice packet) {
    struct flow_key key;
    if (!key_of(packet, &key))
        return NULL;
    struct known_flow(*set)[FLOW_WAYS] = &state->flows[hash(state, &key) % FLOW_SETS];
    for (int way = 0; way < FLOW_WAYS; way++) {
        struct known_flow *flow = &(*set)[way];
        if (flow->generation != flow_generation || !are_equal(&flow->key, &key))
            continue;
        bool goes_on = *flow->state == UDP_STATE ||
                       (*flow->state == ESTABLISHED && !(key.flags & (FLAG_FIN | FLAG_SYN | FLAG_RST)));
        return goes_on && flow->server->peer != NULL ? flow : NULL;
    }
    return NULL;
}

/* Count what went to the server of a flow: *total* bytes, which are packets of *segment* bytes unless that is 0. */
void flows_passed(struct known_flow *flow, uint32_t total, uint32_t segment, double now) {
    set_time(flow->seen, now);
    __atomic_fetch_add(&flow->server->packets, segment ? (total + segment - 1) / segment : 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&flow->server->bytes, total, __ATOMIC_RELAXED);
}

void admissions_add(struct state *state, const struct flow_key *key, struct peer *peer) {
    struct admission(*set)[FLOW_WAYS] = &state->admissions[hash(state, key) % ADMISSION_SETS];
    memmove(&(*set)[1], &(*set)[0], (FLOW_WAYS - 1) * sizeof (*set)[0]);
    peer->admitted = admission_generation;
    (*set)[0] = (struct admission){*key, peer, admission_generation};
}

/* Return whether a permit is known to admit *packet* from *peer*. */
bool admissions_find(const struct state *state, const struct peer *peer, struct slice packet) {
    struct flow_key key;
    if (!key_of(packet, &key))
        return false;
    const struct admission(*set)[FLOW_WAYS] = &state->admissions[hash(state, &key) % ADMISSION_SETS];
    for (int way = 0; way < FLOW_WAYS; way++) {
        const struct admission *each = &(*set)[way];
        if (each->generation == admission_generation && each->peer == peer && are_equal(&each->key, &key))
            return true;
    }
    return false;
}
