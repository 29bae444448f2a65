from scripts.benchmarks.report import CPU, READY, TCP, Results, rounded, summary


class FakePair:
    def __init__(self, name, label=None):
        self.name = name
        self.label = label or name


def measured(figures):
    results = Results(["hosts", "containers"], "veth", {})
    for label, rate in figures.items():
        pair = FakePair(label.partition(" +")[0], label)
        results.note(READY, pair, 0.5)
        results.note(TCP, pair, 100.0, "hosts")
        results.note(TCP, pair, rate, "containers")
        results.note(CPU, pair, 2.0, "containers")
    return results


def test_the_summary_has_the_containers_figures_and_ratios_to_both_references():
    lines = list(summary(measured({"ours": 4.0, "wireguard-go": 0.5, "vxlan": 8.0})))

    assert lines[0].startswith("| between containers | TCP, Gbit/s | x wireguard-go | x vxlan | CPU s/GB")
    assert lines[2].startswith("| ours | 4 | 8 | 0.5 | 2 | - |")
    assert len({line.count("|") for line in lines}) == 1


def test_of_several_tables_of_peers_the_first_is_the_reference():
    lines = list(summary(measured({"wireguard-go +1 peers": 0.5, "wireguard-go +100 peers": 0.25})))

    assert "x wireguard-go +1 peers" in lines[0]
    assert lines[3].startswith("| wireguard-go +100 peers | 0.25 | 0.5 |")


def test_a_failure_is_kept_and_the_comparison_goes_on():
    results = measured({"ours": 1.0})

    with results.failing("round 1"):
        raise AssertionError("waited 10 s for iperf3\nand more")

    assert results.failures == ["round 1 (waited 10 s for iperf3)"]


def test_figures_have_two_digits_that_count():
    assert [rounded(value) for value in (None, 0.0042, 0.034, 4.71, 56.2, 123.4)] == [
        *("-", "0.004", "0.034", "4.7", "56", "123")
    ]
