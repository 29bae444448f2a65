/* The fuzzer's entry into the compiled path: an input is a story of packets, datagrams, times and commands.
 *
 * Peers have real keys, so that their messages can be opened, whether well-formed or with bytes changed before or after
 * the seal.  Packets that the lane hands back are handled only as far as necessary here; the tests that tell one story
 * to both paths (tests/both_paths.py) check that both handle them alike. */
#include "world.h"

#include "../bytes.h"
#include "../packet.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNTED = 1 << 12, /* stories between two lines */
       FLAG_ACK = 16, FLAG_PSH = 8, FLAG_SYN = 2 };

static const int errors[] = {EAGAIN, EMSGSIZE, EINVAL, ENETUNREACH, EIO, ENOBUFS};

static struct remote *remote_of(const struct peer *peer) { return &world.remotes[peer->number - 1]; }

/* The part of Python */

void take_news(void) {
    struct lane *lane = world.lane;
    if (lane->drop_count >= MOST_DROPS || lane->out.refused_count > REFUSED_SENDS ||
        lane->out.refused_size > REFUSED_BYTES)
        refuse_story("more drops or refused sends than there is room for");
    for (uint32_t i = 0; i < lane->drop_count; i++)
        if (lane->drops[i].count <= 0 || lane->drops[i].reason >= DROP_REASONS)
            refuse_story("a drop of nothing");
    lane->drop_count = lane->out.refused_count = lane->out.refused_size = 0;
    lane->out.look = NULL;
}

static void drain_tun(struct cursor *cursor) {
    struct lane *lane = world.lane;
    struct out *out = &lane->out;
    for (int i = 0; i < MOST_RESULTS; i++) {
        world.is_going_out = true;
        enum out_result result = out_drain(lane, world.now);
        world.is_going_out = false;
        take_news();
        if (result == OUT_PACKET) {
            if (!out->takes_one)
                pace_took(out->pace, out->taken);
        } else if (result == OUT_EDGE) {
            struct remote *remote = remote_of(out->edge_peer);
            uint32_t how = take8(cursor);
            if (how & 1)
                remote->contact.armed |= ARMED_SILENCE | ARMED_UNITS;
            if (how & 2)
                remote->contact.wanted_at = world.now;
            if (how & 4)
                remote->path.due = INFINITY;
        } else if (!world.packet_count) {
            return;
        }
    }
    refuse_story("a drain of the tun without an end");
}

/* Handle a fragment that was handed back, like compiled.CompiledReassembly. */
static void take_fragment(bool is_at_endpoint) {
    struct in *in = &world.lane->in;
    uint32_t stride = in->stride;
    for (uint32_t at = 0; at < in->back_size && stride > FRAGMENT_HEADER_SIZE; at += stride) {
        uint32_t size = in->back_size - at < stride ? in->back_size - at : stride, end;
        const uint8_t *head = in->buffer.bytes + at;
        if (size <= FRAGMENT_HEADER_SIZE || head[0] != TYPE_FRAGMENT || head[1] >= head[2])
            continue;
        struct keypair *keypair = indices_find(world.lane->state, get32_le(head + 4));
        if (keypair == NULL)
            continue;
        struct partial *partial =
            reassembly_place(world.lane, keypair, get64_le(head + 8), head[2], head[3], &in->arrivals[in->current],
                             world.now, is_at_endpoint);
        bool is_whole = false;
        uint32_t width = size - FRAGMENT_HEADER_SIZE;
        if (partial == NULL || !reassembly_put(partial, head[1], slice_of(head + FRAGMENT_HEADER_SIZE, width), 1, width,
                                               width, width, &is_whole))
            continue;
        if (is_whole) {
            if (reassembly_finish(partial, &end))
                slice_copy(in->unit, 0, slice_part(partial->buffer, 0, end));
            reassembly_forget(&in->reassembly, partial);
        }
    }
}

static void unlist(struct keypair *keypair) {
    reassembly_forget_keypair(&world.lane->in.reassembly, keypair);
    if (keypair->is_listed)
        indices_remove(world.lane->state, keypair);
}

