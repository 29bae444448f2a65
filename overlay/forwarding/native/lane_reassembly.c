/* Units with missing fragments (compiled.py: CompiledReassembly).  A unit is identified by the number of its place while
 * it waits. */
#include "lane_methods.h"
#include "object.h"

#include <string.h>

/* place(keypair, counter, count, cipher, now, is at the endpoint): the unit of a fragment that was handed back; -1 if
 * count or cipher contradict the earlier fragments */
PyObject *lane_place(PyObject *self, PyObject *arguments) {
    struct lane *lane = lane_of(self);
    PyObject *keypair;
    unsigned long long counter;
    unsigned int count, cipher;
    double now;
    int is_at_endpoint;
    if (!PyArg_ParseTuple(arguments, "O!KIIdp", keypair_type, &keypair, &counter, &count, &cipher, &now, &is_at_endpoint))
        return NULL;
    if (!count || count > MAXIMUM_FRAGMENTS) {
        PyErr_SetString(PyExc_ValueError, "a unit cannot have that number of fragments");
        return NULL;
    }
    if (!as_object(keypair)->is.keypair.is_listed)
        return PyLong_FromLong(-1);
    const struct arrival *arrival = &lane->in.arrivals[lane->in.current];
    const struct partial *partial = reassembly_place(lane, &as_object(keypair)->is.keypair, counter, count, cipher,
                                                     arrival, now, is_at_endpoint);
    for (int i = 0; partial != NULL && i < UNITS_TOTAL; i++)
        if (partial == &lane->in.reassembly.partials[i])
            return PyLong_FromLong(i);
    return PyLong_FromLong(-1);
}

static struct partial *as_partial(PyObject *self, int number) {
    struct partial *partial = &lane_of(self)->in.reassembly.partials[number < 0 || number >= UNITS_TOTAL ? 0 : number];
    if (number >= 0 && number < UNITS_TOTAL && partial->keypair != NULL)
        return partial;
    PyErr_SetString(PyExc_LookupError, "there is no such waiting unit");
    return NULL;
}

/* put(unit, number, consecutive pieces of one width, count, bytes of the last, is marked): whether the unit is
 * complete; None if sizes contradict each other */
PyObject *lane_put(PyObject *self, PyObject *arguments) {
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
        PyErr_SetString(PyExc_ValueError, "the pieces do not have that width and count");
        return NULL;
    }
    partial->is_marked |= is_marked;
    if (!reassembly_put(partial, number, slice_of(pieces, (size_t)size), count, (uint32_t)width, (uint32_t)width, last,
                        &is_whole))
        Py_RETURN_NONE;
    return PyBool_FromLong(is_whole);
}

/* take(unit): where the whole unit ends in the buffer of units, 0 if it is not valid, and whether it is marked; it is
 * forgotten */
PyObject *lane_take(PyObject *self, PyObject *value) {
    struct in *in = &lane_of(self)->in;
    long unit = PyLong_AsLong(value);
    struct partial *partial = PyErr_Occurred() ? NULL : as_partial(self, (int)unit);
    uint32_t end = 0;
    if (partial == NULL)
        return NULL;
    if (reassembly_finish(partial, &end))
        slice_copy(in->unit, 0, slice_part(partial->buffer, 0, end));
    reassembly_forget(&in->reassembly, partial);
    return Py_BuildValue("(IN)", end, PyBool_FromLong(partial->is_marked));
}

/* Return how many units wait. */
PyObject *lane_waiting(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(lane_of(self)->in.reassembly.used);
}
