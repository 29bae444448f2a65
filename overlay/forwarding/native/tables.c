/* Look-ups of a drain, and its pace. */
#include "packet.h"

_Static_assert(DROPS_AT_ONCE + UNITS_TOTAL + 2 * 2 * DROP_REASONS <= MOST_DROPS &&
                   DROPS_AT_ONCE + RAW_MESSAGES + DROP_REASONS <= MOST_DROPS,
               "see record_drop()");

static uint32_t bucket(const struct state *state, struct slice address) {
    uint64_t words[2] = {0, 0};
    slice_copy(slice_of(words, sizeof words), 0, address);
    uint64_t mixed = (words[0] ^ state->seed) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 29 ^ words[1] ^ state->seed >> 7) * 0xBF58476D1CE4E5B9u;
    return (uint32_t)(mixed >> 40) % ROUTE_SETS;
}

struct peer virtual_address;

static uint32_t generation = 1; /* of the routes of all lanes, whether stopped or not: older routes are forgotten */

static uint32_t current_generation(void) { return __atomic_load_n(&generation, __ATOMIC_RELAXED); }

/* Forget every route: the table has changed. */
void routes_forget(void) { __atomic_fetch_add(&generation, 1, __ATOMIC_RELAXED); }

/* Forget every route if one to *peer*, which is about to be removed, is remembered: rare, because the table has changed
 * before. */
void routes_forget_peer(const struct peer *peer) {
    if (peer->remembered == current_generation())
        routes_forget();
}

/* Remember that *address* belongs to *peer*, in place of the oldest of its set. */
void routes_add(struct state *state, struct slice address, struct peer *peer) {
    struct route_set *set = &state->routes[bucket(state, address)];
    memmove(&set->ways[1], &set->ways[0], sizeof set->ways - sizeof set->ways[0]);
    peer->remembered = current_generation();
    set->ways[0] = (struct route){.peer = peer, .generation = current_generation(), .size = (uint8_t)address.size};
    slice_copy(slice_of(set->ways[0].address, sizeof set->ways[0].address), 0, address);
}

/* Return the peer that has *address*; NULL if it is not remembered. */
struct peer *routes_find(const struct state *state, struct slice address) {
    const struct route_set *set = &state->routes[bucket(state, address)];
    uint32_t now = current_generation();
    for (int way = 0; way < ROUTE_WAYS; way++) {
        const struct route *route = &set->ways[way];
        if (route->generation == now && route->size == address.size &&
            slice_has_at(address, 0, route->address, address.size))
            return route->peer;
    }
    return NULL;
}

static struct slice source_of(struct slice packet) {
    return version_of(packet) == 4 ? slice_part(packet, 12, 4) : slice_part(packet, 8, 16);
}

/* Return whether *packet* is known to be one that *peer* may send (core: is_from). */
bool is_from(const struct lane *lane, const struct peer *peer, struct slice packet) {
    return routes_find(lane->state, source_of(packet)) == peer || admissions_find(lane->state, peer, packet);
}