static void drain_udp(struct cursor *cursor, uint32_t most) {
    struct lane *lane = world.lane;
    struct in *in = &lane->in;
    uint32_t socket = 0;
    for (int i = 0; i < MOST_RESULTS; i++) {
        if (!in->is_going)
            socket = world.receive_count ? world.receives[world.receive_first % RECEIVES].socket : 0;
        enum in_result result = in_drain(lane, &world.sockets[socket], world.now, most);
        take_news();
        if ((result == IN_EMPTY || result == IN_DONE) && !world.receive_count)
            return;
        if (result == IN_EMPTY || result == IN_DONE)
            continue;
        uint32_t how = take8(cursor);
        if (result == IN_ROW)
            continue;
        if (result == IN_RECEIVED) {
            take_fragment(how & 1);
            take_news();
            continue;
        }
        if (in->back_keypair == NULL)
            continue; /* one row, or rows in the clear */
        struct remote *remote = remote_of(in->back_keypair->peer);
        if (in->edges & EDGE_ANSWER && how & 1)
            remote->contact.armed |= ARMED_ANSWER;
        if (in->edges & EDGE_REPORT && how & 2)
            remote->contact.reporting = in->back_keypair;
        if (how == 0xFF) /* it led to a command: the session is gone */
            unlist(in->back_keypair);
    }
    refuse_story("a drain of a socket without an end");
}

/* The commands of a story */

struct spec take_spec(struct cursor *cursor, bool is_ours) {
    static const uint32_t protocols[] = {PROTOCOL_TCP, PROTOCOL_TCP, PROTOCOL_UDP, 1};
    uint32_t kind = take8(cursor), more = take8(cursor), flags = take8(cursor);
    struct spec spec = {
        .version = kind & 1 ? 6 : 4,
        .protocol = protocols[kind >> 1 & 3],
        .gso = kind >> 3 & 3,
        .changes = kind >> 6,
        .owner = (kind >> 5 & 1) + (more >> 7), /* a peer; PEERS means none */
        .tos = more & 3,
        .ip_words = more >> 2 & 1 ? flags >> 4 & 15 : 0,
        .extensions = more >> 3 & 1 ? flags >> 4 & 3 : 0,
        .tcp_words = more >> 4 & 1 ? flags >> 4 & 7 : 0,
        .is_wrong = more >> 5 & 1,
        .flags = more >> 6 & 1 ? flags : FLAG_ACK | (flags & FLAG_PSH),
        .payload = take16(cursor),
        .is_ours = is_ours,
    };
    if (spec.ip_words > 10)
        spec.ip_words = 10;
    if (!(flags & 1))
        spec.payload %= 1400;
    spec.segment = spec.gso > 1 ? take16(cursor) : 0;
    if (spec.segment & 0x8000)
        spec.segment = 1 + spec.segment % 1400;
    if (spec.flags & FLAG_SYN)
        spec.mss = take16(cursor);
    spec.sequence = flags << 24;
    spec.link = world.is_tap ? take8(cursor) : 0;
    for (uint32_t i = 0; i < spec.changes; i++) {
        uint32_t at = take8(cursor);
        spec.at[i] = at & 0x80 ? take16(cursor) : at;
        spec.with[i] = take8(cursor);
    }
    return spec;
}

static struct receive *next_receive(struct cursor *cursor) {
    if (world.receive_count == RECEIVES)
        drain_udp(cursor, 512 * 1024);
    struct receive *receive = &world.receives[(world.receive_first + world.receive_count++) % RECEIVES];
    memset(receive, 0, sizeof *receive);
    uint32_t how = take8(cursor), more = how & 0x80 ? take8(cursor) : 0;
    receive->peer = how % EARLIER;
    receive->keypair = more & 1;
    receive->source = more >> 1 & 1 ? take8(cursor) % (EARLIER + STRANGE_PORTS) : receive->peer;
    if (receive->source >= EARLIER)
        receive->source += PEERS - EARLIER;
    receive->socket = socket_of(more >> 5 & 1 ? how >> 2 & 3 : receive->peer);
    receive->ecn = how >> 4 & 3;
    receive->flags = (how >> 6 & 1) | (more & 0xC0) / 0xC0 << 1;
    receive->segment = more >> 2 & 1 ? take16(cursor) : 0;
    receive->is_odd_control = more >> 3 & 1;
    if (more >> 4 & 1) {
        receive->change_at = take16(cursor);
        receive->change_with = take8(cursor);
    }
    return receive;
}

