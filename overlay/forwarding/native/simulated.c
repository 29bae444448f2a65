#include "simulated.h"

#include <errno.h>
#include <string.h>

/* Objects have the methods that the Python path calls: readinto, write, sendmsg, recvmsg_into.  An OSError stands for
 * an error of the kernel; any other exception stays set, and the caller of the drain raises it. */
static PyObject *network; /* borrowed from the lane that drains */

void simulate(PyObject *objects) { network = objects; }

/* Return the object of a descriptor, borrowed; NULL if the drain must end. */
static PyObject *object_at(int fd) {
    PyObject *key = PyErr_Occurred() ? NULL : PyLong_FromLong(fd);
    PyObject *found = key == NULL ? NULL : PyDict_GetItemWithError(network, key);
    Py_XDECREF(key);
    if (found == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_LookupError, "there is no such descriptor");
    return found;
}

/* Set errno to the reason why a call failed, like the kernel. */
static ssize_t failed(void) {
    PyObject *type, *value, *trace;
    errno = EIO;
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return -1;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *number = PyObject_GetAttrString(value, "errno");
    if (number != NULL && number != Py_None)
        errno = (int)PyLong_AsLong(number);
    else
        errno = PyErr_GivenExceptionMatches(value, PyExc_BlockingIOError) ? EAGAIN : EIO;
    PyErr_Clear();
    Py_XDECREF(number);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return -1;
}

static ssize_t as_size(PyObject *answer) {
    if (answer == NULL)
        return failed();
    ssize_t size = -1;
    if (answer == Py_None)
        errno = EAGAIN;
    else
        size = PyLong_AsSsize_t(answer);
    Py_DECREF(answer);
    return size;
}

static ssize_t simulated_read(int fd, void *at, size_t size) {
    PyObject *tun = object_at(fd);
    if (tun == NULL)
        return failed();
    return as_size(PyObject_CallMethod(tun, "readinto", "N", PyMemoryView_FromMemory(at, (Py_ssize_t)size, PyBUF_WRITE)));
}

static PyObject *list_of(const struct iovec *parts, int count) {
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        struct slice bytes = slice_of_part(parts, (size_t)count, (size_t)i);
        PyObject *part = PyBytes_FromStringAndSize((const char *)bytes.bytes, bytes.size);
        if (part == NULL || PyList_SetItem(list, i, part))
            Py_CLEAR(list);
    }
    return list;
}

static ssize_t simulated_writev(int fd, const struct iovec *parts, int count) {
    PyObject *tun = object_at(fd), *list = tun == NULL ? NULL : list_of(parts, count);
    PyObject *answer = list == NULL ? NULL : PyObject_CallMethod(tun, "write", "N", list);
    if (answer == NULL)
        return failed();
    Py_DECREF(answer);
    return 0;
}

static PyObject *address_of(const union address *address) {
    PyObject *socket = PyImport_ImportModule("socket"), *host = NULL, *made = NULL;
    bool is_ipv4 = address->any.sa_family == AF_INET;
    if (socket != NULL)
        host = PyObject_CallMethod(socket, "inet_ntop", "iy#", (int)address->any.sa_family,
                                   is_ipv4 ? (const char *)&address->v4.sin_addr : (const char *)&address->v6.sin6_addr,
                                   (Py_ssize_t)(is_ipv4 ? 4 : 16));
    if (host != NULL && is_ipv4)
        made = Py_BuildValue("(Oi)", host, ntohs(address->v4.sin_port));
    else if (host != NULL)
        made = Py_BuildValue("(OiII)", host, ntohs(address->v6.sin6_port), ntohl(address->v6.sin6_flowinfo),
                             address->v6.sin6_scope_id);
    Py_XDECREF(host);
    Py_XDECREF(socket);
    return made;
}

static ssize_t simulated_sendmsg(int fd, const struct msghdr *message, int flags) {
    PyObject *socket = object_at(fd), *control = socket == NULL ? NULL : PyList_New(0), *answer = NULL;
    if (control == NULL)
        return failed();
    struct msghdr same = *message;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&same); each != NULL; each = CMSG_NXTHDR(&same, each)) {
        PyObject *row = Py_BuildValue("(iiy#)", each->cmsg_level, each->cmsg_type, (const char *)CMSG_DATA(each),
                                      (Py_ssize_t)(each->cmsg_len - CMSG_LEN(0)));
        if (row == NULL || PyList_Append(control, row)) {
            Py_XDECREF(row);
            Py_DECREF(control);
            return failed();
        }
        Py_DECREF(row);
    }
    PyObject *parts = list_of(message->msg_iov, (int)message->msg_iovlen), *address = address_of(message->msg_name);
    if (parts != NULL && address != NULL)
        answer = PyObject_CallMethod(socket, "sendmsg", "OOiO", parts, control, flags, address);
    Py_XDECREF(parts);
    Py_XDECREF(address);
    Py_DECREF(control);
    return as_size(answer);
}

