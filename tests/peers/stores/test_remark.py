"""Remarks on a store have separate remedies."""

from peers.stores.remark import StoreRemark


def test_remark_is_one_sentence_with_its_remedy_last():
    assert (
        str(StoreRemark("nobody vouches for this host", "run `it`"))
        == "nobody vouches for this host: run `it`"
    )
    assert str(StoreRemark("one is left out")) == "one is left out"


def test_remedy_of_an_error_follows_its_semicolon():
    remark = StoreRemark.of(
        "etcd at 10.0.0.5:2379 is away; see that it runs; or wait", ", and the table stays"
    )

    assert remark == StoreRemark(
        "etcd at 10.0.0.5:2379 is away, and the table stays", "see that it runs; or wait"
    )


def test_error_without_a_remedy_has_none():
    assert StoreRemark.of("etcd has no such lease") == StoreRemark("etcd has no such lease")
