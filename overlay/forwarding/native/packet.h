/* What both directions need to know about the packets of flows, and change in them. */
#ifndef OVERLAY_PACKET_H
#define OVERLAY_PACKET_H

#include "bytes.h"
#include "native.h"

struct flow {
    uint8_t version, protocol;
    uint32_t l4, size; /* where the TCP or UDP header begins, and bytes of all headers */
};

static inline uint32_t version_of(struct slice packet) { return read8(packet, 0) >> 4; }

static inline struct slice source_mac(struct slice frame) { return slice_part(frame, 6, 6); }

bool flow_of(struct slice packet, struct flow *flow);
uint32_t check_ipv4(struct slice header);
uint64_t pseudo_sum(struct slice packet, const struct flow *flow, uint32_t l4_length);
void clamp_syn(struct slice packet, uint32_t mtu, bool is_partial);
bool take_outer_ecn(struct slice packet, uint32_t outer);

void set_dscp(struct slice packet, uint32_t dscp);
bool is_extension(uint32_t protocol);
bool tells_mtu(struct slice packet);
uint32_t hash_flow(struct slice packet);
bool may_go_on(struct slice packet);
uint32_t gso_type_of(const struct flow *flow);

/* split.c: write a segment of a super-packet at the beginning of *room*, and return its size */
uint32_t split_segment(struct slice room, struct slice packet, const struct flow *flow, uint32_t segment,
                       uint32_t number);

/* partial.c: the virtio header of a packet that came in the clear; false if it is for Python to refuse */
bool virtio_for(struct unsealed *unsealed, struct slice packet, uint32_t mtu, struct slice header);

/* frames.c: bytes before the packet of an ordinary frame, otherwise 0; and whether a header is just that of a packet */
uint32_t link_of(struct slice frame);
bool is_link(struct slice link, uint32_t version);

/* Return the plaintext length for a packet of *length* bytes (offload.flow: padded). */
static inline uint32_t padded(uint32_t length, uint32_t mtu) {
    uint32_t full = (length + PADDING - 1) / PADDING * PADDING;
    return full <= mtu ? full : length;
}

/* Return the length of the IP packet at the start of *payload*; 0 if it is not whole. */
uint32_t packet_length(struct slice payload);

#endif
