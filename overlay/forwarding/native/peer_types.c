/* Peers as objects, with their counters, moments, path, local end and tunnel (forwarding/peer.py); the servers of
 * virtual services; and stations (ethernet/bridge.py). */
#include "object.h"

#include <string.h>

LINK(contact_reporting, 0, contact, reporting, keypair);
LINK(local_socket, 0, local_end, udp, udp);
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

/* Counters of all lanes together.  Python's additions go to the counters of the lane that it works for. */

int python_lane; /* under the interpreter lock */

static int64_t *count_of(PyObject *self, const void *closure, int lane) {
    return field_at(&as_object(self)->is.traffic.lanes[lane], *(const size_t *)closure);
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

/* by_lane(count): for each of *count* lanes (sent bytes, received bytes, sent packets, received packets) */
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

static PyGetSetDef local_links[] = {LINKED("socket", local_socket), {0}};

/* near(level, kind, data, received): the control message with the source to send from, and the destination address of
 * received datagrams, packed. */
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

/* _leaves_by(kind, socket or None): packets with marks of this kind leave from there, if there are no ports. */
static PyObject *local_leaves_by(PyObject *self, PyObject *arguments) {
    struct local_end *local = &as_object(self)->is.local_end;
    int kind;
    PyObject *udp;
    if (!PyArg_ParseTuple(arguments, "iO", &kind, &udp))
        return NULL;
    if (kind < 0 || kind >= RAW_KINDS) {
        PyErr_SetString(PyExc_ValueError, "there is no such kind");
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

/* Tunnels in the clear */

/* _stand(layout, protocols, prefixes, identifier or -1, own Ethernet address, flows, has checksum, has sequence):
 * called once, when the tunnel is made */
static PyObject *tunnel_stand(PyObject *self, PyObject *arguments) {
    struct tunnel *tunnel = &as_object(self)->is.tunnel;
    const char *prefix4, *prefix6, *mac;
    Py_ssize_t size4, size6, mac_size;
    int layout, protocol4, protocol6, has_checksum, has_sequence;
    long long identifier;
    unsigned int flows;
    if (!PyArg_ParseTuple(arguments, "i(ii)(y#y#)Ly#Ipp", &layout, &protocol4, &protocol6, &prefix4, &size4, &prefix6,
                          &size6, &identifier, &mac, &mac_size, &flows, &has_checksum, &has_sequence))
        return NULL;
    if (size4 != size6 || size4 > PREFIX_BYTES || mac_size != (Py_ssize_t)sizeof tunnel->own_mac || flows > MOST_FLOWS) {
        PyErr_SetString(PyExc_ValueError, "there is no such tunnel");
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
    tunnel->has_checksum = has_checksum;
    tunnel->number_at = has_sequence ? (uint32_t)size4 - GRE_FIELD : 0;
    Py_RETURN_NONE;
}

static PyMemberDef tunnel_members[] = {MEMBER("sent", T_ULONGLONG, tunnel, sent), {0}};
static PyMethodDef tunnel_methods[] = {{"_stand", tunnel_stand, METH_VARARGS, NULL}, {0}};

static PyMemberDef unsealed_members[] = {
    MEMBER("segment_limit", T_INT, unsealed, segment_limit),
    MEMBER("segment_limit_ends", T_DOUBLE, unsealed, segment_limit_ends),
    MEMBER("segment_size", T_INT, unsealed, segment_size),
    MEMBER("sequence", T_LONGLONG, unsealed, sequence),
    MEMBER("sequence_at", T_DOUBLE, unsealed, sequence_at),
    {0},
};

/* tell_ranges(IPv4, IPv6): the changes of each, packed addresses in order */
static PyObject *unsealed_tell_ranges(PyObject *self, PyObject *arguments) {
    PyObject *told[2];
    struct slice both[2];
    if (!PyArg_ParseTuple(arguments, "SS", &told[0], &told[1]))
        return NULL;
    for (int i = 0; i < 2; i++) {
        Py_ssize_t size = PyBytes_Size(told[i]), each = i ? 16 : 4;
        if (size % each || size > UINT32_MAX - each) {
            PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
            return NULL;
        }
        both[i] = slice_of(PyBytes_AsString(told[i]), (size_t)size);
    }
    for (int i = 0; i < 2; i++) {
        as_object(self)->is.unsealed.sources[i] = both[i];
        PyObject *before = as_object(self)->links[i];
        as_object(self)->links[i] = Py_NewRef(told[i]);
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

static PyMethodDef unsealed_methods[] = {{"tell_ranges", unsealed_tell_ranges, METH_VARARGS, NULL}, {0}};

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

/* move(address, port, flow information, scope): send there; without an address, nowhere. */
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
    routes_forget_peer(&as_object(self)->is.peer);
    admissions_forget_peer(&as_object(self)->is.peer);
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

static PyMemberDef station_members[] = {MEMBER("seen_at", T_DOUBLE, station, seen_at), {0}};

static void free_server(PyObject *self) {
    flows_forget();
    free_object(self);
}

int add_peers(PyObject *module) {
    return TYPE(traffic_type, "TrafficState", traffic, no_members, traffic_sums, traffic_methods, free_object) ||
           TYPE(contact_type, "ContactState", contact, contact_members, contact_links, no_methods, free_object) ||
           TYPE(path_type, "PathState", path, path_members, no_links, no_methods, free_object) ||
           TYPE(asking_type, "AskingState", asking, asking_members, no_links, no_methods, free_object) ||
           TYPE(local_type, "LocalEndState", local_end, no_members, local_links, local_methods, free_object) ||
           TYPE(tunnel_type, "TunnelState", tunnel, tunnel_members, no_links, tunnel_methods, free_object) ||
           TYPE(unsealed_type, "UnsealedState", unsealed, unsealed_members, no_links, unsealed_methods, free_object) ||
           TYPE(slots_type, "KeypairsState", slots, no_members, slots_links, no_methods, free_object) ||
           TYPE(peer_type, "PeerState", peer, peer_members, peer_links, peer_methods, free_peer) ||
           TYPE(server_type, "ServerState", server, server_members, server_links, no_methods, free_server) ||
           TYPE(station_type, "StationState", station, station_members, no_links, no_methods, free_object);
}
