"""Whether a container's interface is still as it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.asked_container import REFUSED, addresses_of, holder_of, opened, refused
from overlay.errors import HostError

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows


async def answer(running: Running, request: Request, _tell_rows: TellRows) -> Answer:
    """Report what is missing in the namespace that came with the request and on the host.

    ``addresses`` are those that the requester expects.
    """
    try:
        holder, expected = holder_of(request), addresses_of(request)
        with opened(request) as inside:
            found = await running.containers.check(holder, inside)
        if missing := set(expected) - set(found.addresses):
            raise HostError(
                f"{min(map(str, missing))} is not an address of {holder}: start the container again"
            )
    except REFUSED as error:
        return refused(error)
    return {"ok": True}
