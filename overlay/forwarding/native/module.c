/* The Python side: state as objects, and the lane that drains descriptors.
 *
 * Each type of state is a base class (state.py says of what, and has the same without C): its members are the fields of
 * the structures in native.h.  An object that C is to find through another is a link: the structure has a pointer, and
 * a reference beside it keeps the object alive. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <structmember.h>

#include "lanes.h"
#include "module.h"
#include "native.h"
#include "shared.h"
#include "simulated.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { LINKS = 8 };

/* An object of state: links, and the structure. */
struct object {
    PyObject_HEAD
    PyObject *links[LINKS];
    union {
        struct window window;
        struct traffic traffic;
        struct contact contact;
        struct path path;
        struct asking asking;
        struct discovery discovery;
        struct pace pace;
        struct udp udp;
        struct local_end local_end;
        struct unit_size unit_size;
        struct unit_key unit_key;
        struct bulk bulk;
        struct keypair keypair;
        struct slots slots;
        struct peer peer;
        struct tunnel tunnel;
        struct unsealed unsealed;
        struct server server;
    } is; /* basicsize is that of the one */
};

#define STRUCTURE offsetof(struct object, is)
#define FIELD(structure, field) (STRUCTURE + offsetof(struct structure, field))

static PyTypeObject *window_type, *traffic_type, *contact_type, *path_type, *asking_type, *discovery_type, *pace_type, *udp_type,
    *local_type, *unit_size_type, *unit_key_type, *bulk_type, *keypair_type, *slots_type, *peer_type, *tunnel_type, *unsealed_type, *server_type;

static struct object *as_object(PyObject *self) { return (struct object *)self; }

static PyObject *object_of(const void *structure) { return (PyObject *)((char *)(uintptr_t)structure - STRUCTURE); }

/* Life */

static int traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < LINKS; i++)
        Py_VISIT(as_object(self)->links[i]);
    return 0;
}

static int clear(PyObject *self) {
    for (int i = 0; i < LINKS; i++)
        Py_CLEAR(as_object(self)->links[i]);
    return 0;
}

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Links */

struct link {
    size_t at; /* of the pointer */
    int number;
    PyTypeObject **type;
};

static PyObject *get_link(PyObject *self, void *closure) {
    const struct link *link = closure;
    PyObject *found = as_object(self)->links[link->number];
    return Py_NewRef(found == NULL ? Py_None : found);
}

static int set_link(PyObject *self, PyObject *value, void *closure) {
    const struct link *link = closure;
    void *pointer = NULL;
    if (value == Py_None)
        value = NULL;
    if (value != NULL && PyObject_TypeCheck(value, *link->type))
        pointer = &as_object(value)->is; /* what is of another kind is for Python alone */
    memcpy((char *)self + link->at, &pointer, sizeof pointer);
    PyObject *before = as_object(self)->links[link->number];
    as_object(self)->links[link->number] = Py_XNewRef(value);
    Py_XDECREF(before);
    return 0;
}

#define LINK(name, number, structure, field, type) \
    static struct link name = {FIELD(structure, field), number, &type##_type}
#define LINKED(attribute, link) {attribute, get_link, set_link, NULL, &link}

LINK(contact_reporting, 0, contact, reporting, keypair);
LINK(udp_discovery, 0, udp, discovery, discovery);
LINK(udp_pace, 2, udp, pace, pace);
LINK(udp_sends_by, 3, udp, sends_by, udp);
LINK(local_socket, 0, local_end, udp, udp);
LINK(bulk_key, 0, bulk, key, unit_key);
LINK(bulk_size, 1, bulk, size, unit_size);
LINK(bulk_window, 2, bulk, window, window);
LINK(keypair_bulk, 0, keypair, bulk, bulk);
LINK(keypair_window, 1, keypair, window, window);
LINK(keypair_state, 2, keypair, peer, peer);
LINK(keypair_session, 4, keypair, session, keypair);
LINK(slots_current, 0, slots, current, keypair);
LINK(slots_settled, 1, slots, settled, keypair);
LINK(peer_traffic, 0, peer, traffic, traffic);
LINK(peer_contact, 1, peer, contact, contact);
LINK(peer_path, 2, peer, path, path);
LINK(peer_asking, 3, peer, asking, asking);
LINK(peer_local, 4, peer, local, local);
LINK(peer_slots, 5, peer, slots, slots);
LINK(peer_tunnel, 6, peer, tunnel, tunnel);
LINK(peer_unsealed, 7, peer, unsealed, unsealed);
LINK(server_peer, 0, server, peer, peer);

/* The replay window */

static bool as_counter(PyObject *value, uint64_t *counter) {
    *counter = PyLong_AsUnsignedLongLong(value);
    return !(*counter == UINT64_MAX && PyErr_Occurred());
}

static PyObject *window_check_method(PyObject *self, PyObject *value) {
    uint64_t counter;
    if (!as_counter(value, &counter))
        return NULL;
    return PyBool_FromLong(window_check(&as_object(self)->is.window, counter));
}

static PyObject *window_accept_method(PyObject *self, PyObject *value) {
    uint64_t counter;
    if (!as_counter(value, &counter))
        return NULL;
    return PyBool_FromLong(window_accept(&as_object(self)->is.window, counter));
}

static PyObject *window_mark_method(PyObject *self, PyObject *value) {
    PyObject *answer = window_accept_method(self, value);
    if (answer == NULL)
        return NULL;
    Py_DECREF(answer);
    Py_RETURN_NONE;
}

static PyObject *window_run_method(PyObject *self, PyObject *arguments) {
    unsigned long long first, count;
    if (!PyArg_ParseTuple(arguments, "KK", &first, &count))
        return NULL;
    if (count > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "more counters than come at once");
        return NULL;
    }
    return PyBool_FromLong(window_accept_run(&as_object(self)->is.window, first, count));
}

static PyMethodDef window_methods[] = {
    {"check", window_check_method, METH_O, NULL},
    {"accept", window_accept_method, METH_O, NULL},
    {"mark", window_mark_method, METH_O, NULL},
    {"accept_run", window_run_method, METH_VARARGS, NULL},
    {0},
};

/* Plain structures */

#define MEMBER(name, type, structure, field) {name, type, FIELD(structure, field), 0, NULL}

/* Counters of all lanes together.  What Python adds is added to those of the lane that it works for. */

static int python_lane; /* under the interpreter lock */

static int64_t *count_of(PyObject *self, const void *closure, int lane) {
    return (int64_t *)((char *)&as_object(self)->is.traffic.lanes[lane] + *(const size_t *)closure);
}

static int64_t sum_of(PyObject *self, const void *closure) {
    int64_t sum = 0;
    for (int lane = 0; lane < MOST_LANES; lane++)
        sum += *count_of(self, closure, lane);
    return sum;
}

