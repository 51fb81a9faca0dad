"""What the drills of this folder share: a cluster started from config files of its own, the verdict, and an end that leaves nothing
behind. Needs nothing but Python.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

NODES = (1, 2, 3)
SHARDS = 16
PORT = 7001
# How long whatever must come may take to come. No promise, but without it a drill would never end.
WAIT_MAX_S = 60
# Of each log, where something is violated.
LOG_LINES = 20
TIME_LEN = len("2026-01-01T00:00:00.000000Z")
# A replica that is no further behind is up to date: load goes on.
LAG_MAX = 64
# Few traces are kept in files: a small disk is to be filled by the drill.
CONFIG = """[cluster]
node = {node}
data = "{data}"
shards = {shards}
replicas = 3
members = [{members}]
[provider]
url = "{provider}"
[telemetry]
traces_disk_mib = 4
"""


class Impossible(Exception):
    """The drill cannot be done here."""


class Violated(Exception):
    """The cluster has not kept its word."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Clock:
    """Seconds since it was made."""

    def __init__(self):
        self.begun = time.monotonic()

    def __call__(self):
        return time.monotonic() - self.begun


def until(what, condition, limit=WAIT_MAX_S):
    """Waits until the condition gives something, and gives it."""
    clock = Clock()
    while clock() < limit:
        if found := condition():
            return found
        time.sleep(0.1)
    raise Violated(f"not within {limit} s: {what}")


class Cluster:
    """Nodes and a payment provider as processes of this one, and the command line towards them."""

    def __init__(self, program, folder, hosts, provider_host, within=lambda _: [], data=None):
        """`within(node)` is what a command begins with to run where the node does; 0 stands for clients and the provider."""
        self.program, self.folder, self.within = program, folder, within
        self.addresses = {node: f"{hosts[node]}:{PORT}" for node in NODES}
        self.provider = f"{provider_host}:{PORT + 89}"
        self.running, self.clients, self.is_closed, self.lock = {}, set(), False, threading.Lock()
        self.data = {node: os.path.join(folder, f"node-{node}") for node in NODES} | (data or {})
        members = ", ".join(f'{{ id = {node}, address = "{self.addresses[node]}" }}' for node in NODES)
        for node in NODES:
            with open(os.path.join(folder, f"node-{node}.toml"), "w") as file:
                file.write(CONFIG.format(node=node, data=self.data[node], shards=SHARDS, members=members, provider=f"http://{self.provider}"))

    def start(self):
        self.spawn(0, ["provider", "--listen", self.provider, "--data", os.path.join(self.folder, "ledger")])
        for node in NODES:
            self.start_node(node)
        try:
            self.whole()
        except Violated as error:
            raise Impossible(f"the cluster does not start: {error}") from error

    def start_node(self, node):
        self.spawn(node, ["node", "--config", os.path.join(self.folder, f"node-{node}.toml")])

    def log(self, node):
        """Not in its folder: a full disk takes no log lines either."""
        return os.path.join(self.folder, f"{node}.log")

    def spawn(self, node, arguments):
        # Should this process be killed, its children end too. They get no Ctrl-C: they are ended in order.
        command = [*self.within(node), self.program, *arguments, "--die-with-parent", str(os.getpid())]
        with open(self.log(node), "ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.running[node] = process

    def begin(self, arguments, nodes=NODES):
        """A command of a client on its way."""
        addresses = ",".join(self.addresses[node] for node in nodes)
        command = [*self.within(0), self.program, *arguments, "--address", addresses]
        pipe = subprocess.PIPE
        with self.lock:
            if self.is_closed:
                raise Violated("the drill is over")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
            self.clients.add(process)
        return process

    def end(self, process, limit=WAIT_MAX_S):
        """Its exit code, its JSON and what it complained of; no exit code if it took longer."""
        try:
            out, complaint = process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            code, out, complaint = None, "", f"no answer within {limit} s"
        with self.lock:
            self.clients.discard(process)
        return code, json.loads(out) if out.startswith("{") else {}, complaint.strip()

    def ask(self, *arguments, nodes=NODES, limit=WAIT_MAX_S):
        return self.end(self.begin([*arguments, "--json"], nodes), limit)

    def status(self):
        """What the cluster says of itself; the roster is the last of its shards."""
        _, status, _ = self.ask("status", limit=5)
        return status and {"nodes": status["nodes"], "shards": [*status["shards"], status["system"]]}

    def whole(self):
        """Waits until every node is there and every shard is led, with all replicas up to date."""

        def is_whole():
            for node, process in self.running.items():
                if process.poll() is not None:
                    raise Violated(f"{f'node {node}' if node else 'the provider'} ended with exit code {process.returncode}")
            status = self.status()
            return status and [node["id"] for node in status["nodes"] if node["up"]] == list(NODES) and all(
                shard["leader"] and sorted(shard["replicas"]) == list(NODES) and all(lag <= LAG_MAX for lag in shard["lag"].values())
                for shard in status["shards"]
            )

        until("every node up, every shard led, every replica up to date", is_whole)

    def leader(self):
        """The node that leads the roster: what hurts most when it is away."""
        return until("the roster has a leader", lambda: (self.status() or {"shards": [{"leader": 0}]})["shards"][-1]["leader"])

    def close(self):
        """Nodes first, each handing over; whatever does not end is killed."""
        with self.lock:
            self.is_closed = True
            for process in self.clients:
                process.kill()
        for processes in [p for node, p in self.running.items() if node], [p for node, p in self.running.items() if not node]:
            for process in processes:
                process.terminate()
            clock = Clock()
            for process in processes:
                try:
                    process.wait(timeout=max(0.1, 10 - clock()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells):
    row(*cells)
    row(*("---" for _ in cells))


def main(about, drill):
    """Runs `drill(program, folder, stack)`, which gives the verdict, and undoes what it has put on the stack, however it ends."""
    arguments = argparse.ArgumentParser(description=about)
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments.add_argument("playhouse", nargs="?", default=os.path.join(top, "target/release/playhouse"), metavar="PLAYHOUSE")
    program = os.path.abspath(arguments.parse_args().playhouse)
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, interrupted)
    try:
        if os.geteuid() != 0:
            raise Impossible("only root may do this")
        if not os.access(program, os.X_OK):
            raise Impossible(f"{program} is not there: build it, or name another")
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="playhouse-drill-"))
            try:
                told = drill(program, folder, stack)
            except (Impossible, Violated):
                show_logs(folder)
                raise
            finally:
                # What follows cleans up, and a second Ctrl-C must not stop that.
                for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(sign, signal.SIG_IGN)
        print(f"\nverdict: clean. {told}")
        code = 0
    except Impossible as error:
        say(f"not possible here: {error}")
        code = 2
    except Violated as error:
        print(f"\nverdict: VIOLATED. {error}")
        code = 1
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    sys.exit(code)


def interrupted(*_):
    raise KeyboardInterrupt


def show_logs(folder):
    """The folder goes; what the processes complained of last, each thing once, may be all that explains a finding."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(".log"):
            with open(os.path.join(folder, name), errors="replace") as log:
                lines = {line[TIME_LEN:]: line for line in log if " INFO " not in line}
            say(f"--- {name}\n" + "".join([*lines.values()][-LOG_LINES:]))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Impossible(f"{' '.join(command)}: {done.stderr.strip()}")
