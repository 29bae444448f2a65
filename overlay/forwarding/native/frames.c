/* Ethernet frames, as overlay/wire/frames.py reads them. */
#include "packet.h"

/* Return the EtherType of a frame, after its VLAN tags, and where its content begins; 0 if it is truncated
 * (ethertype). */
static uint32_t ethertype(struct slice frame, uint32_t *at) {
    for (*at = ETHERNET_SIZE; *at <= MOST_LINK && frame.size >= *at; *at += VLAN_SIZE) {
        uint32_t found = read16(frame, *at - 2);
        if (found != ETHERTYPE_CUSTOMER_TAG && found != ETHERTYPE_SERVICE_TAG)
            return found;
    }
    return 0;
}

/* Return how many bytes of a frame are before its IP packet; 0 if there is no packet with a whole header, or one that
 * may claim an address (ip_start, may_claim). */
uint32_t link_of(struct slice frame) {
    uint32_t at, kind = ethertype(frame, &at);
    if (kind == ETHERTYPE_IPV4)
        return frame.size >= at + IPV4_HEADER_SIZE && read8(frame, at) >> 4 == 4 ? at : 0;
    if (kind != ETHERTYPE_IPV6 || frame.size < at + IPV6_HEADER_SIZE || read8(frame, at) >> 4 != 6)
        return 0;
    uint32_t protocol = read8(frame, at + 6);
    return protocol != PROTOCOL_ICMPV6 && !is_extension(protocol) ? at : 0;
}

/* Return whether *link* is just the header before an IP packet of *version*. */
bool is_link(struct slice link, uint32_t version) {
    uint32_t at, kind = ethertype(link, &at);
    return at == link.size && kind == (version == 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
}