static PyObject *get_sum(PyObject *self, void *closure) { return PyLong_FromLongLong(sum_of(self, closure)); }

static int set_sum(PyObject *self, PyObject *value, void *closure) {
    long long sum = value == NULL ? 0 : PyLong_AsLongLong(value);
    if (PyErr_Occurred())
        return -1;
    *count_of(self, closure, python_lane) += sum - sum_of(self, closure);
    return 0;
}

#define COUNT(field) {#field, get_sum, set_sum, NULL, &(size_t){offsetof(struct counts, field)}}

static PyGetSetDef traffic_sums[] = {
    COUNT(tx_bytes), COUNT(rx_bytes), COUNT(tx_packets), COUNT(rx_packets), COUNT(tx_units), COUNT(rx_units), {0},
};

/* by_lane(count): for each of so many lanes (sent bytes, received bytes, sent packets, received packets) */
static PyObject *traffic_by_lane(PyObject *self, PyObject *value) {
    long count = PyLong_AsLong(value);
    if (PyErr_Occurred())
        return NULL;
    PyObject *list = PyList_New(0);
    for (long lane = 0; list != NULL && lane < count && lane < MOST_LANES; lane++) {
        const struct counts *counts = &as_object(self)->is.traffic.lanes[lane];
        PyObject *row = Py_BuildValue("(LLLL)", (long long)counts->tx_bytes, (long long)counts->rx_bytes,
                                      (long long)counts->tx_packets, (long long)counts->rx_packets);
        if (row == NULL || PyList_Append(list, row))
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static PyMethodDef traffic_methods[] = {{"by_lane", traffic_by_lane, METH_O, NULL}, {0}};

static PyMemberDef contact_members[] = {
    MEMBER("unanswered_since", T_DOUBLE, contact, unanswered_since),
    MEMBER("owed_since", T_DOUBLE, contact, owed_since),
    MEMBER("last_traffic", T_DOUBLE, contact, last_traffic),
    MEMBER("last_received", T_DOUBLE, contact, last_received),
    MEMBER("wanted_at", T_DOUBLE, contact, wanted_at),
    MEMBER("armed", T_INT, contact, armed),
    MEMBER("is_silent", T_BOOL, contact, is_silent),
    {0},
};
static PyGetSetDef contact_links[] = {LINKED("reporting", contact_reporting), {0}};

static PyMemberDef path_members[] = {
    MEMBER("mtu", T_INT, path, mtu),
    MEMBER("due", T_DOUBLE, path, due),
    MEMBER("omits", T_BOOL, path, omits),
    {0},
};

static PyMemberDef asking_members[] = {
    MEMBER("is_worth_it", T_BOOL, asking, is_worth_it),
    MEMBER("_next", T_DOUBLE, asking, next),
    {0},
};
static PyMemberDef discovery_members[] = {MEMBER("omits", T_BOOL, discovery, omits), {0}};

static PyMemberDef udp_members[] = {
    MEMBER("closes_at", T_DOUBLE, udp, closes_at),
    MEMBER("descriptor", T_INT, udp, fd),
    MEMBER("layout", T_INT, udp, layout),
    MEMBER("protocol", T_INT, udp, protocol),
    {0},
};

enum { SPREAD_LINK = 4 }; /* behind those of udp_links */

/* spread_over(sockets): spread flows over these; none are not known yet, and too many are for Python. */
static PyObject *udp_spread_over(PyObject *self, PyObject *pool) {
    struct udp *udp = &as_object(self)->is.udp;
    if (!PyList_Check(pool)) {
        PyErr_SetString(PyExc_TypeError, "a list of sockets");
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

static PyGetSetDef local_links[] = {LINKED("socket", local_socket), {0}};

/* near(level, kind, data, received): the control message to send from, and the address that was called, packed. */
static PyObject *local_near(PyObject *self, PyObject *arguments) {
    struct local_end *local = &as_object(self)->is.local_end;
    const char *data, *received;
    Py_ssize_t size, received_size;
    int level, kind;
    if (!PyArg_ParseTuple(arguments, "iiy#y#", &level, &kind, &data, &size, &received, &received_size))
        return NULL;
    if (size > (Py_ssize_t)sizeof local->source || received_size > (Py_ssize_t)sizeof local->received) {
        PyErr_SetString(PyExc_ValueError, "too long");
        return NULL;
    }
    local->source_level = level;
    local->source_kind = kind;
    local->source_size = (int)size;
    local->received_size = (int)received_size;
    memcpy(local->source, data, (size_t)size);
    memcpy(local->received, received, (size_t)received_size);
    Py_RETURN_NONE;
}

/* _leaves_by(kind, socket or None): what has marks of this kind leaves from there, where there are no ports. */
static PyObject *local_leaves_by(PyObject *self, PyObject *arguments) {
    struct local_end *local = &as_object(self)->is.local_end;
    int kind;
    PyObject *udp;
    if (!PyArg_ParseTuple(arguments, "iO", &kind, &udp))
        return NULL;
    if (kind < 0 || kind >= RAW_KINDS) {
        PyErr_SetString(PyExc_ValueError, "no such kind");
        return NULL;
    }
    bool is_there = PyObject_TypeCheck(udp, udp_type);
    local->senders[kind] = is_there ? &as_object(udp)->is.udp : NULL;
    PyObject *before = as_object(self)->links[1 + kind];
    as_object(self)->links[1 + kind] = is_there ? Py_NewRef(udp) : NULL;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyMethodDef local_methods[] = {
    {"_near", local_near, METH_VARARGS, NULL},
    {"_leaves_by", local_leaves_by, METH_VARARGS, NULL},
    {0},
};

static PyMemberDef unit_size_members[] = {
    MEMBER("limit", T_INT, unit_size, limit),
    MEMBER("is_plain", T_BOOL, unit_size, is_plain),
    MEMBER("waits_since", T_DOUBLE, unit_size, waits_since),
    MEMBER("_plain_until", T_DOUBLE, unit_size, plain_until),
    MEMBER("_next", T_ULONGLONG, unit_size, next),
    MEMBER("_has_probe", T_BOOL, unit_size, has_probe),
    MEMBER("_is_probe_late", T_BOOL, unit_size, is_probe_late),
    MEMBER("_probe_counter", T_ULONGLONG, unit_size, probe_counter),
    MEMBER("_probe_at", T_DOUBLE, unit_size, probe_at),
    {0},
};

/* Tunnels in the clear */

/* _stand(layout, protocols, prefixes, identifier or -1, own Ethernet address, flows): once, when it is made */
static PyObject *tunnel_stand(PyObject *self, PyObject *arguments) {
    struct tunnel *tunnel = &as_object(self)->is.tunnel;
    const char *prefix4, *prefix6, *mac;
    Py_ssize_t size4, size6, mac_size;
    int layout, protocol4, protocol6;
    long long identifier;
    unsigned int flows;
    if (!PyArg_ParseTuple(arguments, "i(ii)(y#y#)Ly#I", &layout, &protocol4, &protocol6, &prefix4, &size4, &prefix6,
                          &size6, &identifier, &mac, &mac_size, &flows))
        return NULL;
    if (size4 != size6 || size4 > PREFIX_BYTES || mac_size != (Py_ssize_t)sizeof tunnel->own_mac || flows > MOST_FLOWS) {
        PyErr_SetString(PyExc_ValueError, "no such tunnel");
        return NULL;
    }
    memcpy(tunnel->prefix[0], prefix4, (size_t)size4);
    memcpy(tunnel->prefix[1], prefix6, (size_t)size6);
    memcpy(tunnel->own_mac, mac, sizeof tunnel->own_mac);
    tunnel->prefix_size = (uint32_t)size4;
    tunnel->protocols[0] = protocol4;
    tunnel->protocols[1] = protocol6;
    tunnel->has_identifier = identifier >= 0;
    tunnel->identifier = (uint32_t)identifier;
    tunnel->flows = flows;
    tunnel->layout = (uint8_t)layout;
    Py_RETURN_NONE;
}

static PyMethodDef tunnel_methods[] = {{"_stand", tunnel_stand, METH_VARARGS, NULL}, {0}};

static PyMemberDef unsealed_members[] = {
    MEMBER("segment_limit", T_INT, unsealed, segment_limit),
    MEMBER("segment_limit_ends", T_DOUBLE, unsealed, segment_limit_ends),
    MEMBER("segment_size", T_INT, unsealed, segment_size),
    {0},
};

/* Keys */

static uint32_t lane_count = 1; /* for which keys are prepared: as many as there have been beside one another */

/* Return the 32 bytes of a key; NULL and an exception for anything else. */
static const uint8_t *as_key(const char *key, Py_ssize_t size) {
    if (size == 32)
        return (const uint8_t *)key;
    PyErr_SetString(PyExc_ValueError, "a key has 32 bytes");
    return NULL;
}

static bool take_key(struct aead *aead, int cipher, const char *bytes, Py_ssize_t size, bool seals) {
    const uint8_t *key = as_key(bytes, size);
    if (key == NULL)
        return false;
    release(aead);
    if (aead_init(aead, cipher, key, seals))
        return true;
    PyErr_NoMemory();
    return false;
}

static bool take_seals(struct aead seals[], int cipher, const char *bytes, Py_ssize_t size) {
    for (uint32_t lane = 0; lane < lane_count; lane++)
        if (!take_key(&seals[lane], cipher, bytes, size, true))
            return false;
    return true;
}

static void free_seals(struct aead seals[]) {
    for (uint32_t lane = 0; lane < MOST_LANES; lane++)
        release(&seals[lane]);
}

static PyMemberDef unit_key_members[] = {
    MEMBER("cipher", T_INT, unit_key, cipher),
    MEMBER("receiver_index", T_UINT, unit_key, receiver_index),
    MEMBER("counter", T_ULONGLONG, unit_key, counter),
    MEMBER("blocks", T_ULONGLONG, unit_key, blocks),
    {0},
};

/* _seals(cipher, key, encrypt_into of the same key or None) */
static PyObject *unit_key_seals(PyObject *self, PyObject *arguments) {
    struct aead *seals = as_object(self)->is.unit_key.seals;
    int cipher;
    const char *key;
    Py_ssize_t size;
    PyObject *method;
    if (!PyArg_ParseTuple(arguments, "iy#O", &cipher, &key, &size, &method) || !take_seals(seals, cipher, key, size))
        return NULL;
    lend(&seals[0], cipher, method);
    Py_RETURN_NONE;
}

static PyMethodDef unit_key_methods[] = {{"_seals", unit_key_seals, METH_VARARGS, NULL}, {0}};

static void free_unit_key(PyObject *self) {
    free_seals(as_object(self)->is.unit_key.seals);
    free_object(self);
}

static PyMemberDef bulk_members[] = {
    MEMBER("hello_due", T_DOUBLE, bulk, hello_due),
    MEMBER("_newest_at", T_DOUBLE, bulk, newest_at),
    MEMBER("newest", T_ULONGLONG, bulk, newest),
    MEMBER("units", T_ULONGLONG, bulk, units),
    MEMBER("datagrams", T_ULONGLONG, bulk, datagrams),
    MEMBER("missing", T_ULONGLONG, bulk, missing),
    MEMBER("most", T_INT, bulk, most),
    MEMBER("fragments", T_INT, bulk, fragments),
    MEMBER("packet", T_INT, bulk, packet),
    MEMBER("told_packet", T_INT, bulk, told_packet),
    MEMBER("has_heard", T_BOOL, bulk, has_heard),
    MEMBER("has_said_hello", T_BOOL, bulk, has_said_hello),
    MEMBER("is_put_off", T_BOOL, bulk, is_put_off),
    {0},
};
static PyGetSetDef bulk_links[] = {
    LINKED("key", bulk_key),
    LINKED("size", bulk_size),
    LINKED("window", bulk_window),
    {0},
};

/* _opens(cipher, key, decrypt_into of the same key or None) */
static PyObject *bulk_opens(PyObject *self, PyObject *arguments) {
    int cipher;
    const char *key;
    Py_ssize_t size;
    PyObject *method;
    if (!PyArg_ParseTuple(arguments, "iy#O", &cipher, &key, &size, &method))
        return NULL;
    if (cipher < 1 || cipher > 2) {
        PyErr_SetString(PyExc_ValueError, "a cipher is 1 or 2");
        return NULL;
    }
    struct aead *opens = &as_object(self)->is.bulk.opens[cipher - 1];
    if (!take_key(opens, cipher, key, size, false))
        return NULL;
    lend(opens, cipher, method);
    Py_RETURN_NONE;
}

static PyMethodDef bulk_methods[] = {{"_opens", bulk_opens, METH_VARARGS, NULL}, {0}};

static void free_bulk(PyObject *self) {
    release(&as_object(self)->is.bulk.opens[0]);
    release(&as_object(self)->is.bulk.opens[1]);
    free_object(self);
}

static PyMemberDef keypair_members[] = {
    MEMBER("counter", T_ULONGLONG, keypair, counter),
    MEMBER("lane", T_UINT, keypair, lane),
    {"local_index", T_UINT, FIELD(keypair, local_index), READONLY, NULL},
    {"remote_index", T_UINT, FIELD(keypair, remote_index), READONLY, NULL},
    MEMBER("reject_at", T_DOUBLE, keypair, reject_at),
    MEMBER("rekey_at", T_DOUBLE, keypair, rekey_at),
    MEMBER("rekey_receive_at", T_DOUBLE, keypair, rekey_receive_at),
    {0},
};
static PyGetSetDef keypair_links[] = {
    LINKED("bulk", keypair_bulk),
    LINKED("window", keypair_window),
    LINKED("_state", keypair_state),
    LINKED("session", keypair_session),
    {0},
};

/* _keys(local index, remote index, key to seal with, key to open with): once, before it is listed */
static PyObject *keypair_keys(PyObject *self, PyObject *arguments) {
    struct keypair *keypair = &as_object(self)->is.keypair;
    const char *send, *receive;
    Py_ssize_t send_size, receive_size;
    unsigned int local_index, remote_index;
    if (!PyArg_ParseTuple(arguments, "IIy#y#", &local_index, &remote_index, &send, &send_size, &receive, &receive_size))
        return NULL;
    if (keypair->is_listed || keypair->open.context != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a keypair has its keys once");
        return NULL;
    }
    keypair->local_index = local_index;
    keypair->remote_index = remote_index;
    pthread_mutex_init(&keypair->receiving, NULL);
    pthread_mutex_init(&keypair->sending, NULL);
    if (!take_seals(keypair->seals, 0, send, send_size) ||
        !take_key(&keypair->open, 0, receive, receive_size, false))
        return NULL;
    Py_RETURN_NONE;
}

/* _send_by(list of keypairs, None where it is this one): which each lane of this node seals with */
static PyObject *keypair_send_by(PyObject *self, PyObject *value) {
    struct keypair *keypair = &as_object(self)->is.keypair;
    if (!PyList_Check(value) || PyList_Size(value) > MOST_LANES) {
        PyErr_SetString(PyExc_TypeError, "a list of keypairs, one for each lane");
        return NULL;
    }
    PyObject *kept = PyList_GetSlice(value, 0, PyList_Size(value));
    if (kept == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < MOST_LANES; i++) {
        PyObject *each = i < PyList_Size(kept) ? PyList_GetItem(kept, i) : Py_None;
        bool is_one = PyObject_TypeCheck(each, keypair_type) && as_object(each)->is.keypair.lane < MOST_LANES;
        keypair->by_lane[i] = is_one ? &as_object(each)->is.keypair : NULL;
    }
    PyObject *before = as_object(self)->links[3];
    as_object(self)->links[3] = kept;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyMethodDef keypair_methods[] = {
    {"_keys", keypair_keys, METH_VARARGS, NULL},
    {"_send_by", keypair_send_by, METH_O, NULL},
    {0},
};

static void free_keypair(PyObject *self) {
    free_seals(as_object(self)->is.keypair.seals);
    release(&as_object(self)->is.keypair.open);
    free_object(self);
}

static PyGetSetDef slots_links[] = {LINKED("current", slots_current), LINKED("settled", slots_settled), {0}};

/* Peers */

static PyMemberDef peer_members[] = {
    MEMBER("number", T_INT, peer, number),
    MEMBER("is_held", T_BOOL, peer, is_held),
    {0},
};
static PyGetSetDef peer_links[] = {
    LINKED("traffic", peer_traffic), LINKED("contact", peer_contact), LINKED("path", peer_path),
    LINKED("asking", peer_asking),   LINKED("local", peer_local),     LINKED("keypairs", peer_slots),
    LINKED("tunnel", peer_tunnel),   LINKED("unsealed", peer_unsealed),
    {0},
};

/* move(address, port, flow information, scope): send there; without an address nowhere. */
static PyObject *peer_move(PyObject *self, PyObject *arguments) {
    struct peer *peer = &as_object(self)->is.peer;
    const char *address;
    Py_ssize_t size;
    unsigned int port = 0, flow = 0, scope = 0;
    if (!PyArg_ParseTuple(arguments, "y#|III", &address, &size, &port, &flow, &scope))
        return NULL;
    memset(&peer->endpoint, 0, sizeof peer->endpoint);
    peer->endpoint_size = 0;
    peer->place_size = 0;
    if (size == 4) {
        peer->endpoint.v4.sin_family = AF_INET;
        peer->endpoint.v4.sin_port = htons((uint16_t)port);
        memcpy(&peer->endpoint.v4.sin_addr, address, 4);
        peer->endpoint_size = sizeof peer->endpoint.v4;
    } else if (size == 16) {
        peer->endpoint.v6.sin6_family = AF_INET6;
        peer->endpoint.v6.sin6_port = htons((uint16_t)port);
        peer->endpoint.v6.sin6_flowinfo = htonl(flow);
        peer->endpoint.v6.sin6_scope_id = scope;
        memcpy(&peer->endpoint.v6.sin6_addr, address, 16);
        peer->endpoint_size = sizeof peer->endpoint.v6;
    } else if (size) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return NULL;
    }
    memcpy(peer->place, address, (size_t)size);
    peer->place_size = (int)size;
    Py_RETURN_NONE;
}

static void free_peer(PyObject *self) {
    routes_forget();
    admissions_forget();
    free_object(self);
}

static PyMethodDef peer_methods[] = {{"move", peer_move, METH_VARARGS, NULL}, {0}};

static PyMemberDef server_members[] = {
    MEMBER("packets", T_LONGLONG, server, packets),
    MEMBER("bytes", T_LONGLONG, server, bytes),
    MEMBER("connections", T_LONGLONG, server, connections),
    MEMBER("dscp", T_INT, server, dscp),
    {0},
};
static PyGetSetDef server_links[] = {LINKED("_goes_to", server_peer), {0}};

static void free_server(PyObject *self) {
    flows_forget();
    free_object(self);
}

/* The lane */

static const char *const reasons[DROP_REASONS] = {
    [DROP_UDP_ERROR] = "udp_error",
    [DROP_OVERSIZED] = "oversized",
    [DROP_UNKNOWN_TYPE] = "unknown_type",
    [DROP_TRANSPORT_SHORT] = "transport_short",
    [DROP_UNKNOWN_INDEX] = "unknown_index",
    [DROP_TRANSPORT_AUTH] = "transport_auth",
    [DROP_REPLAY] = "replay",
    [DROP_SOURCE] = "source",
    [DROP_TUN_FULL] = "tun_full",
    [DROP_TUN_REFUSED] = "tun_refused",
    [DROP_KEYPAIR_EXPIRED] = "keypair_expired",
    [DROP_FRAGMENT_HEADER] = "fragment_header",
    [DROP_FRAGMENT_SIZE] = "fragment_size",
    [DROP_UNIT_UNEXPECTED] = "unit_unexpected",
    [DROP_UNIT_SHORT] = "unit_short",
    [DROP_UNIT_AUTH] = "unit_auth",
    [DROP_UNIT_INCOMPLETE] = "unit_incomplete",
    [DROP_OUTER_SOURCE] = "outer_source",
    [DROP_INITIATION_SIZE] = "initiation_size",
    [DROP_RESPONSE_SIZE] = "response_size",
    [DROP_COOKIE_SIZE] = "cookie_size",
    [DROP_FRAGMENT_SHORT] = "fragment_short",
};

_Static_assert(sizeof(struct message) == sizeof(struct mmsghdr), "as the kernel has it");

static int send_many(int fd, struct message *messages, unsigned int count) {
    return sendmmsg(fd, (struct mmsghdr *)messages, count, 0);
}

static int receive_many(int fd, struct message *messages, unsigned int count) {
    return recvmmsg(fd, (struct mmsghdr *)messages, count, MSG_DONTWAIT, NULL);
}

static const struct io kernel = {read, writev, sendmsg, recvmsg, send_many, receive_many, is_crowded};

static PyTypeObject *lane_type;

static struct lane *lane_of(PyObject *self) { return ((struct lane_object *)self)->lane; }

/* Return *value* as a lane that has begun; NULL and an exception for anything else. */
struct lane_object *as_lane(PyObject *value) {
    if (PyObject_TypeCheck(value, lane_type) && lane_of(value) != NULL)
        return (struct lane_object *)value;
    PyErr_SetString(PyExc_TypeError, "a lane");
    return NULL;
}

struct udp *as_udp(PyObject *value) {
    if (PyObject_TypeCheck(value, udp_type) && as_object(value)->is.udp.pace != NULL)
        return &as_object(value)->is.udp;
    PyErr_SetString(PyExc_TypeError, "a socket");
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
        return 0; /* the first lane owns what all of them share */
    const struct state *state = object->lane->state;
    for (int i = 0; i < INDEX_BUCKETS; i++)
        for (const struct keypair *each = state->indices[i]; each != NULL; each = each->chain)
            Py_VISIT(object_of(each));
    for (int i = 0; i < PLACE_BUCKETS; i++)
        for (const struct peer *each = state->places[i]; each != NULL; each = each->place_chain)
            Py_VISIT(object_of(each));
    return 0;
}

/* Forget all that comes to be known while it runs.  *first* and *pace*, which it points into, are kept until it ends. */
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
        PyErr_SetString(PyExc_ValueError, "no such lane");
        return -1;
    }
    object->lane = new_lane(&kernel);
    if (object->lane == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    object->lane->out.arena = object->arena.buf;
    object->lane->out.pace = &as_object(pace)->is.pace;
    object->lane->in.buffer = object->received.buf;
    object->lane->in.unit = object->unit.buf;
    object->lane->state->seed = seed;
    if (first != NULL) {
        join_lane(object->lane, lane_of(first), number);
        if (lane_count <= number)
            lane_count = number + 1;
        object->first = Py_NewRef(first);
    }
    return 0;
}

/* Lane(arena, received, unit, pace, seed, first, number): the buffers that the Python path reads into as well, and the
 * tun's pace; *first* is the lane beside which it is the one of this number.  There is none that has not begun. */
static PyObject *lane_make(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    PyObject *self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL && lane_begin(self, arguments, keywords))
        Py_CLEAR(self);
    return self;
}

/* Return *result* as Python gets it: with a bit where there are drops, refused sends or a look due. */
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

/* Begin a drain beside those of other lanes, if there are any; and end it. */
static void enter(PyObject *self) {
    if (((struct lane_object *)self)->crew != NULL)
        crew_enter(((struct lane_object *)self)->crew);
}

static void leave(PyObject *self) {
    if (((struct lane_object *)self)->crew != NULL)
        crew_leave(((struct lane_object *)self)->crew);
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
    if (count != 3 || !PyObject_TypeCheck(arguments[0], udp_type) || !as_object(arguments[0])->is.udp.pace) {
        PyErr_SetString(PyExc_TypeError, "a socket, a time and a number of bytes");
        return NULL;
    }
    double now = PyFloat_AsDouble(arguments[1]);
    long most = PyLong_AsLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    simulate(((struct lane_object *)self)->network);
    enter(self);
    int result = (int)in_drain(lane_of(self), &as_object(arguments[0])->is.udp, now, (uint32_t)most);
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

static PyObject *name_of(const union address *name) {
    size_t size = name->any.sa_family == AF_INET ? sizeof name->v4 : sizeof name->v6;
    return PyBytes_FromStringAndSize((const char *)name, (Py_ssize_t)size);
}

/* Return (payload, who sent it as a struct sockaddr, ECN) of a row that is handed back. */
static PyObject *lane_raw_row(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct raw *raw = &lane_of(self)->raw;
    uint32_t row = raw->back_row, size = raw->messages[row].msg_len, inside = size < raw->stride ? size : raw->stride;
    uint32_t header = raw->header < inside ? raw->header : inside;
    const char *rest = raw->parts[row][1].iov_base;
    PyObject *payload = PyBytes_FromStringAndSize((const char *)raw->parts[row][0].iov_base + header, inside - header);
    if (payload != NULL && size > inside)
        PyBytes_ConcatAndDel(&payload, PyBytes_FromStringAndSize(rest, size - inside));
    return payload == NULL ? NULL : Py_BuildValue("(NNI)", payload, name_of(&raw->names[row]), raw->tos & 3);
}

/* Return (rows, sizes, stride, who sent them, TOS, size of the outer header) of a group that is handed back. */
static PyObject *lane_raw_group(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct raw *raw = &lane_of(self)->raw;
    PyObject *sizes = PyList_New(0);
    for (uint32_t row = raw->first; sizes != NULL && row < raw->end; row++) {
        PyObject *size = PyLong_FromUnsignedLong(raw->messages[row].msg_len);
        if (size == NULL || PyList_Append(sizes, size))
            Py_CLEAR(sizes);
        Py_XDECREF(size);
    }
    if (sizes == NULL)
        return NULL;
    return Py_BuildValue("(y#y#NINII)", (const char *)raw->parts[raw->first][0].iov_base,
                         (Py_ssize_t)((raw->end - raw->first) * raw->stride),
                         raw->fits ? "" : (const char *)raw->parts[raw->first][1].iov_base,
                         raw->fits ? (Py_ssize_t)0 : (Py_ssize_t)((raw->end - raw->first) * RAW_REST), sizes,
                         raw->stride, name_of(&raw->names[raw->first]), raw->tos, raw->header);
}

/* simulate(objects): ask these, a dictionary by descriptor, for what the kernel is asked for. */
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

/* Take the drops that were noted: a list of (number of the peer or -1, reason, count). */
static PyObject *lane_take_drops(PyObject *self, PyObject *unused) {
    (void)unused;
    struct lane *lane = lane_of(self);
    PyObject *list = PyList_New(lane->drop_count);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < lane->drop_count; i++) {
        const struct drop *drop = &lane->drops[i];
        PyObject *row = Py_BuildValue("(isL)", drop->peer == NULL ? -1 : drop->peer->number, reasons[drop->reason],
                                      (long long)drop->count);
        if (row == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, row);
    }
    lane->drop_count = 0;
    return list;
}

/* note_packets(flag): whether to keep what is dropped for take_noted(). */
static PyObject *lane_note_packets(PyObject *self, PyObject *value) {
    int notes = PyObject_IsTrue(value);
    if (notes < 0)
        return NULL;
    __atomic_store_n(&lane_of(self)->notes_packets, notes != 0, __ATOMIC_RELAXED); /* its thread may be at work */
    Py_RETURN_NONE;
}

/* Take the dropped packets that were noted: a list of (number of the peer or -1, reason, count, what, length, bytes), and
 * how many packets found no room there. */
static PyObject *lane_take_noted(PyObject *self, PyObject *unused) {
    (void)unused;
    struct lane *lane = lane_of(self);
    PyObject *list = PyList_New(lane->noted_count);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < lane->noted_count; i++) {
        const struct noted *noted = &lane->noted[i];
        PyObject *row = Py_BuildValue("(isLiIy#)", noted->peer == NULL ? -1 : noted->peer->number,
                                      reasons[noted->reason], (long long)noted->count, (int)noted->what,
                                      noted->length, (const char *)noted->bytes, (Py_ssize_t)noted->size);
        if (row == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, row);
    }
    long long unnoted = lane->unnoted;
    lane->noted_count = 0;
    lane->unnoted = 0;
    return Py_BuildValue("(NL)", list, unnoted);
}

/* Take the sends that the kernel refused: a list of (number of the peer, bytes, size of a datagram, marks, error). */
static PyObject *lane_take_refused(PyObject *self, PyObject *unused) {
    (void)unused;
    struct out *out = &lane_of(self)->out;
    PyObject *list = PyList_New(out->refused_count);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < out->refused_count; i++) {
        const struct refused *refused = &out->refused[i];
        PyObject *row = Py_BuildValue("(iy#IIi)", refused->peer->number, (char *)out->refused_bytes + refused->at,
                                      (Py_ssize_t)refused->total, refused->size, refused->marks, refused->error);
        if (row == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, row);
    }
    out->refused_count = out->refused_size = 0;
    return list;
}

/* Return the number of a peer whose way is to be looked at, -1 for none, and the marks of the send; it is forgotten. */
static PyObject *lane_take_look(PyObject *self, PyObject *unused) {
    (void)unused;
    struct out *out = &lane_of(self)->out;
    long number = out->look == NULL ? -1 : out->look->number;
    out->look = NULL;
    return Py_BuildValue("(lI)", number, out->look_marks);
}

/* flush(peer): send what waits for it */
static PyObject *lane_flush(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, peer_type)) {
        PyErr_SetString(PyExc_TypeError, "a peer");
        return NULL;
    }
    simulate(((struct lane_object *)self)->network);
    flush_peer(lane_of(self), &as_object(value)->is.peer);
    return result_of(self, 0);
}

