"""What the service keeps of requests is bounded: lists shown, the audit log in memory, lists of people who are gone."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import pytest
from tests.small_service import account, event, models, served

from isthmus.errors import InputError
from isthmus.service.core import Service
from isthmus.service.lists.exposure import Exposure
from isthmus.service.lists.live import Live, Top, Version
from isthmus.service.lock import vault as locking
from isthmus.service.lock.vault import Vault
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry
from isthmus.service.watch.lines import Aside


class Named:
    version = Version("first", "abc")


def test_a_list_that_was_shown_does_not_keep_the_long_list_it_was_cut_from() -> None:
    live, exposure = cast("Live", Named()), Exposure(lambda: 5.0)
    long = np.arange(100, dtype=np.int32)
    kept = weakref.ref(long)
    top = Top(long, long.astype(np.float32), live)
    for length in (3, 0, 20):
        exposure.note(top.keep(slice(length)), live)
    del long, top
    assert kept() is None
    for item, shown, rank in ((2, 2, 3.0), (10, 1, 11.0), (20, 0, None)):
        said = exposure.of(item)
        assert (said["lists"], said["shown"], said["mean_rank"], said["since"]) == (3, shown, rank, 5.0)


def test_exposure_over_time_is_that_of_the_lists_in_each_span() -> None:
    now = [0.0]
    live, exposure = cast("Live", Named()), Exposure(lambda: now[0])
    assert exposure.of(0)["spans"] == []
    rng, lists = np.random.default_rng(0), []
    for moment in np.sort(rng.uniform(100.0, 200.0, 500)):
        now[0] = float(moment)
        rows = rng.permutation(30)[: int(rng.integers(0, 6))].astype(np.int32)
        exposure.note(Top(rows, rows.astype(np.float32), live), live)
        lists.append((now[0], rows.tolist()))
    now[0] = 220.0
    spans = cast("list[dict[str, float]]", exposure.of(7)["spans"])
    begin, width = lists[0][0], (220.0 - lists[0][0]) / 24
    assert [one["start"] for one in spans] == pytest.approx([begin + width * n for n in range(24)])
    for one in spans:
        here = [rows for when, rows in lists if one["start"] <= when < one["start"] + width]
        assert (one["lists"], one["shown"]) == (len(here), sum(7 in rows for rows in here))
    assert [one["lists"] for one in spans][-4:] == [0, 0, 0, 0], "none since 200"
    assert sum(one["lists"] for one in spans) == 500


def test_the_audit_log_is_gone_through_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PAGE", 50)
    vault = Vault(tmp_path)
    vault._book.execute("PRAGMA synchronous=OFF")
    for number in range(3020):
        vault.note("default", "me", "tried", {"number": number})
    tracemalloc.start()
    assert sum(1 for _ in vault.entries()) == 3020
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000, "3,020 entries at once are more than two million bytes"
    assert [one["said"] for one in vault.audit()] == [{"number": number} for number in range(3020)]
    going = vault.entries()
    for _ in range(60):
        next(going)
    vault.note("default", "me", "came meanwhile", {})
    assert sum(1 for _ in going) == 3021 - 60, "what is noted meanwhile follows and is no damage"
    vault._book.execute("UPDATE audit SET actor = 'you' WHERE number = 3000")
    with pytest.raises(InputError, match="entry 3000"):
        vault.audit()
    vault.close()


def test_a_log_is_replayed_in_little_memory(tmp_path: Path) -> None:
    """A replay beside requests leaves behind what it once took: with the whole log at a time that grew with the log."""
    with closing(open_log(Place(tmp_path), "shop")) as log:
        for start in range(0, 9000, 1000):
            log.put([Entry(f"e{n}", "event", "shop", f"u{n}", "i", "view", ts=n) for n in range(start, start + 1000)])
        tracemalloc.start()
        assert sum(len(some) for some in log.read()) == 9000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_500_000, "9,000 records at once are more than six million bytes"


def test_no_list_is_kept_of_who_was_erased_while_it_was_made(tmp_path: Path) -> None:
    who = account(3)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        tenant = service.tenant()
        await client.post("/v1/events", json={"events": [event(2, who)]})
        person, scored = tenant.live.state.person(*who.values()), tenant.lister._scored

        async def erased_meanwhile(lists: int, work: Callable[[], Sequence[Top]]) -> Sequence[Top]:
            made = await scored(lists, work)
            await client.delete(f"/v1/persons/{who['platform']}:{who['user']}")
            return made

        tenant.lister._scored = erased_meanwhile  # type: ignore[assignment, method-assign]
        answer = await client.post("/v1/recommend", json={"persons": [who], "k": 5, "target": "source"})
        assert answer.status_code == 200
        assert person not in tenant.live.state.linked
        assert person not in [number for number, _ in tenant.lister._kept]

    served(tmp_path, test)


@pytest.mark.skipif(sys.platform != "linux", reason="heaps are seen in /proc")
def test_threads_share_heaps(tmp_path: Path) -> None:
    """Threads that begin after the service has, all at once, take their memory from heaps that are there already."""
    script = (
        "import ctypes, threading\n"
        "from isthmus.service.run import _share_heaps\n"
        "def heaps():\n"
        "    libc = ctypes.CDLL(None)\n"
        "    libc.fopen.restype = ctypes.c_void_p\n"
        "    libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]\n"
        "    out = libc.fopen(b'heaps.xml', b'w')\n"
        "    libc.malloc_info(0, out)\n"
        "    libc.fclose(out)\n"
        "    return open('heaps.xml').read().count('<heap nr=')\n"
        "_share_heaps()\n"
        "before, meet = heaps(), threading.Barrier(12)\n"
        "def work():\n"
        "    held = bytearray(5000)\n"
        "    meet.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(12)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "print(before, heaps())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after <= max(before, 2)


def test_a_service_whose_log_nobody_reads_answers(tmp_path: Path) -> None:
    """A pipe holds 64 KB; a line that waited for its reader would halt the service, and all who ask it."""
    command = [Path(sys.executable).parent / "isthmus", "serve", models() / "first", "--port", 0, "--data", tmp_path]
    process = subprocess.Popen(
        [*map(str, command), "--verbose"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, timeout=10) as client:
            for _ in range(450):
                assert client.get("/v1/nothing").status_code == 404
        process.terminate()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    assert len(said) > 1 << 16
    assert all(json.loads(line)["level"] for line in said.splitlines())


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    reading, writing = os.pipe()
    lines = Aside(writing, most=10)
    for number in range(300):
        lines.handle(logging.makeLogRecord({"msg": f"{number} {'x' * 1000}"}))
    said = b""
    while b"dropped" not in said:
        said += os.read(reading, 1 << 16)
    lines.close()  # what waited is written by then, and fits into the pipe
    os.close(writing)
    while some := os.read(reading, 1 << 16):
        said += some
    os.close(reading)
    whole = said.decode().splitlines()
    told = [int(line.split()[0]) for line in whole if line.endswith("x")]
    assert told == sorted(set(told))
    assert 10 <= len(told) < 300
    assert sum(int(line.split()[0]) for line in whole if "dropped" in line) == 300 - len(told)


def test_dropped_lines_are_counted_at_the_end_too() -> None:
    reading, writing = os.pipe()
    lines = Aside(writing, most=0)
    for _ in range(3):
        lines.handle(logging.makeLogRecord({"msg": "no room"}))
    lines.close()
    assert os.read(reading, 1000) == b"3 lines were dropped: nobody read them in time\n"
    os.close(writing)
    os.close(reading)


def test_a_signal_may_log_while_a_line_is_logged() -> None:
    """SIGTERM says so in the log; where it came while a line was put in the queue, the service never ended."""
    program = """
import logging, os, signal
from isthmus.service.watch.lines import Aside
log = logging.getLogger("said")
log.addHandler(Aside(os.open(os.devnull, os.O_WRONLY), most=100))
signal.signal(signal.SIGALRM, lambda *_: log.warning("signal"))
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
for _ in range(50_000):
    log.warning("line")
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "done\n", done.stderr
