"""The fast path for common rows; test_segments_joined tests what is joined at all."""

from __future__ import annotations

import pytest

from overlay.forwarding.offload import join
from overlay.forwarding.offload.flow import flow_of
from overlay.forwarding.offload.join import Geometries, Rows, Run
from tests import packets
from tests.overlay.forwarding.offload.trains import flow, rows_of, udp_flow
from tests.packets import PSH

PLAIN_FLOWS = {
    f"{make.__name__} {version} {size} {last}": make(4, size, last, version=version, **fields)
    for make, fields in ((flow, {}), (flow, {"tcp_options": bytes([1, 1, 8, 10]) + bytes(8)}), (udp_flow, {}))
    for version in (4, 6)
    for size, last in ((100, 100), (100, 33), (1360, 7), (2, 2), (1, 1), (255, 255), (256, 1), (511, 510))
}


@pytest.mark.parametrize("inner", PLAIN_FLOWS.values(), ids=PLAIN_FLOWS)
@pytest.mark.parametrize("is_pushed", [False, True])
def test_a_whole_flow_is_one_run_at_a_glance(inner, is_pushed, monkeypatch):
    if is_pushed and packets.protocol_of(inner[-1]) == packets.TCP:
        at = packets.l4_start(inner[-1]) + 13
        last = inner[-1][:at] + bytes([inner[-1][at] | PSH]) + inner[-1][at + 1 :]
        inner = [*inner[:-1], packets.with_l4_checksum(last)]
    general = rows_of(inner).runs(udp=True)

    monkeypatch.setattr(Rows, "_checksums", None)  # of the general path

    assert rows_of(inner).runs(udp=True) == general == [Run(0, len(inner))]


@pytest.mark.parametrize(
    ("identifier", "is_at_a_glance"), [(0xFFFC, True), (0xFFFD, False), ("check 4", True), ("check 3", False)]
)
def test_a_flow_whose_numbers_wrap_around_is_one_run_the_general_way(identifier, is_at_a_glance, monkeypatch):
    """In four rows, the last identifier happens to be 0xFFFF, and the last header checksum 1."""
    if isinstance(identifier, str):
        check = int.from_bytes(flow(1, 100, identifier=0)[0][10:12], "big")
        identifier = (check - int(identifier[-1])) % 0xFFFF
    inner = flow(4, 100, identifier=identifier)
    general = []
    checksums = Rows._checksums
    monkeypatch.setattr(Rows, "_checksums", lambda *args: general.append(1) or checksums(*args))

    assert rows_of(inner).runs(udp=True) == [Run(0, 4)]
    assert general == ([] if is_at_a_glance else [1])


@pytest.mark.parametrize("are_sums_right", [False, True])
@pytest.mark.parametrize("row", [0, 1, 3])
@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize("version", [4, 6])
def test_a_byte_that_differs_is_seen_at_a_glance_as_by_the_general_way(
    version, make, row, are_sums_right, monkeypatch
):
    inner = make(4, 20, 19, version=version)
    start = packets.l4_start(inner[row])
    changed = []
    for at in range(1, start + 22):
        for change in (1, 0x10, 0x80, 0xFF):
            packet = inner[row][:at] + bytes([inner[row][at] ^ change]) + inner[row][at + 1 :]
            if are_sums_right and packets.l4_start(packet) == start:
                packet = packets.with_ip_checksum(packet)
                if packets.protocol_of(packet) == packets.protocol_of(inner[row]):
                    packet = packets.with_l4_checksum(packet)
            changed.append([*inner[:row], packet, *inner[row + 1 :]])
    at_a_glance = [rows_of(each).runs(udp=True) for each in changed]

    monkeypatch.setattr(Rows, "_is_one_run", lambda *_: False)

    assert at_a_glance == [rows_of(each).runs(udp=True) for each in changed]


def test_geometries_are_remembered_up_to_a_number_of_them_and_of_rows(monkeypatch):
    monkeypatch.setattr(join, "LAYOUTS", 3)
    monkeypatch.setattr(join, "LAYOUT_ROWS", 12)

    def made(geometries, *counts):
        """Return which geometries are the same objects when they are requested again, the last first."""
        rows = [rows_of(flow(count, 20 + number * 2)) for number, count in enumerate(counts)]
        first = [geometries.of(each, flow_of(each.plaintext(0))) for each in rows]
        again = [geometries.of(each, flow_of(each.plaintext(0))) for each in reversed(rows)]
        return [one is other for one, other in zip(first, reversed(again), strict=True)]

    assert made(Geometries(), 4, 4, 4) == [True] * 3
    assert made(Geometries(), 4, 4, 5) == [False, False, True]
    assert made(Geometries(), 2, 2, 2, 2)[-1:] == [True]
    assert made(Geometries(), 2, 2, 2, 2)[0] is False
