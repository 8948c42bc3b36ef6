"""The status page in a real browser, in front of a real router and a real cluster. The last tests break the cluster and stop the router."""

import json
import re
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from harness.system import wait_until
from stage import BRANCH, MANY, filler

ROWS = "document.querySelectorAll('[role=option]').length"
NAMES = "[...document.querySelectorAll('[role=option]')].sort((a, b) => a.dataset.index - b.dataset.index).map((row) => row.dataset.name)"
FOCUS = "(document.activeElement.id || document.activeElement.tagName)"
SELECTED = "(document.querySelector('[role=option][aria-selected=true]')?.dataset.name ?? null)"


def search_for(page, text):
    page.press("/")
    page.wait(f"{FOCUS} === 'search'", "the search to have the focus")
    page.type(text)


def colour(page, selector="body"):
    """The background's lightness, 0 to 255."""
    text = page.value(f"getComputedStyle(document.querySelector({json.dumps(selector)})).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", text)[:3]) / 3


# --- what is served ---

def test_the_page_and_its_files_come_with_a_strict_policy(stage):
    with urllib.request.urlopen(stage.router.admin_url + "/", timeout=5) as answer:
        html, headers = answer.read().decode(), answer.headers
    files = re.findall(r'(?:src|href)="(/assets/[^"]+)"', html)
    assert "/assets/app.js" in files and "/assets/page.css" in files
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    for path in files:
        with urllib.request.urlopen(stage.router.admin_url + path, timeout=5) as answer:
            assert answer.headers["Content-Security-Policy"] and answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Type"].split(";")[0] in ("text/javascript", "text/css", "image/svg+xml")
    assert "http://" not in html and "https://" not in html, "nothing from elsewhere"


def test_the_files_can_only_be_read_and_only_at_the_admin_endpoint(stage):
    assert stage.router.http("/", method="POST")[0] == 405
    assert stage.router.http("/assets/nosuch.js")[0] == 404
    assert stage.router.http("/assets/../api/status")[0] == 404
    assert stage.router.http("/?x=1")[0] == 400


def test_the_overview_is_small_quick_and_not_sent_twice(stage):
    url = stage.router.admin_url + "/api/overview?limit=100"
    took = []
    for _ in range(20):
        started = time.perf_counter()
        with urllib.request.urlopen(url, timeout=5) as answer:
            body, etag = answer.read(), answer.headers["ETag"]
        took.append(time.perf_counter() - started)
    print(f"\n/api/overview, {MANY} branches: {sorted(took)[10] * 1000:.1f} ms, {len(body)} bytes")
    assert len(body) < 30_000 and len(json.loads(body)["rows"]) == 100

    def unchanged():
        """Nobody is logged in: nothing changes but by what other tests have begun."""
        nonlocal etag
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"If-None-Match": etag}), timeout=5) as answer:
                etag = answer.headers["ETag"]
        except urllib.error.HTTPError as not_modified:
            return not_modified.code == 304 and not_modified.read() == b""
        return False

    wait_until(unchanged, "an answer that has not changed to be a 304")


