/* The life of objects of state, and the links between them.
 *
 * Each type of state is a base class (state.py says of what, and has the same without C): its members are the fields of
 * the structures in native.h.  An object that C finds through another is a link: the structure has a pointer, and a
 * reference beside it keeps the object alive. */
#include "object.h"

#include <string.h>

PyTypeObject *window_type, *traffic_type, *contact_type, *path_type, *asking_type, *discovery_type, *pace_type, *udp_type,
    *local_type, *unit_size_type, *unit_key_type, *bulk_type, *keypair_type, *slots_type, *peer_type, *tunnel_type,
    *unsealed_type, *server_type, *station_type;

/* Life */

static int traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < LINKS; i++)
        Py_VISIT(as_object(self)->links[i]);
    return 0;
}

static int clear(PyObject *self) {
    for (int i = 0; i < LINKS; i++)
        Py_CLEAR(as_object(self)->links[i]);
    return 0;
}

void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Links */

PyObject *get_link(PyObject *self, void *closure) {
    const struct link *link = closure;
    PyObject *found = as_object(self)->links[link->number];
    return Py_NewRef(found == NULL ? Py_None : found);
}

int set_link(PyObject *self, PyObject *value, void *closure) {
    const struct link *link = closure;
    void *pointer = NULL;
    if (value == Py_None)
        value = NULL;
    if (value != NULL && PyObject_TypeCheck(value, *link->type))
        pointer = &as_object(value)->is; /* objects of other types are only for Python */
    memcpy(field_at(self, link->at), &pointer, sizeof pointer);
    PyObject *before = as_object(self)->links[link->number];
    as_object(self)->links[link->number] = Py_XNewRef(value);
    Py_XDECREF(before);
    return 0;
}

/* Types */

PyMemberDef no_members[] = {{0}};
PyGetSetDef no_links[] = {{0}};
PyMethodDef no_methods[] = {{0}};

int add_type(PyObject *module, PyTypeObject **type, const char *name, size_t size, PyMemberDef *members,
                    PyGetSetDef *links, PyMethodDef *methods, destructor dealloc) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, (void *)traverse}, {Py_tp_clear, (void *)clear}, {Py_tp_dealloc, (void *)dealloc},
        {Py_tp_members, members},           {Py_tp_getset, links},        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = (int)(STRUCTURE + size),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}
