/* Packets sealed for a peer, like overlay/forwarding/tun/outbound.py and bulk/units.py: trains, units, single
 * packets. */
#include "atomics.h"
#include "packet.h"

#include <math.h>

enum { FLAG_FIN = 1, FLAG_PSH = 8, FLAG_CWR = 0x80 };
#define BLOCKS_PER_SUPER_PACKET ((uint64_t)1 << 13)       /* bulk.units */
#define REKEY_AFTER_BLOCKS (AES_BLOCKS_PER_KEY - (1 << 30)) /* bulk.units */

struct offload offload_of(struct slice header) {
    return (struct offload){read8(header, 0), read8(header, 1), read16_le(header, 4), read16_le(header, 6),
                            read16_le(header, 8)};
}

static uint32_t least(uint32_t one, uint32_t other) { return one < other ? one : other; }

/* Sessions */

/* Return the marks of datagrams that a lane of a session sends from its own port. */
uint32_t lane_marks(const struct keypair *keypair) { return keypair->lane << MARK_FLOW_SHIFT; }

/* Return the keypair that may seal a super-packet for *peer* now; NULL if Python must decide. */
struct keypair *usable(const struct lane *lane, const struct peer *peer) {
    struct keypair *keypair = peer->slots->current;
    if (keypair != NULL && keypair->by_lane[lane->number] != NULL)
        keypair = keypair->by_lane[lane->number];
    if (keypair == NULL || lane->out.now >= keypair->reject_at ||
        get_counter(&keypair->counter) > REJECT_AFTER_MESSAGES - TRAIN_MESSAGES ||
        keypair->seals[lane->number].context == NULL)
        return NULL;
    return may_send(lane->state, peer, lane_marks(keypair)) ? keypair : NULL;
}

/* Return whether the peer must be asked for its capabilities. */
bool is_hello_due(const struct out *out, const struct peer *peer, const struct bulk *bulk) {
    return !bulk->has_heard && out->now >= (bulk->is_put_off ? peer->asking->next : bulk->hello_due);
}

/* Note that *count* packets have been sealed for *peer* (liveness.data_sent); anything further is an edge. */
static void data_sent(struct lane *lane, struct peer *peer, struct keypair *keypair, uint32_t count) {
    struct out *out = &lane->out;
    struct contact *contact = peer->contact;
    double now = out->now;
    bool is_edge = has_failed(out, peer); /* then Python may want to examine the path at once */
    counts_of(lane, peer)->tx_packets += count;
    set_time(&contact->owed_since, 0);
    set_time(&contact->last_traffic, now);
    if (get_time(&contact->unanswered_since) == 0) {
        set_time(&contact->unanswered_since, now);
        is_edge |= !(contact->armed & ARMED_SILENCE);
    }
    if (now >= keypair->rekey_at || get_counter(&keypair->counter) >= REKEY_AFTER_MESSAGES)
        is_edge |= contact->wanted_at == 0 || now - contact->wanted_at >= WANTED_INTERVAL;
    if (is_edge || now >= peer->path->due) {
        out->edge_peer = peer;
        out->edge_keypair = keypair;
        out->edges |= EDGE_SENT;
    }
}

static void put_header(struct slice message, const struct keypair *keypair, uint64_t counter) {
    write32_le(message, 0, TYPE_TRANSPORT);
    write32_le(message, 4, keypair->remote_index);
    write64_le(message, 8, counter);
}

/* Write *lead* at the beginning of a payload that has *padding* bytes of padding. */
static void put_lead(struct slice payload, const struct lead *lead, uint32_t padding) {
    slice_put(payload, 0, lead->bytes, lead->size);
    if (lead->size)
        write8(payload, 1, padding);
}

/* Super-packets as trains of transport messages */

/* Write the sealed segments of a super-packet into the train, each *size* bytes except the last; return the bytes of
 * all.  *counter* is that of the first.  Return 0 if a seal fails. */
