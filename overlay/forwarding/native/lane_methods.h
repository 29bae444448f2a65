/* The methods of a lane, which are in several files. */
#ifndef OVERLAY_LANE_METHODS_H
#define OVERLAY_LANE_METHODS_H

#include "module.h"

extern PyTypeObject *lane_type;

static inline struct lane *lane_of(PyObject *self) { return ((struct lane_object *)self)->lane; }

/* lane_results.c */
PyObject *lane_take_drops(PyObject *self, PyObject *unused);
PyObject *lane_capture_drops(PyObject *self, PyObject *value);
PyObject *lane_take_captured(PyObject *self, PyObject *unused);
PyObject *lane_take_refused(PyObject *self, PyObject *unused);
PyObject *lane_take_look(PyObject *self, PyObject *unused);
PyObject *lane_packet(PyObject *self, PyObject *unused);
PyObject *lane_error(PyObject *self, PyObject *unused);
PyObject *lane_edge(PyObject *self, PyObject *unused);
PyObject *lane_received(PyObject *self, PyObject *unused);
PyObject *lane_arrival(PyObject *self, PyObject *unused);
PyObject *lane_raw_row(PyObject *self, PyObject *unused);
PyObject *lane_raw_group(PyObject *self, PyObject *unused);

/* lane_tables.c */
PyObject *lane_remember(PyObject *self, PyObject *arguments);
PyObject *lane_remember_virtual(PyObject *self, PyObject *value);
PyObject *lane_carry_frames(PyObject *self, PyObject *value);
PyObject *lane_remember_station(PyObject *self, PyObject *arguments);
PyObject *lane_forget(PyObject *self, PyObject *unused);
PyObject *lane_remember_flow(PyObject *self, PyObject *arguments);
PyObject *lane_forget_flow(PyObject *self, PyObject *value);
PyObject *lane_forget_flows(PyObject *self, PyObject *unused);
PyObject *lane_admit(PyObject *self, PyObject *arguments);
PyObject *lane_forget_admitted(PyObject *self, PyObject *unused);
PyObject *lane_locate(PyObject *self, PyObject *arguments);
PyObject *lane_unlocate(PyObject *self, PyObject *value);
PyObject *lane_list(PyObject *self, PyObject *value);
PyObject *lane_unlist(PyObject *self, PyObject *value);

/* lane_reassembly.c */
PyObject *lane_place(PyObject *self, PyObject *arguments);
PyObject *lane_put(PyObject *self, PyObject *arguments);
PyObject *lane_take(PyObject *self, PyObject *value);
PyObject *lane_waiting(PyObject *self, PyObject *unused);
#endif
