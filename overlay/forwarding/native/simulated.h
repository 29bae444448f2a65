/* A network and a tun in memory, for tests: Python objects are called instead of the kernel. */
#ifndef OVERLAY_SIMULATED_H
#define OVERLAY_SIMULATED_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "native.h"

extern const struct io simulated;

/* Call *objects*, a dictionary by descriptor, from now on. */
void simulate(PyObject *objects);

#endif
