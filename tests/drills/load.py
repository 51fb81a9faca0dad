"""Clients of the drills, what they were told, and what must be true of it in the end. They run the command line, under request ids.

A client writes one item of stock, one piece a time, so what it is told can be checked at once: the n-th write leaves n pieces, however
often it was sent. Another one reads these items through one node at a time, also through one that its peers do not reach. `playhouse
shop` places orders meanwhile.
"""

import json
import os
import threading
import time

from drill import NODES, WAIT_MAX_S, Violated, until

# Of a client that asks one node only, which may be cut off.
INSISTS_S = 2
# The last columns of each table.
WAITS = ("longest wait for a write, ms", "for an order, ms")


class Item:
    """What is known of one item of stock."""

    def __init__(self, sku):
        self.sku, self.asked, self.told = sku, 0, 0


class Load:
    """Clients, what they were told, and how long they waited."""

    ORDERS = 60
    ORDERS_PER_S = 10

    def __init__(self, cluster):
        self.cluster = cluster
        self.items = [Item(f"piece-{number}") for number in range(3)]
        self.waits, self.reads, self.captured, self.runs, self.wrong = [], 0, 0, 0, []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.guard, args=(self.write, item), daemon=True) for item in self.items]
        self.threads.append(threading.Thread(target=self.guard, args=(self.read,), daemon=True))
        self.orders = os.path.join(cluster.folder, "orders.csv")
        with open(self.orders, "w") as file:
            file.write("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID\n")
            for order in range(self.ORDERS):
                for line in range(1 + order % 2):
                    product = (order * 7 + line * 11) % 20
                    file.write(f"{order},P{product},Thing {product},{1 + order % 3},2024-01-08,{1 + product}.25,{order % 25}\n")
        for thread in self.threads:
            thread.start()

    def guard(self, work, *arguments):
        """A client that fails is a finding, not a silence."""
        try:
            while not self.stop.is_set():
                work(*arguments)
                self.stop.wait(0.1)
        except Exception as error:
            self.wrong.append(f"{work.__name__}: {error}")

    def write(self, item):
        item.asked += 1
        number, code = item.asked, None
        words = ["stock", "receive", item.sku, "1", "--request-id", f"{item.sku}-{number}"]
        if number % 4 == 0:
            # Through one node only, and given up early: it must not count twice when it is repeated below.
            code, answer, complaint = self.cluster.ask(*words, nodes=[NODES[number // 4 % 3]], limit=INSISTS_S)
        begun = time.monotonic()
        while code != 0:
            code, answer, complaint = self.cluster.ask(*words)
            if code not in (0, 3, None):
                raise Violated(f"{item.sku}, write {number}: exit code {code}: {complaint}")
        self.waits.append((begun, time.monotonic() - begun))
        if answer["received"] != number:
            raise Violated(f"{item.sku}: write {number} was told that {answer['received']} pieces were received")
        item.told = number

    def read(self):
        self.reads += 1
        item, node = self.items[self.reads % 3], NODES[self.reads // 3 % 3]
        least = item.told
        code, answer, _ = self.cluster.ask("stock", "show", item.sku, nodes=[node], limit=INSISTS_S)
        # No answer is none; what is answered must be true.
        if code == 0 and not least <= answer["received"] <= item.asked or code == 1 and least:
            raise Violated(f"{item.sku}, read through node {node}: {answer.get('received')} of {least} to {item.asked} pieces")

    def check(self):
        if self.wrong:
            raise Violated("; ".join(self.wrong))

    def written(self):
        return len(self.waits)

    def goes_on(self, writes=10):
        """Waits until so many more writes were acknowledged."""
        enough = self.written() + writes
        until("clients are served", lambda: self.check() or self.written() >= enough)

    def shop(self):
        """Begins to place orders: new ones each time."""
        self.runs += 1
        words = ["shop", "--orders", self.orders, "--rate", str(self.ORDERS_PER_S), "--run", f"run-{self.runs}", "--patience", "60", "--json"]
        return self.cluster.begin(words)

    def shopped(self, process):
        """The longest wait of its customers, in ms. All orders must stand, to the penny."""
        code, told, complaint = self.cluster.end(process, 2 * WAIT_MAX_S)
        if code != 0 or told["orders"]["confirmed"] != self.ORDERS:
            raise Violated(f"orders, exit code {code}: {json.dumps(told)} {complaint}")
        self.captured += told["captured_minor"]
        return told["longest_gap_ms"]

    def longest_ms(self, since):
        return round(1000 * max((took for begun, took in self.waits if begun >= since), default=0))

    def close(self):
        self.stop.set()

    def settle(self):
        """Ends the clients. Each write must be there once, each order paid once, and `playhouse verify` must hold."""
        self.close()
        for thread in self.threads:
            thread.join(WAIT_MAX_S)
        self.check()
        for item in self.items:
            code, answer, complaint = self.cluster.ask("stock", "show", item.sku)
            if (code, answer.get("received"), item.told) != (0, item.asked, item.asked):
                raise Violated(f"{item.sku}: {item.asked} writes, {item.told} acknowledged, {answer.get('received')} there {complaint}")
        code, verdict, complaint = self.cluster.ask("verify", "--wait", "30", "--provider", f"http://{self.cluster.provider}")
        money = verdict.get("money", {})
        if code != 0 or not money["captured_minor"] == money["confirmed_minor"] == self.captured:
            raise Violated(f"verify, exit code {code}; orders of {self.captured} were acknowledged: {json.dumps(verdict)} {complaint}")
        return f"{self.written()} writes and {self.runs * self.ORDERS} orders acknowledged, each there once; `playhouse verify` holds"
