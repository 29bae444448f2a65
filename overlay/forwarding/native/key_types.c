/* Keypairs as objects (forwarding/keypair.py), with the state of their bulk units (bulk/). */
#include "object.h"

LINK(bulk_key, 0, bulk, key, unit_key);
LINK(bulk_size, 1, bulk, size, unit_size);
LINK(bulk_window, 2, bulk, window, window);
LINK(keypair_bulk, 0, keypair, bulk, bulk);
LINK(keypair_window, 1, keypair, window, window);
LINK(keypair_state, 2, keypair, peer, peer);
LINK(keypair_session, 4, keypair, session, keypair);

uint32_t lane_count = 1; /* lanes for which keys are prepared: the most that have existed at the same time */

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
    aead_release(aead);
    if (aead_init(aead, cipher, key, seals))
        return true;
    PyErr_NoMemory();
    return false;
}

static bool take_seals(struct aead (*seals)[MOST_LANES], int cipher, const char *bytes, Py_ssize_t size) {
    for (uint32_t lane = 0; lane < lane_count; lane++)
        if (!take_key(&(*seals)[lane], cipher, bytes, size, true))
            return false;
    return true;
}

static void free_seals(struct aead (*seals)[MOST_LANES]) {
    for (uint32_t lane = 0; lane < MOST_LANES; lane++)
        aead_release(&(*seals)[lane]);
}

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

static PyMemberDef unit_key_members[] = {
    MEMBER("cipher", T_INT, unit_key, cipher),
    MEMBER("receiver_index", T_UINT, unit_key, receiver_index),
    MEMBER("counter", T_ULONGLONG, unit_key, counter),
    MEMBER("blocks", T_ULONGLONG, unit_key, blocks),
    {0},
};

/* _seals(cipher, key, encrypt_into of the same key or None) */
static PyObject *unit_key_seals(PyObject *self, PyObject *arguments) {
    struct aead(*seals)[MOST_LANES] = &as_object(self)->is.unit_key.seals;
    int cipher;
    const char *key;
    Py_ssize_t size;
    PyObject *method;
    if (!PyArg_ParseTuple(arguments, "iy#O", &cipher, &key, &size, &method) || !take_seals(seals, cipher, key, size))
        return NULL;
    python_aead_attach(&(*seals)[0], cipher, method);
    Py_RETURN_NONE;
}

static PyMethodDef unit_key_methods[] = {{"_seals", unit_key_seals, METH_VARARGS, NULL}, {0}};

static void free_unit_key(PyObject *self) {
    free_seals(&as_object(self)->is.unit_key.seals);
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
    python_aead_attach(opens, cipher, method);
    Py_RETURN_NONE;
}

static PyMethodDef bulk_methods[] = {{"_opens", bulk_opens, METH_VARARGS, NULL}, {0}};

static void free_bulk(PyObject *self) {
    aead_release(&as_object(self)->is.bulk.opens[0]);
    aead_release(&as_object(self)->is.bulk.opens[1]);
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

/* _keys(local index, remote index, key to seal with, key to open with): call it once, before the keypair is listed */
static PyObject *keypair_keys(PyObject *self, PyObject *arguments) {
    struct keypair *keypair = &as_object(self)->is.keypair;
    const char *send, *receive;
    Py_ssize_t send_size, receive_size;
    unsigned int local_index, remote_index;
    if (!PyArg_ParseTuple(arguments, "IIy#y#", &local_index, &remote_index, &send, &send_size, &receive, &receive_size))
        return NULL;
    if (keypair->is_listed || keypair->open.context != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a keypair gets its keys only once");
        return NULL;
    }
    keypair->local_index = local_index;
    keypair->remote_index = remote_index;
    pthread_mutex_init(&keypair->receiving, NULL);
    pthread_mutex_init(&keypair->sending, NULL);
    if (!take_seals(&keypair->seals, 0, send, send_size) ||
        !take_key(&keypair->open, 0, receive, receive_size, false))
        return NULL;
    Py_RETURN_NONE;
}

/* _send_by(list of keypairs, None for this one): the keypair that each lane of this node seals with */
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
    free_seals(&as_object(self)->is.keypair.seals);
    aead_release(&as_object(self)->is.keypair.open);
    free_object(self);
}

int add_keys(PyObject *module) {
    return TYPE(unit_size_type, "UnitSizeState", unit_size, unit_size_members, no_links, no_methods, free_object) ||
           TYPE(unit_key_type, "UnitKeyState", unit_key, unit_key_members, no_links, unit_key_methods, free_unit_key) ||
           TYPE(bulk_type, "BulkState", bulk, bulk_members, bulk_links, bulk_methods, free_bulk) ||
           TYPE(keypair_type, "KeypairState", keypair, keypair_members, keypair_links, keypair_methods, free_keypair);
}
