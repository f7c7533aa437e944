"""R9: a disk that is full, twenty times: said, nothing answered lost, lists go on, and space heals it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, item, started
from tests.tiers import count

from isthmus.service.log.sqlite import SqliteLog


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of ``size`` in memory; the test is skipped where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    with suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True)
            return
    pytest.skip("no disk may be mounted here (needs root)")


def fill(path: Path) -> None:
    """Write until the disk is full."""
    size = 1 << 16
    with path.open("ab", buffering=0) as file:
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def test_a_full_disk_is_said_reads_go_on_and_space_heals_it(tmp_path: Path) -> None:
    acked: list[str] = []
    sent = 0
    slowest = 0.0
    who = {"platform": "north", "user": "disk"}
    with small_disk(tmp_path / "disk", "4m") as data:
        with (
            started(data, "--no-warm", "--no-console", "--seal", 0, "--deadline", 20) as (process, url),
            httpx.Client(base_url=url, timeout=30) as client,
        ):

            def send() -> int:
                nonlocal sent
                sent += 1
                answer = client.post("/v1/events", json={"events": [event(sent % 20, who, id=f"e{sent}")]})
                if answer.status_code == 202:
                    acked.append(f"e{sent}")
                return answer.status_code

            assert send() == 202
            for _ in range(count(5, 20)):
                fill(data / "filler")
                statuses = [send()]
                while statuses[-1] == 202 and len(statuses) < 200:
                    statuses.append(send())
                assert statuses[-1] == 507
                assert [send() for _ in range(3)] == [507] * 3
                lists = client.post("/v1/recommend", json={"persons": [account(), who], "k": 5, "reasons": 0})
                assert lists.status_code == 200
                assert lists.json()["degraded_by"] == ["events cannot be written"]
                assert client.post("/v1/similar", json={**item(2), "k": 3}).status_code == 200
                told = client.get("/v1/persons/north:disk")
                assert told.status_code in (200, 507), "an export is noted in the audit log"
                assert client.get("/livez").status_code == 200
                (data / "filler").unlink()
                began = time.monotonic()
                while send() != 202:
                    assert time.monotonic() < began + 5
                    time.sleep(0.02)
                slowest = max(slowest, time.monotonic() - began)
                again = client.post("/v1/recommend", json={"persons": [account()]}).json()
                assert again["degraded_by"] == []
            told = client.get("/v1/persons/north:disk").json()
            assert [one["id"] for one in told["events"]] == acked
            assert process.poll() is None
        with closing(SqliteLog(data / "default.db")) as log:
            assert log._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert [record.entry.id for some in log.read() for record in some] == acked
    print(
        f"{len(acked)} of {sent} events answered 202 and there, the others refused; written again after {slowest:.2f} s"
    )
