"""Checks the traces of a running cluster against an independent OTLP receiver.

Listens for OTLP over gRPC with PyPI's own `opentelemetry-proto`, starts `playhouse up` with that endpoint, places orders, kills the
leader of one while its saga runs, and compares what `trace show --json` tells with what arrived here: the same ids, one root, every
parent known.

    python3 -m venv v && v/bin/pip install grpcio opentelemetry-proto
    v/bin/python .ci/otlp/check.py target/release/playhouse
"""

import collections
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

BASE = 27600
spans = collections.defaultdict(dict)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans[span.trace_id.hex()][span.span_id.hex()] = span.parent_span_id.hex()
        return trace_service_pb2.ExportTraceServiceResponse()


def run(*words, ok=True):
    done = subprocess.run([PROGRAM, *words, "--base-port", str(BASE)], capture_output=True, text=True)
    if ok and done.returncode != 0:
        sys.exit(f"{words}: {done.returncode} {done.stderr}")
    return done


def whole(tree):
    roots = [span for span, parent in tree.items() if not parent]
    return len(roots) == 1 and all(not parent or parent in tree for parent in tree.values())


def compare(trace, what):
    for _ in range(100):
        shown = run("trace", "show", trace, "--json", ok=False)
        if shown.returncode == 0:
            found = json.loads(shown.stdout)["spans"]
            inside = {span["span_id"]: span["parent_span_id"] for span in found}
            names = {span["name"] for span in found}
            if inside == spans[trace] and whole(inside) and "POST /v1/captures" in names:
                print(f"{what}: {len(inside)} spans, the same at both places, one root, no parent unknown")
                return
        time.sleep(0.2)
    only = set(inside.items()) ^ set(spans[trace].items())
    sys.exit(f"{what}: not the same or not whole: inside {len(inside)}, outside {len(spans[trace])}, differ {sorted(only)[:8]}")


PROGRAM = os.path.abspath(sys.argv[1])
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with tempfile.TemporaryDirectory() as folder:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    command = [PROGRAM, "up", "--json", "--no-load", "--base-port", str(BASE), "--data", folder + "/d"]
    up = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(up.stdout.readline())
        run("product", "put", "tea", "--name", "Tea", "--price", "2.55")
        run("stock", "receive", "tea", "100")
        placed = json.loads(run("order", "place", "--line", "tea:1", "--json").stdout)
        compare(placed["trace_id"], "a checkout")
        control = urllib.request.Request(
            ready["provider"]["http"] + "/control", b'{"latency_ms":1200}', {"content-type": "application/json"}, method="PUT"
        )
        urllib.request.urlopen(control).read()
        placed = json.loads(run("order", "place", "--line", "tea:1", "--no-wait", "--json").stdout)
        leader = None
        while leader is None:
            shown = run("entity", "show", "payment/" + placed["order_id"], "--json", ok=False)
            if shown.returncode == 0 and json.loads(shown.stdout)["outbox"]:
                leader = json.loads(shown.stdout)["leader"]
        time.sleep(0.5)
        run("kill", str(leader))
        compare(placed["trace_id"], f"a checkout whose leader, node {leader}, was killed")
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()
