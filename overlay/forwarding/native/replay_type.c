/* The replay window as an object (crypto/replay.py). */
#include "object.h"

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
        PyErr_SetString(PyExc_ValueError, "more counters than one receive can have");
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

int add_window(PyObject *module) {
    return TYPE(window_type, "ReplayWindow", window, no_members, no_links, window_methods, free_object);
}
