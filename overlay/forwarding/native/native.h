/* The compiled twin of the packet path: its state, and its parts.
 *
 * Who owns what.  The structures of state.h are the state itself, not a copy: each lies inside a Python object
 * (object.h), whose attributes are its fields, and the Python path reads and writes the same bytes.  A keypair's
 * counter is handed out by adding to `keypair.counter` and nowhere else, so no nonce can be used by both paths.
 *
 * Who does what.  A drain reads from one descriptor until it is empty or its turn is over.  Before anything is changed
 * it checks whether a packet is ordinary: of an established, current session with a peer that has not moved.  Any other
 * packet is handed back unchanged, and the Python path, which is the specification, handles it; then the drain
 * continues after it, so order is kept.  If an ordinary packet must arm a timer or request something, the drain returns
 * once the packet is done, and Python does that (an edge).
 *
 * Bytes come from attackers.  Each length is checked once, where it is read.  Buffers have fixed sizes and live as long
 * as the lane.  Those of incomplete units are allocated when they are first needed, at most UNITS_TOTAL of them;
 * nothing else is allocated, except Python's objects around a large unit whose cipher is Python's (python_aead.c).
 * Nothing recurses.  After the check, bytes travel as slices, which know their end (slice.h); numbers in them are read
 * and written by bytes.h.
 *
 *  */
#ifndef OVERLAY_NATIVE_H
#define OVERLAY_NATIVE_H

#include "slice.h"
#include "state.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct message { /* struct mmsghdr of sendmmsg(), which not every header declares */
    struct msghdr msg_hdr;
    unsigned int msg_len;
};