static void say_packets(struct cursor *cursor) {
    if (world.packet_count == PACKETS)
        drain_tun(cursor);
    uint32_t place = (world.packet_first + world.packet_count++) % PACKETS;
    uint32_t count = take8(cursor);
    world.repeats[place] = count % 64;
    world.packets[place] = take_spec(cursor, true);
    if (count >> 6 == 3) /* in the clear */
        world.packets[place].owner = SEALED + (count & 1);
}

static void say_messages(struct cursor *cursor) {
    struct receive *receive = next_receive(cursor);
    uint32_t count = take8(cursor);
    receive->kind = MESSAGES;
    receive->count = 1 + count % 64;
    receive->counter_step = count & 0x40 ? take8(cursor) : 1;
    receive->spec = take_spec(cursor, false);
    receive->spec.owner = count & 0x80 ? receive->spec.owner : receive->peer;
    receive->spec.gso = 0;
    receive->last = count & 0x20 ? take16(cursor) : UINT32_MAX;
    if (receive->spec.payload > 1400 || receive->spec.ip_words * 4 + receive->spec.payload > 60000)
        receive->spec.payload %= 1400;
    if (receive->spec.protocol == 1 && receive->spec.flags & 1)
        receive->spec.protocol = 0; /* keepalives */
}

/* Several datagrams in separate receives, as from a device that does not merge. */
static void say_singles(struct cursor *cursor) {
    say_messages(cursor);
    struct receive *first = &world.receives[(world.receive_first + world.receive_count - 1) % RECEIVES];
    uint32_t count = first->count;
    first->count = 1;
    while (--count && world.receive_count < RECEIVES) {
        struct receive *each = &world.receives[(world.receive_first + world.receive_count++) % RECEIVES];
        *each = *first;
        each->spec.sequence += count; /* at another position in the flow */
    }
}

static void say_unit(struct cursor *cursor) {
    drain_udp(cursor, 512 * 1024);
    uint32_t how = take8(cursor), piece = take16(cursor);
    struct unit *unit = &world.units[how % UNITS];
    unit->peer = 1 + (how >> 2 & 1);
    unit->keypair = how >> 3 & 1 && how >> 4 & 1;
    unit->cipher = how >> 5 & 1 ? 1 + (how >> 6 & 1) : unit->peer;
    struct spec spec = take_spec(cursor, false);
    spec.owner = how >> 7 ? spec.owner : unit->peer;
    if (!spec.segment)
        spec.segment = 1000;
    make_unit(unit, &spec, piece & 0x8000 ? 1 + piece % 1436 : 1 + piece % 8192);
}

static void say_fragments(struct cursor *cursor) {
    uint32_t which = take8(cursor);
    const struct unit *unit = &world.units[which % UNITS];
    struct receive *receive = next_receive(cursor);
    receive->kind = unit->count ? FRAGMENTS : RAW;
    receive->unit = which % UNITS;
    receive->source = receive->source == receive->peer ? unit->peer : receive->source;
    receive->from = which & 0x10 ? take8(cursor) : 0;
    receive->count = which & 0x20 ? take8(cursor) : MAXIMUM_FRAGMENTS;
}

static void say_bytes(struct cursor *cursor) {
    struct receive *receive = next_receive(cursor);
    uint32_t size = take8(cursor), left = (uint32_t)(cursor->end - cursor->at);
    receive->kind = RAW;
    receive->raw = cursor->at;
    receive->raw_size = size < left ? size : left;
    cursor->at += receive->raw_size;
}

static void say_again(struct cursor *cursor) {
    struct receive *receive = next_receive(cursor);
    if (world.again_size)
        receive->kind = AGAIN;
}

static void say_time(struct cursor *cursor) {
    static const double steps[] = {0, 0.0001, 0.002, 0.3, 1.1, 20, 60, 130};
    world.now += steps[take8(cursor) % 8];
}

