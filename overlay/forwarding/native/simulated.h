/* A network and a tun in memory, for tests: what the kernel would be asked for is asked of Python objects. */
#ifndef OVERLAY_SIMULATED_H
#define OVERLAY_SIMULATED_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "native.h"

extern const struct io simulated;

/* Ask *objects*, a dictionary by descriptor, from now on. */
void simulate(PyObject *objects);

#endif
