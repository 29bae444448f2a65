"""The page in a real browser: what it shows, that names from peers never become markup, and that it is accessible."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.browser import browser, needs_chromium
from tests.overlay.doors.site import Agent, agent_at, event, finding, page_for, peer, service

pytestmark = [needs_chromium, pytest.mark.slow]

EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
READY = "document.querySelector('#main:not([hidden])')"

# Each part of the page arrives with its own answer, in any order: whether it is there.
FINDINGS = "document.querySelector('#findings li')"
EVENTS = "document.querySelector('#event-list li')"
SERVICES = "document.querySelector('.service')"
HISTORY = "[...document.querySelectorAll('#map .rates b')].some((each) => each.innerText != '\\u2013')"
PLOTS = "document.querySelector('#plots .line')"
OVERVIEW = (FINDINGS, EVENTS, SERVICES, HISTORY)
WITHOUT_HISTORY = (FINDINGS, EVENTS, SERVICES)
ONE_PEER = (EVENTS, PLOTS)
# Whether all requested answers have arrived.
ANSWERED = (
    "performance.getEntriesByType('resource').filter((each) => each.name.includes('/api/')).length == {}"
)

# The lowest contrast of all visible text against the nearest background behind it, computed as in WCAG 2.2, and where
# it is.
CONTRAST = """(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".hidden, .skip")) continue;
    const style = getComputedStyle(node);
    const text = channels(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(text), luminance(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${node.tagName}.${node.className} ${walker.currentNode.data}`];
  }
  return worst;
})()"""

# Words in tables that are broken over lines.
BROKEN = """[...document.querySelectorAll("th, tbody td")].flatMap((cell) => [...cell.childNodes]).filter((node) => {
  const range = document.createRange();
  range.selectNodeContents(node);
  return !node.data.includes(" ") && range.getClientRects().length > 1;
}).map((node) => node.data)"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def path(tmp_path):
    return tmp_path / "web0.sock"


@pytest.fixture
def agent():
    return Agent(10)


@pytest.fixture
def place(path, agent):
    with agent_at(path, agent), page_for(path) as place:
        yield place


def show(tab, place, fragment="", parts=None, **window):
    """Open the page; return once all *parts* are shown: by default those of the overview or of one peer."""
    tab.open(f"http://{place}/{fragment}", **window)
    tab.wait(READY)
    for part in parts or (ONE_PEER if "/peer/" in fragment else OVERVIEW):
        tab.wait(part)


# What it shows


def test_ten_peers_stand_by_state_the_worst_first_with_their_rates(tab, place):
    show(tab, place)
    tab.wait("document.querySelector('.spark')")

    groups = tab.run("[...document.querySelectorAll('.group')].map((each) => each.innerText.split('\\n')[0])")
    assert groups == ["unreachable", "silent", "connecting", "up", "unencrypted", "idle"]
    assert tab.run("document.querySelectorAll('#map .peer').length") == 10
    assert tab.run("document.title") == "(2) paris · overlay"
    assert "Mbit/s" in tab.run("document.querySelector('#map .rates').innerText")
    assert tab.run("document.querySelectorAll('.service tbody tr').length") == 2
    assert "DOCKER-USER" in tab.run("document.querySelector('#findings').innerText")


def test_what_the_documents_name_with_units_is_shown_and_reasons_at_zero_are_not(tab, place):
    show(tab, place)

    facts = tab.run("document.querySelector('#host-facts').innerText")
    assert "1420: 1500 on the way to tokyo" in facts
    assert "2 d 7 h" in facts
    assert tab.run(
        "[...document.querySelectorAll('#host-drops th[scope=row]')].map((each) => each.textContent)"
    ) == [
        "udp_filtered",
        "no_peer",
    ]
    assert "6.50 Mbit/s" in tab.run("document.querySelector('.service tbody').innerText")

    show(tab, place, "#/peer/peer1")
    facts = tab.run("document.querySelector('#peer-facts').innerText")
    assert "43 s ago" in facts
    assert "1 s ago" in facts
    assert "1420 bytes" in facts


def test_nothing_comes_from_elsewhere_and_the_browser_has_nothing_to_complain_about(tab, place):
    show(tab, place)
    show(tab, place, "#/peer/peer1")

    assert len(tab.requests) > 10
    assert [url for url in tab.requests if not url.startswith((f"http://{place}/", "about:"))] == []
    assert tab.complaints == []


@pytest.mark.parametrize("peers", [0, 10, 500])
def test_all_text_can_be_read_and_nothing_is_wider_than_the_window(tab, place, agent, peers):
    agent.peers = [peer(number) for number in range(peers)]
    for fragment in ("", "#/peer/peer7") if peers else ("",):
        show(tab, place, fragment, None if peers else WITHOUT_HISTORY, width=390, scheme="dark")
        for width, scheme in itertools.product((390, 1280), ("dark", "light")):
            tab.show_to(width, scheme=scheme)
            assert tab.run(f"matchMedia('(prefers-color-scheme: {scheme})').matches && innerWidth") == width

            ratio, where = tab.run(CONTRAST)
            assert ratio >= 4.5, (where, width, scheme)
            assert tab.run(BROKEN) == []
            assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []


def test_without_peers_it_says_where_they_come_from(tab, place, agent):
    agent.peers = []
    show(tab, place, parts=WITHOUT_HISTORY)

    assert "No other peers yet" in tab.text()
    assert "/etc/overlay/peers.toml" in tab.run("document.querySelector('#no-peers').innerText")
    agent.status = {"absent": {"waiting": 1, "removed": 2}}
    tab.wait(
        "document.querySelector('#no-peers').innerText.includes('1 peer waits for the private key')", skip=1
    )


def test_five_hundred_peers_are_found_by_state_name_and_address(tab, place, agent):
    agent.peers = [peer(number) for number in range(500)]
    show(tab, place)
    assert tab.run("document.querySelectorAll('#map .peer').length") == 50 * 5 + 120  # of 250 that are up

    tab.run("document.querySelector('.rest:not([hidden])').click()")
    assert tab.run("document.querySelectorAll('#map .peer').length") == 500
    assert tab.run("document.activeElement.className") == "peer"

    tab.run(
        "[...document.querySelectorAll('#states button')].find((each) => each.innerText.includes('silent')).click()"
    )
    assert tab.run("document.querySelectorAll('#map .peer').length") == 50

    tab.run("document.querySelector('#search').focus()")
    tab.write("PEER46")
    assert tab.run("[...document.querySelectorAll('#map .name')].map((each) => each.innerText)") == [
        "peer46",
        "peer466",
    ]

    tab.write("9")
    assert tab.run("document.querySelector('#no-peers').innerText") == "No peer matches “peer469”."


def test_many_findings_leave_room_for_the_peers_the_worst_stand_first(tab, place, agent):
    agent.findings = [finding(f"problem {number}", severity="notice") for number in range(20)]
    agent.findings.append(finding("the worst", "mend it", "error", "peer7"))
    show(tab, place)
    tab.wait("document.querySelector('#more:not([hidden])')")

    seen = tab.run("document.querySelector('#attention').innerText")
    assert seen.index("the worst") < seen.index("problem 0")
    assert "17 more findings" in seen
    assert "problem 9" not in seen
    tab.run("document.querySelector('#more summary').click()")
    assert "problem 9" in tab.run("document.querySelector('#attention').innerText")


def test_one_peer_shows_its_hour_as_plots_and_as_tables(tab, place):
    show(tab, place, "#/peer/peer7")

    assert tab.run("[...document.querySelectorAll('#plots h3')].map((each) => each.innerText)") == [
        "Throughput",
        "Round trip",
        "Loss",
        "Drops",
    ]
    assert "has not answered" in tab.run("document.querySelector('#peer-notes').innerText")
    assert "peer lost" in tab.run("document.querySelector('#event-list').innerText")
    assert "ready" not in tab.run("document.querySelector('#event-list').innerText")
    tab.run("document.querySelector('#plots summary').click()")
    tab.wait("document.querySelector('#plots tbody td')")
    rows = tab.run("[...document.querySelectorAll('#plots tbody')][0].innerText.split('\\n')")
    assert len(rows) == 60
    assert "Mbit/s" in rows[0]
    assert rows[-1].endswith("not known\tnot known")


def test_what_is_not_known_is_said_and_is_never_zero(tab, place, agent):
    unknown = dict.fromkeys(("state", "rx_bytes", "tx_bytes", "last_received", "drops"))
    agent.peers = [{**peer(0, "tokyo", "up"), **unknown}]
    agent.status = {"is_complete": False, "drops": None}
    agent.samples = 0
    show(tab, place, parts=WITHOUT_HISTORY)
    assert "does not report" in tab.run("document.querySelector('#alert').innerText")
    assert "unknown" in tab.run("document.querySelector('#map').innerText")

    tab.open(f"http://{place}/#/peer/tokyo")
    tab.wait("document.querySelector('#plots .empty')")
    facts = tab.run("document.querySelector('#peer-facts').innerText")
    assert facts.count("not known") == 4
    assert "0 B" not in facts


def test_a_peer_that_is_not_there_is_said(tab, place):
    tab.open(f"http://{place}/#/peer/rome")
    tab.wait(READY)

    assert "This peer no longer exists." in tab.text()


# Trouble


def test_an_agent_that_ends_is_said_with_the_age_of_what_is_seen(tab, path, agent):
    said = "document.querySelector('#alert').innerText"
    with page_for(path) as place:
        with agent_at(path, agent):
            show(tab, place)
        tab.wait(f"{said}.includes('No overlay agent runs for web0 here.')", skip=1)
        assert "What you see is from" in tab.run(said)
        assert tab.run("document.querySelectorAll('#map .peer').length") == 10
        assert tab.run(CONTRAST)[0] >= 4.5

        with agent_at(path, agent):
            tab.wait(f"!{said}", skip=1)


def test_a_server_that_ends_is_said(tab, path, agent):
    with agent_at(path, agent):
        with page_for(path) as place:
            show(tab, place)
        tab.wait(
            "document.querySelector('#alert').innerText.includes('process that serves this page')", skip=1
        )


def test_an_agent_of_another_version_shows_what_it_knows(tab, place, agent):
    unknown = {"ok": False, "kind": "failed", "error": "this agent does not know that request"}
    agent.refused = dict.fromkeys(("events", "doctor", "services", "history"), unknown)
    tab.open(f"http://{place}/")
    tab.wait(READY)

    assert tab.run("document.querySelectorAll('#map .peer').length") == 10
    tab.wait("document.querySelector('#findings').innerText.includes('overlay ping peer6')")
    assert not tab.run("document.querySelector('#events').checkVisibility()")
    assert not tab.run("document.querySelector('#alert').innerText")


def test_an_answer_of_another_form_is_said_and_not_half_shown(tab, place, agent):
    agent.status = {"addresses": None}
    tab.open(f"http://{place}/")

    tab.wait("document.querySelector('#alert').innerText.includes('another version')")


def test_the_token_comes_with_the_address_and_does_not_stay_there(tab, path, agent):
    with agent_at(path, agent), page_for(path, "sesame") as place:
        tab.open(f"http://{place}/")
        tab.wait("!document.querySelector('#door').hidden")
        assert tab.run("document.activeElement.id") == "token"
        assert tab.run("document.querySelector('#main').hidden")

        tab.write("wrong")
        tab.press("Enter")
        tab.wait("document.querySelector('#alert').innerText.includes('not that of this page')")

        show(tab, place, "#token=sesame")
        assert tab.run("location.href") == f"http://{place}/#/"
        show(tab, place)  # a reload keeps it
        assert "paris" in tab.text()


# Markup


def test_what_a_peer_can_name_is_text_wherever_it_stands(tab, place, agent):
    agent.peers = [
        peer(0, EVIL, "silent", endpoint=EVIL, subnets=[EVIL], notes=[EVIL], drops={EVIL: 1}),
        peer(1, "__proto__", "up"),
        peer(2, "javascript:alert(1)", "up"),
    ]
    agent.status = {"node": EVIL, "mtu_reason": EVIL, "drops": {EVIL: 3}}
    agent.events = [event(1, EVIL, peer=EVIL), event(2, "x", EVIL)]
    agent.findings = [finding(EVIL, f"`{EVIL}` {EVIL}", "error", EVIL)]
    agent.services = [service(EVIL, EVIL)]

    show(tab, place)
    assert EVIL in tab.run("document.querySelector('#map').innerText")
    assert EVIL in tab.run("document.querySelector('#findings').innerText")
    assert EVIL in tab.run("document.querySelector('.service').innerText")
    tab.run("document.querySelector('#map a').click()")
    tab.wait("document.querySelector('#peer-title').innerText")
    assert tab.run("document.querySelector('#peer-title').innerText") == EVIL
    tab.wait("document.querySelector('#plots .line')")

    assert tab.run("window.pwned") is None
    assert tab.run("document.querySelectorAll('img, script:not([src])').length") == 0
    assert tab.complaints == []


def test_the_browser_refuses_markup_from_text_and_whatever_is_from_elsewhere(tab, place):
    show(tab, place)

    refused = tab.run("try { document.body.innerHTML = '<b>x</b>'; 'taken' } catch (error) { error.name }")
    assert refused == "TypeError"
    assert tab.run("fetch('http://127.0.0.1:1/').then(() => 'taken', (error) => error.name)") == "TypeError"
    tab.hear(lambda: any("Content Security Policy" in each for each in tab.complaints))


# Accessibility


def test_a_screen_reader_is_told_what_everything_is(tab, place):
    for fragment in ("", "#/peer/peer7"):
        show(tab, place, fragment)

        nodes = tab.accessible()
        for role in ("link", "button", "searchbox", "slider", "region", "table", "textbox"):
            nameless = [node for node in nodes if node["role"] == role and not node["name"].strip()]
            assert nameless == [], role
        assert sum(node["role"] == "main" for node in nodes) == 1
        assert tab.run("document.querySelectorAll('h1').length") == 1
        levels = tab.run(
            "[...document.querySelectorAll('h1, h2, h3')].filter((each) => each.checkVisibility()).map((each) => "
            "+each.tagName[1])"
        )
        assert levels[0] == 1
        assert all(level <= before + 1 for before, level in itertools.pairwise(levels))
        assert (
            tab.run(
                'document.querySelectorAll(\'[tabindex]:not([tabindex="0"]):not([tabindex="-1"])\').length'
            )
            == 0
        )
        assert tab.run(
            "new Set([...document.querySelectorAll('[id]')].map((each) => each.id)).size"
        ) == tab.run("document.querySelectorAll('[id]').length")
    peers = [node["name"] for node in nodes if node["role"] == "slider"]
    assert peers[0] == "Throughput over the last hour"


def test_a_keyboard_goes_through_in_order_opens_a_peer_reads_its_plot_and_comes_back(tab, place):
    show(tab, place)
    passed = []
    for _ in range(15):
        tab.press("Tab")
        passed.append(
            tab.run(
                "[document.activeElement.className, document.activeElement.tagName, document.activeElement.id]"
            )
        )
        assert tab.run("document.activeElement.getBoundingClientRect().width > 0")
    assert passed[0][0] == "skip"
    assert passed[2][2] == "search"
    assert [each[1] for each in passed[3:10]] == ["BUTTON"] * 7
    assert [each[0] for each in passed[10:]] == ["skip here", "peer noted", "peer noted", "peer", "peer"]
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    name = tab.run("document.activeElement.querySelector('.name').innerText")

    tab.press("Enter")
    tab.wait("document.querySelector('#plots .line')")
    assert tab.run("[document.activeElement.id, document.activeElement.innerText]") == ["peer-title", name]

    tab.run("document.querySelector('.area').focus()")
    before = tab.run("document.activeElement.getAttribute('aria-valuetext')")
    tab.press("ArrowLeft")
    tab.press("ArrowLeft")
    after = tab.run("document.activeElement.getAttribute('aria-valuetext')")
    assert before.startswith("now: received ")
    assert not after.startswith("now")
    assert "sent" in after
    assert tab.run("document.querySelectorAll('.cursor').length") == 4
    tab.press("Home")
    assert "not known" in tab.run("document.activeElement.getAttribute('aria-valuetext')")
    tab.press("Escape")
    assert tab.run("document.querySelectorAll('.cursor').length") == 0

    tab.run("history.back()")
    tab.wait("document.activeElement.className == 'peer'")
    assert tab.run("document.activeElement.querySelector('.name').innerText") == name


def test_a_keyboard_passes_over_five_hundred_peers_at_once(tab, place, agent):
    agent.peers = [peer(number) for number in range(500)]
    show(tab, place, width=390, height=300)
    tab.run("document.querySelector('#states button:last-child').focus()")
    tab.press("Tab")
    assert tab.run(  # it is seen, where it is in the order
        "(({top, bottom}) => document.querySelector('#states').getBoundingClientRect().bottom <= top && bottom <= "
        "innerHeight)(document.activeElement.getBoundingClientRect())"
    )

    tab.press("Enter")
    tab.wait("document.activeElement.id == 'rest'")
    tab.press("Tab")

    assert tab.run("document.activeElement.closest('section[aria-labelledby=services-title]') != null")


def test_a_change_of_state_is_announced_and_takes_the_focus_from_nobody(tab, place, agent):
    show(tab, place)
    tab.run(
        "[...document.querySelectorAll('#map .peer')].find((each) => each.innerText.includes('peer1')).focus()"
    )

    agent.peers = [peer(1, "peer1", "unreachable"), *agent.peers[2:], agent.peers[0]]

    tab.wait("document.querySelector('#changes').textContent == 'peer1 is unreachable.'", skip=1)
    tab.wait("document.querySelector('.group').innerText.includes('peer1')")
    assert tab.run("document.activeElement.querySelector('.name').innerText") == "peer1"
    assert tab.run("document.activeElement.closest('.group').innerText").startswith("unreachable")


def test_a_page_that_nobody_looks_at_asks_nothing(tab, place, agent):
    show(tab, place)
    tab.run("Object.defineProperty(document, 'hidden', {value: true})")
    tab.hear(lambda: tab.run(ANSWERED.format(sum("/api/" in url for url in tab.requests))))
    agent.asked.clear()

    tab.skip(300)
    time.sleep(1.5)  # of the browser's own clock: the page checks every second

    assert agent.asked == []
