/* The lane as an object: its life, and the drains of its descriptors. */
#include "lane_methods.h"
#include "object.h"
#include "simulated.h"

#include <unistd.h>

_Static_assert(sizeof(struct message) == sizeof(struct mmsghdr), "struct message must match struct mmsghdr");

static int send_many(int fd, struct message *messages, unsigned int count) {
    return sendmmsg(fd, (struct mmsghdr *)messages, count, 0);
}

static int receive_many(int fd, struct message *messages, unsigned int count) {
    return recvmmsg(fd, (struct mmsghdr *)messages, count, MSG_DONTWAIT, NULL);
}

static const struct io kernel = {read, writev, sendmsg, recvmsg, send_many, receive_many, is_crowded, arrived};

PyTypeObject *lane_type;

/* Return *value* as an initialized lane; NULL and an exception for anything else. */
struct lane_object *as_lane(PyObject *value) {
    if (PyObject_TypeCheck(value, lane_type) && lane_of(value) != NULL)
        return (struct lane_object *)value;
    PyErr_SetString(PyExc_TypeError, "a lane");
    return NULL;
}

static int lane_traverse(PyObject *self, visitproc visit, void *arg) {
    const struct lane_object *object = (struct lane_object *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(object->network);
    Py_VISIT(object->held);
    Py_VISIT(object->first);
    Py_VISIT(object->pace);
    if (object->lane == NULL || object->lane->has_joined)
        return 0; /* the first lane owns the objects that all of them share */
    const struct state *state = object->lane->state;
    for (int i = 0; i < INDEX_BUCKETS; i++)
        for (const struct keypair *each = state->indices[i]; each != NULL; each = each->chain)
            Py_VISIT(object_of(each));
    for (int i = 0; i < PLACE_BUCKETS; i++)
        for (const struct peer *each = state->places[i]; each != NULL; each = each->place_chain)
            Py_VISIT(object_of(each));
    for (int i = 0; i < STATION_SETS * STATION_WAYS; i++)
        if (state->stations[i / STATION_WAYS][i % STATION_WAYS].station != NULL)
            Py_VISIT(object_of(state->stations[i / STATION_WAYS][i % STATION_WAYS].station));
    return 0;
}

static void forget_stations(struct state *state) {
    for (int i = 0; i < STATION_SETS * STATION_WAYS; i++) {
        struct known_station *known = &state->stations[i / STATION_WAYS][i % STATION_WAYS];
        struct station *gone = known->station;
        *known = (struct known_station){0};
        if (gone != NULL)
            Py_DECREF(object_of(gone));
    }
}

/* Forget everything that was learned while it runs.  *first* and *pace*, which it points into, are kept until it
 * ends. */
static int lane_clear(PyObject *self) {
    struct lane_object *object = (struct lane_object *)self;
    struct lane *lane = object->lane;
    if (lane != NULL) {
        lane->in.keypair = NULL;
        for (int i = 0; !lane->has_joined && i < INDEX_BUCKETS; i++)
            for (struct keypair *each; (each = lane->state->indices[i]) != NULL;) {
                indices_remove(lane->state, each);
                Py_DECREF(object_of(each));
            }
        for (int i = 0; !lane->has_joined && i < PLACE_BUCKETS; i++)
            for (struct peer *each; (each = lane->state->places[i]) != NULL;) {
                places_remove(lane->state, each);
                Py_DECREF(object_of(each));
            }
        if (!lane->has_joined)
            forget_stations(lane->state);
    }
    Py_CLEAR(object->held);
    Py_CLEAR(object->network);
    return 0;
}

static void lane_dealloc(PyObject *self) {
    struct lane_object *object = (struct lane_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (object->has_buffers) {
        PyBuffer_Release(&object->arena);
        PyBuffer_Release(&object->received);
        PyBuffer_Release(&object->unit);
    }
    lane_clear(self);
    free_lane(object->lane);
    Py_XDECREF(object->first);
    Py_XDECREF(object->pace);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int lane_begin(PyObject *self, PyObject *arguments, PyObject *keywords) {
    struct lane_object *object = (struct lane_object *)self;
    unsigned long long seed;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "no keywords");
        return -1;
    }
    unsigned int number = 0;
    PyObject *pace, *first = NULL;
    if (!PyArg_ParseTuple(arguments, "w*w*w*O!K|O!I", &object->arena, &object->received, &object->unit, pace_type, &pace,
                          &seed, lane_type, &first, &number))
        return -1;
    object->has_buffers = true;
    object->pace = Py_NewRef(pace);
    if (object->arena.len < ARENA_BYTES + ARENA_SLACK || object->received.len < RECEIVE_BYTES + RECEIVE_SLACK ||
        object->unit.len < LEAD + MAXIMUM_SEALED) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small");
        return -1;
    }
    if (first != NULL && (number == 0 || number >= MOST_LANES || lane_of(first) == NULL)) {
        PyErr_SetString(PyExc_ValueError, "there is no such lane");
        return -1;
    }
    object->lane = new_lane(&kernel);
    if (object->lane == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    object->lane->out.arena = slice_of(object->arena.buf, (size_t)object->arena.len);
    object->lane->out.pace = &as_object(pace)->is.pace;
    object->lane->in.buffer = slice_of(object->received.buf, (size_t)object->received.len);
    object->lane->in.unit = slice_of(object->unit.buf, (size_t)object->unit.len);
    object->lane->state->seed = seed;
    if (first != NULL) {
        join_lane(object->lane, lane_of(first), number);
        if (lane_count <= number)
            lane_count = number + 1;
        object->first = Py_NewRef(first);
    }
    return 0;
}

/* Lane(arena, received, unit, pace, seed, first, number): the buffers that the Python path reads into, too, and the
 * tun's pace; *first* is the lane that it belongs to, under this number.  Every lane is initialized here. */
static PyObject *lane_make(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL && lane_begin(self, arguments, keywords))
        Py_CLEAR(self);
    return self;
}

