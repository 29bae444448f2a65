/* Virtual services of a story: flows and permits that the lane is told about, and must forget. */
#include "world.h"

#include "../bytes.h"
#include "../packet.h"

enum { SERVERS = 3, CELLS = 8, CHANGES_OF_SOURCES = 5 };

static struct server servers[SERVERS];
static struct peer own = {.number = OWN};
static double seen[CELLS];
static uint8_t states[CELLS];

/* Forget all flows, and set an address of a service in either family. */
void services_reset(void) {
    flows_forget();
    admissions_forget();
    for (int i = 0; i < SERVERS; i++)
        servers[i] = (struct server){.peer = &world.remotes[i * 2].peer};
    for (int i = 0; i < CELLS; i++) {
        seen[i] = 0;
        states[i] = (uint8_t)(i % 2 ? 8 : 2); /* of a UDP flow, and of an established one */
    }
    for (uint32_t version = 4; version <= 6; version += 2) {
        uint8_t address[16];
        put_address(address, version, VIRTUAL);
        routes_add(world.lane->state, slice_of(address, version == 4 ? 4 : 16), &virtual_address);
    }
}

/* Find the key of the flow of packets of *spec*, like Python (services.headers: key_of). */
static bool key_of(const struct spec *spec, struct flow_key *key) {
    static uint8_t packet[MAXIMUM_IP];
    uint8_t bytes[MOST_KEY];
    make_packet(spec, 0, packet);
    uint32_t size = spec->version == 4 ? 12 : 36;
    memcpy(bytes, packet + (spec->version == 4 ? 12 : 8), size);
    if (spec->protocol != PROTOCOL_TCP)
        bytes[size++] = (uint8_t)spec->protocol;
    return flow_key_set(key, slice_of(bytes, size));
}

/* A flow to the virtual address, with one packet of it at the tun. */
void say_flow(struct cursor *cursor) {
    uint32_t how = take8(cursor), which = take8(cursor);
    struct spec spec = take_spec(cursor, true);
    struct flow_key key;
    spec.owner = VIRTUAL;
    if (!key_of(&spec, &key))
        refuse_story("a key that is too long");
    switch (how & 7) {
    case 0: flows_remove(world.lane->state, &key); break;
    case 1: flows_forget(); break;
    case 2: servers[which % SERVERS].dscp = (int)(which >> 4); break;
    case 3:
        servers[which % SERVERS].peer = which % (PEERS + 1) < PEERS ? &world.remotes[which % (PEERS + 1)].peer : &own;
        if (which & 0x80)
            servers[which % SERVERS].peer = NULL;
        break;
    case 4: states[which % CELLS] = (uint8_t)(which >> 4); break;
    default:
        flows_add(world.lane->state, &key, &seen[which % CELLS], &states[which % CELLS], &servers[(which >> 4) % SERVERS]);
    }
    if (how & 8)
        wait_at_tun(cursor, &spec, how >> 4);
}

/* Let *peer*, in the clear, send from some ranges of addresses of either family. */
static void allow(struct cursor *cursor, uint32_t peer) {
    static uint8_t changes[PEERS][2][CHANGES_OF_SOURCES][16];
    uint32_t which = take8(cursor), count = which % (CHANGES_OF_SOURCES + 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t *at = changes[peer][i][0];
        world.remotes[peer].unsealed.sources[i] = slice_of(at, count * (i ? 16 : 4));
        for (uint32_t number = 0; number < count; number++)
            put_address(at + number * (i ? 16 : 4), i ? 6 : 4, (which >> 4) + number * 2);
    }
}

/* A permit, and a packet of a server with the virtual address as its source. */
void say_permit(struct cursor *cursor) {
    uint32_t how = take8(cursor), peer = take8(cursor) % PEERS;
    struct spec spec = take_spec(cursor, false);
    struct flow_key key;
    spec.owner = VIRTUAL;
    if (how & 0x80 && peer >= SEALED)
        allow(cursor, peer);
    if (how & 1)
        admissions_forget();
    else if (key_of(&spec, &key))
        admissions_add(world.lane->state, &key, &world.remotes[peer].peer);
    if (how & 2)
        arrive_from(cursor, peer, &spec, 1 + (how >> 2) % 32);
}
