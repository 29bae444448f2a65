/* Declarations that the parts of the Python side share. */
#ifndef OVERLAY_MODULE_H
#define OVERLAY_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "native.h"
#include "workers.h"

enum { HAS_NEWS = 16 };

struct lane_object {
    PyObject_HEAD
    struct lane *lane;
    struct workers *workers; /* with which it drains in parallel, in Python's thread; NULL: it is alone */
    PyObject *pace;
    PyObject *network; /* in memory, for tests; NULL: the kernel's */
    PyObject *first; /* the lane whose state it shares; NULL: its own */
    PyObject *held; /* what the current drain must not lose: the keypair of undelivered rows */
    Py_buffer arena, received, unit;
    bool has_buffers;
};

PyObject *result_of(PyObject *lane, int result);
struct lane_object *as_lane(PyObject *value);

/* Types of state: replay_type.c, socket_types.c, key_types.c, peer_types.c, lane_type.c */
struct udp *as_udp(PyObject *value);
int add_window(PyObject *module);
int add_sockets(PyObject *module);
int add_keys(PyObject *module);
int add_peers(PyObject *module);
int add_lane(PyObject *module);

/* workers_type.c */
int add_workers(PyObject *module);

/* python_aead.c */
void python_aead_attach(struct aead *aead, int cipher, PyObject *method);
void python_aead_disable(void);
void aead_release(struct aead *aead);
int add_python_aead(PyObject *module);

/* poll.c */
int add_poll(PyObject *module);

#endif