static uint32_t make_train(const struct lane *lane, const struct keypair *keypair, struct slice packet,
                           const struct flow *flow, uint32_t segment, const struct lead *lead, uint64_t counter,
                           uint32_t *size) {
    uint32_t payload = packet.size - flow->size, count = (payload + segment - 1) / segment, total = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct slice row = slice_from(lane->out.train, total), head = slice_from(row, HEADER_SIZE);
        uint32_t whole = lead->size + split_segment(slice_from(head, lead->size), packet, flow, segment, i);
        uint32_t plain = padded(whole, (uint32_t)lane->state->mtu);
        put_lead(head, lead, plain - whole);
        slice_clear(slice_part(head, whole, plain - whole));
        if (!aead_seal(&keypair->seals[lane->number], counter + i, slice_part(head, 0, plain + TAG_SIZE)))
            return 0;
        put_header(row, keypair, counter + i);
        if (!i)
            *size = OVERHEAD + plain;
        total += OVERHEAD + plain;
    }
    return total;
}

static enum verdict send_train(struct lane *lane, struct peer *peer, struct keypair *keypair, struct slice packet,
                               const struct flow *flow, uint32_t segment, const struct lead *lead, uint32_t marks) {
    uint32_t count = (packet.size - flow->size + segment - 1) / segment, size = 0;
    uint32_t row = (OVERHEAD + padded(lead->size + flow->size + segment, (uint32_t)lane->state->mtu) + 3) / 4 * 4;
    if (count > TRAIN_MESSAGES || count * row > TRAIN_BUFFER)
        return NOT_ORDINARY;
    uint64_t counter;
    if (!take_counters(&keypair->counter, count, REJECT_AFTER_MESSAGES, &counter))
        return NOT_ORDINARY;
    uint32_t total = make_train(lane, keypair, packet, flow, segment, lead, counter, &size);
    flush_flow(lane, peer, marks);
    if (total)
        send_evenly(lane, peer, slice_part(lane->out.train, 0, total), size, marks);
    return FORWARDED;
}

/* Super-packets as bulk units */

static void unit_was_sent(struct unit_size *size, uint64_t counter, double now) {
    size->next = counter + 1;
    if (size->waits_since == INFINITY)
        set_time(&size->waits_since, now);
    if (!size->has_probe || size->is_probe_late) {
        size->probe_counter = counter;
        size->probe_at = now;
        size->has_probe = true;
        size->is_probe_late = false;
    }
}

/* Seal *unit*, a plaintext and room for the tag, in place, and send it in datagrams of *size* bytes. */
static void send_unit(struct lane *lane, struct peer *peer, struct keypair *keypair, struct slice unit, uint32_t size,
                      uint32_t marks) {
    struct bulk *bulk = keypair->bulk;
    struct unit_key *key = bulk->key;
    pthread_mutex_lock(&keypair->sending);
    uint64_t counter = key->counter;
    unit_was_sent(bulk->size, counter, lane->out.now);
    __atomic_store_n(&key->counter, counter + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&key->blocks, key->blocks + (unit.size - TAG_SIZE + 15) / 16 + 2, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&keypair->sending);
    if (!aead_seal(&key->seals[lane->number], counter, unit))
        return;
    uint32_t piece = size - FRAGMENT_HEADER_SIZE, count = (unit.size + piece - 1) / piece, total = 0;
    for (uint32_t number = 0; number < count; number++) {
        uint32_t from = number * piece, bytes = least(unit.size - from, piece);
        struct slice fragment = slice_part(lane->out.train, total, FRAGMENT_HEADER_SIZE + bytes);
        write8(fragment, 0, TYPE_FRAGMENT);
        write8(fragment, 1, number);
        write8(fragment, 2, count);
        write8(fragment, 3, (uint32_t)key->cipher);
        write32_le(fragment, 4, key->receiver_index);
        write64_le(fragment, 8, counter);
        slice_copy(fragment, FRAGMENT_HEADER_SIZE, slice_part(unit, from, bytes));
        total += FRAGMENT_HEADER_SIZE + bytes;
    }
    send_evenly(lane, peer, slice_part(lane->out.train, 0, total), size, marks);
    counts_of(lane, peer)->tx_units++;
}

static uint32_t link_size(const struct lead *lead) { return lead->size ? lead->size - FRAME_HEADER_SIZE : 0; }

/* Make the beginning of *room*, which has a packet of *length* bytes after the place of the metadata, the plaintext of
 * a unit; return it with room for the tag.  An Ethernet header goes after the packet (bulk.units: append_link). */