/* took(count): the go that was handed back, and could take more than one packet, has taken so many */
static PyObject *lane_took(PyObject *self, PyObject *value) {
    struct out *out = &lane_of(self)->out;
    long count = PyLong_AsLong(value);
    if (PyErr_Occurred())
        return NULL;
    if (!out->takes_one)
        pace_took(out->pace, out->taken - 1 + (uint32_t)count);
    Py_RETURN_NONE;
}

/* Return where the packet that is handed back stands in the arena, its bytes with the virtio header, and whether it is
 * to be taken alone. */
static PyObject *lane_packet(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct out *out = &lane_of(self)->out;
    return Py_BuildValue("(IIN)", out->packet_at, out->packet_size, PyBool_FromLong(out->takes_one));
}

/* Return the number of the error that ended a drain of the tun. */
static PyObject *lane_error(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(lane_of(self)->out.error);
}

/* Return (number of the peer, keypair, edges) of what was sent. */
static PyObject *lane_edge(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct out *out = &lane_of(self)->out;
    if (!out->edges) {
        PyErr_SetString(PyExc_LookupError, "nothing was at an edge");
        return NULL;
    }
    return Py_BuildValue("(iOI)", out->edge_peer->number, object_of(out->edge_keypair), out->edges);
}

/* Return (keypair or None, at, size, count, stride, ecn, edges) of what is handed back from a receive. */
static PyObject *lane_received(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct in *in = &lane_of(self)->in;
    PyObject *keypair = in->back_keypair == NULL ? Py_None : object_of(in->back_keypair);
    return Py_BuildValue("(OIIIIII)", keypair, in->back_at, in->back_size, in->back_count, in->stride, in->back_ecn,
                         in->edges);
}

