/* The Python side of workers.h: the threads of the lanes other than the first, as one object that Python stops, queries
 * and resumes. */
#include "module.h"

#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

struct workers_object {
    PyObject_HEAD
    struct workers *workers;
    struct lane_object *first;
    PyObject *lanes[MOST_LANES - 1];
    PyObject *sockets[MOST_LANES - 1][WATCHED]; /* kept as long as they are watched */
    int descriptor;
};

static struct workers *workers_of(PyObject *self) { return ((struct workers_object *)self)->workers; }

/* Workers(first, others): threads of the lanes *others*, which share the state of *first*.  They begin with begin(). */
static int workers_init(PyObject *self, PyObject *arguments, PyObject *keywords) {
    struct workers_object *object = (struct workers_object *)self;
    struct lane *lanes[MOST_LANES - 1];
    PyObject *first, *others;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "no keywords");
        return -1;
    }
    if (object->workers != NULL || !PyArg_ParseTuple(arguments, "OO!", &first, &PyList_Type, &others))
        return -1;
    Py_ssize_t count = PyList_Size(others);
    struct lane_object *lane = as_lane(first);
    if (lane == NULL)
        return -1;
    if (count < 1 || count >= MOST_LANES) {
        PyErr_SetString(PyExc_ValueError, "too few lanes, or too many");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct lane_object *other = as_lane(PyList_GetItem(others, i));
        if (other == NULL)
            return -1;
        if (other->lane->state != lane->lane->state || other->lane->number != (uint32_t)i + 1) {
            PyErr_SetString(PyExc_ValueError, "a lane of another first lane");
            return -1;
        }
        lanes[i] = other->lane;
    }
    object->workers = workers_new(lane->lane, &lanes, (uint32_t)count);
    if (object->workers == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    object->descriptor = object->workers->questions;
    for (Py_ssize_t i = 0; i < count; i++)
        object->lanes[i] = Py_NewRef(PyList_GetItem(others, i));
    object->first = (struct lane_object *)Py_NewRef(first);
    lane->workers = object->workers;
    python_aead_disable();
    return 0;
}

static void end(struct workers_object *object) {
    if (object->workers == NULL)
        return;
    workers_end(object->workers);
    object->first->workers = NULL;
    workers_free(object->workers);
    object->workers = NULL;
}