static struct slice finish_unit(struct slice room, uint32_t kind, uint32_t segment, uint32_t length,
                                const struct lead *lead) {
    uint32_t link = link_size(lead);
    struct slice unit = slice_part(room, 0, META_SIZE + length + link + TAG_SIZE);
    write8(unit, 0, kind);
    write8(unit, 1, link);
    write16_le(unit, 2, segment);
    slice_copy(unit, META_SIZE + length, slice_part(slice_of(lead->bytes, lead->size), FRAME_HEADER_SIZE, link));
    return unit;
}

/* Send the segments *first* to *stop* - 1 of a super-packet as a separate unit (bulk.units: portions). */
static void send_portion(struct lane *lane, struct peer *peer, struct keypair *keypair, struct slice packet,
                         const struct flow *flow, const struct offload *offload, uint32_t first, uint32_t stop,
                         bool is_end, uint32_t size, const struct lead *lead, uint32_t marks) {
    uint32_t l4 = flow->l4, from = flow->size + first * offload->segment;
    uint32_t to = is_end ? packet.size : flow->size + stop * offload->segment, whole = flow->size + to - from;
    uint32_t kind = offload->gso_type;
    struct slice head = slice_part(lane->out.plain, META_SIZE, whole);
    slice_copy(head, 0, slice_part(packet, 0, flow->size));
    slice_copy(head, flow->size, slice_part(packet, from, to - from));
    if (flow->version == 4) {
        write16(head, 2, whole);
        write16(head, 4, read16(packet, 4) + first);
        write16(head, 10, 0);
        write16(head, 10, check_ipv4(head));
    } else {
        write16(head, 4, whole - IPV6_HEADER_SIZE);
    }
    if (flow->protocol == PROTOCOL_TCP) {
        write32(head, l4 + 4, read32(packet, l4 + 4) + first * offload->segment);
        uint32_t flags = read8(head, l4 + 13);
        if (first) {
            flags &= ~(uint32_t)FLAG_CWR;
            kind &= ~(uint32_t)GSO_ECN;
        }
        if (!is_end)
            flags &= ~(uint32_t)(FLAG_FIN | FLAG_PSH);
        write8(head, l4 + 13, flags);
    } else {
        write16(head, l4 + 4, whole - l4);
    }
    struct slice unit = finish_unit(lane->out.plain, kind, offload->segment, whole, lead);
    send_unit(lane, peer, keypair, unit, size, marks);
}

/* Return how many segments a unit may have now (capability.most_segments); 0 if none may be sent. */
static uint32_t most_segments(const struct bulk *bulk, uint32_t datagram, uint32_t headers, uint32_t segment,
                              uint32_t link, uint32_t limit) {
    if (!limit || headers + segment > (uint32_t)bulk->packet || datagram <= FRAGMENT_HEADER_SIZE)
        return 0;
    uint32_t fragments = least((uint32_t)bulk->fragments, MAXIMUM_FRAGMENTS);
    uint32_t room = least((uint32_t)bulk->most, fragments * (datagram - FRAGMENT_HEADER_SIZE));
    if (room < META_SIZE + TAG_SIZE + headers + link)
        return 0;
    return least(limit, (room - META_SIZE - TAG_SIZE - headers - link) / segment);
}

