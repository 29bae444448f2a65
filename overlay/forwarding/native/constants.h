/* Numbers of the specifications, and the bounds of a lane's memory. */
#ifndef OVERLAY_CONSTANTS_H
#define OVERLAY_CONSTANTS_H

#include <stdint.h>

/* Specification: WireGuard (whitepaper section 5.4.6), virtio 1.2 section 5.1.6, RFC 791, RFC 8200 */
enum {
    HEADER_SIZE = 16, /* of a transport message */
    TAG_SIZE = 16,
    OVERHEAD = HEADER_SIZE + TAG_SIZE,
    PADDING = 16,
    TYPE_TRANSPORT = 4,
    TYPE_FRAGMENT = 5, /* of a bulk unit (wire/bulk.py) */
    FRAGMENT_HEADER_SIZE = 16,
    META_SIZE = 4,
    MINIMUM_SEGMENT = 256, /* of a unit */
    MAXIMUM_FRAGMENTS = 255,
    MAXIMUM_IP = 65535,
    MAXIMUM_SEALED = META_SIZE + MAXIMUM_IP + TAG_SIZE,
    VIRTIO_SIZE = 10,
    NEEDS_CSUM = 1,
    GSO_TCPV4 = 1,
    GSO_TCPV6 = 4,
    GSO_UDP_L4 = 5,
    GSO_ECN = 0x80,
    ETHERNET_SIZE = 14,
    VLAN_SIZE = 4,
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86DD,
    ETHERTYPE_CUSTOMER_TAG = 0x8100, /* IEEE 802.1Q */
    ETHERTYPE_SERVICE_TAG = 0x88A8,
    MAXIMUM_TAGS = 2, /* wire.frames */
    MOST_LINK = ETHERNET_SIZE + MAXIMUM_TAGS * VLAN_SIZE,
    TYPE_FRAME = 0xE0, /* of a payload (wire/frames.py) */
    FRAME_HEADER_SIZE = 2,
    VXLAN_SIZE = 8, /* RFC 7348 section 5 */
    GENEVE_SIZE = 8, /* RFC 8926 section 3.4 */
    GRE_SIZE = 4, /* RFC 2784 section 2 */
    GRE_FIELD = 4, /* each of checksum, key and sequence number (RFC 2890 section 2) */
    IPV4_HEADER_SIZE = 20,
    IPV6_HEADER_SIZE = 40,
    IPV6_MINIMUM_MTU = 1280,
    TCP_HEADER_SIZE = 20,
    UDP_HEADER_SIZE = 8,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_SCTP = 132,
    PROTOCOL_ICMP = 1,
    PROTOCOL_ICMPV6 = 58,
};