/* Return (control messages as the kernel wrote them, address of the sender as a struct sockaddr). */
static PyObject *lane_arrival(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct in *in = &lane_of(self)->in;
    const struct arrival *arrival = &in->arrivals[in->current];
    return Py_BuildValue("(y#y#)", (const char *)arrival->control, (Py_ssize_t)arrival->control_size,
                         (const char *)&arrival->source, (Py_ssize_t)arrival->source_size);
}

/* remember(address, peer) */
static PyObject *lane_remember(PyObject *self, PyObject *arguments) {
    const char *address;
    Py_ssize_t size;
    PyObject *peer;
    if (!PyArg_ParseTuple(arguments, "y#O!", &address, &size, peer_type, &peer))
        return NULL;
    if (size != 4 && size != 16) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return NULL;
    }
    const struct peer *linked = &as_object(peer)->is.peer;
    if (linked->traffic != NULL && linked->contact != NULL && linked->path != NULL && linked->asking != NULL &&
        linked->local != NULL && linked->slots != NULL && linked->unsealed != NULL)
        routes_add(lane_of(self)->state, (const uint8_t *)address, (int)size, &as_object(peer)->is.peer);
    Py_RETURN_NONE;
}

/* remember_virtual(address): it is one of a virtual service */
static PyObject *lane_remember_virtual(PyObject *self, PyObject *value) {
    char *address;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &address, &size) < 0)
        return NULL;
    if (size != 4 && size != 16) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return NULL;
    }
    struct state *state = lane_of(self)->state;
    if (routes_find(state, (const uint8_t *)address, (int)size) != &virtual_address)
        routes_add(state, (const uint8_t *)address, (int)size, &virtual_address);
    Py_RETURN_NONE;
}

