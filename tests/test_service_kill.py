"""The service killed, its answers lost on the way, its system calls watched: what it said stays true."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, recommender, started
from tests.tiers import count

from isthmus.client import Client, Event, Receipt, ServiceError
from isthmus.service.lists.items import Shelf
from isthmus.service.lists.state import State
from isthmus.service.log.records import Entry
from isthmus.service.log.sqlite import SqliteLog


def deeds(rng: random.Random, sender: int, first: int, n: int) -> list[Event]:
    """Return events of a few persons, late and out of order."""
    made = []
    for number in range(first, first + n):
        who = account(rng.randrange(8))
        ts = f"2024-01-{rng.randint(1, 28):02d}T00:00:{rng.randint(0, 59):02d}Z"
        made.append(Event(**event(rng.randrange(20), who, id=f"{sender}-{number}", ts=ts)))  # type: ignore[arg-type]
    return made


def state(entries: list[Entry], secret: bytes) -> State:
    shelf = Shelf(recommender().items, set())
    made = State(recommender().content.people, shelf.names, shelf.platforms, secret)
    for entry in entries:
        made.apply(entry)
    return made


def test_killed_while_eight_clients_send_nothing_answered_is_lost(tmp_path: Path) -> None:
    """R1 and R5: after every kill the log holds all that was answered, once, and says the same in any order."""
    rng, acked, sent, places = random.Random(1), set(), set(), [0] * 8
    slowest = 0.0
    orders = 0
    for _ in range(count(3, 100)):
        began = time.monotonic()
        with started(tmp_path, "--no-console", "--seal", 0) as (process, url):
            slowest = max(slowest, time.monotonic() - began)
            going = len(acked)

            def send(sender: int, url: str = url, seed: int = rng.randrange(1 << 30)) -> None:
                mine = random.Random(seed + sender)
                with Client(url, tries=1) as client:
                    while True:
                        some = deeds(mine, sender, places[sender], mine.randint(1, 20))
                        sent.update(one.id for one in some)
                        try:
                            acked.update(client.send(some).ids)
                        except ServiceError:
                            return
                        places[sender] += len(some) - mine.randint(0, 2)  # some are sent again

            senders = [threading.Thread(target=send, args=(n,)) for n in range(8)]
            for sender in senders:
                sender.start()
            while len(acked) < going + 40:
                time.sleep(0.005)
            time.sleep(rng.uniform(0.1, 0.8))
            process.kill()
            for sender in senders:
                sender.join()
        with closing(SqliteLog(tmp_path / "default.db")) as log:
            assert log._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            entries = [record.entry for some in log.read() for record in some]
            secret = log.secret
        ids = [entry.id for entry in entries]
        assert acked <= set(ids) <= sent, "none lost, none from nowhere"
        assert len(ids) == len(set(ids)), "none twice"
        expected = state(entries, secret).digest()
        for _ in range(count(2, 5)):
            rng.shuffle(entries)
            assert state(entries, secret).digest() == expected
            orders += 1
    print(f"acked {len(acked)}, found {len(ids)}, slowest start {slowest:.1f} s, {orders} orders with one digest")
    assert len(acked) > 50


def test_the_same_state_in_five_hundred_orders(tmp_path: Path) -> None:
    """R5: late and out of order, with items unknown, erasures at the end."""
    rng = random.Random(5)
    entries = []
    for n in range(60):
        who = account(rng.randrange(6))
        what = rng.choice(["later", *recommender().items.filter(platform="north")["item"].to_list()[:6]])
        kind = rng.choice(["click", "purchase", "impression"])
        entries.append(
            Entry(f"e{n}", "event", "north", who["user"], what, kind, ts=1_700_000_000_000_000 + rng.randint(0, 9))
        )
    expected = state(entries, b"s" * 32).digest()
    for _ in range(count(100, 500)):
        rng.shuffle(entries)
        assert state(entries, b"s" * 32).digest() == expected


@contextmanager
def resetting(url: str, share: float) -> Iterator[tuple[str, list[int]]]:
    """Yield the address of a proxy that resets connections after a request went through, and how many it did."""
    target = httpx.URL(url)
    rng, resets = random.Random(4), [0]
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(target.host, target.port)
        opened.extend((writer, up_writer))

        async def forward() -> None:
            while data := await reader.read(1 << 16):
                up_writer.write(data)
                await up_writer.drain()
                if rng.random() < share:
                    resets[0] += 1
                    await asyncio.sleep(rng.choice((0.0, 0.05)))
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return

        async def back() -> None:
            while data := await up_reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(forward()), asyncio.create_task(back())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        up_writer.close()
        writer.close()

    loop, ready, port = asyncio.new_event_loop(), threading.Event(), [0]

    async def run(ending: asyncio.Event) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port[0] = server.sockets[0].getsockname()[1]
        ready.set()
        await ending.wait()
        server.close()

    ending = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(ending)))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{port[0]}", resets
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for writer in opened:
            writer.transport.abort()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def test_answers_lost_on_the_way_count_nothing_twice(tmp_path: Path) -> None:
    """R4: every event is sent 1 to 5 times, by clients whose connections are reset after the request was sent."""
    n = count(400, 10_000)
    receipts: list[tuple[list[str], Receipt]] = []
    with started(tmp_path, "--no-console", "--seal", 0) as (_, url), resetting(url, 0.1) as (proxy, resets):

        def send(sender: int) -> None:
            rng = random.Random(sender)
            mine = deeds(rng, sender, 0, n // 8)
            queue = [deed for deed in mine for _ in range(rng.randint(1, 5))]
            rng.shuffle(queue)
            with Client(proxy, tries=20) as client:
                while queue:
                    size = rng.randint(1, 40)
                    some, queue = queue[:size], queue[size:]
                    receipts.append(([deed.id for deed in some if deed.id], client.send(some)))

        senders = [threading.Thread(target=send, args=(one,)) for one in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    with closing(SqliteLog(tmp_path / "default.db")) as log:
        ids = [record.entry.id for some in log.read() for record in some]
    print(f"{len(ids)} stored of {n}, {sum(len(given) for given, _ in receipts)} sent, {resets[0]} connections reset")
    assert sorted(ids) == sorted(f"{sender}-{k}" for sender in range(8) for k in range(n // 8))
    assert resets[0] > 5
    seen: set[str] = set()
    for given, receipt in receipts:  # in the order of each client's answers
        assert receipt.accepted + len(receipt.duplicates) == len(given)
        assert receipt.conflicts == ()
        again = {one for one in given if one in seen}
        assert again <= set(receipt.duplicates), "what was answered before is said to be there"
        seen |= set(given)


def test_the_disk_has_it_before_the_answer_leaves(tmp_path: Path) -> None:
    """R3: between two answers 202 on one connection a sync of the log was finished."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here (Debian: apt-get install strace)")
    trace, n = tmp_path / "trace", count(40, 200)
    with started(tmp_path / "data", "--no-console", "--no-warm", "--seal", 0) as (process, url):
        calls = "trace=fdatasync,fsync,write,writev,sendto,sendmsg"
        watcher = subprocess.Popen(
            [strace, "-f", "-q", "-s", "16", "-e", calls, "-o", str(trace), "-p", str(process.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            time.sleep(1.0)
            if watcher.poll() is not None:
                pytest.skip(f"strace may not watch here: {watcher.communicate()[1].strip()[:80]}")
            with httpx.Client(base_url=url) as client:
                for k in range(n):
                    answer = client.post("/v1/events", json={"events": [event(k % 20, id=f"e{k}")]})
                    assert answer.status_code == 202
        finally:
            watcher.terminate()
            watcher.communicate(timeout=10)
    synced, answers, wrong = 0, 0, 0
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(r"(fdatasync|fsync)(\(\d+\)| resumed>\)).*= 0", line):
            synced += 1
        elif "HTTP/1.1 202" in line:
            answers += 1
            wrong += synced == 0
            synced = 0
    print(f"{answers} answers, {wrong} without a sync before")
    assert (answers, wrong) == (n, 0)
