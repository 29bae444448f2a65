/* Stories with a tap: packets go and come in Ethernet frames, from stations that are known, move, and are forgotten. */
#include "world.h"

#include "../bytes.h"
#include "../packet.h"

enum { STATIONS = 3 }; /* on each side: a static one, and two that were learnt */

static struct station stations[PEERS + 1][STATIONS];

void taps_reset(void) {
    world.is_tap = false;
    world.lane->state->carries_frames = 0;
    memset(world.lane->state->own_ports, 0, sizeof world.lane->state->own_ports);
}

static void put_mac(uint8_t *at, uint32_t owner, uint32_t number) {
    memcpy(at, (uint8_t[]){2, 0, 0, 0, (uint8_t)number, (uint8_t)owner}, 6);
}

/* Tell the lane about a station; those of PEERS are on the side of the tap. */
static void tell_station(uint32_t owner, uint32_t number, uint32_t at) {
    uint8_t mac[6];
    put_mac(mac, owner, number);
    struct station *station = number ? &stations[owner][number] : NULL;
    if (station != NULL)
        station->seen_at = world.now;
    stations_add(world.lane->state, slice_of(mac, sizeof mac), at == PEERS ? NULL : &world.remotes[at].peer, station);
}

/* Make the device a tap from now on, or change stations. */
void say_tap(struct cursor *cursor) {
    uint32_t how = take8(cursor), owner = how >> 3 & 3, number = how >> 5 & 1;
    if (!world.is_tap) {
        world.is_tap = true;
        world.lane->state->carries_frames = 1;
        for (uint32_t each = 0; each < PEERS; each++)
            for (uint32_t station = 0; station < STATIONS - 1; station++)
                tell_station(each, station, each);
        for (uint32_t station = 0; station < STATIONS - 1; station++)
            tell_station(PEERS, station, PEERS);
    }
    if (owner == SEALED)
        owner = PEERS;
    switch (how & 7) {
    case 0: break;
    case 1: stations[owner][number].seen_at = -INFINITY; break;
    case 2: stations[owner][number].seen_at = world.now - AGEING_TIME; break;
    case 3: routes_forget(); break;
    case 4: tell_station(owner, number, how >> 6 & 1 ? PEERS : how >> 7); break;
    case 5: world.lane->state->own_ports[1000 / 8] = (uint8_t)how; break;
    case 6: tell_station(owner, 1 + number, owner); break;
    default: /* one of the peers in the clear, for which two bits are left */
        owner = how >> 6 ? SEALED + (how >> 6) - 1 : owner;
        tell_station(owner, 1 + number, how >> 3 & 1 ? PEERS : owner);
    }
}

/* Write the Ethernet header of packets of *spec* at *at*, and return its size. */
uint32_t put_link(const struct spec *spec, uint8_t *at) {
    uint32_t tags = spec->link & 3, size = ETHERNET_SIZE + tags * VLAN_SIZE;
    put_mac(at + (spec->is_ours ? 0 : 6), spec->owner < PEERS ? spec->owner : PEERS - 1, spec->link >> 2 & 3);
    put_mac(at + (spec->is_ours ? 6 : 0), PEERS, spec->link >> 4 & 3);
    if (spec->link >> 6 & 1)
        at[0] |= 1; /* to a group, or from one */
    for (uint32_t i = 0; i < tags; i++)
        put32(at + 12 + i * VLAN_SIZE, (i ? (uint32_t)ETHERTYPE_CUSTOMER_TAG : ETHERTYPE_SERVICE_TAG) << 16 | 7);
    bool is_ipv4 = (spec->version == 4) != (spec->link >> 7);
    put16(at + size - 2, is_ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    return size;
}

/* Write the header of wire/frames.py and an Ethernet header at *payload*, and return the size of both. */
uint32_t put_lead(const struct spec *spec, uint8_t *payload) {
    payload[0] = TYPE_FRAME;
    payload[1] = 0;
    return FRAME_HEADER_SIZE + put_link(spec, payload + FRAME_HEADER_SIZE);
}

/* Check a sent and opened payload of *size* bytes. */
void check_frame(const uint8_t *payload, uint32_t size) {
    bool is_whole = size >= FRAME_HEADER_SIZE && payload[0] == TYPE_FRAME && size >= FRAME_HEADER_SIZE + (uint32_t)payload[1];
    if (!is_whole || payload[1] >= PADDING || !link_of(slice_of(payload + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE - payload[1])))
        refuse_story("a payload without a frame");
    for (uint32_t i = 0; i < payload[1]; i++)
        if (payload[size - 1 - i])
            refuse_story("a padding of something");
}

/* Check a payload of *size* bytes with a frame that is sent in the clear. */
void check_clear_frame(const uint8_t *payload, uint32_t size, const struct tunnel *tunnel) {
    uint32_t header = tunnel->layout == LAYOUT_VXLAN ? VXLAN_SIZE : GENEVE_SIZE;
    if (tunnel->layout != LAYOUT_VXLAN && tunnel->layout != LAYOUT_GENEVE)
        refuse_story("a frame in a tunnel of packets");
    if (size < header || memcmp(payload, tunnel->prefix[0], header) != 0 || !link_of(slice_of(payload + header, size - header)))
        refuse_story("a payload in the clear without a frame");
}

/* Return whether the source station of a written frame is at the peer that it came from. */
static bool is_sender(const uint8_t *mac) {
    const struct in *in = &world.lane->in;
    const struct state *state = world.lane->state;
    if (!in->udp->layout)
        return stations_find(state, slice_of(mac, 6), in->keypair->peer, in->now) != NULL;
    struct peer *there = places_find(state, in->udp, &in->arrivals[in->current].source);
    for (; there != NULL; there = places_next(there))
        if (stations_find(state, slice_of(mac, 6), there, in->now) != NULL)
            return true;
    return false;
}

/* Check a write into the tap. */
void check_write(const struct iovec *parts, int count, uint32_t total) {
    uint8_t head[VIRTIO_SIZE + MOST_LINK + 120];
    uint32_t size = 0;
    for (int i = 0; i < count && size < sizeof head; i++) {
        uint32_t room = (uint32_t)sizeof head - size;
        uint32_t bytes = parts[i].iov_len < room ? (uint32_t)parts[i].iov_len : room;
        memcpy(head + size, parts[i].iov_base, bytes);
        size += bytes;
    }
    const uint8_t *frame = head + VIRTIO_SIZE;
    uint32_t length = total - VIRTIO_SIZE, link = size < VIRTIO_SIZE ? 0 : link_of(slice_of(frame, size - VIRTIO_SIZE));
    if (!link || total > VIRTIO_SIZE + MOST_LINK + MAXIMUM_IP)
        refuse_story("a write of no frame");
    if (!is_sender(frame + 6))
        refuse_story("a station of somebody else");
    uint32_t headers = get16_le(head + 2), segment = get16_le(head + 4), start = get16_le(head + 6);
    bool is_clear = world.lane->in.udp->layout;
    if (!head[1] && head[0] && (!is_clear || start + get16_le(head + 8) + 2u > length || start < link + IPV4_HEADER_SIZE))
        refuse_story("a frame that is not complete");
    if (head[1] && (head[0] != NEEDS_CSUM || start + get16_le(head + 8) + 2u > headers || start < link + IPV4_HEADER_SIZE ||
                    !segment || headers >= length || length - headers <= segment))
        refuse_story("a super-frame whose header lies");
}