static PyObject *lane_forget(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    routes_forget();
    flows_forget();
    Py_RETURN_NONE;
}

/* Services */

static bool as_flow_key(const char *bytes, Py_ssize_t size, struct flow_key *key) {
    if (flow_key_set(key, (const uint8_t *)bytes, (size_t)size))
        return true;
    PyErr_SetString(PyExc_ValueError, "a key has 37 bytes at most");
    return false;
}

/* remember_flow(key, column of times, column of states, row, server): the columns stay where they are until forget_flows() */
static PyObject *lane_remember_flow(PyObject *self, PyObject *arguments) {
    Py_buffer seen, states;
    const char *bytes;
    Py_ssize_t size, row;
    PyObject *server;
    struct flow_key key;
    if (!PyArg_ParseTuple(arguments, "y#w*w*nO!", &bytes, &size, &seen, &states, &row, server_type, &server))
        return NULL;
    bool is_inside = row >= 0 && row < states.len && row < seen.len / (Py_ssize_t)sizeof(double);
    if (!is_inside)
        PyErr_SetString(PyExc_IndexError, "no such row");
    else if (as_flow_key(bytes, size, &key))
        flows_add(lane_of(self)->state, &key, (double *)seen.buf + row, (const uint8_t *)states.buf + row,
                  &as_object(server)->is.server);
    PyBuffer_Release(&seen);
    PyBuffer_Release(&states);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* forget_flow(key) */
static PyObject *lane_forget_flow(PyObject *self, PyObject *value) {
    char *bytes;
    Py_ssize_t size;
    struct flow_key key;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0 || !as_flow_key(bytes, size, &key))
        return NULL;
    flows_remove(lane_of(self)->state, &key);
    Py_RETURN_NONE;
}