/* Return whether the source of *packet* is known to be one that the peer may send from (owners: has_source). */
bool sources_hold(const struct unsealed *unsealed, struct slice packet) {
    struct slice source = source_of(packet), changes = unsealed->sources[version_of(packet) != 4];
    if (!source.size)
        return false;
    uint32_t low = 0, high = changes.size / source.size; /* how many changes are not after the source */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint8_t *change;
        if (slice_find(changes, middle * source.size, source.size, &change) &&
            memcmp(change, source.bytes, source.size) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low & 1;
}

void indices_add(struct state *state, struct keypair *keypair) {
    struct keypair **head = &state->indices[keypair->local_index % INDEX_BUCKETS];
    keypair->chain = *head;
    keypair->is_listed = true;
    *head = keypair;
}

void indices_remove(struct state *state, struct keypair *keypair) {
    struct keypair **at = &state->indices[keypair->local_index % INDEX_BUCKETS];
    while (*at != NULL && *at != keypair)
        at = &(*at)->chain;
    if (*at != NULL)
        *at = keypair->chain;
    keypair->chain = NULL;
    keypair->is_listed = false;
}

struct keypair *indices_find(const struct state *state, uint32_t index) {
    struct keypair *found = state->indices[index % INDEX_BUCKETS];
    while (found != NULL && found->local_index != index)
        found = found->chain;
    return found;
}

/* Stations: Ethernet addresses, as the bridge last reported them (ethernet/bridge.py) */

static uint32_t station_set(const struct state *state, struct slice mac) {
    return bucket(state, mac) % STATION_SETS;
}

/* Remember that *mac* is at *peer*, in place of an earlier entry for it or of the oldest of its set; return the station
 * that is no longer remembered, or NULL. */
struct station *stations_add(struct state *state, struct slice mac, struct peer *peer, struct station *station) {
    struct known_station(*set)[STATION_WAYS] = &state->stations[station_set(state, mac)];
    size_t way = 0;
    while (way < STATION_WAYS - 1 && !slice_has_at(mac, 0, (*set)[way].mac, sizeof (*set)[way].mac))
        way++;
    struct station *gone = (*set)[way].station;
    memmove(&(*set)[1], &(*set)[0], way * sizeof (*set)[0]);
    if (peer != NULL)
        peer->remembered = current_generation();
    (*set)[0] = (struct known_station){.station = station, .peer = peer, .generation = current_generation()};
    slice_copy(slice_of((*set)[0].mac, sizeof (*set)[0].mac), 0, mac);
    return gone;
}

/* Return what is remembered about *mac* if that is still valid; otherwise NULL. */
static const struct known_station *find_station(const struct state *state, struct slice mac, double now) {
    const struct known_station(*set)[STATION_WAYS] = &state->stations[station_set(state, mac)];
    for (int way = 0; way < STATION_WAYS; way++) {
        const struct known_station *known = &(*set)[way];
        if (known->generation == current_generation() && slice_has_at(mac, 0, known->mac, sizeof known->mac))
            return known->station == NULL || now - known->station->seen_at < AGEING_TIME ? known : NULL;
    }
    return NULL;
}

/* Return what is remembered about *mac* if it is at *peer*, NULL for the side of the tap; NULL if the bridge must
 * decide. */
const struct known_station *stations_find(const struct state *state, struct slice mac, const struct peer *peer,
                                          double now) {
    const struct known_station *known = find_station(state, mac, now);
    return known != NULL && known->peer == peer ? known : NULL;
}

/* Return the peer that *mac* is at; NULL if it is not remembered, or on the side of the tap. */
struct peer *stations_for(const struct state *state, struct slice mac, double now) {
    const struct known_station *known = find_station(state, mac, now);
    return known == NULL ? NULL : known->peer;
}

/* Note that a station has sent something. */
void station_seen(const struct known_station *known, double now) {
    if (known->station != NULL)
        known->station->seen_at = now;
}

/* Places: the addresses from which peers in the clear are accepted (clear.inbound: Place) */

static uint32_t place_bucket(const struct state *state, struct slice address) {
    return bucket(state, address) % PLACE_BUCKETS;
}

static struct slice located(const struct peer *peer) { return slice_of(peer->located, (size_t)peer->located_size); }

/* Accept packets from where *peer* is `located`, with lower precedence than the peers that are there already. */
void places_add(struct state *state, struct peer *peer) {
    struct peer **at = &state->places[place_bucket(state, located(peer))];
    while (*at != NULL)
        at = &(*at)->place_chain;
    *at = peer;
    peer->place_chain = NULL;
}

void places_remove(struct state *state, struct peer *peer) {
    struct peer **at = &state->places[place_bucket(state, located(peer))];
    while (*at != NULL && *at != peer)
        at = &(*at)->place_chain;
    if (*at != NULL)
        *at = peer->place_chain;
    peer->place_chain = NULL;
    peer->located_size = 0;
}

static bool is_same_place(const struct peer *one, const struct peer *other) {
    return one->located_size == other->located_size &&
           memcmp(one->located, other->located, (size_t)one->located_size) == 0 &&
           one->located_scope == other->located_scope && one->located_layout == other->located_layout &&
           one->located_has_ports == other->located_has_ports;
}

/* Return the next peer at the place of *peer*, in the order of clear.inbound: _peers; NULL after the last. */
struct peer *places_next(const struct peer *peer) {
    struct peer *next = peer->place_chain;
    while (next != NULL && !is_same_place(peer, next))
        next = next->place_chain;
    return next;
}

/* Return *peer*, or the first after it at its place, whose tunnel has this identifier, or has none; otherwise NULL. */
struct peer *places_named(struct peer *peer, bool has_identifier, uint32_t identifier) {
    for (; peer != NULL; peer = places_next(peer)) {
        const struct tunnel *tunnel = peer->tunnel;
        if (tunnel != NULL && tunnel->layout == peer->located_layout && tunnel->has_identifier == has_identifier &&
            (!has_identifier || tunnel->identifier == identifier))
            return peer;
    }
    return NULL;
}

static bool has_tunnel_of(struct peer *peer, const struct peer *named) {
    return places_named(peer, named->tunnel->has_identifier, named->tunnel->identifier) == peer;
}

/* Return which of *named* and the peers after it with the same tunnel has sent *packet*; NULL if Python must decide
 * (clear.inbound: sender). */
struct peer *places_sender(const struct lane *lane, struct peer *named, struct slice packet) {
    const struct tunnel *tunnel = named->tunnel;
    if (places_named(places_next(named), tunnel->has_identifier, tunnel->identifier) == NULL)
        return is_from(lane, named, packet) || sources_hold(named->unsealed, packet) ? named : NULL;
    struct peer *owner = routes_find(lane->state, source_of(packet));
    return owner != NULL && is_same_place(owner, named) && has_tunnel_of(owner, named) ? owner : NULL;
}

/* Return the first peer at *source* with the encapsulation of *udp*; NULL if there is none. */
struct peer *places_find(const struct state *state, const struct udp *udp, const union address *source) {
    bool is_ipv4 = source->any.sa_family == AF_INET;
    struct slice address = is_ipv4 ? slice_of(&source->v4.sin_addr, 4) : slice_of(&source->v6.sin6_addr, 16);
    uint32_t scope = is_ipv4 ? 0 : source->v6.sin6_scope_id;
    bool has_ports = udp->protocol == PROTOCOL_UDP;
    for (struct peer *each = state->places[place_bucket(state, address)]; each; each = each->place_chain) {
        if (each->located_size == (int)address.size && slice_has_at(address, 0, each->located, address.size) &&
            each->located_scope == scope && each->located_layout == udp->layout && each->located_has_ports == has_ports)
            return each;
    }
    return NULL;
}

#define QUICK 0.001 /* underlay.batching */
enum { PROBE = 4 };

/* Return whether to take only one packet in the go that begins *now*. */
bool pace_takes_one(struct pace *pace, double now) {
    double last = pace->last;
    pace->last = now;
    if (!pace->is_single)
        return false;
    if (now - last > QUICK)
        return true;
    pace->quick++;
    return pace->quick % PROBE != 0;
}

/* Record how many packets a go that could take more has taken. */
void pace_took(struct pace *pace, uint32_t count) { pace->is_single = count <= 1; }