@pytest.mark.parametrize("query, count", [
    ("", MANY + 1), (filler(4711), 1), ("B04711", 1), ("app=ledger", MANY // 8), ("10.18.103.1", 1), ("app=ledger b0471", 1), ("nothing-like-it", 0)])
def test_the_overview_is_searched_by_name_label_and_host(stage, query, count):
    found = stage.router.api(f"/api/overview?limit=3&search={urllib.parse.quote(query)}")
    assert found["matching"] == count and len(found["rows"]) == min(count, 3)


# --- the page ---

def test_ten_thousand_branches_are_some_rows_in_the_document(page):
    assert page.value(ROWS) < 60
    assert page.value("document.querySelectorAll('*').length") < 1200
    assert f"{MANY + 1:,}" in page.text("#figures")
    page.value("document.getElementById('list').scrollTop = 1e9")
    page.wait(f"({NAMES}).includes('{filler(MANY - 1)}')", "the last branch to come into sight")
    assert page.value(ROWS) < 60


def test_search_finds_one_of_ten_thousand(page):
    search_for(page, filler(7654))
    page.wait(f"JSON.stringify({NAMES}) === '[\"{filler(7654)}\"]'", "the one to be found")
    assert page.text("#matching") == "1 match"
    page.press("Enter")
    page.wait(f"{SELECTED} === '{filler(7654)}' && document.getElementById('branch').innerText.includes('Nobody uses this branch')", "the branch to be shown")
    assert page.value("location.hash") == f"#{filler(7654)}"


def test_a_search_in_vain_says_so(page):
    search_for(page, "no-such-branch")
    page.wait("document.querySelector('#list .empty').offsetParent", "the list to say that it is empty")
    assert "No branch matches" in page.text("#list")
    page.press("Escape")
    page.wait(f"{ROWS} > 10", "the list to be back")


def test_everything_is_reached_by_the_keyboard(page, stage):
    last = stage.router.api(f"/api/overview?limit=1&offset={MANY}")["rows"][0]["name"]
    first, second, third = page.value(NAMES)[:3]
    page.wait(f"{SELECTED} === '{first}'", "the first to be selected")
    page.press("j")
    page.press("ArrowDown")
    page.wait(f"{SELECTED} === '{third}' && document.getElementById('branch-name').innerText === '{third}'", "the third to be shown")
    page.press("k")
    page.wait(f"{SELECTED} === '{second}'", "the second to be selected")
    assert page.value("document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant')).dataset.name") == second
    search_for(page, filler(12))
    page.wait(f"({NAMES})[0] === '{filler(12)}'", "the search to be answered")
    page.press("Enter")
    assert page.value(FOCUS) == "list"
    page.press("Enter")
    assert page.value(FOCUS) == "branch"
    page.press("Escape")
    assert page.value(FOCUS) == "list"
    page.press("Escape")
    page.wait(f"document.getElementById('search').value === '' && {ROWS} > 10", "the search to be cleared")
    page.press("End")
    page.wait(f"{SELECTED} === '{last}'", "the last of all to be selected")
    page.press("?")
    assert page.value("document.getElementById('help').open")
    page.press("j")
    page.press("Escape")
    page.wait("!document.getElementById('help').open", "the help to be closed")
    assert page.value(SELECTED) == last, "keys behind the help do nothing"


def test_the_address_keeps_the_branch(page, stage):
    page.open(f"{stage.router.admin_url}/#{filler(3)}")
    page.wait(f"document.getElementById('branch-name').innerText === '{filler(3)}'", "the branch of the address to be shown")
    page.open(f"{stage.router.admin_url}/#nosuch%20%3Cb%3E")
    page.wait("document.getElementById('branch').innerText.includes('No branch of this name')", "the missing branch to be told")
    assert page.text("#branch-name") == "nosuch <b>", "text stays text"
    # A 404 is in the console of every browser, whatever the page makes of it.
    page.console[:] = [line for line in page.console if "404" not in line]


def test_light_and_dark_follow_the_system_and_the_switch(page, screenshot):
    assert colour(page) > 200
    screenshot("light")
    page.prefer("dark")
    assert colour(page) < 60
    screenshot("dark")
    page.press("t")
    assert colour(page) > 200, "light whatever the system says"
    page.press("t")
    page.prefer("light")
    assert colour(page) < 60
    page.press("t")
    assert page.text("#theme") == "auto" and colour(page) > 200


_CONTRAST = """(() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.offsetParent || element.closest('.sr, .skip, svg')) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.className || element.tagName} ${ratio.toFixed(2)} ${element.textContent.slice(0, 20)}`);
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_every_control_a_name(page, stage, scheme):
    page.prefer(scheme)
    with stage.log_in().wire:
        page.value(f"location.hash = '#{BRANCH}'")
        page.wait(f"document.getElementById('branch-name').innerText === '{BRANCH}'", "the branch in use to be shown")
        page.wait("document.querySelector('.end.primary')?.offsetParent", "its primary to be drawn")
        assert page.value(_CONTRAST) == []
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if node.get("role", {}).get("value") in ("button", "searchbox", "listbox", "option", "main", "navigation", "log")]
    assert len(controls) > 15
    assert [node for node in controls if not node.get("name", {}).get("value")] == []


def test_a_router_that_does_not_answer_is_told_and_the_data_stay(page, stage, screenshot):
    page.value(f"location.hash = '#{BRANCH}'")
    page.wait("document.querySelectorAll('.end').length === 4", "the branch to be drawn")
    stage.router.signal(signal.SIGSTOP)
    try:
        page.wait("document.body.classList.contains('lost')", "the silence to be noticed")
        assert re.search(r"has not answered since \d\d:\d\d:\d\d. What you see is from then", page.text("#notices"))
        assert page.value(ROWS) > 10 and "pg-2" in page.text(".ends")
        screenshot("lost")
    finally:
        stage.router.signal(signal.SIGCONT)
    page.wait("!document.body.classList.contains('lost')", "the answer to be noticed")
    assert page.text("#notices") == ""


def test_text_from_the_configuration_stays_text(page, stage):
    """Labels may hold what they like."""
    config = stage.router.config
    evil = "<img src=x onerror=alert(1)>"
    config["branches"][filler(1)]["labels"]["note"] = evil
    assert stage.router.reload(config) == "ok"
    page.value(f"location.hash = '#{filler(1)}'")
    page.wait("document.querySelector('.labels')?.innerText.includes('onerror')", "the label to be shown")
    assert page.value("document.querySelectorAll('.labels img').length") == 0
    page.wait("document.getElementById('events').innerText.includes('configuration reloaded')", "the reload to be an event")


def test_a_failover_happens_on_screen(page, stage, screenshot):
    """Nobody reloads the page: the line moves to the new primary, the old one is shown as down, and an event says so."""
    sessions = [stage.log_in(), stage.log_in(), stage.log_in("|replica"), stage.log_in(listener="pooled"), stage.log_in("|reads", "pooled")]
    page.wait("document.querySelector('.end.primary .name')?.innerText === 'pg-0'", "pg-0 to be drawn as the primary")
    page.wait("document.querySelectorAll('.reasons .line[d^=M]').length > 0 || document.querySelectorAll('.reasons li').length >= 3", "decisions to be counted")
    assert page.value("document.querySelectorAll('.rail.replica').length") == 2
    page.value("window.__mark = 'this very document'")
    stage.cluster.named("pg-0").kill()
    page.wait("document.querySelector('.end.lost .name')?.innerText === 'pg-0'", "the dead primary to be drawn as down")
    assert "no primary" in page.text(".problems") and "error" in page.value("document.querySelector('[role=option] .sign').className")
    held = threading.Thread(target=lambda: stage.log_in().terminate())
    held.start()
    page.wait("document.querySelector('.held')?.innerText === '1 login held'", "the login that waits to be drawn")
    screenshot("held")
    stage.cluster.named("pg-1").promote()
    held.join(20)
    assert not held.is_alive()
    page.wait("document.querySelector('.end.primary .name')?.innerText === 'pg-1'", "pg-1 to be drawn as the primary")
    page.wait("document.querySelector('#events .of-failover')?.parentElement.innerText.includes('pg-1 is the primary, timeline 2')", "the failover to be an event")
    page.wait("document.querySelector('.turns').innerText.includes('pg-1 is the primary')", "it to stand with the last switches")
    assert page.value("window.__mark") == "this very document", "without a reload"
    assert page.value(SELECTED) == BRANCH
    screenshot("failover")
    for session in sessions:
        session.wire.close()


def test_a_router_that_drains_says_so(page, stage):
    """The last test: the router ends."""
    page.wait("document.querySelector('.pulse').innerText === 'live'", "the first answer")
    session = stage.log_in("|reads", "pooled")
    session.query("BEGIN")
    stage.router.signal(signal.SIGTERM)
    page.wait("document.getElementById('notices').innerText.includes('draining')", "the drain to be told")
    assert "draining, sessions have" in page.text("#events")
    page.open("about:blank")  # before the router is gone: a refused connection is in every browser's console
    session.wire.close()
    assert stage.router.wait() == 0
