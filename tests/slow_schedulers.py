"""Slow and obvious twins of the schedulers: each is its rule, written again without any state except flows.

A twin is called with the current servers and loads, and with all earlier choices.
"""

from __future__ import annotations

import math
from fractions import Fraction


def takers(servers, loads):
    return [each for each in servers if each.weight > 0 and each.index not in loads.full]


def least(servers, loads, cost):
    found = takers(servers, loads)
    return min(found, key=lambda each: (cost(each), servers.index(each))).index if found else None


def lc(servers, loads):
    return least(servers, loads, lambda each: loads.active[each.index] * 256 + loads.inactive[each.index])


def wlc(servers, loads):
    return least(
        servers,
        loads,
        lambda each: Fraction(loads.active[each.index] * 256 + loads.inactive[each.index], each.weight),
    )


def sed(servers, loads):
    return least(servers, loads, lambda each: Fraction(loads.active[each.index] + 1, each.weight))


def nq(servers, loads):
    idle = [each.index for each in takers(servers, loads) if loads.active[each.index] == 0]
    return idle[0] if idle else sed(servers, loads)


def fo(servers, loads):
    return least(servers, loads, lambda each: -each.weight)


def ovf(servers, loads):
    free = [each for each in servers if loads.active[each.index] <= each.weight]
    return least(free, loads, lambda each: -each.weight)


def rr_rounds(servers):
    """Yield the servers of one round after the other."""
    while True:
        yield from (each for each in servers if each.weight)


def wrr_rounds(servers):
    """Yield the servers of one round after the other: first that of the lowest level, then from the highest down."""
    weights = [each.weight for each in servers]
    step = math.gcd(*weights)
    levels = list(range(max(weights), 0, -step))
    yield from (each for each in servers if each.weight)
    while True:
        for level in levels:
            yield from (each for each in servers if each.weight >= level)


def maglev(likings, weights, slots):
    """Return the table according to section 3.4 of the paper, with each server's whole preference list written out."""
    lists = [[(first + number * step) % slots for number in range(slots)] for first, step in likings]
    table = [None] * slots
    accounts = [0] * len(likings)
    while True:
        for place, weight in enumerate(weights):
            accounts[place] += weight
            if accounts[place] < max(weights):
                continue
            accounts[place] -= max(weights)
            slot = next(slot for slot in lists[place] if table[slot] is None)
            table[slot] = place
            if None not in table:
                return table
