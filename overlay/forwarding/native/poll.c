/* The wait of Python's thread (loop.py: _turn): as long as everything that arrives is ordinary, it never leaves C.
 *
 * The first lane's descriptors are drained here as soon as there is something to read.  Python gets the rest:
 * descriptors that are not watched here, a drain that needs it, and the time when something is due.
 *
 * Between two packets of a slow flow other programs fill the caches, so the cost of a packet is the memory that must be
 * loaded again.  The interpreter would be a good part of that, so wait_for() runs without it.  Nobody else uses the
 * interpreter meanwhile: the forwarder has one Python thread, and does not handle signals. */
#include "module.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/epoll.h>

enum { EVENTS = 16, DRAIN_BYTES = 512 * 1024 /* loop.py; tun.inbound */ };

struct poll_object {
    PyObject_HEAD
    struct lane_object *lane;
    PyObject *sockets[WATCHED]; /* kept as long as they are watched; NULL: the tun, or nothing */
    struct {
        int fd; /* -1: a free place */
        struct udp *udp; /* NULL: the tun */
    } watched[WATCHED];
    int epoll;
};

/* Poll(epoll, lane): wait for the descriptors that are registered with an epoll. */
static int poll_init(PyObject *self, PyObject *arguments, PyObject *keywords) {
    struct poll_object *object = (struct poll_object *)self;
    PyObject *value;
    int epoll;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "no keywords");
        return -1;
    }
    if (object->lane != NULL || !PyArg_ParseTuple(arguments, "iO", &epoll, &value))
        return -1;
    struct lane_object *lane = as_lane(value);
    if (lane == NULL)
        return -1;
    object->lane = (struct lane_object *)Py_NewRef(value);
    object->epoll = epoll;
    for (int i = 0; i < WATCHED; i++)
        object->watched[i].fd = -1;
    return 0;
}

static int poll_traverse(PyObject *self, visitproc visit, void *arg) {
    const struct poll_object *object = (struct poll_object *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)object->lane);
    for (int i = 0; i < WATCHED; i++)
        Py_VISIT(object->sockets[i]);
    return 0;
}

/* Forget what it drains: without a lane it is of no use. */
static int poll_clear(PyObject *self) {
    struct poll_object *object = (struct poll_object *)self;
    for (int i = 0; i < WATCHED; i++) {
        object->watched[i].fd = -1;
        object->watched[i].udp = NULL;
        Py_CLEAR(object->sockets[i]);
    }
    Py_CLEAR(object->lane);
    return 0;
}

static void poll_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    poll_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static struct poll_object *as_poll(PyObject *self) {
    if (((struct poll_object *)self)->lane != NULL)
        return (struct poll_object *)self;
    PyErr_SetString(PyExc_RuntimeError, "the poll is not initialized");
    return NULL;
}

/* Return the place of a descriptor, -1 if it is not watched. */
static int place_of(const struct poll_object *object, int fd) {
    for (int i = 0; i < WATCHED; i++)
        if (object->watched[i].fd == fd)
            return i;
    return -1;
}

/* watch(descriptor, socket or None for the tun): drain it here from now on; if there is no room it stays Python's. */
static PyObject *watch(PyObject *self, PyObject *arguments) {
    struct poll_object *object = as_poll(self);
    int fd;
    PyObject *value;
    if (object == NULL || !PyArg_ParseTuple(arguments, "iO", &fd, &value))
        return NULL;
    struct udp *udp = value == Py_None ? NULL : as_udp(value);
    if (udp == NULL && value != Py_None)
        return NULL;
    int place = place_of(object, -1);
    if (fd >= 0 && place >= 0 && place_of(object, fd) < 0) {
        object->watched[place].fd = fd;
        object->watched[place].udp = udp;
        object->sockets[place] = udp == NULL ? NULL : Py_NewRef(value);
    }
    Py_RETURN_NONE;
}

/* unwatch(descriptor): stop draining it */
static PyObject *unwatch(PyObject *self, PyObject *value) {
    struct poll_object *object = as_poll(self);
    long fd = PyLong_AsLong(value);
    if (object == NULL || PyErr_Occurred())
        return NULL;
    int place = fd < 0 ? -1 : place_of(object, (int)fd);
    if (place >= 0) {
        object->watched[place].fd = -1;
        object->watched[place].udp = NULL;
        Py_CLEAR(object->sockets[place]);
    }
    Py_RETURN_NONE;
}

/* Drain the descriptor at *place*, and return the result. */
static int drain(const struct poll_object *object, int place, double now) {
    struct workers *workers = object->lane->workers;
    struct lane *lane = object->lane->lane;
    struct udp *udp = object->watched[place].udp;
    if (workers != NULL)
        workers_enter(workers);
    int result = udp == NULL ? (int)out_drain(lane, now) : (int)in_drain(lane, udp, now, DRAIN_BYTES);
    if (workers != NULL)
        workers_leave(workers);
    return result;
}

