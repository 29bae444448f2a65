/* Ethernet frames, as overlay/wire/frames.py reads them. */
#include "bytes.h"
#include "packet.h"

/* Return what a frame carries, behind its VLAN tags, and where that begins; 0 where that cannot be told (ethertype). */
static uint32_t ethertype(const uint8_t *frame, uint32_t length, uint32_t *at) {
    for (*at = ETHERNET_SIZE; *at <= MOST_LINK && length >= *at; *at += VLAN_SIZE) {
        uint32_t found = get16(frame + *at - 2);
        if (found != ETHERTYPE_CUSTOMER_TAG && found != ETHERTYPE_SERVICE_TAG)
            return found;
    }
    return 0;
}

/* Return how many bytes of a frame of *length* stand before its IP packet; 0 where there is none whose header is all
 * there, or one that may tell who has which address (ip_start, may_claim). */
uint32_t link_of(const uint8_t *frame, uint32_t length) {
    uint32_t at, kind = ethertype(frame, length, &at);
    if (kind == ETHERTYPE_IPV4)
        return length >= at + IPV4_HEADER_SIZE && frame[at] >> 4 == 4 ? at : 0;
    if (kind != ETHERTYPE_IPV6 || length < at + IPV6_HEADER_SIZE || frame[at] >> 4 != 6)
        return 0;
    uint32_t protocol = frame[at + 6];
    return protocol != PROTOCOL_ICMPV6 && !is_extension(protocol) ? at : 0;
}

/* Return whether *link*, of *size* bytes, is the header before an IP packet of *version* and nothing else. */
bool is_link(const uint8_t *link, uint32_t size, uint32_t version) {
    uint32_t at, kind = ethertype(link, size, &at);
    return at == size && kind == (version == 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
}