/* Send the super-packet of *length* bytes at *at* of the arena; `csum_start` of *offload* counts from there. */
enum verdict send_segments(struct lane *lane, struct peer *peer, struct keypair *keypair, uint32_t at,
                           uint32_t length, const struct offload *offload, const struct lead *lead, uint32_t marks) {
    struct state *state = lane->state;
    struct out *out = &lane->out;
    struct slice packet = slice_part(out->arena, at, length);
    uint32_t segment = offload->segment, most = (uint32_t)peer->path->mtu;
    struct flow flow;
    if (!flow_of(packet, &flow) || flow.l4 != offload->csum_start || !segment || length <= flow.size ||
        (offload->gso_type & ~(uint32_t)GSO_ECN) != gso_type_of(&flow))
        return NOT_ORDINARY;
    if ((lead->size || length > most) && lead->size + flow.size + segment > most)
        return NOT_ORDINARY;
    uint32_t count = (length - flow.size + segment - 1) / segment;
    struct bulk *bulk = keypair->bulk;
    bool may_be_unit = bulk != NULL && bulk->size != NULL && segment >= MINIMUM_SEGMENT && offload->flags & NEEDS_CSUM;
    if (may_be_unit && is_hello_due(out, peer, bulk))
        return NOT_ORDINARY;
    uint32_t limit = 0, datagram = 0;
    if (may_be_unit && bulk->key != NULL && count >= 2) {
        const struct unit_size *size = bulk->size;
        if (size->is_plain && out->now >= size->plain_until && get_time(&size->waits_since) == INFINITY)
            return NOT_ORDINARY; /* a unit on trial */
        datagram = least(least((uint32_t)state->mtu, (uint32_t)bulk->packet), most) + OVERHEAD;
        limit = most_segments(bulk, datagram, flow.size, segment, link_size(lead),
                              size->is_plain ? 0 : (uint32_t)size->limit);
        if (limit < least(count, SMALLEST_UNIT))
            limit = 0;
    }
    if (limit) {
        struct unit_key *key = bulk->key;
        bool is_old = (key->cipher == 1 && get_counter(&key->blocks) >= REKEY_AFTER_BLOCKS) ||
                      get_counter(&key->counter) >= REKEY_AFTER_MESSAGES;
        if (is_old || key->seals[lane->number].context == NULL)
            return NOT_ORDINARY;
        flush_flow(lane, peer, marks);
        if (count <= limit) {
            struct slice room = slice_from(out->arena, at - META_SIZE);
            struct slice unit = finish_unit(room, offload->gso_type, segment, length, lead);
            send_unit(lane, peer, keypair, unit, datagram, marks);
        } else {
            uint32_t parts = (count + limit - 1) / limit;
            for (uint32_t part = 0; part < parts; part++)
                send_portion(lane, peer, keypair, packet, &flow, offload, count * part / parts,
                             count * (part + 1) / parts, part == parts - 1, datagram, lead, marks);
        }
        if (!(peer->contact->armed & ARMED_UNITS)) {
            out->edge_peer = peer;
            out->edge_keypair = keypair;
            out->edges |= EDGE_UNITS;
        }
    } else if (send_train(lane, peer, keypair, packet, &flow, segment, lead, marks) == NOT_ORDINARY) {
        return NOT_ORDINARY;
    }
    data_sent(lane, peer, keypair, count);
    return FORWARDED;
}

/* Finish the checksum that the kernel left partial; false if it points outside the packet. */
bool complete(struct slice packet, const struct offload *offload) {
    uint32_t start = offload->csum_start, offset = offload->csum_offset;
    if (start < 20 || start + offset + 2 > packet.size)
        return false;
    uint32_t value = fold(sum_bytes(slice_from(packet, start))) ^ 0xFFFF;
    write16(packet, start + offset, !value && offset == 6 ? 0xFFFF : value); /* RFC 768 */
    return true;
}

/* Send the packet of *length* bytes after *lead*, whose room in the arena begins at *at*, in a separate message;
 * `csum_start` of *offload* counts from the start of the packet. */
enum verdict send_single(struct lane *lane, struct peer *peer, struct keypair *keypair, uint32_t at, uint32_t length,
                         const struct offload *offload, const struct lead *lead, uint32_t marks) {
    struct slice message = slice_from(lane->out.arena, at), payload = slice_from(message, HEADER_SIZE);
    struct slice packet = slice_part(payload, lead->size, length);
    uint32_t mtu = (uint32_t)lane->state->mtu, most = (uint32_t)peer->path->mtu, whole = lead->size + length;
    bool is_partial = offload->flags & NEEDS_CSUM;
    if (whole > most ||
        (is_partial && (offload->csum_start < 20 || offload->csum_start + offload->csum_offset + 2 > length)))
        return NOT_ORDINARY;
    uint64_t counter;
    if (!take_counters(&keypair->counter, 1, REJECT_AFTER_MESSAGES, &counter))
        return NOT_ORDINARY;
    clamp_syn(packet, least(mtu, most) - lead->size, is_partial);
    if (is_partial)
        complete(packet, offload);
    uint32_t plain = padded(whole, mtu);
    put_lead(payload, lead, plain - whole);
    slice_clear(slice_part(payload, whole, plain - whole));
    if (!aead_seal(&keypair->seals[lane->number], counter, slice_part(payload, 0, plain + TAG_SIZE)))
        return FORWARDED; /* libcrypto failed; a counter is never used again */
    put_header(message, keypair, counter);
    lane->out.at = at + OVERHEAD + plain;
    enqueue(lane, peer, at, OVERHEAD + plain, marks);
    data_sent(lane, peer, keypair, 1);
    return FORWARDED;
}