static PyObject *lane_forget_flows(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    flows_forget();
    Py_RETURN_NONE;
}

/* admit(peer, key): what is of this flow may come from the peer, until forget_admitted() */
static PyObject *lane_admit(PyObject *self, PyObject *arguments) {
    PyObject *peer;
    const char *bytes;
    Py_ssize_t size;
    struct flow_key key;
    if (!PyArg_ParseTuple(arguments, "O!y#", peer_type, &peer, &bytes, &size) || !as_flow_key(bytes, size, &key))
        return NULL;
    admissions_add(lane_of(self)->state, &key, &as_object(peer)->is.peer);
    Py_RETURN_NONE;
}

static PyObject *lane_forget_admitted(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    admissions_forget();
    Py_RETURN_NONE;
}

/* locate(peer, address, scope, layout, has ports): take what it sends in the clear from there, until unlocate(peer) */
static PyObject *lane_locate(PyObject *self, PyObject *arguments) {
    PyObject *object;
    const char *address;
    Py_ssize_t size;
    unsigned int scope;
    int layout, has_ports;
    if (!PyArg_ParseTuple(arguments, "O!y#Iip", peer_type, &object, &address, &size, &scope, &layout, &has_ports))
        return NULL;
    struct peer *peer = &as_object(object)->is.peer;
    if ((size != 4 && size != 16) || peer->located_size || peer->traffic == NULL || peer->contact == NULL ||
        peer->path == NULL || peer->unsealed == NULL) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes, and a peer one place");
        return NULL;
    }
    memcpy(peer->located, address, (size_t)size);
    peer->located_size = (int)size;
    peer->located_scope = scope;
    peer->located_layout = layout;
    peer->located_has_ports = has_ports;
    Py_INCREF(object);
    places_add(lane_of(self)->state, peer);
    Py_RETURN_NONE;
}