/* The calls into the kernel; a fuzzer uses a network in memory instead. */
struct io {
    ssize_t (*read)(int, void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
    ssize_t (*recvmsg)(int, struct msghdr *, int);
    int (*send_many)(int, struct message *, unsigned int);
    int (*receive_many)(int, struct message *, unsigned int);
    bool (*is_crowded)(int);
    uint32_t (*arrived)(int);
};

/* Drops that are counted here; all others are handed back.  lane_results.c has their names. */
enum reason {
    DROP_UDP_ERROR,
    DROP_OVERSIZED,
    DROP_UNKNOWN_TYPE,
    DROP_TRANSPORT_SHORT,
    DROP_UNKNOWN_INDEX,
    DROP_TRANSPORT_AUTH,
    DROP_REPLAY,
    DROP_SOURCE,
    DROP_TUN_FULL,
    DROP_TUN_REFUSED,
    DROP_KEYPAIR_EXPIRED,
    DROP_FRAGMENT_HEADER,
    DROP_FRAGMENT_SIZE,
    DROP_UNIT_UNEXPECTED,
    DROP_UNIT_SHORT,
    DROP_UNIT_AUTH,
    DROP_UNIT_INCOMPLETE,
    DROP_OUTER_SOURCE,
    DROP_CROWDED,
    DROP_INITIATION_SIZE,
    DROP_RESPONSE_SIZE,
    DROP_COOKIE_SIZE,
    DROP_FRAGMENT_SHORT,
    DROP_REASONS
};

struct drop {
    struct peer *peer; /* NULL: of no peer */
    enum reason reason;
    int64_t count;
};

enum what { NOTHING, PACKET, DATAGRAM }; /* wire.dropped: Kind */

struct dropped { /* a dropped packet, for a capture: see record_packet() */
    struct peer *peer;
    enum reason reason;
    enum what what;
    int64_t count;
    uint32_t length, size; /* of the packet, and of the part that is kept */
    uint8_t bytes[CAPTURED_BYTES];
};

struct route {
    struct peer *peer;
    uint32_t generation;
    uint8_t size;
    uint8_t address[16];
};

struct route_set {
    struct route ways[ROUTE_WAYS]; /* the newest first */
};

struct known_station { /* what the bridge has said about an Ethernet address */
    struct station *station; /* NULL: it is static */
    struct peer *peer;       /* where it is; NULL: on the side of the tap */
    uint32_t generation;
    uint8_t mac[6];
};

struct flow_key { /* services.headers: key_of */
    uint8_t bytes[(MOST_KEY + 7) / 8 * 8];
    uint32_t size;
    uint8_t flags; /* of TCP; no part of the key */
};

struct server { /* services.service */
    int64_t packets, bytes, connections;
    struct peer *peer; /* NULL: it no longer takes packets */
    int dscp;
};

struct known_flow {
    struct flow_key key;
    double *seen;         /* cells of its row (services.flows) */
    const uint8_t *state;
    struct server *server;
    uint32_t generation;
};

struct admission {
    struct flow_key key;
    const struct peer *peer;
    uint32_t generation;
};

/* Shared by all lanes. */
struct state {
    struct route_set routes[ROUTE_SETS];
    struct keypair *indices[INDEX_BUCKETS];
    struct peer *places[PLACE_BUCKETS];
    struct known_flow flows[FLOW_SETS][FLOW_WAYS];
    struct admission admissions[ADMISSION_SETS][FLOW_WAYS];
    struct known_station stations[STATION_SETS][STATION_WAYS];
    uint8_t own_ports[UINT16_MAX / 8 + 1]; /* a bit for each UDP port that this node sends from, with a tap */
    uint64_t seed;
    int mtu;        /* of a payload */
    char segments, joins_udp, takes_units, inherits_ttl;
    char carries_frames; /* the device is a tap */
};

struct queue { /* datagrams for one peer that leave together */
    struct peer *peer;
    uint32_t offset[MAXIMUM_PENDING], size[MAXIMUM_PENDING];
    uint32_t count, first, marks;
    bool is_closed;
};

struct refused { /* a send that the kernel did not accept, for the Python path to handle */
    struct peer *peer;
    uint32_t at, total, size, marks;
    int error; /* 0: it follows one that was refused, and was not tried */
};

struct out {
    struct slice arena;
    struct slice train; /* TRAIN_BUFFER and a unit's datagrams */
    struct slice plain; /* of a unit that is part of a super-packet */
    struct queue queues[BATCH];
    struct pace *pace;
    struct refused refused[REFUSED_SENDS];
    struct slice refused_bytes;
    struct peer *look;
    double now;
    uint32_t look_marks;
    uint32_t queue_count, refused_count, refused_size;
    uint32_t at, taken, sends;
    uint32_t packet_at, packet_size; /* handed back */
    struct peer *edge_peer;
    struct keypair *edge_keypair;
    uint32_t edges;
    int fd, error;
    bool is_going, takes_one;
    bool has_begun; /* a packet of this go may be in a table */
    bool is_first;  /* none before the packet that is handed back may */
};

struct arrival { /* what the kernel reports with a receive */
    uint8_t control[CONTROL_BYTES];
    size_t control_size;
    union address source;
    socklen_t source_size;
    uint8_t received[24]; /* the destination address, as a local end remembers it */
    int received_size;
    uint32_t segment, ecn;
};

struct partial { /* a unit, some of whose fragments have arrived */
    struct keypair *keypair; /* NULL: this place is free */
    struct slice buffer;     /* LEAD + MAXIMUM_SEALED bytes */
    double began;
    uint64_t counter, order, have[4];
    uint32_t count, cipher, missing, piece, tail_size;
    union address source;
    socklen_t source_size;
    bool is_at_endpoint, is_marked;
    struct slice tail;
};

struct reassembly {
    struct partial partials[UNITS_TOTAL];
    uint64_t order;
    uint32_t used;
};

enum work { WORK_NONE, WORK_MESSAGES, WORK_FRAGMENTS, WORK_CLEAR, WORK_ROWS };

struct in {
    struct slice buffer; /* RECEIVE_BYTES + RECEIVE_SLACK */
    struct slice unit;   /* LEAD + as much */
    struct udp *udp;
    struct arrival arrivals[2];
    int current; /* which of them is that of the gathered rows */
    uint32_t gathered, stride, carried, count, taken, pieces, most;
    uint32_t carried_at;
    bool is_going, takes_one, is_empty, is_over;
    double now;
    /* Rows that were taken and are not delivered yet */
    enum work work;
    struct keypair *keypair;
    uint32_t rows, last, next; /* of stride bytes except the last */
    uint32_t before, tag;      /* bytes around a packet in its row */
    uint32_t link;             /* of the bytes before: an Ethernet header right before the packet, joined with it */
    uint32_t fresh_count;
    bool is_joined;
    uint16_t fresh[MAXIMUM_ROWS]; /* rows that are new, in order */
    uint16_t runs[MAXIMUM_ROWS];  /* how many rows are joined from each on */
    /* Handed back */
    struct keypair *back_keypair;
    uint32_t back_at, back_size, back_count, back_ecn;
    uint32_t edges, back_edges;
    struct reassembly reassembly;
};

struct raw { /* what one call received from a raw socket */
    struct slice rows;
    struct message messages[RAW_MESSAGES];
    struct iovec parts[RAW_MESSAGES][2];
    union address names[RAW_MESSAGES];
    uint8_t controls[RAW_MESSAGES][CMSG_SPACE(4)];
    struct udp *udp;
    double now;
    uint32_t stride, count, next;
    uint32_t taken, pieces, packets; /* in this go */
    uint32_t first, end, tos, header; /* rows with the same outer header */
    uint32_t back_row;
    bool is_going, is_joined, fits;
};

struct turns { /* tun.turns */
    struct share elsewhere;   /* of datagrams with the index of a session that do not come from the peer's address */
    const struct share *last; /* of the peer that sent last, which may be gone */
    double company_ends;
    int64_t turn;
    uint64_t total;
    uint32_t peers;
};

struct lane {
    const struct io *io;
    struct state *state;
    const int *is_wanted; /* Python waits: the drain must end soon; NULL if there are no other lanes */
    uint32_t number;
    bool has_joined; /* the state of the first lane */
    struct drop drops[MOST_DROPS];
    uint32_t drop_count;
    bool captures_drops; /* a capture of dropped packets runs */
    uint32_t captured_count;
    int64_t missed; /* packets for which there was no room among the captured */
    int tun, tun_out; /* to read from and to write to */
    struct out out;
    struct in in;
    struct raw raw;
    struct turns turns;
    struct dropped captured[CAPTURED_PACKETS]; /* last: it is large, and packets that pass do not touch it */
};

/* Return where *row* of the gathered rows begins, how many bytes it has, and its slice. */
static inline uint32_t row_at(const struct in *in, uint32_t row) { return row * in->stride; }

static inline uint32_t row_size(const struct in *in, uint32_t row) {
    return row == in->rows - 1 ? in->last : in->stride;
}

static inline struct slice row_of(const struct in *in, uint32_t row) {
    return slice_part(in->buffer, row_at(in, row), row_size(in, row));
}

/* Return where the last row ends. */
static inline uint32_t rows_end(const struct in *in) { return row_at(in, in->rows - 1) + in->last; }

enum out_result { OUT_DONE, OUT_PACKET, OUT_EDGE, OUT_ERROR, OUT_UNKNOWN };
enum in_result { IN_DONE, IN_EMPTY, IN_RECEIVED, IN_OPENED, IN_RUN, IN_UNIT, IN_EDGE, IN_CLEAR, IN_CLEAR_RUN, IN_ROW, IN_RAW, IN_RAW_GROUP };
enum edge { EDGE_SENT = 1, EDGE_UNITS = 2, EDGE_ANSWER = 4, EDGE_REPORT = 8 };

/* aead.c */
const char *crypto_open(void);
const char *crypto_version(void);
bool aead_init(struct aead *aead, int cipher, const uint8_t key[32], bool seals);
void aead_free(struct aead *aead);
bool aead_seal(const struct aead *aead, uint64_t counter, struct slice data);
bool aead_open(const struct aead *aead, uint64_t counter, struct slice data);

/* replay.c */
bool window_check(const struct window *window, uint64_t counter);
bool window_accept(struct window *window, uint64_t counter);
bool window_accept_run(struct window *window, uint64_t first, uint64_t count);

/* tables.c */
extern struct peer virtual_address; /* stands for a peer at addresses of services, whose flows determine the peer */
void routes_forget(void);
void routes_forget_peer(const struct peer *peer);
void routes_add(struct state *state, struct slice address, struct peer *peer);
struct peer *routes_find(const struct state *state, struct slice address);
bool is_from(const struct lane *lane, const struct peer *peer, struct slice packet);
bool sources_hold(const struct unsealed *unsealed, struct slice packet);
void indices_add(struct state *state, struct keypair *keypair);
void indices_remove(struct state *state, struct keypair *keypair);
struct keypair *indices_find(const struct state *state, uint32_t index);
void places_add(struct state *state, struct peer *peer);
void places_remove(struct state *state, struct peer *peer);
struct peer *places_find(const struct state *state, const struct udp *udp, const union address *source);
struct peer *places_next(const struct peer *peer);
struct peer *places_named(struct peer *peer, bool has_identifier, uint32_t identifier);
struct station *stations_add(struct state *state, struct slice mac, struct peer *peer, struct station *station);
const struct known_station *stations_find(const struct state *state, struct slice mac, const struct peer *peer,
                                          double now);
struct peer *stations_for(const struct state *state, struct slice mac, double now);
void station_seen(const struct known_station *known, double now);
struct peer *places_sender(const struct lane *lane, struct peer *named, struct slice packet);
bool pace_takes_one(struct pace *pace, double now);
void pace_took(struct pace *pace, uint32_t count);

/* drops.c */
void count_drop(struct lane *lane, struct peer *peer, enum reason reason, int64_t count);
void record_drop(struct lane *lane, struct peer *peer, enum reason reason, int64_t count);
void record_packet(struct lane *lane, struct peer *peer, enum reason reason, int64_t count, enum what what,
                   struct slice bytes);
void record_unwritten(struct lane *lane, struct peer *peer, enum reason reason, const struct iovec *parts, int count);

/* lane.c */
struct lane *new_lane(const struct io *io);
void free_lane(struct lane *lane);
void join_lane(struct lane *lane, const struct lane *first, uint32_t number);

/* reassembly.c */
struct partial *reassembly_place(struct lane *lane, struct keypair *keypair, uint64_t counter, uint32_t count,
                                 uint32_t cipher, const struct arrival *arrival, double now, bool is_at_endpoint);
bool reassembly_put(struct partial *partial, uint32_t number, struct slice rows, uint32_t count, uint32_t stride,
                    uint32_t width, uint32_t last, bool *is_whole);
bool reassembly_finish(struct partial *partial, uint32_t *size);
void reassembly_forget(struct reassembly *reassembly, struct partial *partial);
void reassembly_forget_keypair(struct reassembly *reassembly, const struct keypair *keypair);

/* join.c */
bool join_rows(struct in *in, bool joins_udp);
uint32_t join_head(const struct in *in, uint32_t first, uint32_t count, struct slice head, uint32_t *headers);

/* services.c */
bool flow_key_set(struct flow_key *key, struct slice bytes);
void flows_forget(void);
void flows_add(struct state *state, const struct flow_key *key, double *seen, const uint8_t *states,
               struct server *server);
void flows_remove(struct state *state, const struct flow_key *key);
struct known_flow *flows_find(struct state *state, struct slice packet);
void flows_passed(struct known_flow *flow, uint32_t total, uint32_t segment, double now);
void admissions_forget(void);
void admissions_forget_peer(const struct peer *peer);
void admissions_add(struct state *state, const struct flow_key *key, struct peer *peer);
bool admissions_find(const struct state *state, const struct peer *peer, struct slice packet);

/* seal.c */
enum verdict { FORWARDED, NOT_ORDINARY, UNKNOWN };

struct offload { /* a virtio header */
    uint32_t flags, gso_type, segment, csum_start, csum_offset;
};

struct lead { /* the bytes before the packet in a payload: with a tap, the headers of wire/frames.py and of the frame */
    uint8_t bytes[FRAME_HEADER_SIZE + MOST_LINK];
    uint32_t size; /* 0 with a tun */
};

struct offload offload_of(struct slice header);
struct keypair *usable(const struct lane *lane, const struct peer *peer);
bool is_hello_due(const struct out *out, const struct peer *peer, const struct bulk *bulk);
enum verdict send_single(struct lane *lane, struct peer *peer, struct keypair *keypair, uint32_t at, uint32_t length,
                         const struct offload *offload, const struct lead *lead, uint32_t marks);
enum verdict send_segments(struct lane *lane, struct peer *peer, struct keypair *keypair, uint32_t at,
                           uint32_t length, const struct offload *offload, const struct lead *lead, uint32_t marks);
uint32_t lane_marks(const struct keypair *keypair);
bool complete(struct slice packet, const struct offload *offload);

/* tun_outbound.c */
enum out_result out_drain(struct lane *lane, double now);

/* send_common.c */
bool is_open(const struct udp *udp);
void refuse(struct out *out, struct peer *peer, const struct iovec *parts, int count, uint32_t size, uint32_t marks,
            int error);
bool is_refused(const struct out *out, const struct peer *peer);
bool has_failed(const struct out *out, const struct peer *peer);
uint32_t add_control(struct slice room, uint32_t at, int level, int kind, const void *data, uint32_t size);
bool is_crowded(int fd);
void request_look(struct lane *lane, struct peer *peer, const struct udp *udp, uint32_t marks);
uint32_t sends_of(uint32_t count, uint32_t size);

/* send.c */
bool may_send(const struct state *state, const struct peer *peer, uint32_t marks);
void flush_peer(struct lane *lane, const struct peer *peer);
void flush_flow(struct lane *lane, const struct peer *peer, uint32_t marks);
void enqueue(struct lane *lane, struct peer *peer, uint32_t at, uint32_t size, uint32_t marks);
void send_evenly(struct lane *lane, struct peer *peer, struct slice rows, uint32_t size, uint32_t marks);
void flush(struct lane *lane);

/* send_raw.c, raw_inbound.c */
bool raw_may_send(const struct peer *peer, uint32_t marks);
void raw_send(struct lane *lane, struct peer *peer, struct iovec (*packets)[RAW_MESSAGES], uint32_t count,
              uint32_t marks);
void raw_send_evenly(struct lane *lane, struct peer *peer, struct slice rows, uint32_t size, uint32_t marks);
size_t raw_bytes(void);
enum in_result raw_drain(struct lane *lane, struct udp *udp, double now);

/* deliver.c */
void heard(struct lane *lane, struct peer *peer, uint32_t size);
void data_received(struct in *in, struct peer *peer);
void write_tun(struct lane *lane, struct peer *peer, const struct iovec *parts, int count);
void write_run(struct lane *lane, struct peer *peer, uint32_t first, uint32_t count);
enum in_result hand_back(struct in *in, enum in_result how, struct keypair *keypair, uint32_t at, uint32_t size,
                         uint32_t count);

/* crowding.c */
uint32_t arrived(int fd);
uint32_t pieces_of(uint32_t size, uint32_t merged);
uint32_t pieces_of_rows(const struct raw *raw);
void crowding_begin(const struct lane *lane, struct udp *udp, double now);
void crowding_end(struct udp *udp, uint32_t pieces, uint32_t receives, uint32_t size, bool is_behind);
bool crowding_admits(struct lane *lane, const struct crowding *crowding, struct share *share, uint32_t pieces,
                     double now);

/* tun_inbound.c */
bool tells_number(const struct cmsghdr *message, int level, int kind, int32_t *number);
enum in_result in_drain(struct lane *lane, struct udp *udp, double now, uint32_t most);

/* ethernet_outbound.c, ethernet_inbound.c */
enum verdict frame_forward(struct lane *lane, uint32_t at, uint32_t size);
bool frames_are_alike(struct in *in);
enum in_result frame_deliver(struct lane *lane, uint32_t row);
enum in_result frame_deliver_run(struct lane *lane, uint32_t first, uint32_t count);

/* bulk_inbound.c */
enum in_result take_fragments(struct lane *lane);

/* clear_outbound.c, clear_inbound.c */
enum verdict clear_forward(struct lane *lane, struct peer *peer, uint32_t at, uint32_t length, uint32_t ecn);
enum verdict clear_forward_frame(struct lane *lane, struct peer *peer, uint32_t at, uint32_t link, uint32_t length,
                                 const struct offload *offload, uint32_t marks);
enum in_result clear_take(struct lane *lane);
enum in_result clear_deliver(struct lane *lane);

#endif
