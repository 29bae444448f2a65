#include "workers.h"

#include "atomics.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 8 };

double time_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void signal_event(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

/* The thread of a lane */

/* Return whether Python must handle the result of a drain. */
bool is_question(const struct lane *lane, bool is_tun, int result) {
    if (is_tun ? result != OUT_DONE : result != IN_DONE && result != IN_EMPTY)
        return true;
    return lane->out.refused_count || lane->out.look != NULL || lane->drop_count >= DROPS_AT_ONCE;
}

static void ask(struct worker *worker) {
    signal_event(worker->workers->questions);
    pthread_mutex_lock(&worker->mutex);
    while (worker->has_question && !worker->ends)
        pthread_cond_wait(&worker->is_answered, &worker->mutex);
    pthread_mutex_unlock(&worker->mutex);
}

/* Drain the descriptor of *slot*, unless it is no longer watched. */
static void serve(struct worker *worker, uint32_t slot) {
    struct workers *workers = worker->workers;
    struct lane *lane = worker->lane;
    bool asks = false;
    pthread_rwlock_rdlock(&workers->lock);
    struct udp *udp = slot < WATCHED ? worker->watched[slot] : NULL;
    if (slot == TUN_SLOT || udp != NULL) {
        bool is_tun = udp == NULL;
        int result = is_tun ? (int)out_drain(lane, time_now()) : (int)in_drain(lane, udp, time_now(), LANE_DRAIN_BYTES);
        asks = is_question(lane, is_tun, result);
        worker->result = result;
        worker->slot = slot;
        pthread_mutex_lock(&worker->mutex);
        worker->has_question = asks;
        pthread_mutex_unlock(&worker->mutex);
    }
    pthread_rwlock_unlock(&workers->lock);
    if (asks)
        ask(worker);
}

static bool has_ended(struct worker *worker) {
    pthread_mutex_lock(&worker->mutex);
    bool ends = worker->ends;
    pthread_mutex_unlock(&worker->mutex);
    return ends;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    struct epoll_event events[EVENTS];
    while (!has_ended(worker)) {
        int count = epoll_wait(worker->epoll, events, EVENTS, -1);
        for (int i = 0; i < count && !has_ended(worker); i++)
            if (events[i].data.u32 != WAKE_SLOT)
                serve(worker, events[i].data.u32);
    }
    return NULL;
}

/* Life */

static bool watch(const struct worker *worker, int fd, uint32_t slot) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = slot};
    return epoll_ctl(worker->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Return workers for the lanes after the first, whose threads begin with workers_begin(); NULL if the system has no
 * room. */
struct workers *workers_new(struct lane *first, struct lane *(*lanes)[MOST_LANES - 1], uint32_t count) {
    struct workers *workers = calloc(1, sizeof *workers);
    if (workers == NULL)
        return NULL;
    pthread_rwlockattr_t kind;
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    /* Otherwise lanes that are always busy would keep Python waiting. */
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&workers->lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    workers->questions = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool is_whole = workers->questions >= 0;
    workers->count = count;
    workers->first = first;
    first->is_wanted = &workers->is_never_wanted;
    for (uint32_t i = 0; i < count; i++) {
        struct worker *worker = &workers->each[i];
        worker->workers = workers;
        worker->lane = (*lanes)[i];
        worker->lane->is_wanted = &workers->is_wanted;
        pthread_mutex_init(&worker->mutex, NULL);
        pthread_cond_init(&worker->is_answered, NULL);
        worker->epoll = epoll_create1(EPOLL_CLOEXEC);
        worker->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        is_whole = is_whole && worker->epoll >= 0 && worker->wake >= 0 && watch(worker, worker->wake, WAKE_SLOT);
    }
    if (is_whole)
        return workers;
    workers_free(workers);
    return NULL;
}

/* Start the threads; false, with errno, if one could not be started. */
bool workers_begin(struct workers *workers) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for Python's thread */
    int error = 0;
    for (uint32_t i = 0; i < workers->count && !error; i++) {
        struct worker *worker = &workers->each[i];
        error = pthread_create(&worker->thread, NULL, work, worker);
        worker->has_begun = !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return !error;
}

/* End the threads. */
void workers_end(struct workers *workers) {
    workers_go(workers);
    for (uint32_t i = 0; i < workers->count; i++) {
        struct worker *worker = &workers->each[i];
        pthread_mutex_lock(&worker->mutex);
        worker->ends = true;
        pthread_cond_signal(&worker->is_answered);
        pthread_mutex_unlock(&worker->mutex);
        signal_event(worker->wake);
        if (worker->has_begun)
            pthread_join(worker->thread, NULL);
        worker->has_begun = false;
    }
}

void workers_free(struct workers *workers) {
    for (uint32_t i = 0; i < workers->count; i++) {
        struct worker *worker = &workers->each[i];
        if (worker->epoll >= 0)
            close(worker->epoll);
        if (worker->wake >= 0)
            close(worker->wake);
        pthread_mutex_destroy(&worker->mutex);
        pthread_cond_destroy(&worker->is_answered);
        worker->lane->is_wanted = NULL;
    }
    workers->first->is_wanted = NULL;
    if (workers->questions >= 0)
        close(workers->questions);
    pthread_rwlock_destroy(&workers->lock);
    free(workers);
}

/* Requests of Python's thread */

/* Wait until no lane is in a drain, and keep all of them from beginning one. */
void workers_stop(struct workers *workers) {
    if (workers->is_stopped)
        return;
    __atomic_store_n(&workers->is_wanted, 1, __ATOMIC_RELAXED);
    pthread_rwlock_wrlock(&workers->lock);
    workers->is_stopped = true;
}

/* Let them drain again. */
void workers_go(struct workers *workers) {
    if (!workers->is_stopped)
        return;
    workers->is_stopped = false;
    __atomic_store_n(&workers->is_wanted, 0, __ATOMIC_RELAXED);
    pthread_rwlock_unlock(&workers->lock);
}

/* Begin a drain in Python's thread, in parallel with the other lanes unless they are stopped. */
void workers_enter(struct workers *workers) {
    if (!workers->is_stopped)
        pthread_rwlock_rdlock(&workers->lock);
}

void workers_leave(struct workers *workers) {
    if (!workers->is_stopped)
        pthread_rwlock_unlock(&workers->lock);
}

/* Make the lane read its queue of the tun from now on, or stop reading it. */
bool worker_watches_tun(struct worker *worker, bool watches) {
    if (watches)
        return watch(worker, worker->lane->tun, TUN_SLOT);
    return epoll_ctl(worker->epoll, EPOLL_CTL_DEL, worker->lane->tun, NULL) == 0;
}

/* Make the lane read from *udp*; false, with errno, if it cannot.  The lanes are stopped. */
bool worker_watch(struct worker *worker, struct udp *udp) {
    for (uint32_t slot = 0; slot < WATCHED; slot++)
        if (worker->watched[slot] == NULL) {
            worker->watched[slot] = udp;
            if (watch(worker, udp->fd, slot))
                return true;
            worker->watched[slot] = NULL;
            return false;
        }
    errno = ENOSPC;
    return false;
}

void worker_unwatch(struct worker *worker, const struct udp *udp) {
    for (uint32_t slot = 0; slot < WATCHED; slot++)
        if (worker->watched[slot] == udp) {
            epoll_ctl(worker->epoll, EPOLL_CTL_DEL, udp->fd, NULL);
            worker->watched[slot] = NULL;
        }
}

/* Let the lane go on: its question is answered. */
void worker_answer(struct worker *worker) {
    pthread_mutex_lock(&worker->mutex);
    worker->has_question = false;
    pthread_cond_signal(&worker->is_answered);
    pthread_mutex_unlock(&worker->mutex);
}
