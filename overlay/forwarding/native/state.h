/* The state that both packet paths read and write (forwarding/state.py): structures, each inside a Python object. */
#ifndef OVERLAY_STATE_H
#define OVERLAY_STATE_H

#include "constants.h"
#include "slice.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct aead_methods { /* of another library's AEAD (python_aead.c), for data of PYTHON_AEAD_BYTES or more */
    bool (*seal)(void *object, uint64_t counter, struct slice data);
    bool (*open)(void *object, uint64_t counter, struct slice data);
};

struct aead {
    void *context; /* EVP_CIPHER_CTX */
    const struct aead_methods *methods; /* NULL: only libcrypto */
    void *object;
};

struct window { /* RFC 6479: a ring of words with a bit for each counter seen */
    uint64_t newest; /* the next counter expected: one more than the newest seen */
    uint64_t words[128];
};

struct share { /* of the datagrams at sockets that are behind (tun.turns): the last turn, and the amount in it */
    int64_t turn, pieces;
};

struct counts {
    int64_t tx_bytes, rx_bytes, tx_packets, rx_packets, tx_units, rx_units;
    struct share share;
};

struct traffic {
    struct counts lanes[MOST_LANES]; /* each writes its own, a line of the cache; Python sees the sums */
};

struct contact {
    double unanswered_since, owed_since, last_traffic, last_received, wanted_at;
    const void *reporting; /* the keypair whose units must be reported */
    int armed;
    char is_silent;
};

struct path {
    double due;
    int mtu;
    char omits;
};

struct asking {
    double next; /* hello */
    char is_worth_it;
};

struct pace { /* underlay.batching */
    double last;
    uint32_t quick;
    char is_single;
};

struct discovery {
    char omits;
};

struct crowding { /* underlay.crowding */
    double since, until;
    uint32_t pieces, bytes;
    bool is_behind, is_waiting, is_pressed;
};

struct udp {
    double closes_at;
    struct crowding crowding;
    const struct discovery *discovery;
    const struct udp *sends_by; /* NULL: itself */
    struct pace *pace;
    const struct udp *spread[MOST_FLOWS]; /* sockets that flows are spread over */
    int fd, layout, protocol, spread_count;
    bool has_shares; /* its send buffer is crowded */
};

enum layout { LAYOUT_OTHER, LAYOUT_BARE, LAYOUT_VXLAN, LAYOUT_GENEVE, LAYOUT_GRE }; /* encap.encapsulation */

struct tunnel { /* one end of a tunnel in the clear; its fields are 0 if Python handles it */
    uint8_t prefix[2][PREFIX_BYTES]; /* before packets of IPv4, IPv6 */
    uint32_t prefix_size, identifier, flows;
    int protocols[2]; /* of the outer header */
    uint64_t sent;      /* payloads that have been numbered */
    uint32_t number_at; /* in a payload; 0: they have none */
    uint8_t own_mac[6], layout;
    bool has_identifier, has_checksum;
};

struct unsealed { /* forwarding.peer */
    struct slice sources[2]; /* of IPv4, IPv6: sources it may have besides its own: consecutive addresses, at each of
                                which a range begins or ends */
    double segment_limit_ends, sequence_at;
    int64_t sequence; /* the last number; negative: none */
    int segment_limit, segment_size;
};

struct local_end {
    const struct udp *udp;
    const struct udp *senders[RAW_KINDS]; /* without ports, used instead of it: by marks */
    uint8_t source[32]; /* the control message for sending from the address that the peer sent to */
    uint8_t received[24];
    int source_level, source_kind, source_size, received_size;
};

struct unit_size { /* bulk.size */
    double waits_since, plain_until, probe_at;
    uint64_t next, probe_counter;
    int limit;
    char is_plain, is_probe_late, has_probe;
};

struct unit_key {
    struct aead seals[MOST_LANES];
    uint64_t counter, blocks;
    uint32_t receiver_index;
    int cipher;
};

struct bulk {
    double hello_due, newest_at;
    struct unit_key *key;
    struct unit_size *size;
    struct window *window;
    struct aead opens[2]; /* by cipher - 1 */
    uint64_t newest, units, datagrams, missing;
    int most, fragments, packet, told_packet;
    char has_heard, has_said_hello, is_put_off;
};

union address { /* of the underlay */
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct peer;

struct keypair { /* of a session, or of one of its further lanes (wire/lanes.py) */
    struct aead seals[MOST_LANES]; /* each lane has its own context of the one key */
    struct aead open;
    pthread_mutex_t receiving; /* held for `open`, the windows, and the inbound state of `bulk` */
    pthread_mutex_t sending;   /* held for the counter of `bulk->key` and its size */
    struct peer *peer;
    struct window *window;
    struct bulk *bulk;
    struct keypair *chain; /* of its bucket in the table of indices */
    struct keypair *session; /* whose lane this is; NULL: it is not a lane */
    struct keypair *by_lane[MOST_LANES]; /* the keypair that each lane of this node seals with; NULL: this one */
    double reject_at, rekey_at, rekey_receive_at;
    uint64_t counter;
    uint32_t local_index, remote_index, lane;
    bool is_listed;
};

struct station { /* ethernet.bridge: an Ethernet address that was learnt */
    double seen_at; /* -infinity once it is forgotten */
};

struct slots {
    struct keypair *current, *settled;
};

struct peer {
    struct traffic *traffic;
    struct contact *contact;
    struct path *path;
    struct asking *asking;
    struct local_end *local;
    struct slots *slots;
    struct tunnel *tunnel;
    struct unsealed *unsealed;
    struct peer *place_chain; /* of its bucket in the table of places */
    uint8_t located[16];      /* the address from which a peer in the clear is accepted */
    uint32_t located_scope;
    int located_size, located_layout;
    bool located_has_ports;
    union address endpoint;
    socklen_t endpoint_size; /* 0: not known */
    uint8_t place[16];       /* its address */
    int place_size;
    uint32_t remembered, admitted; /* when it was last: the generation of routes and stations, and of admissions */
    int number;
    char is_held; /* the sender holds packets for it */
};

#endif
