"""Why a request of `wg` is refused."""

from __future__ import annotations

import errno

from overlay.errors import OverlayError

# Specification: https://www.wireguard.com/xplatform/, "errno is 0 or a negative errno"
PROTOCOL, INVALID, UNSUPPORTED = errno.EPROTO, errno.EINVAL, errno.EOPNOTSUPP
TOO_LONG, FAILED = errno.E2BIG, errno.EIO


class RefusedError(OverlayError):
    """A request was refused with *number*, a positive errno; no part of it has taken effect.

    The text is one sentence for the log, with no keys except public ones: `wg` only shows the meaning of the number.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number
