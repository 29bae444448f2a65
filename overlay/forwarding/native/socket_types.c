/* Sockets of the underlay as objects (underlay/udp_socket.py), how they discover path MTUs, and their pace. */
#include "object.h"

LINK(udp_discovery, 0, udp, discovery, discovery);
LINK(udp_pace, 2, udp, pace, pace);
LINK(udp_sends_by, 3, udp, sends_by, udp);

static PyMemberDef discovery_members[] = {MEMBER("omits", T_BOOL, discovery, omits), {0}};

static PyMemberDef udp_members[] = {
    MEMBER("closes_at", T_DOUBLE, udp, closes_at),
    MEMBER("descriptor", T_INT, udp, fd),
    MEMBER("layout", T_INT, udp, layout),
    MEMBER("protocol", T_INT, udp, protocol),
    {0},
};

enum { SPREAD_LINK = 4 }; /* after those of udp_links */

/* spread_over(sockets): spread flows over these; an empty list means unknown, and too many are for Python. */
static PyObject *udp_spread_over(PyObject *self, PyObject *pool) {
    struct udp *udp = &as_object(self)->is.udp;
    if (!PyList_Check(pool)) {
        PyErr_SetString(PyExc_TypeError, "expected a list of sockets");
        return NULL;
    }
    PyObject *kept = PyList_GetSlice(pool, 0, PyList_Size(pool));
    if (kept == NULL)
        return NULL;
    udp->spread_count = 0;
    PyObject *before = as_object(self)->links[SPREAD_LINK];
    as_object(self)->links[SPREAD_LINK] = kept;
    Py_XDECREF(before);
    Py_ssize_t count = PyList_Size(kept);
    for (Py_ssize_t i = 0; i < count && count <= MOST_FLOWS; i++) {
        PyObject *each = PyList_GetItem(kept, i);
        if (!PyObject_TypeCheck(each, udp_type))
            break;
        udp->spread[i] = &as_object(each)->is.udp;
        if (i == count - 1)
            udp->spread_count = (int)count;
    }
    Py_RETURN_NONE;
}

static PyMethodDef udp_methods[] = {{"spread_over", udp_spread_over, METH_O, NULL}, {0}};

static PyObject *get_shares(PyObject *self, void *closure) {
    (void)closure;
    PyObject *found = as_object(self)->links[1];
    return Py_NewRef(found == NULL ? Py_None : found);
}

static int set_shares(PyObject *self, PyObject *value, void *closure) {
    (void)closure;
    PyObject *before = as_object(self)->links[1];
    as_object(self)->is.udp.has_shares = value != NULL && value != Py_None;
    as_object(self)->links[1] = Py_XNewRef(value);
    Py_XDECREF(before);
    return 0;
}

static PyGetSetDef udp_links[] = {
    LINKED("discovery", udp_discovery),
    LINKED("pace", udp_pace),
    LINKED("sends_by", udp_sends_by),
    {"shares", get_shares, set_shares, NULL, NULL},
    {0},
};

static PyMemberDef pace_members[] = {
    MEMBER("_last", T_DOUBLE, pace, last),
    MEMBER("_quick", T_UINT, pace, quick),
    MEMBER("_is_single", T_BOOL, pace, is_single),
    {0},
};

struct udp *as_udp(PyObject *value) {
    if (PyObject_TypeCheck(value, udp_type) && as_object(value)->is.udp.pace != NULL)
        return &as_object(value)->is.udp;
    PyErr_SetString(PyExc_TypeError, "a socket");
    return NULL;
}

int add_sockets(PyObject *module) {
    return TYPE(discovery_type, "DiscoveryState", discovery, discovery_members, no_links, no_methods, free_object) ||
           TYPE(pace_type, "BatchingState", pace, pace_members, no_links, no_methods, free_object) ||
           TYPE(udp_type, "UdpSocketState", udp, udp_members, udp_links, udp_methods, free_object);
}
