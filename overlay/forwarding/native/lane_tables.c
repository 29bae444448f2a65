/* The tables that Python fills in a lane: owners of addresses, flows, places and keypairs (compiled.py,
 * services/shortcuts.py, clear/inbound.py, indices.py). */
#include "bytes.h"
#include "lane_methods.h"
#include "object.h"

#include <string.h>

static bool is_linked(const struct peer *peer) {
    return peer->traffic != NULL && peer->contact != NULL && peer->path != NULL && peer->asking != NULL &&
           peer->local != NULL && peer->slots != NULL && peer->unsealed != NULL;
}

/* remember(address, peer) */
PyObject *lane_remember(PyObject *self, PyObject *arguments) {
    const char *address;
    Py_ssize_t size;
    PyObject *peer;
    if (!PyArg_ParseTuple(arguments, "y#O!", &address, &size, peer_type, &peer))
        return NULL;
    if (size != 4 && size != 16) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return NULL;
    }
    if (is_linked(&as_object(peer)->is.peer))
        routes_add(lane_of(self)->state, slice_of(address, (size_t)size), &as_object(peer)->is.peer);
    Py_RETURN_NONE;
}

/* remember_virtual(address): it is one of a virtual service */
PyObject *lane_remember_virtual(PyObject *self, PyObject *value) {
    char *address;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &address, &size) < 0)
        return NULL;
    if (size != 4 && size != 16) {
        PyErr_SetString(PyExc_ValueError, "an address has 4 or 16 bytes");
        return NULL;
    }
    struct state *state = lane_of(self)->state;
    struct slice bytes = slice_of(address, (size_t)size);
    if (routes_find(state, bytes) != &virtual_address)
        routes_add(state, bytes, &virtual_address);
    Py_RETURN_NONE;
}

PyObject *lane_forget(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    routes_forget();
    flows_forget();
    Py_RETURN_NONE;
}

/* carry_frames(ports): the device is a tap; datagrams from these UDP ports, two bytes each, may be this node's */
PyObject *lane_carry_frames(PyObject *self, PyObject *value) {
    struct state *state = lane_of(self)->state;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0)
        return NULL;
    memset(state->own_ports, 0, sizeof state->own_ports);
    struct slice ports = slice_of(bytes, (size_t)size);
    for (const uint8_t *at; slice_take(&ports, 2, &at);) {
        uint32_t port = get16(at);
        state->own_ports[port / 8] |= (uint8_t)(1 << port % 8);
    }
    state->carries_frames = 1;
    Py_RETURN_NONE;
}

/* remember_station(mac, peer or None, station or None): it is at *peer*, or on the side of the tap; without a station
 * it is static.  It is remembered until forget(), and holds for AGEING_TIME from when the station was seen. */
PyObject *lane_remember_station(PyObject *self, PyObject *arguments) {
    const char *mac;
    Py_ssize_t size;
    PyObject *peer, *station;
    if (!PyArg_ParseTuple(arguments, "y#OO", &mac, &size, &peer, &station))
        return NULL;
    bool is_static = station == Py_None, is_own = peer == Py_None;
    if (size != 6 || (!is_static && !PyObject_TypeCheck(station, station_type)) ||
        (!is_own && !PyObject_TypeCheck(peer, peer_type))) {
        PyErr_SetString(PyExc_TypeError, "expected an Ethernet address, a peer and a station");
        return NULL;
    }
    if (!is_own && !is_linked(&as_object(peer)->is.peer))
        Py_RETURN_NONE;
    struct station *gone = stations_add(lane_of(self)->state, slice_of(mac, (size_t)size),
                                        is_own ? NULL : &as_object(peer)->is.peer,
                                        is_static ? NULL : &as_object(Py_NewRef(station))->is.station);
    if (gone != NULL)
        Py_DECREF(object_of(gone));
    Py_RETURN_NONE;
}

/* Services */

