/* AEADs that are Python's: methods of cryptography's objects, for large units where its OpenSSL is faster (aes.py).
 *
 * They need the interpreter.  So only the first lane calls them, in Python's thread, which takes the interpreter for
 * each call, and only if there are no other lanes.  A call costs about a microsecond, and the memory of its views while
 * it lasts. */
#include "bytes.h"
#include "module.h"

#include <stdlib.h>
#include <time.h>

enum { NONCE_SIZE = 12, CIPHER_AES_256_GCM = 1, COMPARED_BYTES = 32 * 1024, COMPARED_ROUNDS = 12 };

static bool is_enabled;

/* Call *method*(nonce, input, None, output) on the bytes of both, which may overlap; false if it fails.  The caller
 * holds the interpreter. */
static bool call_held(void *method, uint64_t counter, struct slice input_bytes, struct slice output_bytes) {
    if (PyErr_Occurred())
        return false;
    uint8_t nonce[NONCE_SIZE] = {0};
    write64_le(slice_of(nonce, sizeof nonce), NONCE_SIZE - sizeof counter, counter);
    PyObject *nonce_object = PyBytes_FromStringAndSize((const char *)nonce, NONCE_SIZE);
    PyObject *input = PyMemoryView_FromMemory((char *)input_bytes.bytes, input_bytes.size, PyBUF_READ);
    PyObject *output = PyMemoryView_FromMemory((char *)output_bytes.bytes, output_bytes.size, PyBUF_WRITE);
    PyObject *answer = NULL;
    if (nonce_object != NULL && input != NULL && output != NULL)
        answer = PyObject_CallFunctionObjArgs(method, nonce_object, input, Py_None, output, NULL);
    Py_XDECREF(nonce_object);
    Py_XDECREF(input);
    Py_XDECREF(output);
    Py_XDECREF(answer);
    PyErr_Clear(); /* a forged unit, or no memory: it is dropped and counted as one */
    return answer != NULL;
}

/* Like call_held(), for a caller that may have released the interpreter (poll.c). */
static bool call(void *method, uint64_t counter, struct slice input, struct slice output) {
    PyGILState_STATE before = PyGILState_Ensure();
    bool is_done = call_held(method, counter, input, output);
    PyGILState_Release(before);
    return is_done;
}

static struct slice plain_of(struct slice data) { return slice_part(data, 0, data.size - TAG_SIZE); }

static bool seal(void *method, uint64_t counter, struct slice data) {
    return call(method, counter, plain_of(data), data);
}

static bool open(void *method, uint64_t counter, struct slice data) {
    return call(method, counter, data, plain_of(data));
}

static const struct aead_methods methods = {seal, open};

/* Make *aead* call *method* for large units from now on, if that is a method and may be called. */
void python_aead_attach(struct aead *aead, int cipher, PyObject *method) {
    if (!is_enabled || cipher != CIPHER_AES_256_GCM || method == Py_None)
        return;
    aead->methods = &methods;
    aead->object = Py_NewRef(method);
}

/* Let no further AEAD call Python from now on: there are threads without the interpreter. */
void python_aead_disable(void) { is_enabled = false; }

/* Free *aead*, and release the object whose method it calls. */
void aead_release(struct aead *aead) {
    PyObject *object = aead->object;
    aead->methods = NULL;
    aead->object = NULL;
    Py_XDECREF(object);
    aead_free(aead);
}

/* use_python_aes(flag): whether keys of units that are made from now on may call Python */
static PyObject *use_python_aes(PyObject *module, PyObject *value) {
    (void)module;
    int is_used = PyObject_IsTrue(value);
    if (is_used < 0)
        return NULL;
    is_enabled = is_used;
    Py_RETURN_NONE;
}

static double seconds_of_seal(const struct aead *aead, uint64_t counter, uint8_t *data) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    bool is_done = aead_seal(aead, counter, slice_of(data, COMPARED_BYTES + TAG_SIZE));
    clock_gettime(CLOCK_MONOTONIC, &end);
    return is_done ? (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9 : 1;
}

/* compare_aes(method): the seconds that a seal of 32 KiB takes with libcrypto and with *method*, encrypt_into of a key
 * of zeros, the least of several each, in turns; None if their results differ */
static PyObject *compare_aes(PyObject *module, PyObject *method) {
    (void)module;
    static const uint8_t key[32];
    struct aead own = {0}, other = {0};
    uint8_t *data = calloc(1, COMPARED_BYTES + TAG_SIZE), *beside = calloc(1, COMPARED_BYTES + TAG_SIZE);
    double least = 1, least_beside = 1;
    bool are_equal = data != NULL && beside != NULL && aead_init(&own, CIPHER_AES_256_GCM, key, true) &&
                     aead_init(&other, CIPHER_AES_256_GCM, key, true);
    if (are_equal) {
        other.methods = &methods;
        other.object = Py_NewRef(method);
    }
    for (uint64_t round = 0; are_equal && round < COMPARED_ROUNDS; round++) {
        double one = seconds_of_seal(&own, round, data), two = seconds_of_seal(&other, round, beside);
        least = one < least ? one : least;
        least_beside = two < least_beside ? two : least_beside;
        are_equal = memcmp(data, beside, COMPARED_BYTES + TAG_SIZE) == 0;
    }
    aead_release(&own);
    aead_release(&other);
    free(data);
    free(beside);
    return are_equal ? Py_BuildValue("(dd)", least, least_beside) : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"use_python_aes", use_python_aes, METH_O, NULL},
    {"compare_aes", compare_aes, METH_O, NULL},
    {0},
};

int add_python_aead(PyObject *module) { return PyModule_AddFunctions(module, functions); }
