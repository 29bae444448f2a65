/* Whose datagrams are dropped early while more arrive than this node can handle, like
 * overlay/forwarding/underlay/crowding.py. */
#include "native.h"

#include <math.h>
#include <string.h>
#include <sys/socket.h>

enum { SMALL = 1024, MOST_WAITING = 256, ALLOWED = 64, DATAGRAM_COST = 768 }; /* underlay.crowding */
#define PATIENCE 0.05
#define MEMORY 1.0
#define TURN 0.1 /* tun.turns */
#define COMPANY 60.0

enum { SK_MEMINFO_RMEM_ALLOC = 0, SK_MEMINFO_VARS = 9 }; /* linux/sock_diag.h */

/* Return how many bytes wait to be received from a socket, as the kernel counts them; 0 if it does not report them. */
uint32_t arrived(int fd) {
    uint32_t told[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof told;
    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, told, &size) == 0 ? told[SK_MEMINFO_RMEM_ALLOC] : 0;
}

uint32_t pieces_of(uint32_t size, uint32_t merged) {
    return merged && merged < SMALL ? (size + merged - 1) / merged : size > 0;
}

/* Return the work that the packets of the group are, which came from one sender in one call. */
uint32_t pieces_of_rows(const struct raw *raw) {
    uint32_t small = 0, count = raw->end - raw->first;
    for (uint32_t row = raw->first; row < raw->end; row++)
        small += raw->messages[row].msg_len < SMALL;
    return small + (small < count);
}

/* Begin a go: check how much waits if the last go did not take everything. */
void crowding_begin(const struct lane *lane, struct udp *udp, double now) {
    struct crowding *crowding = &udp->crowding;
    crowding->is_pressed = false;
    if (!crowding->is_behind ||
        lane->io->arrived(udp->fd) * (uint64_t)crowding->pieces <= MOST_WAITING * (uint64_t)crowding->bytes) {
        crowding->is_waiting = false;
        return;
    }
    if (!crowding->is_waiting)
        crowding->since = now;
    crowding->is_waiting = true;
    crowding->is_pressed = now - crowding->since >= PATIENCE || now < crowding->until;
    if (crowding->is_pressed)
        crowding->until = now + MEMORY;
}

/* Record what a go has taken, and whether it may have left something. */
void crowding_end(struct udp *udp, uint32_t pieces, uint32_t receives, uint32_t size, bool is_behind) {
    udp->crowding.pieces = pieces;
    udp->crowding.bytes = receives * DATAGRAM_COST + size;
    udp->crowding.is_behind = is_behind;
}

/* Return whether to accept *pieces* that count for *share*; they are counted in any case.  Each lane has its own
 * sockets, and compares the datagrams at them. */
bool crowding_admits(struct lane *lane, const struct crowding *crowding, struct share *share, uint32_t pieces,
                     double now) {
    struct turns *turns = &lane->turns;
    bool is_elsewhere = share == &turns->elsewhere;
    if (share != turns->last && !is_elsewhere) {
        turns->company_ends = turns->last != NULL ? now + COMPANY : 0;
        turns->last = share;
    }
    int64_t turn = (int64_t)(now / TURN);
    if (turn != turns->turn) {
        turns->turn = turn;
        turns->total = turns->peers = 0;
    }
    if (share->turn != turn) {
        share->turn = turn;
        share->pieces = 0;
        turns->peers++;
    }
    turns->total += pieces;
    share->pieces += pieces;
    bool is_modest = share->pieces <= ALLOWED || (uint64_t)share->pieces * turns->peers < turns->total;
    bool is_alone = !is_elsewhere && now >= turns->company_ends;
    return is_modest || !crowding->is_pressed || is_alone;
}