static void say_settings(struct cursor *cursor) {
    static const int mtus[] = {1420, 1280, 576, 9000, 65535, 1419};
    uint32_t which = take8(cursor), value = take8(cursor);
    struct remote *remote = &world.remotes[value % EARLIER];
    struct state *state = world.lane->state;
    bool is_set = value & 0x80;
    switch (which % 16) {
    case 0: state->mtu = mtus[value % 6]; break;
    case 1: remote->path.mtu = mtus[value / EARLIER % 6]; break;
    case 2: state->joins_udp = is_set; break;
    case 3: state->takes_units = is_set; break;
    case 4: state->segments = is_set; break;
    case 5: world.sockets[value % SOCKETS].has_shares = is_set; break;
    case 6: remote->peer.is_held = is_set; break;
    case 7: remote->contact.is_silent = is_set; break;
    case 8: remote->asking.is_worth_it = is_set; break;
    case 9: remote->path.due = is_set ? world.now : INFINITY; break;
    case 10: remote->contact.armed = is_set ? 7 : 0; break;
    case 11: world.discovery.omits = is_set; break;
    case 12: remote->local.udp = is_set ? NULL : &world.sockets[socket_of(value % EARLIER)]; break;
    case 13: world.sockets[value % SOCKETS].closes_at = is_set ? world.now : INFINITY; break;
    case 14: remote->path.omits = is_set; break;
    default: remote->contact.reporting = is_set ? remote->slots.current : NULL;
    }
}

static void say_units_settings(struct cursor *cursor) {
    uint32_t which = take8(cursor), value = take16(cursor);
    struct remote *remote = &world.remotes[1 + (which >> 7)];
    struct bulk *bulk = &remote->bulks[which >> 6 & 1];
    struct unit_size *size = &remote->sizes[which >> 6 & 1];
    switch (which & 15) {
    case 0: bulk->most = (int)value; break;
    case 1: bulk->fragments = (int)(value & 0xFF); break;
    case 2: bulk->packet = (int)value; break;
    case 3: bulk->told_packet = (int)value; break;
    case 4: bulk->has_heard = value & 1; break;
    case 5: bulk->has_said_hello = value & 1; break;
    case 6: bulk->hello_due = value & 1 ? world.now : INFINITY; break;
    case 7: bulk->is_put_off = value & 1; break;
    case 8: size->limit = (int)(value % 129); break;
    case 9: size->is_plain = value & 1; break;
    case 10: size->plain_until = value & 1 ? world.now + 1 : 0; break;
    case 11: size->waits_since = value & 1 ? INFINITY : world.now; break;
    case 12: bulk->key = value & 1 ? NULL : &remote->keys[which >> 6 & 1]; break;
    case 13: remote->keys[which >> 6 & 1].blocks = AES_BLOCKS_PER_KEY - ((uint64_t)value << 18); break;
    case 14: bulk->size = value & 1 ? NULL : size; break;
    default: remote->asking.next = value & 1 ? world.now : INFINITY;
    }
}

/* Counters only go forward, at either end. */
static void say_counters(struct cursor *cursor) {
    uint32_t which = take8(cursor), value = take16(cursor);
    uint32_t peer = which % SEALED, number = which >> 2 & 1;
    struct remote *remote = &world.remotes[peer];
    struct far_end *far = &world.far[peer][number];
    static const uint64_t marks[] = {0, 8192, REKEY_AFTER_MESSAGES, REJECT_AFTER_MESSAGES};
    uint64_t to = marks[which >> 3 & 3] + (which >> 5 & 1 ? value : (uint64_t)0 - value);
    uint64_t *counter = which >> 6 == 0   ? &far->counter
                        : which >> 6 == 1 ? &far->unit_counter
                        : which >> 6 == 2 ? &remote->keypairs[number].counter
                                          : &remote->keys[number].counter;
    if (which >> 6 < 2)
        *counter = to; /* a peer may do anything, even this */
    else if (to > *counter && to <= REJECT_AFTER_MESSAGES)
        *counter = to;
}