/* Write what Python reports about a receive where the kernel would. */
static bool put_answer(struct msghdr *message, PyObject *control, PyObject *source) {
    struct slice room = slice_of(message->msg_control, message->msg_controllen);
    uint32_t at = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(control); i++) {
        int level, kind;
        const char *data;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyList_GetItem(control, i), "iiy#", &level, &kind, &data, &size))
            return false;
        uint32_t before = at;
        at = add_control(room, at, level, kind, data, (uint32_t)size);
        if (at == before)
            return false;
    }
    message->msg_controllen = at;
    union address *address = message->msg_name;
    PyObject *socket = PyImport_ImportModule("socket"), *packed = NULL;
    const char *host;
    int port;
    unsigned int flow = 0, scope = 0;
    bool is_ipv4 = PyTuple_Size(source) == 2, is_good = false;
    if (socket != NULL && PyArg_ParseTuple(source, "si|II", &host, &port, &flow, &scope))
        packed = PyObject_CallMethod(socket, "inet_pton", "is", is_ipv4 ? AF_INET : AF_INET6, host);
    memset(address, 0, sizeof *address);
    if (packed != NULL && is_ipv4) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons((uint16_t)port);
        memcpy(&address->v4.sin_addr, PyBytes_AsString(packed), 4);
        message->msg_namelen = sizeof address->v4;
        is_good = true;
    } else if (packed != NULL) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons((uint16_t)port);
        address->v6.sin6_flowinfo = htonl(flow);
        address->v6.sin6_scope_id = scope;
        memcpy(&address->v6.sin6_addr, PyBytes_AsString(packed), 16);
        message->msg_namelen = sizeof address->v6;
        is_good = true;
    }
    Py_XDECREF(packed);
    Py_XDECREF(socket);
    return is_good;
}

static ssize_t simulated_recvmsg(int fd, struct msghdr *message, int flags) {
    (void)flags;
    PyObject *socket = object_at(fd);
    if (socket == NULL)
        return failed();
    PyObject *view = PyMemoryView_FromMemory(message->msg_iov->iov_base, (Py_ssize_t)message->msg_iov->iov_len, PyBUF_WRITE);
    PyObject *answer = PyObject_CallMethod(socket, "recvmsg_into", "[N]i", view, CONTROL_BYTES);
    if (answer == NULL)
        return failed();
    Py_ssize_t size;
    PyObject *control, *source;
    ssize_t result = -1;
    if (PyArg_ParseTuple(answer, "nOiO", &size, &control, &message->msg_flags, &source) &&
        put_answer(message, control, source))
        result = size;
    Py_DECREF(answer);
    return result < 0 ? failed() : result;
}

typedef struct message (*batch)[RAW_MESSAGES];

/* Raw sockets have send_many(packets, address, TOS, TTL), and receive_many(count) that returns (packet, TOS,
 * source). */
static int simulated_send_many(int fd, struct message *messages, unsigned int count) {
    PyObject *socket = object_at(fd), *list = socket == NULL ? NULL : PyList_New(0), *answer = NULL;
    for (unsigned int i = 0; list != NULL && i < count; i++) {
        const struct iovec *part = (*(batch)messages)[i].msg_hdr.msg_iov;
        PyObject *packet = PyBytes_FromStringAndSize(part->iov_base, (Py_ssize_t)part->iov_len);
        if (packet == NULL || PyList_Append(list, packet))
            Py_CLEAR(list);
        Py_XDECREF(packet);
    }
    int tos = 0, ttl = 0;
    struct msghdr *first = &messages->msg_hdr;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(first); each != NULL; each = CMSG_NXTHDR(first, each)) {
        bool is_tos = each->cmsg_level == IPPROTO_IP ? each->cmsg_type == IP_TOS : each->cmsg_type == IPV6_TCLASS;
        memcpy(is_tos ? &tos : &ttl, CMSG_DATA(each), sizeof tos);
    }
    PyObject *address = list == NULL ? NULL : address_of(first->msg_name);
    if (address != NULL)
        answer = PyObject_CallMethod(socket, "send_many", "OOii", list, address, tos, ttl);
    Py_XDECREF(address);
    Py_XDECREF(list);
    return (int)as_size(answer);
}

static int simulated_receive_many(int fd, struct message *messages, unsigned int count) {
    PyObject *socket = object_at(fd);
    PyObject *rows = socket == NULL ? NULL : PyObject_CallMethod(socket, "receive_many", "I", count);
    if (rows == NULL)
        return (int)failed();
    int received = (int)PyList_Size(rows);
    for (int i = 0; i < received; i++) {
        const char *packet;
        Py_ssize_t size;
        PyObject *control, *source;
        struct message *message = &(*(batch)messages)[i];
        struct msghdr *header = &message->msg_hdr;
        if (!PyArg_ParseTuple(PyList_GetItem(rows, i), "y#OO", &packet, &size, &control, &source) ||
            !put_answer(header, control, source)) {
            Py_DECREF(rows);
            return (int)failed();
        }
        struct slice bytes = slice_of(packet, (size_t)size), row = slice_of_part(header->msg_iov, header->msg_iovlen, 0);
        uint32_t first = row.size < bytes.size ? row.size : bytes.size;
        slice_copy(row, 0, slice_part(bytes, 0, first));
        slice_copy(slice_of_part(header->msg_iov, header->msg_iovlen, 1), 0, slice_from(bytes, first));
        message->msg_len = bytes.size;
    }
    Py_DECREF(rows);
    return received;
}

/* Python itself calls the sockets in memory. */
static bool simulated_is_crowded(int fd) {
    (void)fd;
    return true;
}

static uint32_t simulated_arrived(int fd) {
    PyObject *socket = object_at(fd), *told = socket == NULL ? NULL : PyObject_GetAttrString(socket, "arrived");
    uint32_t waiting = told == NULL ? 0 : (uint32_t)PyLong_AsUnsignedLong(told);
    Py_XDECREF(told);
    return waiting;
}

const struct io simulated = {simulated_read, simulated_writev, simulated_sendmsg, simulated_recvmsg,
                             simulated_send_many, simulated_receive_many, simulated_is_crowded, simulated_arrived};