/* Return *result* for Python: with a bit if there are drops, refused sends or a path to examine. */
PyObject *result_of(PyObject *self, int result) {
    struct lane *lane = lane_of(self);
    if (PyErr_Occurred())
        return NULL;
    bool has_news = lane->drop_count || lane->out.refused_count || lane->out.look != NULL;
    PyObject *before = ((struct lane_object *)self)->held;
    ((struct lane_object *)self)->held =
        lane->in.is_going && lane->in.keypair != NULL ? Py_NewRef(object_of(lane->in.keypair)) : NULL;
    Py_XDECREF(before);
    if (!lane->in.is_going)
        lane->in.keypair = NULL;
    return PyLong_FromLong(result | (has_news ? HAS_NEWS : 0));
}

/* Begin a drain in parallel with the other lanes, if any; and end it. */
static void enter(PyObject *self) {
    if (((struct lane_object *)self)->workers != NULL)
        workers_enter(((struct lane_object *)self)->workers);
}

static void leave(PyObject *self) {
    if (((struct lane_object *)self)->workers != NULL)
        workers_leave(((struct lane_object *)self)->workers);
}

/* drain_tun(now) */
static PyObject *lane_drain_tun(PyObject *self, PyObject *value) {
    double now = PyFloat_AsDouble(value);
    if (now == -1 && PyErr_Occurred())
        return NULL;
    simulate(((struct lane_object *)self)->network);
    enter(self);
    int result = (int)out_drain(lane_of(self), now);
    leave(self);
    return result_of(self, result);
}

/* drain_udp(socket, now, most) */
static PyObject *lane_drain_udp(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    PyObject *const(*given)[3] = (PyObject *const(*)[3])arguments;
    if (count != 3 || !PyObject_TypeCheck((*given)[0], udp_type) || !as_object((*given)[0])->is.udp.pace) {
        PyErr_SetString(PyExc_TypeError, "expected a socket, a time and a number of bytes");
        return NULL;
    }
    double now = PyFloat_AsDouble((*given)[1]);
    long most = PyLong_AsLong((*given)[2]);
    if (PyErr_Occurred())
        return NULL;
    simulate(((struct lane_object *)self)->network);
    enter(self);
    int result = (int)in_drain(lane_of(self), &as_object((*given)[0])->is.udp, now, (uint32_t)most);
    leave(self);
    return result_of(self, result);
}

/* drain_raw(socket, now) */
static PyObject *lane_drain_raw(PyObject *self, PyObject *arguments) {
    PyObject *udp;
    double now;
    if (!PyArg_ParseTuple(arguments, "O!d", udp_type, &udp, &now))
        return NULL;
    simulate(((struct lane_object *)self)->network);
    enter(self);
    int result = (int)raw_drain(lane_of(self), &as_object(udp)->is.udp, now);
    leave(self);
    return result_of(self, result);
}

/* simulate(objects): use these, a dictionary by descriptor, instead of the kernel. */
static PyObject *lane_simulate(PyObject *self, PyObject *value) {
    struct lane_object *object = (struct lane_object *)self;
    if (!PyDict_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "a dictionary");
        return NULL;
    }
    Py_XDECREF(object->network);
    object->network = Py_NewRef(value);
    object->lane->io = &simulated;
    Py_RETURN_NONE;
}

/* flush(peer): send the datagrams that wait for it */
static PyObject *lane_flush(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, peer_type)) {
        PyErr_SetString(PyExc_TypeError, "a peer");
        return NULL;
    }
    simulate(((struct lane_object *)self)->network);
    flush_peer(lane_of(self), &as_object(value)->is.peer);
    return result_of(self, 0);
}

