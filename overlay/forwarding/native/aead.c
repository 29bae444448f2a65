/* AEADs of OpenSSL's libcrypto, through its EVP interface, which has been the same since 1.1.0 (man EVP_EncryptInit).
 *
 * The library is opened at run time, and its functions are declared here: building does not need its headers, and a
 * host without it uses the Python path. */
#include "native.h"

#include "bytes.h"

#include <dlfcn.h>

enum { GET_TAG = 0x10, SET_TAG = 0x11, CIPHER_AES_256_GCM = 1, NONCE_SIZE = 12 };

static struct {
    void *(*context_new)(void);
    void (*context_free)(void *);
    const void *(*chacha)(void);
    const void *(*gcm)(void);
    int (*init)(void *, const void *, void *, const uint8_t *, const uint8_t *, int);
    int (*update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*final)(void *, uint8_t *, int *);
    int (*control)(void *, int, int, void *);
    const char *(*version)(int);
} evp;

/* Return whether *cipher* is available.  Everything that the library loads for it is loaded now: later a filter of
 * system calls may prevent opening files. */
static bool can_do(int cipher) {
    static const uint8_t key[32];
    struct aead aead;
    bool is_done = aead_init(&aead, cipher, key, true);
    if (is_done)
        aead_free(&aead);
    return is_done;
}

/* Open the library.  Return NULL, or what is missing. */
const char *crypto_open(void) {
    static const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"EVP_CIPHER_CTX_new", &evp.context_new}, {"EVP_CIPHER_CTX_free", &evp.context_free},
        {"EVP_chacha20_poly1305", &evp.chacha},   {"EVP_aes_256_gcm", &evp.gcm},
        {"EVP_CipherInit_ex", &evp.init},         {"EVP_CipherUpdate", &evp.update},
        {"EVP_CipherFinal_ex", &evp.final},       {"EVP_CIPHER_CTX_ctrl", &evp.control},
        {"OpenSSL_version", &evp.version},
    };
    static const char *const libraries[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < sizeof libraries / sizeof *libraries; i++)
        library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return "libcrypto.so.3";
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (found == NULL)
            return wanted[i].name;
        memcpy(wanted[i].function, &found, sizeof found);
    }
    if (!can_do(0))
        return "ChaCha20-Poly1305 of libcrypto";
    return can_do(CIPHER_AES_256_GCM) ? NULL : "AES-256-GCM of libcrypto";
}

const char *crypto_version(void) { return evp.version(0); }

/* Make *aead* seal, or open, under *key* with a cipher of bulk units; 0 is the cipher of transport messages. */
bool aead_init(struct aead *aead, int cipher, const uint8_t key[32], bool seals) {
    aead->methods = NULL;
    aead->object = NULL;
    const void *kind = cipher == CIPHER_AES_256_GCM ? evp.gcm() : evp.chacha();
    aead->context = evp.context_new();
    if (aead->context == NULL)
        return false;
    if (evp.init(aead->context, kind, NULL, key, NULL, seals) == 1)
        return true;
    aead_free(aead);
    return false;
}

void aead_free(struct aead *aead) {
    if (aead->context != NULL)
        evp.context_free(aead->context); /* which wipes the key */
    aead->context = NULL;
}

static bool begin(const struct aead *aead, uint64_t counter) {
    uint8_t nonce[NONCE_SIZE] = {0};
    write64_le(slice_of(nonce, sizeof nonce), NONCE_SIZE - sizeof counter, counter);
    return evp.init(aead->context, NULL, NULL, NULL, nonce, -1) == 1;
}

/* Seal *data* in place except its last TAG_SIZE bytes, where the tag is written; false if it has no more than these. */
bool aead_seal(const struct aead *aead, uint64_t counter, struct slice data) {
    if (data.size < TAG_SIZE)
        return false;
    uint32_t size = data.size - TAG_SIZE;
    if (aead->methods != NULL && size >= PYTHON_AEAD_BYTES)
        return aead->methods->seal(aead->object, counter, data);
    int done = 0, rest = 0;
    return begin(aead, counter) && evp.update(aead->context, data.bytes, &done, data.bytes, (int)size) == 1 &&
           evp.final(aead->context, slice_from(data, (uint32_t)done).bytes, &rest) == 1 &&
           evp.control(aead->context, GET_TAG, TAG_SIZE, slice_part(data, size, TAG_SIZE).bytes) == 1;
}

/* Open *data*, whose last TAG_SIZE bytes are the tag, in place; if this returns false, its contents are undefined. */
bool aead_open(const struct aead *aead, uint64_t counter, struct slice data) {
    if (data.size < TAG_SIZE)
        return false;
    uint32_t size = data.size - TAG_SIZE;
    if (aead->methods != NULL && size >= PYTHON_AEAD_BYTES)
        return aead->methods->open(aead->object, counter, data);
    int done = 0, rest = 0;
    return begin(aead, counter) &&
           evp.control(aead->context, SET_TAG, TAG_SIZE, slice_part(data, size, TAG_SIZE).bytes) == 1 &&
           evp.update(aead->context, data.bytes, &done, data.bytes, (int)size) == 1 &&
           evp.final(aead->context, slice_from(data, (uint32_t)done).bytes, &rest) == 1;
}