static void say_sessions(struct cursor *cursor) {
    uint32_t which = take8(cursor);
    struct remote *remote = &world.remotes[which % SEALED];
    struct keypair *keypair = &remote->keypairs[which >> 2 & 1];
    switch (which >> 3 & 7) {
    case 0: remote->slots.current = keypair; break;
    case 1: remote->slots.settled = keypair; break;
    case 2: remote->slots.current = NULL; break;
    case 3: unlist(keypair); break;
    case 4:
        if (!keypair->is_listed)
            indices_add(world.lane->state, keypair);
        break;
    case 5: routes_forget(); break;
    case 6: keypair->bulk = which >> 6 & 1 || !(which % SEALED) ? NULL : &remote->bulks[which >> 2 & 1]; break;
    default: keypair->reject_at = world.now + (which >> 6);
    }
}

static void say_route(struct cursor *cursor) {
    uint8_t address[16] = {0};
    uint32_t which = take8(cursor), size = which & 1 ? 16 : 4, peer = which >> 1 & 3;
    address[0] = size == 4 ? 10 : 0xFD;
    address[size == 4 ? 2 : 13] = (uint8_t)peer;
    address[size == 4 ? 3 : 15] = (uint8_t)(which & 0x10 ? take8(cursor) : 1);
    if (peer < EARLIER && routes_find(world.lane->state, slice_of(address, size)) == NULL)
        routes_add(world.lane->state, slice_of(address, size), &world.remotes[peer].peer);
}

static void say_errors(struct cursor *cursor) {
    uint32_t which = take8(cursor), value = take8(cursor);
    int error = errors[value % (sizeof errors / sizeof *errors)];
    switch (which & 3) {
    case 0:
        world.send_error = error;
        world.send_errors = which >> 2;
        break;
    case 1:
        world.write_error = error;
        world.write_errors = which >> 2;
        break;
    case 2: world.read_error = error; break;
    default: world.receive_error = error;
    }
}

static void say_move(struct cursor *cursor) {
    uint32_t which = take8(cursor);
    struct peer *peer = &world.remotes[which % EARLIER].peer;
    if (which & 0x10) {
        peer->place_size = which & 0x20 ? 4 : 0; /* its place is an address in its own subnet */
        memcpy(peer->place, (uint8_t[]){10, 0, (uint8_t)(which % EARLIER), 1}, 4);
    } else {
        peer->endpoint.v4.sin_port = htons((uint16_t)(4000 + take8(cursor) % 8));
    }
}

/* Changes of tunnels in the clear. */
static void say_tunnel(struct cursor *cursor) {
    uint32_t which = take8(cursor), value = take16(cursor);
    struct remote *remote = &world.remotes[SEALED + (which & 1)];
    switch (which >> 1 & 7) {
    case 0: remote->tunnel.flows = value % 5; break;
    case 1: remote->unsealed.segment_limit = (int)(value % 9000); break;
    case 2: remote->unsealed.segment_size = (int)(value % 9000); break;
    case 3: world.lane->state->inherits_ttl = value & 1; break;
    case 4: remote->tunnel.identifier = value & 1 ? 7 : 8; break;
    case 5: remote->unsealed.segment_limit_ends = value & 1 ? world.now : INFINITY; break;
    case 6: /* another peer is there, too, or none */
        places_remove(world.lane->state, &remote->peer);
        if (value & 1) {
            memcpy(remote->peer.located, &world.remotes[SEALED + (value >> 1 & 1)].peer.endpoint.v4.sin_addr, 4);
            remote->peer.located_size = 4;
            places_add(world.lane->state, &remote->peer);
        }
        break;
    default: remote->peer.located_layout = value & 1 ? LAYOUT_BARE : LAYOUT_VXLAN;
    }
}

/* Make *spec* wait at the tun, 1 + *repeats* times. */
void wait_at_tun(struct cursor *cursor, const struct spec *spec, uint32_t repeats) {
    if (world.packet_count == PACKETS)
        drain_tun(cursor);
    uint32_t place = (world.packet_first + world.packet_count++) % PACKETS;
    world.repeats[place] = repeats;
    world.packets[place] = *spec;
}