/* took(count): the go that was handed back, and could take more than one packet, has taken that many */
static PyObject *lane_took(PyObject *self, PyObject *value) {
    struct out *out = &lane_of(self)->out;
    long count = PyLong_AsLong(value);
    if (PyErr_Occurred())
        return NULL;
    if (!out->takes_one)
        pace_took(out->pace, out->taken - 1 + (uint32_t)count);
    Py_RETURN_NONE;
}

/* counts(flag): from now on, whether Python's additions to counters count for this lane, or again for the first. */
static PyObject *lane_counts(PyObject *self, PyObject *value) {
    python_lane = PyObject_IsTrue(value) > 0 ? (int)lane_of(self)->number : 0;
    Py_RETURN_NONE;
}

/* set(tun to read from, tun to write to, mtu, segments, inherits_ttl, joins_udp, takes_units) */
static PyObject *lane_set(PyObject *self, PyObject *arguments) {
    struct lane *lane = lane_of(self);
    int tun, tun_out, mtu, segments, inherits_ttl, joins_udp, takes_units;
    if (!PyArg_ParseTuple(arguments, "iiipppp", &tun, &tun_out, &mtu, &segments, &inherits_ttl, &joins_udp, &takes_units))
        return NULL;
    if (mtu < 0 || mtu > MAXIMUM_IP) {
        PyErr_SetString(PyExc_ValueError, "the MTU is out of range");
        return NULL;
    }
    lane->tun = tun;
    lane->tun_out = tun_out;
    lane->state->mtu = mtu;
    lane->state->segments = (char)segments;
    lane->state->inherits_ttl = (char)inherits_ttl;
    lane->state->joins_udp = (char)joins_udp;
    lane->state->takes_units = (char)takes_units;
    Py_RETURN_NONE;
}

static PyMethodDef lane_methods[] = {
    {"set", lane_set, METH_VARARGS, NULL},
    {"simulate", lane_simulate, METH_O, NULL},
    {"drain_tun", lane_drain_tun, METH_O, NULL},
    {"drain_udp", (PyCFunction)(void (*)(void))lane_drain_udp, METH_FASTCALL, NULL},
    {"drain_raw", lane_drain_raw, METH_VARARGS, NULL},
    {"raw_row", lane_raw_row, METH_NOARGS, NULL},
    {"raw_group", lane_raw_group, METH_NOARGS, NULL},
    {"take_drops", lane_take_drops, METH_NOARGS, NULL},
    {"capture_drops", lane_capture_drops, METH_O, NULL},
    {"take_captured", lane_take_captured, METH_NOARGS, NULL},
    {"take_refused", lane_take_refused, METH_NOARGS, NULL},
    {"take_look", lane_take_look, METH_NOARGS, NULL},
    {"flush", lane_flush, METH_O, NULL},
    {"took", lane_took, METH_O, NULL},
    {"packet", lane_packet, METH_NOARGS, NULL},
    {"edge", lane_edge, METH_NOARGS, NULL},
    {"error", lane_error, METH_NOARGS, NULL},
    {"received", lane_received, METH_NOARGS, NULL},
    {"arrival", lane_arrival, METH_NOARGS, NULL},
    {"remember", lane_remember, METH_VARARGS, NULL},
    {"forget", lane_forget, METH_NOARGS, NULL},
    {"place", lane_place, METH_VARARGS, NULL},
    {"put", lane_put, METH_VARARGS, NULL},
    {"take", lane_take, METH_O, NULL},
    {"waiting", lane_waiting, METH_NOARGS, NULL},
    {"counts", lane_counts, METH_O, NULL},
    {"remember_virtual", lane_remember_virtual, METH_O, NULL},
    {"carry_frames", lane_carry_frames, METH_O, NULL},
    {"remember_station", lane_remember_station, METH_VARARGS, NULL},
    {"remember_flow", lane_remember_flow, METH_VARARGS, NULL},
    {"forget_flow", lane_forget_flow, METH_O, NULL},
    {"forget_flows", lane_forget_flows, METH_NOARGS, NULL},
    {"admit", lane_admit, METH_VARARGS, NULL},
    {"forget_admitted", lane_forget_admitted, METH_NOARGS, NULL},
    {"locate", lane_locate, METH_VARARGS, NULL},
    {"unlocate", lane_unlocate, METH_O, NULL},
    {"list", lane_list, METH_O, NULL},
    {"unlist", lane_unlist, METH_O, NULL},
    {0},
};

int add_lane(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_new, (void *)lane_make},
        {Py_tp_traverse, (void *)lane_traverse},
        {Py_tp_clear, (void *)lane_clear},
        {Py_tp_dealloc, (void *)lane_dealloc},
        {Py_tp_methods, lane_methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "overlay.forwarding.native.Lane",
        .basicsize = sizeof(struct lane_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    lane_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return lane_type == NULL ? -1 : PyModule_AddType(module, lane_type);
}
