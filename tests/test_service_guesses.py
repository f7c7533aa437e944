"""Who comes without a valid key too often is looked at no more; what a connection refuses is counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.small_service import account, served, started

from isthmus.service.core import Service
from isthmus.service.lock.guesses import MOST, Guesses
from isthmus.service.lock.key import Key
from isthmus.service.lock.vault import Vault
from isthmus.service.problems import RequestError

Client = httpx.AsyncClient
ASK = {"persons": [account()], "target": "source", "k": 3}
WRONG = "isk_12345678_" + "x" * 43


def from_address(client: Client, address: str) -> Client:
    """Return a client of the same service that comes from elsewhere."""
    app = cast("httpx.ASGITransport", client._transport).app
    return Client(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://localhost")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_wrong_keys_of_an_address_are_soon_looked_at_no_more(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    used, fresh = (vault.create(tenant="default", scopes=["recommend", "metrics"])[1] for _ in range(2))
    vault.close()

    async def test(client: Client, service: Service) -> None:
        async def ask(token: str, client: Client = client) -> httpx.Response:
            return await client.post("/v1/recommend", json=ASK, headers=bearer(token))

        assert (await ask(used)).status_code == 200
        paths = ("/v1/access", "/metrics", "/v1/overview")
        wrong = [
            (await client.get(path, headers=bearer(f"{WRONG}{n}"))).status_code for n in range(4) for path in paths
        ]
        assert wrong == [200, 401, 401] * 4, "whatever is asked"
        statuses = [(await ask(f"{WRONG}{n}")).status_code for n in range(60)]
        assert statuses == [401] * 48 + [429] * 12
        for path in paths:
            refused = await client.get(path, headers=bearer(fresh))
            assert (refused.status_code, 1 <= int(refused.headers["retry-after"]) <= 2) == (429, True), path
        assert (await ask(fresh)).status_code == 429, "a guess that is right is not told from others"
        assert (await ask(used)).status_code == 200, "who came with it before goes on"
        assert (await client.get("/v1/access")).status_code == 200, "what is open stays so"
        async with from_address(client, "10.9.8.7") as other:
            assert (await ask(fresh, other)).status_code == 200
        await asyncio.sleep(1.1)
        assert [(await ask(token)).status_code for token in (WRONG, WRONG, fresh)] == [401, 429, 200]
        text = (await client.get("/metrics", headers=bearer(used))).text
        assert 'isthmus_requests_total{operation="recommend",status="401"} 49.0' in text
        assert 'isthmus_requests_total{operation="recommend",status="429"} 14.0' in text

    served(tmp_path, test, guesses=60)


def test_guesses_of_any_number_of_addresses_and_keys_take_little_memory() -> None:
    guesses = Guesses({f"key{n}": cast("Key", n) for n in range(1, 2 * MOST)}.get, 2, clock=lambda: 0.0)
    for n in range(1, 2 * MOST):
        assert guesses.find("10.0.0.1", f"key{n}") == n
        assert guesses.find(f"2001:db8:{n:x}::1", "wrong") is None
    assert max(len(guesses._right), len(guesses._wrong._free)) <= MOST
    one = f"2001:db8:{2 * MOST - 1:x}"
    assert guesses.find(f"{one}::2", "wrong") is None
    with pytest.raises(RequestError, match="without a valid key"):
        guesses.find(f"{one}:0:a:b::3", "wrong, of the same network")
    assert guesses.find("2001:db8:ffff::3", "wrong") is None


def test_what_a_connection_refuses_is_counted(tmp_path: Path) -> None:
    """O1: figures count all statuses, also those of requests that never were whole."""
    with started(tmp_path, "--header-seconds", 1) as (_, url):
        host, port = url.removeprefix("http://").split(":")

        def answered(sent: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=20) as plug:
                plug.sendall(sent)
                got = b""
                with contextlib.suppress(ConnectionError):
                    while part := plug.recv(65536):
                        got += part
                return got[9:12]

        began = time.monotonic()
        assert answered(b"POST /v1/recommend HTTP/1.1\r\nhost: loc") == b"408"
        assert 0.8 < time.monotonic() - began < 3
        for _ in range(2):
            assert answered(b"GET /livez HTTP/1.1\r\nx-long: " + b"a" * (65 << 10)) == b"431"
        for _ in range(3):
            assert answered(b"\x16\x03\x01 no HTTP\r\n\r\n") == b"400"
        assert answered(b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n") == b"400"
        families = list(text_string_to_metric_families(httpx.get(url + "/metrics").text))
    samples = [one for family in families for one in family.samples if one.labels.get("operation") == "connection"]
    counts = {one.labels["status"]: one.value for one in samples if one.name == "isthmus_requests_total"}
    assert counts == {"408": 1, "431": 2, "400": 4}
    times = {one.name: one.value for one in samples if one.name.startswith("isthmus_request_duration_seconds_")}
    assert times["isthmus_request_duration_seconds_count"] == 7
    assert 0.8 < times["isthmus_request_duration_seconds_sum"] < 4
