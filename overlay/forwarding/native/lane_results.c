/* The results of a drain for Python: drops, sends that the kernel refused, and packets that are handed back
 * (compiled.py). */
#include "lane_methods.h"
#include "object.h"

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
    [DROP_CROWDED] = "crowded",
    [DROP_INITIATION_SIZE] = "initiation_size",
    [DROP_RESPONSE_SIZE] = "response_size",
    [DROP_COOKIE_SIZE] = "cookie_size",
    [DROP_FRAGMENT_SHORT] = "fragment_short",
};

/* Take the counts of drops: a list of (number of the peer or -1, reason, count). */
PyObject *lane_take_drops(PyObject *self, PyObject *unused) {
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

/* capture_drops(flag): whether to keep dropped packets for take_captured(). */
PyObject *lane_capture_drops(PyObject *self, PyObject *value) {
    int captures = PyObject_IsTrue(value);
    if (captures < 0)
        return NULL;
    __atomic_store_n(&lane_of(self)->captures_drops, captures != 0, __ATOMIC_RELAXED); /* its thread may be running */
    Py_RETURN_NONE;
}

/* Take the dropped packets that were kept: a list of (number of the peer or -1, reason, count, what, length, bytes),
 * and the number of packets for which there was no room. */
PyObject *lane_take_captured(PyObject *self, PyObject *unused) {
    (void)unused;
    struct lane *lane = lane_of(self);
    PyObject *list = PyList_New(lane->captured_count);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < lane->captured_count; i++) {
        const struct dropped *dropped = &lane->captured[i];
        PyObject *row = Py_BuildValue("(isLiIy#)", dropped->peer == NULL ? -1 : dropped->peer->number,
                                      reasons[dropped->reason], (long long)dropped->count, (int)dropped->what,
                                      dropped->length, (const char *)dropped->bytes, (Py_ssize_t)dropped->size);
        if (row == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, row);
    }
    long long missed = lane->missed;
    lane->captured_count = 0;
    lane->missed = 0;
    return Py_BuildValue("(NL)", list, missed);
}

/* Take the sends that the kernel refused: a list of (number of the peer, bytes, size of a datagram, marks, error). */
PyObject *lane_take_refused(PyObject *self, PyObject *unused) {
    (void)unused;
    struct out *out = &lane_of(self)->out;
    PyObject *list = PyList_New(out->refused_count);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < out->refused_count; i++) {
        const struct refused *refused = &out->refused[i];
        struct slice bytes = slice_part(out->refused_bytes, refused->at, refused->total);
        PyObject *row = Py_BuildValue("(iy#IIi)", refused->peer->number, (const char *)bytes.bytes,
                                      (Py_ssize_t)bytes.size, refused->size, refused->marks, refused->error);
        if (row == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, i, row);
    }
    out->refused_count = out->refused_size = 0;
    return list;
}

/* Return the number of a peer whose path must be examined, -1 for none, and the marks of the send; it is forgotten. */
PyObject *lane_take_look(PyObject *self, PyObject *unused) {
    (void)unused;
    struct out *out = &lane_of(self)->out;
    long number = out->look == NULL ? -1 : out->look->number;
    out->look = NULL;
    return Py_BuildValue("(lI)", number, out->look_marks);
}

/* Packets that are handed back */

/* Return where the packet that is handed back is in the arena, its bytes with the virtio header, and whether it must be
 * handled alone. */
PyObject *lane_packet(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct out *out = &lane_of(self)->out;
    return Py_BuildValue("(IINN)", out->packet_at, out->packet_size, PyBool_FromLong(out->takes_one),
                         PyBool_FromLong(out->is_first));
}

/* Return the number of the error that ended a drain of the tun. */
PyObject *lane_error(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(lane_of(self)->out.error);
}

/* Return (number of the peer, keypair, edges) of the last send. */
PyObject *lane_edge(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct out *out = &lane_of(self)->out;
    if (!out->edges) {
        PyErr_SetString(PyExc_LookupError, "no send was at an edge");
        return NULL;
    }
    return Py_BuildValue("(iOI)", out->edge_peer->number, object_of(out->edge_keypair), out->edges);
}

/* Return (keypair or None, at, size, count, stride, ecn, edges) of the rows of a receive that are handed back. */
PyObject *lane_received(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct in *in = &lane_of(self)->in;
    PyObject *keypair = in->back_keypair == NULL ? Py_None : object_of(in->back_keypair);
    return Py_BuildValue("(OIIIIII)", keypair, in->back_at, in->back_size, in->back_count, in->stride, in->back_ecn,
                         in->edges);
}

/* Return (control messages as the kernel wrote them, address of the sender as a struct sockaddr). */
PyObject *lane_arrival(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct in *in = &lane_of(self)->in;
    const struct arrival *arrival = &in->arrivals[in->current];
    return Py_BuildValue("(y#y#)", (const char *)arrival->control, (Py_ssize_t)arrival->control_size,
                         (const char *)&arrival->source, (Py_ssize_t)arrival->source_size);
}

static PyObject *name_of(const union address *name) {
    size_t size = name->any.sa_family == AF_INET ? sizeof name->v4 : sizeof name->v6;
    return PyBytes_FromStringAndSize((const char *)name, (Py_ssize_t)size);
}

/* Return (payload, its sender as a struct sockaddr, ECN) of a row that is handed back. */
PyObject *lane_raw_row(PyObject *self, PyObject *unused) {
    (void)unused;
    const struct raw *raw = &lane_of(self)->raw;
    uint32_t row = raw->back_row, size = raw->messages[row].msg_len, inside = size < raw->stride ? size : raw->stride;
    uint32_t header = raw->header < inside ? raw->header : inside;
    const char *rest = raw->parts[row][1].iov_base;
    struct slice begin = slice_part(slice_of_part(raw->parts[row], 2, 0), header, inside - header);
    PyObject *payload = PyBytes_FromStringAndSize((const char *)begin.bytes, begin.size);
    if (payload != NULL && size > inside)
        PyBytes_ConcatAndDel(&payload, PyBytes_FromStringAndSize(rest, size - inside));
    return payload == NULL ? NULL : Py_BuildValue("(NNI)", payload, name_of(&raw->names[row]), raw->tos & 3);
}

/* Return (rows, sizes, stride, their sender, TOS, size of the outer header) of a group that is handed back. */
PyObject *lane_raw_group(PyObject *self, PyObject *unused) {
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
