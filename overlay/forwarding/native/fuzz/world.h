/* The world of a story: a lane, its peers, and a kernel in memory that returns what the story says. */
#ifndef OVERLAY_FUZZ_WORLD_H
#define OVERLAY_FUZZ_WORLD_H

#include "../native.h"

#include <math.h>
#include <netinet/in.h>

enum {
    SEALED = 3,    /* messages only; units with AES-256-GCM; an IPv6 underlay, and units with ChaCha20-Poly1305 */
    EARLIER = 5,   /* those, and in the clear: udp; vxlan.  The oldest commands know only these. */
    GENEVE = EARLIER,
    IPIP,          /* over raw sockets: ipip; GRE with a key; GRE over IPv6 */
    GRE,
    GRE_OVER_IPV6,
    PEERS,
    VIRTUAL = PEERS + 1, /* the owner of the addresses of services; ours belong to PEERS */
    SOCKETS = 1 + IPIP - SEALED, /* with ports */
    RAW_SOCKETS = 4,
    ALL_SOCKETS = SOCKETS + RAW_SOCKETS,
    FIRST_SOCKET = 4, /* its descriptor */
    MOST_RESULTS = 1 << 20, /* of drains until nothing waits */
    KEYPAIRS = 2,  /* of each peer */
    UNITS = 4,     /* kept for late fragments */
    RECEIVES = 32, /* that wait */
    PACKETS = 32,  /* kinds of packets that wait at the tun, each several times */
    CHANGES = 3,   /* bytes that are changed in a packet or datagram */
    STRANGE_PORTS = 3, /* of the place of the last peer */
};

/* The input, read to its end; zeros follow. */
struct cursor {
    const uint8_t *at, *end;
};

static inline uint32_t take8(struct cursor *cursor) { return cursor->at < cursor->end ? *cursor->at++ : 0; }
static inline uint32_t take16(struct cursor *cursor) {
    uint32_t high = take8(cursor);
    return high << 8 | take8(cursor);
}

/* A packet, or a train of them. */
struct spec {
    uint32_t version, protocol, gso, tos, ip_words, extensions, tcp_words, flags, owner, payload, segment, sequence, mss;
    uint32_t changes, at[CHANGES], with[CHANGES];
    uint32_t link; /* the Ethernet header, of a tap */
    bool is_wrong, is_ours;
};

enum arrival_kind { RAW, MESSAGES, FRAGMENTS, AGAIN };

struct receive {
    enum arrival_kind kind;
    struct spec spec;
    const uint8_t *raw;
    uint32_t raw_size, peer, socket, keypair, count, last, counter_step, from, unit, segment, ecn, source, flags;
    uint32_t change_at, change_with;
    uint32_t option_words; /* of Geneve */
    bool is_odd_control;
};

struct unit {
    uint8_t bytes[META_SIZE + MAXIMUM_IP + MOST_LINK + TAG_SIZE];
    uint32_t size, piece, count, cipher, peer, keypair;
    uint64_t counter;
};

/* The other end of a keypair. */
struct far_end {
    struct aead seal, open, unit_seal[2], unit_open;
    uint64_t counter, unit_counter; /* of the next seal */
    uint64_t seen, unit_seen;       /* the least counter that we may use next */
};

struct remote {
    struct peer peer;
    struct traffic traffic;
    struct contact contact;
    struct path path;
    struct asking asking;
    struct local_end local;
    struct slots slots;
    struct keypair keypairs[KEYPAIRS];
    struct window windows[KEYPAIRS], unit_windows[KEYPAIRS];
    struct bulk bulks[KEYPAIRS];
    struct unit_size sizes[KEYPAIRS];
    struct unit_key keys[KEYPAIRS];
    struct tunnel tunnel;
    struct unsealed unsealed;
};

struct world {
    struct lane *lane;
    struct udp sockets[ALL_SOCKETS];
    const struct udp *raw_udp; /* the one that is drained, or NULL */
    struct pace pace, tun_pace;
    struct discovery discovery;
    struct remote remotes[PEERS];
    struct far_end far[SEALED][KEYPAIRS];
    struct unit units[UNITS];
    struct receive receives[RECEIVES];
    struct spec packets[PACKETS];
    uint32_t repeats[PACKETS];
    uint32_t receive_first, receive_count, packet_first, packet_count;
    uint8_t *again; /* the previous receive */
    uint32_t again_size, again_stride;
    int send_error, write_error, read_error, receive_error;
    uint32_t send_errors, write_errors;
    bool is_going_out; /* a drain of the tun */
    double now;
    bool is_tap;
    uint64_t datagrams, inputs, stories; /* since the process began */
};

extern struct world world;

void world_begin(void);
void world_reset(void);
uint32_t make_packet(const struct spec *spec, uint32_t number, uint8_t *at);
void make_unit(struct unit *unit, const struct spec *spec, uint32_t piece);
void put_address(uint8_t *at, uint32_t version, uint32_t owner);
void check_clear(const uint8_t *at, uint32_t size, const struct tunnel *tunnel);
void refuse_story(const char *what);

/* story.c */
void take_news(void);
struct spec take_spec(struct cursor *cursor, bool is_ours);
void wait_at_tun(struct cursor *cursor, const struct spec *spec, uint32_t repeats);
void arrive_from(struct cursor *cursor, uint32_t peer, const struct spec *spec, uint32_t count);

/* raw.c */
void raw_reset(void);
void raw_reset_peer(uint32_t number);
int raw_receive_many(int fd, struct message *messages, unsigned int count);
int raw_send_many(int fd, struct message *messages, unsigned int count);
void drain_raw(struct cursor *cursor);
void say_raw_packets(struct cursor *cursor);
void say_raw_tunnel(struct cursor *cursor);

/* taps.c */
void taps_reset(void);
void say_tap(struct cursor *cursor);
uint32_t put_link(const struct spec *spec, uint8_t *at);
uint32_t put_lead(const struct spec *spec, uint8_t *payload);
void check_frame(const uint8_t *payload, uint32_t size);
void check_clear_frame(const uint8_t *payload, uint32_t size, const struct tunnel *tunnel);
void check_write(const struct iovec *parts, int count, uint32_t total);

/* services.c */
void services_reset(void);
void say_flow(struct cursor *cursor);
void say_permit(struct cursor *cursor);

/* The socket of a peer with ports. */
static inline uint32_t socket_of(uint32_t peer) { return peer < SEALED ? 0 : 1 + peer - SEALED; }

#endif
