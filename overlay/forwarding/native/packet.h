/* What both directions ask of the packets of flows, and change in them. */
#ifndef OVERLAY_PACKET_H
#define OVERLAY_PACKET_H

#include "native.h"

struct flow {
    uint8_t version, protocol;
    uint32_t l4, size; /* where the TCP or UDP header begins, and bytes of all headers */
};

bool flow_of(const uint8_t *packet, uint32_t length, struct flow *flow);
uint32_t check_ipv4(const uint8_t *header);
uint64_t pseudo_sum(const uint8_t *packet, const struct flow *flow, uint32_t l4_length);
void clamp_syn(uint8_t *packet, uint32_t length, uint32_t mtu, bool is_partial);
bool take_outer_ecn(uint8_t *packet, uint32_t outer);

void set_dscp(uint8_t *packet, uint32_t dscp);
bool is_extension(uint32_t protocol);
bool tells_mtu(const uint8_t *packet, uint32_t length);
uint32_t hash_flow(const uint8_t *packet, uint32_t length);
bool may_go_on(const uint8_t *packet, uint32_t size);
uint32_t gso_type_of(const struct flow *flow);

/* split.c: write a segment of a super-packet at *head*, and return its size */
uint32_t split_segment(uint8_t *head, const uint8_t *packet, uint32_t length, const struct flow *flow, uint32_t segment,
                       uint32_t number);

/* partial.c: the virtio header of a packet that came in the clear; false where it is for Python to refuse */
bool virtio_for(struct unsealed *unsealed, const uint8_t *packet, uint32_t length, uint32_t mtu, uint8_t *header);

/* frames.c: bytes before the packet of a frame that is ordinary, else 0; and whether a header is that before a packet */
uint32_t link_of(const uint8_t *frame, uint32_t length);
bool is_link(const uint8_t *link, uint32_t size, uint32_t version);

/* Return the plaintext length for a packet of *length* bytes (offload.flow: padded). */
static inline uint32_t padded(uint32_t length, uint32_t mtu) {
    uint32_t full = (length + PADDING - 1) / PADDING * PADDING;
    return full <= mtu ? full : length;
}

/* Return the length of the IP packet that *size* bytes begin with; 0 if there is no whole one. */
uint32_t packet_length(const uint8_t *payload, uint32_t size);

#endif