static PyObject *lane_unlocate(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, peer_type)) {
        PyErr_SetString(PyExc_TypeError, "a peer");
        return NULL;
    }
    struct peer *peer = &as_object(value)->is.peer;
    if (peer->located_size) {
        places_remove(lane_of(self)->state, peer);
        Py_DECREF(value);
    }
    Py_RETURN_NONE;
}

/* list(keypair): take what comes under it from now on. */
static PyObject *lane_list(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, keypair_type)) {
        PyErr_SetString(PyExc_TypeError, "a keypair");
        return NULL;
    }
    struct keypair *keypair = &as_object(value)->is.keypair;
    if (!keypair->is_listed && keypair->peer != NULL && keypair->window != NULL && keypair->open.context != NULL) {
        Py_INCREF(value);
        indices_add(lane_of(self)->state, keypair);
    }
    Py_RETURN_NONE;
}

/* unlist(keypair): no more, and forget its units. */
static PyObject *lane_unlist(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, keypair_type)) {
        PyErr_SetString(PyExc_TypeError, "a keypair");
        return NULL;
    }
    struct keypair *keypair = &as_object(value)->is.keypair;
    struct crew *crew = ((struct lane_object *)self)->crew;
    reassembly_forget_keypair(&lane_of(self)->in.reassembly, keypair);
    for (uint32_t i = 0; crew != NULL && i < crew->count; i++)
        reassembly_forget_keypair(&crew->workers[i].lane->in.reassembly, keypair);
    if (keypair->is_listed) {
        indices_remove(lane_of(self)->state, keypair);
        Py_DECREF(value);
    }
    Py_RETURN_NONE;
}

/* Units of which fragments are missing.  A unit is called by the number of its place, as long as it waits. */

/* place(keypair, counter, count, cipher, now, is at the endpoint): the unit of a fragment that was handed back; -1 where
 * count or cipher contradict what came before */
static PyObject *lane_place(PyObject *self, PyObject *arguments) {
    struct lane *lane = lane_of(self);
    PyObject *keypair;
    unsigned long long counter;
    unsigned int count, cipher;
    double now;
    int is_at_endpoint;
    if (!PyArg_ParseTuple(arguments, "O!KIIdp", keypair_type, &keypair, &counter, &count, &cipher, &now, &is_at_endpoint))
        return NULL;
    if (!count || count > MAXIMUM_FRAGMENTS) {
        PyErr_SetString(PyExc_ValueError, "no such number of fragments");
        return NULL;
    }
    if (!as_object(keypair)->is.keypair.is_listed)
        return PyLong_FromLong(-1);
    const struct arrival *arrival = &lane->in.arrivals[lane->in.current];
    const struct partial *partial = reassembly_place(lane, &as_object(keypair)->is.keypair, counter, count, cipher,
                                                     arrival, now, is_at_endpoint);
    return PyLong_FromLong(partial == NULL ? -1 : partial - lane->in.reassembly.partials);
}

