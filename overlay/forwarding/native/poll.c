/* The wait of Python's thread (loop.py: _turn): as long as all that comes is ordinary, it never leaves C.
 *
 * The first lane's descriptors are drained here as soon as there is something to read.  Python gets the rest: what it has
 * not told of, a drain that needs it, and the time when something is due. */
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
    PyObject *sockets[WATCHED]; /* which stay as long as they are watched; NULL: the tun, or nothing */
    struct {
        int fd; /* -1: a free place */
        struct udp *udp; /* NULL: the tun */
    } watched[WATCHED];
    int epoll;
};

/* Poll(epoll, lane): wait for what is registered with an epoll. */
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

/* Forget what it drains: without a lane it is of no use any more. */
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
    PyErr_SetString(PyExc_RuntimeError, "it has not begun");
    return NULL;
}

/* Return the place of a descriptor, -1 if it is not watched. */
static int place_of(const struct poll_object *object, int fd) {
    for (int i = 0; i < WATCHED; i++)
        if (object->watched[i].fd == fd)
            return i;
    return -1;
}

/* watch(descriptor, socket or None for the tun): drain it here from now on; where there is no room it stays Python's. */
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

/* unwatch(descriptor): no more */
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

/* Drain what *place* stands for, and return the result. */
static int drain(const struct poll_object *object, int place, double now) {
    struct crew *crew = object->lane->crew;
    struct lane *lane = object->lane->lane;
    struct udp *udp = object->watched[place].udp;
    if (crew != NULL)
        crew_enter(crew);
    int result = udp == NULL ? (int)out_drain(lane, now) : (int)in_drain(lane, udp, now, DRAIN_BYTES);
    if (crew != NULL)
        crew_leave(crew);
    return result;
}

/* Return the milliseconds until *ends*, not too few; -1 for ever. */
static int milliseconds(double ends, double now) {
    if (ends == INFINITY)
        return -1;
    double rest = ceil((ends - now) * 1000);
    return rest <= 0 ? 0 : rest >= INT_MAX ? INT_MAX : (int)rest;
}

static bool add_ready(PyObject *ready, const struct epoll_event *event) {
    PyObject *row = Py_BuildValue("(iI)", event->data.fd, event->events);
    bool is_added = row != NULL && PyList_Append(ready, row) == 0;
    Py_XDECREF(row);
    return is_added;
}

/* Take what an epoll has found; return the descriptor whose drain is for Python, its result in *result*, else -1. */
static int take_events(const struct poll_object *object, const struct epoll_event *events, int count, double now,
                       bool may_drain, PyObject *ready, int *result) {
    for (int i = 0; i < count; i++) {
        int place = may_drain && events[i].events == EPOLLIN ? place_of(object, events[i].data.fd) : -1;
        if (place >= 0) {
            *result = drain(object, place, now);
            if (!is_question(object->lane->lane, object->watched[place].udp == NULL, *result))
                continue;
            for (i++; i < count; i++)
                if (!add_ready(ready, &events[i]))
                    break;
            return object->watched[place].fd;
        }
        if (!add_ready(ready, &events[i]))
            break;
    }
    *result = 0;
    return -1;
}

/* wait(now, ends, deadline, once): wait until there is something for Python, or it is *ends*, or *deadline*, from which
 * on nothing is drained; *once*: come back after what is there first.  It is *now* by the clock that tells these times.
 *
 * Return (what is ready as epoll.poll() has it, descriptor of a drain that is for Python or -1, its result or 0 with
 * HAS_NEWS). */
static PyObject *wait(PyObject *self, PyObject *arguments) {
    struct poll_object *object = as_poll(self);
    double now, ends, deadline;
    int once;
    if (object == NULL || !PyArg_ParseTuple(arguments, "dddp", &now, &ends, &deadline, &once))
        return NULL;
    double ahead = now - time_now();
    struct epoll_event events[EVENTS];
    PyObject *ready = PyList_New(0);
    int drained = -1, result = 0;
    while (ready != NULL && drained < 0 && !PyList_Size(ready)) {
        int count, timeout = milliseconds(ends, now);
        Py_BEGIN_ALLOW_THREADS;
        count = epoll_wait(object->epoll, events, EVENTS, timeout);
        Py_END_ALLOW_THREADS;
        if (count < 0 && errno != EINTR)
            PyErr_SetFromErrno(PyExc_OSError);
        else
            PyErr_CheckSignals();
        now = time_now() + ahead;
        if (!PyErr_Occurred())
            drained = take_events(object, events, count, now, now < deadline, ready, &result);
        if (PyErr_Occurred())
            Py_CLEAR(ready);
        else if (once || now >= deadline || now >= ends)
            break;
    }
    if (ready == NULL)
        return NULL;
    return Py_BuildValue("(NiN)", ready, drained, result_of((PyObject *)object->lane, result));
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
