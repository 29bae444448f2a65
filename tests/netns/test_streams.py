"""The throughput of many streams that scripts/bench reports is the sum of all of them."""

from __future__ import annotations

from scripts.benchmarks.measures import IPERF3_STREAMS, stream
from tests.netns.topology import End


def test_more_streams_than_one_iperf3_takes_are_counted_together(lab):
    sender, receiver = lab.namespace("sender"), lab.namespace("receiver")
    lab.veth(End(sender, "eth0", ["10.9.0.1/24"]), End(receiver, "eth0", ["10.9.0.2/24"]))

    rate, volume = stream(sender, receiver, "10.9.0.2", 1, streams=IPERF3_STREAMS + 3)

    assert rate > 0
    assert volume > 0
    snmp = receiver.run("cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in snmp if line.startswith("Tcp:"))
    # The streams, and one connection per iperf3 for the messages of its two ends.
    assert dict(zip(names, values, strict=True))["PassiveOpens"] == str(IPERF3_STREAMS + 3 + 2)
