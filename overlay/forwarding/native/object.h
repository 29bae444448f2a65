/* Objects of state: links, and a structure of native.h that C and Python read and write alike. */
#ifndef OVERLAY_OBJECT_H
#define OVERLAY_OBJECT_H

#include "module.h"

#include <structmember.h>

enum { LINKS = 8 };

/* An object of state: links, and the structure. */
struct object {
    PyObject_HEAD
    PyObject *links[LINKS];
    union {
        struct window window;
        struct traffic traffic;
        struct contact contact;
        struct path path;
        struct asking asking;
        struct discovery discovery;
        struct pace pace;
        struct udp udp;
        struct local_end local_end;
        struct unit_size unit_size;
        struct unit_key unit_key;
        struct bulk bulk;
        struct keypair keypair;
        struct slots slots;
        struct peer peer;
        struct tunnel tunnel;
        struct unsealed unsealed;
        struct server server;
        struct station station;
    } is; /* basicsize is that of the one */
};

#define STRUCTURE offsetof(struct object, is)
#define FIELD(structure, field) (STRUCTURE + offsetof(struct structure, field))

struct link { /* of the structure of an object to another object */
    size_t at; /* of the pointer */
    int number;
    PyTypeObject **type;
};

#define LINK(name, number, structure, field, type) \
    static struct link name = {FIELD(structure, field), number, &type##_type}
#define LINKED(attribute, link) {attribute, get_link, set_link, NULL, &link}
#define MEMBER(name, type, structure, field) {name, type, FIELD(structure, field), 0, NULL}

extern PyTypeObject *window_type, *traffic_type, *contact_type, *path_type, *asking_type, *discovery_type, *pace_type,
    *udp_type, *local_type, *unit_size_type, *unit_key_type, *bulk_type, *keypair_type, *slots_type, *peer_type,
    *tunnel_type, *unsealed_type, *server_type, *station_type;

static inline struct object *as_object(PyObject *self) { return (struct object *)self; }

static inline PyObject *object_of(const void *structure) { return structure_of(structure, STRUCTURE); }

PyObject *get_link(PyObject *self, void *closure);
int set_link(PyObject *self, PyObject *value, void *closure);
void free_object(PyObject *self);
int add_type(PyObject *module, PyTypeObject **type, const char *name, size_t size, PyMemberDef *members,
             PyGetSetDef *links, PyMethodDef *methods, destructor dealloc);

extern int python_lane;      /* peer_types.c: the lane that Python counts for, under the interpreter lock */
extern uint32_t lane_count; /* key_types.c: lanes for which keys are prepared, the most that have existed at once */

extern PyMemberDef no_members[];
extern PyGetSetDef no_links[];
extern PyMethodDef no_methods[];

#define TYPE(variable, name, structure, members, links, methods, dealloc)                                          \
    add_type(module, &variable, "overlay.forwarding.native." name, sizeof(struct structure), members, links, methods, \
             dealloc)

#endif