static struct partial *as_partial(PyObject *self, int number) {
    struct partial *partial = &lane_of(self)->in.reassembly.partials[number < 0 || number >= UNITS_TOTAL ? 0 : number];
    if (number >= 0 && number < UNITS_TOTAL && partial->keypair != NULL)
        return partial;
    PyErr_SetString(PyExc_LookupError, "no such unit waits");
    return NULL;
}

/* put(unit, number, pieces of one width behind each other, count, bytes of the last, is marked): whether all of it is
 * there; None where sizes contradict each other */
static PyObject *lane_put(PyObject *self, PyObject *arguments) {
    int unit, is_marked;
    unsigned int number, count, last;
    const char *pieces;
    Py_ssize_t size;
    bool is_whole;
    if (!PyArg_ParseTuple(arguments, "iIy#IIp", &unit, &number, &pieces, &size, &count, &last, &is_marked))
        return NULL;
    struct partial *partial = as_partial(self, unit);
    if (partial == NULL)
        return NULL;
    size_t width = count ? (size_t)size / count : 0;
    if (!count || width > MAXIMUM_SEALED || last > width || number > partial->count || count > partial->count - number) {
        PyErr_SetString(PyExc_ValueError, "no such pieces");
        return NULL;
    }
    partial->is_marked |= is_marked;
    if (!reassembly_put(partial, number, (const uint8_t *)pieces, count, (uint32_t)width, (uint32_t)width, last,
                        &is_whole))
        Py_RETURN_NONE;
    return PyBool_FromLong(is_whole);
}

/* take(unit): where the whole unit ends in the buffer of units, 0 where it is none, and whether it is marked; it is
 * forgotten */
static PyObject *lane_take(PyObject *self, PyObject *value) {
    struct in *in = &lane_of(self)->in;
    long unit = PyLong_AsLong(value);
    struct partial *partial = PyErr_Occurred() ? NULL : as_partial(self, (int)unit);
    uint32_t end = 0;
    if (partial == NULL)
        return NULL;
    if (reassembly_finish(partial, &end))
        memcpy(in->unit, partial->buffer, end);
    reassembly_forget(&in->reassembly, partial);
    return Py_BuildValue("(IN)", end, PyBool_FromLong(partial->is_marked));
}

/* counts(whether): count what Python adds to counters for this lane from now on, or for the first again. */
static PyObject *lane_counts(PyObject *self, PyObject *value) {
    python_lane = PyObject_IsTrue(value) > 0 ? (int)lane_of(self)->number : 0;
    Py_RETURN_NONE;
}

/* Return how many units wait. */
static PyObject *lane_waiting(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(lane_of(self)->in.reassembly.used);
}

/* set(tun to read from, tun to write to, mtu, segments, inherits_ttl, joins_udp, takes_units) */
static PyObject *lane_set(PyObject *self, PyObject *arguments) {
    struct lane *lane = lane_of(self);
    int tun, tun_out, mtu, segments, inherits_ttl, joins_udp, takes_units;
    if (!PyArg_ParseTuple(arguments, "iiipppp", &tun, &tun_out, &mtu, &segments, &inherits_ttl, &joins_udp, &takes_units))
        return NULL;
    if (mtu < 0 || mtu > MAXIMUM_IP) {
        PyErr_SetString(PyExc_ValueError, "no such MTU");
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
    {"note_packets", lane_note_packets, METH_O, NULL},
    {"take_noted", lane_take_noted, METH_NOARGS, NULL},
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

static PyMemberDef no_members[] = {{0}};
static PyGetSetDef no_links[] = {{0}};
static PyMethodDef no_methods[] = {{0}};

/* The module */

static int add_type(PyObject *module, PyTypeObject **type, const char *name, size_t size, PyMemberDef *members,
                    PyGetSetDef *links, PyMethodDef *methods, destructor dealloc) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, (void *)traverse}, {Py_tp_clear, (void *)clear}, {Py_tp_dealloc, (void *)dealloc},
        {Py_tp_members, members},           {Py_tp_getset, links},        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = (int)(STRUCTURE + size),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int add_lane(PyObject *module) {
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

#define TYPE(variable, name, structure, members, links, methods, dealloc)                                          \
    add_type(module, &variable, "overlay.forwarding.native." name, sizeof(struct structure), members, links, methods, \
             dealloc)

static int execute(PyObject *module) {
    const char *missing = crypto_open();
    if (missing != NULL) {
        PyErr_Format(PyExc_ImportError, "%s is missing", missing);
        return -1;
    }
    if (TYPE(window_type, "ReplayWindow", window, no_members, no_links, window_methods, free_object) ||
        TYPE(traffic_type, "Traffic", traffic, no_members, traffic_sums, traffic_methods, free_object) ||
        TYPE(contact_type, "Contact", contact, contact_members, contact_links, no_methods, free_object) ||
        TYPE(path_type, "Path", path, path_members, no_links, no_methods, free_object) ||
        TYPE(asking_type, "Asking", asking, asking_members, no_links, no_methods, free_object) ||
        TYPE(discovery_type, "Discovery", discovery, discovery_members, no_links, no_methods, free_object) ||
        TYPE(pace_type, "Batching", pace, pace_members, no_links, no_methods, free_object) ||
        TYPE(udp_type, "UdpSocket", udp, udp_members, udp_links, udp_methods, free_object) ||
        TYPE(local_type, "LocalEnd", local_end, no_members, local_links, local_methods, free_object) ||
        TYPE(tunnel_type, "Tunnel", tunnel, no_members, no_links, tunnel_methods, free_object) ||
        TYPE(server_type, "Server", server, server_members, server_links, no_methods, free_server) ||
        TYPE(unsealed_type, "Unsealed", unsealed, unsealed_members, no_links, no_methods, free_object) ||
        TYPE(unit_size_type, "UnitSize", unit_size, unit_size_members, no_links, no_methods, free_object) ||
        TYPE(unit_key_type, "UnitKey", unit_key, unit_key_members, no_links, unit_key_methods, free_unit_key) ||
        TYPE(bulk_type, "Bulk", bulk, bulk_members, bulk_links, bulk_methods, free_bulk) ||
        TYPE(keypair_type, "Keypair", keypair, keypair_members, keypair_links, keypair_methods, free_keypair) ||
        TYPE(slots_type, "Keypairs", slots, no_members, slots_links, no_methods, free_object) ||
        TYPE(peer_type, "Peer", peer, peer_members, peer_links, peer_methods, free_peer) || add_lane(module) || add_crew(module) ||
        add_poll(module) || add_lent(module))
        return -1;
    return PyModule_AddStringConstant(module, "LIBRARY", crypto_version());
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The packet path, compiled: the twin of what Python specifies.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
