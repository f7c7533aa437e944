"""Traces: every request joined with who sent it, every step with its request, and nothing said of anybody."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import redis_server
from tests.small_service import account, event, item, served, started
from tests.test_cli import isthmus
from tests.tiers import count

from isthmus.errors import InputError
from isthmus.service.core import Service
from isthmus.service.watch.traces import Tracing, step, trace_id

pytest.importorskip("opentelemetry.sdk")
Client = httpx.AsyncClient
ALLOWED = {
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "isthmus.tenant",
    "isthmus.records",
    "isthmus.k",
    "isthmus.events",
}


@contextmanager
def collector() -> Iterator[tuple[str, list]]:
    """Yield the address of a collector and the spans it has got."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got: list = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                assert names["service.name"] == "isthmus"
                for scope in resource.scope_spans:
                    got.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sent(number: int) -> tuple[bytes, bytes]:
    """Return trace id and span id of the sender of a request."""
    return (number + 1).to_bytes(16, "big"), (number + 1).to_bytes(8, "big")


def test_every_request_is_joined_and_names_nobody(tmp_path: Path) -> None:
    n = count(200, 1000)
    who = account()

    async def test(client: Client, service: Service) -> None:
        async def ask(number: int) -> None:
            trace, span = sent(number)
            headers = {
                "traceparent": f"00-{trace.hex()}-{span.hex()}-01",
                "tracestate": f"shop={who['user']}",
                "baggage": f"user={who['user']}",
            }
            if number % 2:
                body: dict = {"events": [event(number % 40, id=f"e{number}")]}
                answer = await client.post("/v1/events", json=body, headers=headers)
            else:
                body = {"persons": [who], "filters": {"platforms": ["north"]}, "target": "source"}
                answer = await client.post("/v1/recommend", json=body, headers=headers)
            assert answer.status_code in (200, 202)

        for start in range(0, n, 20):
            await asyncio.gather(*(ask(number) for number in range(start, start + 20)))
        assert (await client.post("/v1/events", json={"events": []})).status_code == 422
        assert (await client.get(f"/v1/persons/{who['platform']}:{who['user']}")).status_code == 200
        for path in ("/metrics", "/livez", "/readyz"):
            await client.get(path)

    with collector() as (url, got):
        served(tmp_path, test, traces=url)
    roots = [span for span in got if span.kind == 2]  # SERVER
    by_trace: dict[bytes, list] = {}
    for span in got:
        by_trace.setdefault(span.trace_id, []).append(span)
    joined = 0
    for number in range(n):
        trace, parent = sent(number)
        names = {span.name: span for span in by_trace[trace]}
        root = names["POST /v1/events" if number % 2 else "POST /v1/recommend"]
        assert root.parent_span_id == parent
        if number % 2:
            assert names["log commit"].parent_span_id == root.span_id
            assert names["count in"].parent_span_id == names["log commit"].span_id
        else:
            assert names["score"].parent_span_id == root.span_id
        joined += 1
    print(f"{joined} of {n} requests joined")
    assert len(roots) == n + 2, "health and figures are not traced"
    said = {one.key for span in got for one in span.attributes}
    assert said == ALLOWED - {"isthmus.events"}
    text = "".join(map(str, got))
    for private in (who["user"], item(1)["item"], event(1)["item"]):
        assert f'"{private}"' not in text
        assert f":{private}" not in text
    assert not any(span.trace_state or span.events for span in got)
    (refused,) = [span for span in roots if any(one.value.int_value == 422 for one in span.attributes)]
    assert refused.status.code == 0, "what a client does wrong is no error of ours"


def test_without_a_target_nothing_is_traced_and_a_dead_collector_hurts_nobody(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        with step("nothing"):
            assert trace_id() == ""
        assert (await client.post("/v1/events", json={"events": [event(1)]})).status_code == 202

    served(tmp_path / "a", test)
    served(tmp_path / "b", test, traces="http://127.0.0.1:9/v1/traces")
    with pytest.raises(InputError, match="takes no traces"):
        Tracing("ftp://x", "1")
    done = isthmus("serve", tmp_path, "--traces", "nowhere")
    assert done.code == 2
    assert "--traces" in done.err


def test_lines_of_the_log_name_the_trace_and_the_request(tmp_path: Path) -> None:
    trace, span = sent(6)
    with started(tmp_path, "--traces", "console", "--verbose") as (process, url):
        headers = {"traceparent": f"00-{trace.hex()}-{span.hex()}-01", "x-request-id": "request-0001"}
        httpx.post(f"{url}/v1/recommend", json={"persons": [account()]}, headers=headers)
        process.terminate()
        _, err = process.communicate(timeout=20)
    lines = [json.loads(line) for line in err.splitlines()]
    (request,) = [line for line in lines if line.get("said") == "request"]
    assert (request["trace_id"], request["request_id"]) == (trace.hex(), "request-0001")
    (told,) = [line for line in lines if line.get("name") == "POST /v1/recommend"]
    assert told["context"]["trace_id"] == f"0x{trace.hex()}"
    assert told["attributes"]["http.response.status_code"] == 200
    assert account()["user"] not in err
    assert os.path.basename(str(tmp_path)) not in json.dumps(told)


def test_a_message_of_a_stream_its_request_and_its_commit_are_one_trace(tmp_path: Path) -> None:
    """O5: stream, HTTP, log and state; a message that nobody traces begins a trace of its own."""
    redis = pytest.importorskip("redis")
    pytest.importorskip("faststream")
    n = count(60, 1000)
    with collector() as (to, got), redis_server() as broker, redis.Redis.from_url(broker) as client:
        for number in range(n):
            trace, span = sent(number)
            said = {"data": json.dumps(event(number % 40, id=f"e{number}"))}
            client.xadd("events", {**said, "traceparent": f"00-{trace.hex()}-{span.hex()}-01"})
        client.xadd("events", {"data": json.dumps(event(1, id="last"))})
        with started(tmp_path / "data", "--no-warm", "--traces", to) as (service, url):
            command = [Path(sys.executable).parent / "isthmus", "consume", f"{broker}?stream=events", "--to", url]
            command += ["--letters", tmp_path / "dead.jsonl", "--idle", 1, "--traces", to, "--json"]
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
            assert json.loads(done.stdout)["stored"] == n + 1, done.stderr
            service.terminate()
            assert service.wait(20) == 0
    by_trace: dict[bytes, dict[str, Any]] = {}
    for span in got:
        by_trace.setdefault(span.trace_id, {})[span.name] = span
    joined = 0
    for number in range(n):
        trace, parent = sent(number)
        steps = by_trace.pop(trace)
        before = parent
        for name in ("process messages", "POST /v1/events", "log commit", "count in"):
            assert steps[name].parent_span_id == before, name
            before = steps[name].span_id
        joined += 1
    print(f"{joined} of {n} messages joined")
    (rest,) = [steps for steps in by_trace.values() if "log commit" in steps]
    assert rest["process messages"].parent_span_id == b""
    assert rest["POST /v1/events"].parent_span_id == rest["process messages"].span_id
    assert event(1)["user"] not in "".join(map(str, got))