/* Make *count* merged packets of *spec* come from a peer with ports. */
void arrive_from(struct cursor *cursor, uint32_t peer, const struct spec *spec, uint32_t count) {
    struct receive *receive = next_receive(cursor);
    receive->kind = MESSAGES;
    receive->peer = receive->source = peer < IPIP ? peer : GENEVE;
    receive->socket = socket_of(receive->peer);
    receive->count = count;
    receive->counter_step = 1;
    receive->spec = *spec;
    receive->spec.gso = 0;
    receive->spec.payload %= 1400;
    receive->last = UINT32_MAX;
}

/* Packets for peers in the clear, of any encapsulation. */
static void say_clear_packets(struct cursor *cursor) {
    uint32_t how = take8(cursor), count = take8(cursor);
    struct spec spec = take_spec(cursor, true);
    spec.owner = SEALED + how % (PEERS - SEALED);
    wait_at_tun(cursor, &spec, count % 64);
}

/* Packets in Geneve, also after options. */
static void say_geneve(struct cursor *cursor) {
    uint32_t how = take8(cursor);
    struct spec spec = take_spec(cursor, false);
    spec.owner = how & 0x80 ? spec.owner : GENEVE;
    arrive_from(cursor, GENEVE, &spec, 1 + how % 32);
    struct receive *receive = &world.receives[(world.receive_first + world.receive_count - 1) % RECEIVES];
    receive->option_words = how & 0x20 ? take8(cursor) % 64 : 0;
    if (how & 0x40)
        world.remotes[GENEVE].tunnel.identifier = 7 + (take8(cursor) & 1);
}

static void say_drain(struct cursor *cursor) { drain_udp(cursor, 1 + take16(cursor)); }

static void (*const sayings[])(struct cursor *) = {
    say_packets, say_packets,  say_packets,        say_messages, say_messages, say_messages, say_singles,  say_unit,
    say_unit,    say_fragments, say_fragments,     say_bytes,    say_again,    say_time,     say_settings, say_units_settings,
    say_counters, say_sessions, say_route,         say_errors,   say_move,     say_drain,    drain_tun,
    say_tunnel,
};

/* Commands about later encapsulations and services: they use few byte values, so that the others keep their meaning. */
static void (*const later_sayings[])(struct cursor *) = {
    say_raw_packets, say_raw_packets, say_raw_packets, say_raw_tunnel, drain_raw, say_clear_packets, say_clear_packets,
    say_geneve,      say_flow,        say_flow,        say_permit,
};

enum { SAYINGS = sizeof sayings / sizeof *sayings, LATER = sizeof later_sayings / sizeof *later_sayings };
enum { FIRST_LATER = 256 / SAYINGS * SAYINGS - SAYINGS, TAP = 255 };

static void say_counts(void) {
    fprintf(stderr, "%llu inputs (%llu of them datagrams) in %llu stories\n", (unsigned long long)world.inputs,
            (unsigned long long)world.datagrams, (unsigned long long)world.stories);
}

static void say(struct cursor *cursor) {
    uint32_t which = take8(cursor);
    if (which == TAP)
        say_tap(cursor);
    else if (which < FIRST_LATER)
        sayings[which % SAYINGS](cursor);
    else
        later_sayings[(which - FIRST_LATER) % LATER](cursor);
}

static void tell(const uint8_t *data, size_t size) {
    struct cursor cursor = {data, data + size};
    world_reset();
    while (cursor.at < cursor.end)
        say(&cursor);
    drain_tun(&cursor);
    drain_raw(&cursor);
    drain_udp(&cursor, 512 * 1024);
    if (world.lane->in.reassembly.used > UNITS_TOTAL)
        refuse_story("more units than there is room for");
    if (world.stories % COUNTED == 0)
        say_counts();
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    world_begin();
    atexit(say_counts);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tell(data, size);
    return 0;
}

#ifdef REPLAY /* without a fuzzer: run the stories in the named files */
int main(int count, char **names) {
    enum { LONGEST = 1 << 20 };
    uint8_t *data = malloc(LONGEST);
    LLVMFuzzerInitialize(&count, &names);
    for (int i = 1; data != NULL && i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (file == NULL)
            refuse_story(names[i]);
        size_t size = fread(data, 1, LONGEST, file);
        fclose(file);
        tell(data, size);
    }
    free(data);
    return 0;
}
#endif