/* Ours: as in the Python path, module by module */
enum {
    BATCH = 64,                             /* tun.outbound */
    READ_BYTES = VIRTIO_SIZE + MAXIMUM_IP,  /* tun.outbound */
    ARENA_BYTES = 256 * 1024,               /* tun.outbound */
    ARENA_SLACK = 65535,                    /* bulk.units: LARGEST_DATAGRAM */
    VIRTIO_AT = HEADER_SIZE - VIRTIO_SIZE,  /* tun.outbound: _OFFSET */
    ROOM = VIRTIO_AT + READ_BYTES + PADDING + TAG_SIZE,
    FRAME_AT = HEADER_SIZE + FRAME_HEADER_SIZE,  /* ethernet.outbound: _FRAME */
    FRAME_VIRTIO_AT = FRAME_AT - VIRTIO_SIZE,    /* ethernet.outbound: _VIRTIO */
    FRAME_READ_BYTES = READ_BYTES + MOST_LINK,   /* ethernet.outbound: _READ */
    LINK_ROOM = 64,                              /* ethernet.outbound: _LINK */
    FRAME_ROOM = FRAME_VIRTIO_AT + FRAME_READ_BYTES + PADDING + TAG_SIZE + LINK_ROOM,
    MAXIMUM_PENDING = 64,                   /* tun.outbound */
    MAXIMUM_PENDING_BYTES = 65500,          /* tun.outbound */
    TRAIN_BYTES = 65507 - 7,                /* offload.split: MAXIMUM_TRAIN_BYTES */
    TRAIN_COUNT = 64,                       /* offload.split: MAXIMUM_TRAIN_COUNT */
    TRAIN_BUFFER = 256 * 1024,              /* offload.split: BUFFER_BYTES */
    MAXIMUM_JOINED = 64,                    /* offload.join */
    RECEIVE_BYTES = 65535,                  /* tun.inbound */
    RECEIVE_SLACK = 65536,                  /* tun.inbound */
    AT_ONCE = 128,                          /* underlay.crowding */
    CONTROL_BYTES = 256,                    /* tun.inbound: ANCILLARY_BYTES */
    MAXIMUM_ROWS = RECEIVE_BYTES / OVERHEAD + 1,
    SMALLEST_UNIT = 16,                     /* bulk.size: SMALLEST */
    LEAD = VIRTIO_SIZE - META_SIZE,         /* bulk.units */
    LOOK = 16,                              /* underlay.sender */
    TRAIN_MESSAGES = 2048,                  /* more than any super-packet has segments that a train takes */
    REFUSED_BYTES = 1024 * 1024,
    REFUSED_AT_ONCE = 256,                  /* sends that may wait for Python before a drain stops */
    REFUSED_SENDS = 2560,                   /* see refuse() */
    DROPS_AT_ONCE = 64,                     /* counts that may wait before a drain stops */
    MOST_DROPS = 256,                       /* see record_drop() */
    CAPTURED_PACKETS = 32,                  /* kept for captures until Python takes them */
    CAPTURED_BYTES = 1600,                  /* of each */
    UNITS_PER_SESSION = 16,                 /* bulk.units */
    UNITS_FROM_ELSEWHERE = 2,               /* bulk.units */
    UNITS_TOTAL = 64,                       /* bulk.units */
    ROUTE_SETS = 4096,                      /* of ROUTE_WAYS addresses each */
    ROUTE_WAYS = 4,
    STATION_SETS = 1024,                    /* of STATION_WAYS Ethernet addresses each */
    STATION_WAYS = 4,
    MOST_LANES = 8,                         /* lanes: MOST */
    INDEX_BUCKETS = 4096,
    PLACE_BUCKETS = 1024,
    MOST_KEY = 37,                          /* services.headers: two addresses, two ports, a protocol */
    FLOW_SETS = 16384,                      /* of FLOW_WAYS flows each */
    ADMISSION_SETS = 8192,
    FLOW_WAYS = 4,
    GATHERED_BYTES = 65535 + 64 * 60,       /* tun.gathering */
    GATHERED_ROWS = 64,                     /* tun.gathering */
    PREFIX_BYTES = 32,                      /* before a packet in the clear */
    MOST_FLOWS = 16,                        /* encap.ethernet: SENDERS */
    WIDE = 1 << 17,                         /* forwarding.peer */
    OWN = 0,                                /* link.messages: the number of this node among peers */
    PYTHON_AEAD_BYTES = 8 * 1024,           /* from this size on a call into the interpreter pays off */
};

/* The marks of a datagram (underlay.outer_header): TOS, TTL, and the socket that it leaves from */
enum { MARK_TOS = 0xFF, MARK_TTL_SHIFT = 8, MARK_KIND_SHIFT = 16, MARK_FLOW_SHIFT = 24 };
enum { MARK_WHOLE = 1 << 16, MARK_IPV6 = 1 << 17, RAW_KINDS = 4, RAW_MESSAGES = 64, RAW_REST = 65536 };

#define REJECT_AFTER_MESSAGES (UINT64_MAX - (1u << 13)) /* whitepaper section 6.1: 2^64 - 2^13 - 1 */
#define REKEY_AFTER_MESSAGES ((uint64_t)1 << 60)
#define AES_BLOCKS_PER_KEY ((uint64_t)1 << 34)
#define AGEING_TIME 300.0   /* ethernet.bridge */
#define WANTED_INTERVAL 1.0 /* forwarding.liveness */

/* Timers of a peer that have an entry in force (forwarding.timers) */
enum { ARMED_SILENCE = 1, ARMED_ANSWER = 2, ARMED_UNITS = 4 };

#endif