static void workers_dealloc(PyObject *self) {
    struct workers_object *object = (struct workers_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    end(object);
    Py_XDECREF((PyObject *)object->first);
    for (int i = 0; i < MOST_LANES - 1; i++) {
        Py_XDECREF(object->lanes[i]);
        for (int slot = 0; slot < WATCHED; slot++)
            Py_XDECREF(object->sockets[i][slot]);
    }
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Return the worker of a lane by its number, 1 for the first of them; NULL and an exception for any other. */
static struct worker *worker_of(PyObject *self, int number) {
    struct workers *workers = workers_of(self);
    if (workers != NULL && number >= 1 && number <= (int)workers->count)
        return &workers->each[number - 1];
    PyErr_SetString(PyExc_LookupError, "there is no such lane");
    return NULL;
}

static PyObject *done_or_error(bool is_done) {
    return is_done ? Py_NewRef(Py_None) : PyErr_SetFromErrno(PyExc_OSError);
}

/* begin(): start the threads.  Raises OSError if the system cannot start them. */
static PyObject *begin(PyObject *self, PyObject *unused) {
    (void)unused;
    return workers_of(self) == NULL ? Py_NewRef(Py_None) : done_or_error(workers_begin(workers_of(self)));
}

/* end(): end the threads, for good. */
static PyObject *end_method(PyObject *self, PyObject *unused) {
    (void)unused;
    end((struct workers_object *)self);
    Py_RETURN_NONE;
}

/* stop(): keep all lanes from draining until go().  Return whether any has a question or news. */
static PyObject *stop(PyObject *self, PyObject *unused) {
    (void)unused;
    struct workers *workers = workers_of(self);
    bool is_any = false;
    if (workers != NULL)
        workers_stop(workers);
    for (uint32_t i = 0; workers != NULL && i < workers->count; i++)
        is_any |= workers->each[i].has_question || workers->each[i].lane->drop_count;
    return PyBool_FromLong(is_any);
}

static PyObject *go(PyObject *self, PyObject *unused) {
    (void)unused;
    if (workers_of(self) != NULL)
        workers_go(workers_of(self));
    Py_RETURN_NONE;
}

/* questions(): a list of (number of the lane, result of its drain, socket or None for the tun) of those that wait for
 * an answer.  The lanes are stopped, and keep what they have not finished. */
static PyObject *questions(PyObject *self, PyObject *unused) {
    (void)unused;
    struct workers_object *object = (struct workers_object *)self;
    struct workers *workers = object->workers;
    PyObject *list = PyList_New(0);
    uint64_t count;
    if (workers != NULL && read(workers->questions, &count, sizeof count) < 0)
        count = 0;
    for (uint32_t i = 0; list != NULL && workers != NULL && i < workers->count; i++) {
        const struct worker *worker = &workers->each[i];
        if (!worker->has_question)
            continue;
        PyObject *socket = worker->slot < WATCHED ? object->sockets[i][worker->slot] : Py_None;
        PyObject *row = Py_BuildValue("(INO)", i + 1, result_of(object->lanes[i], worker->result), socket);
        if (row == NULL || PyList_Append(list, row))
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* answer(number): the question of this lane is answered. */
static PyObject *answer(PyObject *self, PyObject *value) {
    long number = PyLong_AsLong(value);
    struct worker *worker = PyErr_Occurred() ? NULL : worker_of(self, (int)number);
    if (worker == NULL)
        return NULL;
    worker_answer(worker);
    Py_RETURN_NONE;
}

/* watch_tun(number, watches): make a lane read its queue of the tun from now on, or stop reading it. */
static PyObject *watch_tun(PyObject *self, PyObject *arguments) {
    int number, watches;
    if (!PyArg_ParseTuple(arguments, "ip", &number, &watches))
        return NULL;
    struct worker *worker = worker_of(self, number);
    return worker == NULL ? NULL : done_or_error(worker_watches_tun(worker, watches));
}

/* watch(number, socket): make a lane read from a socket.  The lanes are stopped. */
static PyObject *watch_udp(PyObject *self, PyObject *arguments) {
    struct workers_object *object = (struct workers_object *)self;
    int number;
    PyObject *socket;
    if (!PyArg_ParseTuple(arguments, "iO", &number, &socket))
        return NULL;
    struct worker *worker = worker_of(self, number);
    struct udp *udp = worker == NULL ? NULL : as_udp(socket);
    if (udp == NULL)
        return NULL;
    if (!worker_watch(worker, udp))
        return PyErr_SetFromErrno(PyExc_OSError);
    for (int slot = 0; slot < WATCHED; slot++)
        if (worker->watched[slot] == udp)
            object->sockets[number - 1][slot] = Py_NewRef(socket);
    Py_RETURN_NONE;
}

/* unwatch(number, socket): stop reading from it.  The lanes are stopped, and this one has no question. */
static PyObject *unwatch_udp(PyObject *self, PyObject *arguments) {
    struct workers_object *object = (struct workers_object *)self;
    int number;
    PyObject *socket;
    if (!PyArg_ParseTuple(arguments, "iO", &number, &socket))
        return NULL;
    struct worker *worker = worker_of(self, number);
    struct udp *udp = worker == NULL ? NULL : as_udp(socket);
    if (udp == NULL)
        return NULL;
    worker_unwatch(worker, udp);
    for (int slot = 0; slot < WATCHED; slot++)
        if (object->sockets[number - 1][slot] == socket)
            Py_CLEAR(object->sockets[number - 1][slot]);
    Py_RETURN_NONE;
}

static PyMethodDef workers_methods[] = {
    {"begin", begin, METH_NOARGS, NULL},
    {"end", end_method, METH_NOARGS, NULL},
    {"stop", stop, METH_NOARGS, NULL},
    {"go", go, METH_NOARGS, NULL},
    {"questions", questions, METH_NOARGS, NULL},
    {"answer", answer, METH_O, NULL},
    {"watch_tun", watch_tun, METH_VARARGS, NULL},
    {"watch", watch_udp, METH_VARARGS, NULL},
    {"unwatch", unwatch_udp, METH_VARARGS, NULL},
    {0},
};

static PyMemberDef workers_members[] = {
    {"descriptor", T_INT, offsetof(struct workers_object, descriptor), READONLY, NULL},
    {0},
};

int add_workers(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_init, (void *)workers_init},
        {Py_tp_dealloc, (void *)workers_dealloc},
        {Py_tp_methods, workers_methods},
        {Py_tp_members, workers_members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "overlay.forwarding.native.Workers",
        .basicsize = sizeof(struct workers_object),
        .flags = Py_TPFLAGS_DEFAULT,
        .slots = slots,
    };
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    return type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
}