static bool as_flow_key(const char *bytes, Py_ssize_t size, struct flow_key *key) {
    if (flow_key_set(key, slice_of(bytes, (size_t)size)))
        return true;
    PyErr_SetString(PyExc_ValueError, "a key has at most 37 bytes");
    return false;
}

/* remember_flow(key, column of times, column of states, row, server): the columns stay where they are until
 * forget_flows() */
PyObject *lane_remember_flow(PyObject *self, PyObject *arguments) {
    Py_buffer seen, states;
    const char *bytes;
    Py_ssize_t size, row;
    PyObject *server;
    struct flow_key key;
    if (!PyArg_ParseTuple(arguments, "y#w*w*nO!", &bytes, &size, &seen, &states, &row, server_type, &server))
        return NULL;
    bool may_be = row >= 0 && row < UINT32_MAX / (Py_ssize_t)sizeof(double);
    uint32_t number = may_be ? (uint32_t)row : UINT32_MAX;
    uint8_t *moment, *state;
    struct slice moments = slice_of(seen.buf, (size_t)seen.len), all_states = slice_of(states.buf, (size_t)states.len);
    bool is_inside = slice_find(moments, number * sizeof(double), sizeof(double), &moment) &&
                     slice_find(all_states, number, 1, &state);
    if (!may_be || !is_inside)
        PyErr_SetString(PyExc_IndexError, "there is no such row");
    else if (as_flow_key(bytes, size, &key))
        flows_add(lane_of(self)->state, &key, (double *)moment, state, &as_object(server)->is.server);
    PyBuffer_Release(&seen);
    PyBuffer_Release(&states);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* forget_flow(key) */
PyObject *lane_forget_flow(PyObject *self, PyObject *value) {
    char *bytes;
    Py_ssize_t size;
    struct flow_key key;
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0 || !as_flow_key(bytes, size, &key))
        return NULL;
    flows_remove(lane_of(self)->state, &key);
    Py_RETURN_NONE;
}

PyObject *lane_forget_flows(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    flows_forget();
    Py_RETURN_NONE;
}

/* admit(peer, key): packets of this flow may come from the peer, until forget_admitted() */
PyObject *lane_admit(PyObject *self, PyObject *arguments) {
    PyObject *peer;
    const char *bytes;
    Py_ssize_t size;
    struct flow_key key;
    if (!PyArg_ParseTuple(arguments, "O!y#", peer_type, &peer, &bytes, &size) || !as_flow_key(bytes, size, &key))
        return NULL;
    admissions_add(lane_of(self)->state, &key, &as_object(peer)->is.peer);
    Py_RETURN_NONE;
}

PyObject *lane_forget_admitted(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    admissions_forget();
    Py_RETURN_NONE;
}

/* locate(peer, address, scope, layout, has ports): accept what it sends in the clear from there, until
 * unlocate(peer) */
PyObject *lane_locate(PyObject *self, PyObject *arguments) {
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

PyObject *lane_unlocate(PyObject *self, PyObject *value) {
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

/* list(keypair): accept messages under it from now on. */
PyObject *lane_list(PyObject *self, PyObject *value) {
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

/* unlist(keypair): stop accepting them, and forget its units. */
PyObject *lane_unlist(PyObject *self, PyObject *value) {
    if (!PyObject_TypeCheck(value, keypair_type)) {
        PyErr_SetString(PyExc_TypeError, "a keypair");
        return NULL;
    }
    struct keypair *keypair = &as_object(value)->is.keypair;
    struct workers *workers = ((struct lane_object *)self)->workers;
    reassembly_forget_keypair(&lane_of(self)->in.reassembly, keypair);
    for (uint32_t i = 0; workers != NULL && i < workers->count; i++)
        reassembly_forget_keypair(&workers->each[i].lane->in.reassembly, keypair);
    if (keypair->is_listed) {
        indices_remove(lane_of(self)->state, keypair);
        Py_DECREF(value);
    }
    Py_RETURN_NONE;
}
