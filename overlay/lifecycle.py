"""The life of a node, from start to clean stop.

Read run_agent() for the order in which a node comes up and goes down; Agent is the node in between.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import trio

from overlay import config, ending
from overlay.agent import Agent
from overlay.ending import until_stopped
from overlay.host import control
from overlay.host.names import SUFFIX as NAMES
from overlay.host.names import Names
from overlay.host.policy_bypass import Passing
from overlay.host.process import privileges
from overlay.host.settings import SUFFIX
from overlay.host.tun import check_interface_name
from overlay.keys.files import load_own_key
from overlay.provisioning.setup import HostSetup
from overlay.records import logs
from overlay.resolver import UnderlayResolver
from overlay.session.constants import Timing
from overlay.starting import bare, membership, unprivileged
from overlay.starting.arrival import wait_until_here
from overlay.starting.waiting import WaitingAgent
from overlay.supervision import lanes
from overlay.supervision.forwarder import forwarders
from overlay.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from overlay.config import Node, Options
    from peers.stores.store import Store

# Ours
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("overlay")


def run(
    options: Options,
    log_level: str = "info",
    timing: Timing | None = None,
    output: logging.Handler | None = None,
) -> None:
    """Run the agent until it is stopped.  Raises ConfigError or HostError if it cannot start or continue.

    It logs to stderr, unless another *output* is given.
    """
    logs.set_up(log_level, output)
    with until_stopped():
        trio.run(run_agent, options, timing or Timing(), strict_exception_groups=True)
    log.info("stopped interface=%s", options.interface)


async def run_agent(options: Options, timing: Timing) -> None:
    """Bring a node up, run it, and take it down.

    A clean stop restores the host.  After an error, guard routes stay, so that no packets leave unencrypted.
    """
    check_interface_name(options.interface)
    passing = Passing()
    if options.is_bare:
        alone = bare.BareStore(options.interface)
        with control.listening(options.interface) as answering:
            await _run_node(options, alone.first_node(), alone, timing, passing, answering)
        return
    unprivileged.check(options)  # first: without root, even the key may be unreadable
    key, _ = load_own_key(options.key)
    store = options.peers.open()
    with control.listening(options.interface) as answering:  # from here on it is the agent of that interface
        waiting = WaitingAgent(options, store, answering.socket)
        async with membership.taking_part(store, key, options, passing.open_socket, waiting) as joined:
            node = await wait_until_here(lambda: config.settle(store, key, joined), waiting)
            if node is not None:
                await _run_node(joined, node, store, timing, passing, answering)


async def _run_node(
    options: Options,
    node: Node,
    store: Store,
    timing: Timing,
    passing: Passing,
    answering: control.ControlSocket,
) -> None:
    with contextlib.ExitStack() as stack:
        # From here on, no signal interrupts setting up or cleaning up; Agent.run() handles them.  After the first that
        # stops the agent, further signals change nothing, not even the exit code.
        for number in HEEDED:
            signal.signal(number, signal.SIG_IGN)
        signals = stack.enter_context(trio.open_signal_receiver(*HEEDED))
        start = stack.enter_context(forwarders(answering.path.parent))
        if start.uid is not None:
            trio.socket.set_custom_hostname_resolver(UnderlayResolver(start.uid))
            passing.take(start.uid)
        supervisor = Supervisor(start)  # the forwarder's interpreter starts while the host is being set up
        try:
            saved = answering.path.with_suffix(SUFFIX)
            chosen = lanes.choose_here(options.lanes, is_tap=node.is_tap, is_privileged=start.uid is not None)
            host = HostSetup(
                options.interface,
                saved,
                is_tap=node.is_tap,
                passing_uid=start.uid,
                lanes=chosen.lanes,
                is_bare=node.is_bare,
            )
            stack.push(lambda _, error, __: host.close(opens=ending.is_wanted(error)))
            names = Names(answering.path.with_suffix(NAMES))
            agent = Agent(options, node, store, timing, host, supervisor, names)
            await agent.set_up()
            for each in lanes.notes(options.lanes, chosen, host.device.queues):
                agent.note(each)
            for kept in privileges.keep_only(privileges.KEPT_CAPABILITIES):
                agent.note(f"the agent keeps more privileges than it needs: {kept}")
            await agent.run(answering.socket, signals)
        finally:
            with trio.CancelScope(shield=True):
                log.debug("forwarder ended %s", await supervisor.forwarder.stop())
