from __future__ import annotations

import errno

import pytest

from overlay.ending import StoppedError, is_wanted, until_stopped
from overlay.errors import ConfigError, HostError


def test_stop_ends_in_peace_however_deep_it_comes_from():
    with until_stopped():
        raise ExceptionGroup("nursery", [ExceptionGroup("inner", [StoppedError()])])
    with until_stopped():
        raise StoppedError


@pytest.mark.parametrize("error", [HostError("the tun is gone"), ConfigError("no key")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda error: error,
        lambda error: ExceptionGroup("nursery", [error]),
        lambda error: ExceptionGroup("nursery", [StoppedError(), ExceptionGroup("inner", [error])]),
        lambda error: ExceptionGroup("nursery", [error, HostError("a second")]),
    ],
)
def test_one_error_comes_out_of_any_group_as_itself(error, wrap):
    with pytest.raises(type(error)) as raised, until_stopped():
        raise wrap(error)

    assert raised.value is error


def test_bug_is_not_swallowed_by_a_stop():
    with pytest.raises(ExceptionGroup) as raised, until_stopped():
        raise ExceptionGroup("nursery", [StoppedError(), ZeroDivisionError()])

    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]


def test_errors_of_the_system_come_out_without_those_that_they_have_caused():
    """Before, two tasks that were short of descriptors at once were taken for a bug."""
    shortage, caused = OSError(errno.EMFILE, ""), HostError("an interface cannot be read")

    for more, left in [([], [shortage]), ([ValueError()], [shortage, caused, ValueError])]:
        with pytest.raises(ExceptionGroup) as raised, until_stopped():
            raise ExceptionGroup("nursery", [shortage, StoppedError(), caused, *more])

        assert len(raised.value.exceptions) == len(left)


def test_impatience_is_not_swallowed_by_a_stop():
    with pytest.raises(BaseExceptionGroup), until_stopped():
        raise BaseExceptionGroup("nursery", [StoppedError(), KeyboardInterrupt()])


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (StoppedError(), True),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [StoppedError()])]), True),
        (ExceptionGroup("nursery", [StoppedError(), ZeroDivisionError()]), True),
        (HostError("the interface was removed"), False),
        (ExceptionGroup("nursery", [HostError("the interface was removed")]), False),
        (ZeroDivisionError(), False),
        (KeyboardInterrupt(), False),
        (None, False),
    ],
)
def test_only_a_stop_is_wanted(error, wanted):
    assert is_wanted(error) is wanted
