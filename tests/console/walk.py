#!/usr/bin/env python3
"""Walks every page of the console of a running local cluster in Chromium, while nodes die, and says what is wrong.

    tests/console/run [--shots DIR] [--open-for SECONDS]

The script `run` beside this file installs what it needs and starts the cluster. What is looked at: every page at two widths, light
and dark, without an error in the browser's console and without a page wider than its window; a first view within a second and
200 KB; everything reached with the keyboard; pages that go on while the node that served them is dead; no growth while a page stays open.
"""

import argparse
import json
import subprocess
import sys
import time
from urllib.parse import quote

from playwright.sync_api import sync_playwright

FIRST_VIEW_MS, FIRST_VIEW_BYTES = 1_000, 200_000
# Of a page that stays open: more live bytes than that are a leak.
GROWTH_BYTES = 6 * 1024 * 1024
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

parser = argparse.ArgumentParser()
parser.add_argument("--playhouse", required=True)
parser.add_argument("--base-port", required=True)
parser.add_argument("--shots")
parser.add_argument("--open-for", type=int, default=30)
arguments = parser.parse_args()
wrong = []


def playhouse(*words, check=True):
    command = [arguments.playhouse, *words, "--base-port", arguments.base_port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def check(holds, what):
    print(("ok    " if holds else "WRONG ") + what, flush=True)
    if not holds:
        wrong.append(what)


class Page:
    """A tab, with what its console said."""

    def __init__(self, context, dies=False):
        self.tab = context.new_page()
        self.said = []
        self.tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        # A request that fails is an error only where nothing died.
        # Nor is one that asks whether something is there, and hears that it is not: a saga of this name, a quarantine.
        is_fault = lambda line: line.type == "error" and not dies and "(Not Found)" not in line.text
        self.tab.on("console", lambda line: self.said.append(line.text) if is_fault(line) else None)

    def enter(self, link):
        self.tab.goto(link)
        self.tab.wait_for_selector("nav a", state="attached", timeout=10_000)

    def show(self, place):
        self.tab.evaluate("place => { location.hash = place }", f"#/{place}")
        self.tab.wait_for_selector("main h1")
        self.tab.wait_for_timeout(1_500)

    def shot(self, name):
        if arguments.shots:
            self.tab.screenshot(path=f"{arguments.shots}/{name}.png")

    def faults(self):
        said, self.said = self.said, []
        return said

    def text(self):
        return self.tab.inner_text("main")


def live_bytes(context, page):
    session = context.new_cdp_session(page.tab)
    session.send("HeapProfiler.collectGarbage")
    usage = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return usage


def walk(context, places, kind):
    page = Page(context)
    page.enter(playhouse("console"))
    for place in places:
        page.show(place)
        name = f"{kind}-{place.replace('/', '_')}"
        page.shot(name)
        faults = page.faults()
        check(not faults, f"{name}: nothing in the browser's console {faults[:2] or ''}")
        alert = page.tab.locator("main .note.bad").all_inner_texts()
        check(not alert, f"{name}: no failure is shown {alert[:1] or ''}")
        size = page.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        check(size[0] <= size[1], f"{name}: as wide as the window {size}")
    return page


with sync_playwright() as engine:
    browser = engine.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    placed = json.loads(playhouse("order", "place", "--customer", "walker", "--line", "demo-teapot:1", "--json"))
    order = placed.get("order_id") or placed.get("id")
    menu = ["overview", "cluster", "entities", "sagas", "traces", "logs", "supervision", "api", "settings"]
    places = menu + [f"entities/order/{order}", f"sagas/checkout/{order}", "traces/graph", "api/playhouse.order.v1.Orders/GetOrder", "entities?model=orders", "entities/order/there-is-none"]

    # What is loaded first.
    context = browser.new_context(viewport=WIDE)
    first = Page(context)
    loaded = []
    first.tab.on("response", lambda response: loaded.append(len(response.body())) if "/console/" in response.url or response.url.endswith("/") else None)
    began = time.monotonic()
    first.enter(playhouse("console"))
    first.tab.locator("main .tile b", has_text="0").first.wait_for()
    view_ms = first.tab.evaluate("performance.getEntriesByType('paint').at(-1)?.startTime ?? 0")
    check(view_ms < FIRST_VIEW_MS, f"the first view is painted after {view_ms:.0f} ms")
    check(sum(loaded) < FIRST_VIEW_BYTES, f"it takes {sum(loaded)} bytes")

    # Everything is reached with the keyboard.
    reached = set()
    for _ in range(40):
        first.tab.keyboard.press("Tab")
        reached.add(first.tab.evaluate("document.activeElement.textContent.trim()"))
    for title in ["Overview", "Cluster", "Entities", "Sagas", "Traces", "Logs", "Supervision", "API", "Settings"]:
        check(title in reached, f"the keyboard reaches {title}")
    first.tab.close()

    walk(context, [place for place in places if "none" not in place], "wide").tab.close()
    phone = browser.new_context(viewport=PHONE, color_scheme="dark")
    walk(phone, [place for place in places if "none" not in place], "phone").tab.close()
    phone.close()

    # What goes between the nodes is seen to go.
    page = Page(context)
    page.enter(playhouse("console"))
    page.show("cluster")
    page.tab.wait_for_selector(".flow .consensus:not(.level-0):not(.cut)", state="attached", timeout=10_000)
    check(page.tab.locator(".flow .cut").count() == 0, "the map shows messages, and no cut link")

    # A read model finds the order by its customer, and leads to it.
    page.show("entities?model=orders&ask=" + quote(json.dumps({"customer": "walker"})))
    page.tab.get_by_role("link", name=f"order/{order}", exact=True).click()
    page.tab.wait_for_selector("table[aria-label=Events] tbody tr", timeout=10_000)
    check(order in page.tab.inner_text("main h1"), "a read model's row leads to its entity")
    page.show("entities?model=orders&ask=" + quote('{"colour": "red"}'))
    check("customer" in page.tab.inner_text("main .note.bad"), "a wrong question is told what can be asked")
    page.shot("wide-entities-wrong-question")
    page.tab.close()

    # What is not there says what to do.
    page = Page(context, dies=True)
    page.enter(playhouse("console"))
    page.show("nonsense")
    check("No such page" in page.text(), "an unknown page says so")
    page.tab.close()

    # The node that served the page dies, and the page goes on with another one.
    link = playhouse("console")
    node = next(node["id"] for node in json.loads(playhouse("status", "--json"))["nodes"] if node["http"] in link)
    page = Page(context, dies=True)
    page.enter(link)
    page.show("cluster")
    playhouse("kill", str(node))
    page.tab.wait_for_selector(".node.down", timeout=20_000)
    check("2 of 3" in page.text(), "the page of a dead node shows the others")
    page.shot("node-dead-cluster")
    for place in menu:
        page.show(place)
        page.shot(f"node-dead-{place}")
        check(len(page.text()) > 80, f"node-dead-{place}: there is something to see")
    check(not page.faults(), "no page fails while a node is dead")
    playhouse("restart", str(node))
    page.show("cluster")
    page.tab.wait_for_selector(".node.down", state="detached", timeout=30_000)
    check(True, "the node is seen to be back")

    # A kill by the button, seen on the page.
    page.tab.close()
    page = Page(context, dies=True)
    page.enter(playhouse("console"))
    page.show("cluster")
    page.tab.wait_for_timeout(3_000)
    page.tab.locator("article.node").last.get_by_role("button", name="Kill", exact=True).click()
    page.tab.wait_for_selector(".node.down", timeout=20_000)
    page.tab.wait_for_timeout(3_000)
    page.shot("killed-by-button")
    row = page.tab.locator("table[aria-label=Trials] tbody tr").first.inner_text()
    print(f"      {' '.join(row.split())}")
    check("was killed" in row, "the trial is listed with what it did")
    check(page.tab.locator(".pill.bad", has_text="✗").count() == 0, "what must hold still holds")
    page.tab.locator("article.node").last.get_by_role("button", name="Start", exact=True).click()
    page.tab.wait_for_selector(".node.down", state="detached", timeout=30_000)
    page.tab.close()

    # A page that stays open does not grow.
    page = Page(context)
    page.enter(playhouse("console"))
    page.show("overview")
    page.tab.wait_for_timeout(5_000)
    before = live_bytes(context, page)
    nodes = page.tab.evaluate("document.querySelectorAll('*').length")
    page.tab.wait_for_timeout(arguments.open_for * 1_000)
    grown = live_bytes(context, page) - before
    check(grown < GROWTH_BYTES, f"{arguments.open_for} s open: {grown} live bytes more")
    check(page.tab.evaluate("document.querySelectorAll('*').length") < nodes + 200, "and no more elements")
    browser.close()

print(f"{len(wrong)} wrong" if wrong else "all well")
sys.exit(1 if wrong else 0)