/* Return the milliseconds until *ends*, rounded up; -1 for ever. */
static int milliseconds(double ends, double now) {
    if (ends == INFINITY)
        return -1;
    double rest = ceil((ends - now) * 1000);
    return rest <= 0 ? 0 : rest >= INT_MAX ? INT_MAX : (int)rest;
}

/* The results of a wait for Python. */
struct found {
    struct epoll_event ready[EVENTS];
    int count;
    int drained, result; /* a descriptor whose drain needs Python, or -1, and how the drain ended */
    int error; /* of the wait itself; 0: none */
};

/* Handle the events of an epoll: drain where possible, and record the rest for Python. */
static void take_events(const struct poll_object *object, struct epoll_event (*events)[EVENTS], int count, double now,
                        bool may_drain, struct found *found) {
    for (int i = 0; i < count; i++) {
        const struct epoll_event *event = &(*events)[i];
        bool is_first = found->drained < 0;
        int place = is_first && may_drain && event->events == EPOLLIN ? place_of(object, event->data.fd) : -1;
        if (place < 0) {
            found->ready[found->count++] = *event;
            continue;
        }
        int result = drain(object, place, now);
        if (is_question(object->lane->lane, object->watched[place].udp == NULL, result)) {
            found->drained = object->watched[place].fd;
            found->result = result;
        }
    }
}

/* When a wait is over: see wait(). */
struct bounds {
    double ends, deadline;
    double ahead; /* the clock of these times minus time_now() */
    bool once;
};

/* Wait and drain, without the interpreter, until there is something for Python or a bound is reached; false if a signal
 * came first. */
static bool wait_for(const struct poll_object *object, const struct bounds *bounds, struct found *found) {
    struct epoll_event events[EVENTS];
    double now = time_now() + bounds->ahead;
    do {
        int count = epoll_wait(object->epoll, events, EVENTS, milliseconds(bounds->ends, now));
        if (count < 0 && errno == EINTR)
            return false;
        if (count < 0) {
            found->error = errno;
            return true;
        }
        now = time_now() + bounds->ahead;
        take_events(object, &events, count, now, now < bounds->deadline, found);
    } while (!found->count && found->drained < 0 && !bounds->once && now < bounds->deadline && now < bounds->ends);
    return true;
}

static PyObject *list_of_ready(const struct found *found) {
    PyObject *ready = PyList_New(found->count);
    for (int i = 0; ready != NULL && i < found->count; i++) {
        PyObject *row = Py_BuildValue("(iI)", found->ready[i].data.fd, found->ready[i].events);
        if (row == NULL || PyList_SetItem(ready, i, row))
            Py_CLEAR(ready);
    }
    return ready;
}

/* wait(now, ends, deadline, once): wait until there is something for Python, or it is *ends*, or *deadline*, after
 * which nothing is drained; *once*: return after the first events.  It is *now* by the clock of these times.
 *
 * Return (ready descriptors like epoll.poll(), descriptor of a drain that needs Python or -1, its result or 0 with
 * HAS_NEWS). */
static PyObject *wait(PyObject *self, PyObject *arguments) {
    struct poll_object *object = as_poll(self);
    double now;
    struct bounds bounds;
    int once;
    if (object == NULL || !PyArg_ParseTuple(arguments, "dddp", &now, &bounds.ends, &bounds.deadline, &once))
        return NULL;
    if (object->lane->network != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a network in memory needs the interpreter, which this releases");
        return NULL;
    }
    bounds.ahead = now - time_now();
    bounds.once = once;
    struct found found = {.drained = -1};
    for (bool is_over = false; !is_over;) {
        Py_BEGIN_ALLOW_THREADS;
        is_over = wait_for(object, &bounds, &found);
        Py_END_ALLOW_THREADS;
        if (!is_over && PyErr_CheckSignals())
            return NULL;
    }
    if (found.error) {
        errno = found.error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *ready = list_of_ready(&found);
    if (ready == NULL)
        return NULL;
    return Py_BuildValue("(NiN)", ready, found.drained, result_of((PyObject *)object->lane, found.result));
}

static PyMethodDef poll_methods[] = {
    {"watch", watch, METH_VARARGS, NULL},
    {"unwatch", unwatch, METH_O, NULL},
    {"wait", wait, METH_VARARGS, NULL},
    {0},
};

int add_poll(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_init, (void *)poll_init},
        {Py_tp_traverse, (void *)poll_traverse},
        {Py_tp_clear, (void *)poll_clear},
        {Py_tp_dealloc, (void *)poll_dealloc},
        {Py_tp_methods, poll_methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "overlay.forwarding.native.Poll",
        .basicsize = sizeof(struct poll_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    return type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
}
