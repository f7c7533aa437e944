"""Many requests at once: some are served, the others refused soon and told when to come back; nothing is half done."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from tests.small_service import started

Heard = tuple[int, bytes, bytes]
REASONS = ("too many requests at a time", "too many events wait for the disk")


async def call(port: int, body: bytes, *, times: int) -> list[Heard]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    heard = []
    for _ in range(times):
        writer.write(head.encode() + b"\r\n\r\n" + body)
        said = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(said.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        heard.append((int(said[9:12]), said, await reader.readexactly(length)))
    writer.close()
    return heard


def batch(name: str) -> bytes:
    one = {"platform": "north", "item": "i1", "event": "click"}
    return json.dumps({"events": [{**one, "user": f"u{n}", "id": f"{name}-{n}"} for n in range(300)]}).encode()


def test_of_a_crowd_some_are_served_and_the_others_refused_soon(tmp_path: Path) -> None:
    with started(tmp_path / "data", "--no-warm") as (_, url):
        port = int(url.rpartition(":")[2])

        async def crowd() -> list[Heard]:
            found = await asyncio.gather(*(call(port, batch(str(n)), times=2) for n in range(200)))
            return [one for some in found for one in some]

        heard = asyncio.run(crowd())
        statuses = [status for status, _, _ in heard]
        assert set(statuses) == {202, 503}, "some and some"
        for status, head, body in heard:
            if status == 503:
                assert b"\r\nretry-after: 1\r\n" in head
                assert json.loads(body)["detail"] in REASONS
        stored = [json.loads(body) for status, _, body in heard if status == 202]
        assert sum(one["accepted"] for one in stored) == 300 * len({one["ids"][0] for one in stored})

        began = time.perf_counter()
        ((status, _, _),) = asyncio.run(call(port, batch("later"), times=1))
        assert status == 202
        assert time.perf_counter() - began < 5

        async def few() -> list[list[Heard]]:
            return await asyncio.gather(*(call(port, batch(f"few-{n}"), times=3) for n in range(30)))

        assert {status for some in asyncio.run(few()) for status, _, _ in some} == {202}, "few are never a crowd"
