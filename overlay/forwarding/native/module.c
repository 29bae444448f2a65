/* The module: state as objects, and the lane that drains descriptors. */
#include "lane_methods.h"
#include "object.h"

static int execute(PyObject *module) {
    const char *missing = crypto_open();
    if (missing != NULL) {
        PyErr_Format(PyExc_ImportError, "%s is missing", missing);
        return -1;
    }
    if (add_window(module) || add_sockets(module) || add_keys(module) || add_peers(module) || add_lane(module) ||
        add_workers(module) || add_poll(module) || add_python_aead(module))
        return -1;
    return PyModule_AddStringConstant(module, "LIBRARY", crypto_version());
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The compiled packet path: the twin of the Python path, which specifies it.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
