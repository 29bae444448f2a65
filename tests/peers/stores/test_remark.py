"""What is said of a store has its remedy apart."""

from peers.stores.remark import Remark


def test_remark_is_one_sentence_with_its_remedy_last():
    assert str(Remark("nobody vouches for this host", "run `it`")) == "nobody vouches for this host: run `it`"
    assert str(Remark("one is left out")) == "one is left out"


def test_remedy_of_an_error_follows_its_semicolon():
    remark = Remark.of("etcd at 10.0.0.5:2379 is away; see that it runs; or wait", ", and the table stays")

    assert remark == Remark("etcd at 10.0.0.5:2379 is away, and the table stays", "see that it runs; or wait")


def test_error_without_a_remedy_has_none():
    assert Remark.of("etcd has no such lease") == Remark("etcd has no such lease")
