/* Lanes beyond the first: threads of workers, which drain a queue of the tun and sockets, and never need the
 * interpreter.
 *
 * Who may touch the state when.  A lane holds `lock` for reading during a drain, and so does lane 0 when it drains in
 * Python's thread.  Python holds it for writing whenever it does anything other than wait and let lane 0 drain: then no
 * lane is in a drain, and the state belongs to Python, as without lanes.  Values that lanes write at the same time are
 * accessed by atomics.h, are separate for each lane (struct traffic), or are protected by a keypair's locks.
 *
 * A packet that is not ordinary stays where it is in the lane's buffers, and the lane waits until Python has handled
 * it, like the packets that lane 0 hands back.  So nothing overtakes it, and nothing is lost for lack of room.  A drain
 * that Python waits for ends with the present packet. */
#ifndef OVERLAY_WORKERS_H
#define OVERLAY_WORKERS_H

#include "native.h"

enum {
    WATCHED = 64, /* sockets of a lane */
    NO_SOCKET = WATCHED,
    TUN_SLOT,
    WAKE_SLOT,
    LANE_DRAIN_BYTES = 512 * 1024, /* tun.inbound: DRAIN_BYTES */
};

struct workers;

struct worker {
    struct workers *workers;
    struct lane *lane;
    struct udp *watched[WATCHED];
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t is_answered;
    int epoll, wake;
    /* What Python must handle: written in a drain, taken back by Python */
    int result;
    uint32_t slot;
    bool has_question;
    bool has_begun, ends;
};

struct workers {
    pthread_rwlock_t lock;
    struct worker each[MOST_LANES - 1];
    struct lane *first; /* in Python's thread */
    uint32_t count;
    int questions; /* an eventfd that wakes Python */
    int is_wanted, is_never_wanted;
    bool is_stopped; /* used only by Python's thread */
};

double time_now(void); /* CLOCK_BOOTTIME */
bool is_question(const struct lane *lane, bool is_tun, int result);

struct workers *workers_new(struct lane *first, struct lane *(*lanes)[MOST_LANES - 1], uint32_t count);
bool workers_begin(struct workers *workers);
void workers_end(struct workers *workers);
void workers_free(struct workers *workers);

/* In Python's thread */
void workers_stop(struct workers *workers);
void workers_go(struct workers *workers);
void workers_enter(struct workers *workers);
void workers_leave(struct workers *workers);
bool worker_watches_tun(struct worker *worker, bool watches);
bool worker_watch(struct worker *worker, struct udp *udp);
void worker_unwatch(struct worker *worker, const struct udp *udp);
void worker_answer(struct worker *worker);

#endif
