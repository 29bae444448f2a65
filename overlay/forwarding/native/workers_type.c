/* The Python side of workers.h: the lanes other than the first as one object, which Python stops, asks and lets go. */
#include "module.h"

#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

struct crew_object {
    PyObject_HEAD
    struct crew *crew;
    struct lane_object *first;
    PyObject *lanes[MOST_LANES - 1];
    PyObject *sockets[MOST_LANES - 1][WATCHED]; /* which stay as long as they are watched */
    int descriptor;
};

static struct crew *crew_of(PyObject *self) { return ((struct crew_object *)self)->crew; }

/* Crew(first, others): of lanes, which share the state of the first.  They begin with begin(). */
static int crew_init(PyObject *self, PyObject *arguments, PyObject *keywords) {
    struct crew_object *object = (struct crew_object *)self;
    struct lane *lanes[MOST_LANES - 1];
    PyObject *first, *others;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "no keywords");
        return -1;
    }
    if (object->crew != NULL || !PyArg_ParseTuple(arguments, "OO!", &first, &PyList_Type, &others))
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
            PyErr_SetString(PyExc_ValueError, "a lane of others");
            return -1;
        }
        lanes[i] = other->lane;
    }
    object->crew = crew_new(lane->lane, &lanes, (uint32_t)count);
    if (object->crew == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    object->descriptor = object->crew->questions;
    for (Py_ssize_t i = 0; i < count; i++)
        object->lanes[i] = Py_NewRef(PyList_GetItem(others, i));
    object->first = (struct lane_object *)Py_NewRef(first);
    lane->crew = object->crew;
    lend_nothing();
    return 0;
}

static void end(struct crew_object *object) {
    if (object->crew == NULL)
        return;
    crew_end(object->crew);
    object->first->crew = NULL;
    crew_free(object->crew);
    object->crew = NULL;
}

static void crew_dealloc(PyObject *self) {
    struct crew_object *object = (struct crew_object *)self;
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
    struct crew *crew = crew_of(self);
    if (crew != NULL && number >= 1 && number <= (int)crew->count)
        return &crew->workers[number - 1];
    PyErr_SetString(PyExc_LookupError, "no such lane");
    return NULL;
}

static PyObject *done_or_error(bool is_done) {
    return is_done ? Py_NewRef(Py_None) : PyErr_SetFromErrno(PyExc_OSError);
}

/* begin(): start the threads.  Raises OSError where the system has none. */
static PyObject *begin(PyObject *self, PyObject *unused) {
    (void)unused;
    return crew_of(self) == NULL ? Py_NewRef(Py_None) : done_or_error(crew_begin(crew_of(self)));
}

/* end(): end the threads, for good. */
static PyObject *end_method(PyObject *self, PyObject *unused) {
    (void)unused;
    end((struct crew_object *)self);
    Py_RETURN_NONE;
}

/* stop(): have no lane in a drain until go().  Return whether any has a question or news. */
static PyObject *stop(PyObject *self, PyObject *unused) {
    (void)unused;
    struct crew *crew = crew_of(self);
    bool is_any = false;
    if (crew != NULL)
        crew_stop(crew);
    for (uint32_t i = 0; crew != NULL && i < crew->count; i++)
        is_any |= crew->workers[i].has_question || crew->workers[i].lane->drop_count;
    return PyBool_FromLong(is_any);
}

static PyObject *go(PyObject *self, PyObject *unused) {
    (void)unused;
    if (crew_of(self) != NULL)
        crew_go(crew_of(self));
    Py_RETURN_NONE;
}

/* questions(): a list of (number of the lane, result of its drain, socket or None for the tun) of those that wait for
 * an answer.  The lanes are stopped; whatever they have in hand stays. */
static PyObject *questions(PyObject *self, PyObject *unused) {
    (void)unused;
    struct crew_object *object = (struct crew_object *)self;
    struct crew *crew = object->crew;
    PyObject *list = PyList_New(0);
    uint64_t count;
    if (crew != NULL && read(crew->questions, &count, sizeof count) < 0)
        count = 0;
    for (uint32_t i = 0; list != NULL && crew != NULL && i < crew->count; i++) {
        const struct worker *worker = &crew->workers[i];
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

/* answer(number): the question of this lane is dealt with. */
static PyObject *answer(PyObject *self, PyObject *value) {
    long number = PyLong_AsLong(value);
    struct worker *worker = PyErr_Occurred() ? NULL : worker_of(self, (int)number);
    if (worker == NULL)
        return NULL;
    worker_answer(worker);
    Py_RETURN_NONE;
}

/* watch_tun(number, watches): have a lane read its queue of the tun from now on, or no more. */
static PyObject *watch_tun(PyObject *self, PyObject *arguments) {
    int number, watches;
    if (!PyArg_ParseTuple(arguments, "ip", &number, &watches))
        return NULL;
    struct worker *worker = worker_of(self, number);
    return worker == NULL ? NULL : done_or_error(worker_watches_tun(worker, watches));
}

/* watch(number, socket): have a lane take what comes to a socket.  The lanes are stopped. */
static PyObject *watch_udp(PyObject *self, PyObject *arguments) {
    struct crew_object *object = (struct crew_object *)self;
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

/* unwatch(number, socket): no more.  The lanes are stopped, and this one has no question. */
static PyObject *unwatch_udp(PyObject *self, PyObject *arguments) {
    struct crew_object *object = (struct crew_object *)self;
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

static PyMethodDef crew_methods[] = {
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

static PyMemberDef crew_members[] = {
    {"descriptor", T_INT, offsetof(struct crew_object, descriptor), READONLY, NULL},
    {0},
};

int add_crew(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_init, (void *)crew_init},
        {Py_tp_dealloc, (void *)crew_dealloc},
        {Py_tp_methods, crew_methods},
        {Py_tp_members, crew_members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "overlay.forwarding.native.Crew",
        .basicsize = sizeof(struct crew_object),
        .flags = Py_TPFLAGS_DEFAULT,
        .slots = slots,
    };
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    return type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
}
