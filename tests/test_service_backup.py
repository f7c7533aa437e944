"""Backups taken while events come in, put back on either store; and what the doctor says of stores."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import apsw
import pytest
from tests.small_postgres import Postgres, postgres
from tests.small_service import models
from tests.test_cli import isthmus
from tests.test_service_segments import erasure, same, some
from tests.tiers import count

from isthmus.data.sources.segments import read_manifest, verified
from isthmus.errors import ArtefactError, InputError
from isthmus.recommender.store import version_of
from isthmus.service.lock.vault import Vault
from isthmus.service.log.backup import MANIFEST, backup, check, restore
from isthmus.service.log.base import EventLog, Place
from isthmus.service.log.durability import look
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry, Record
from isthmus.service.log.segments import Segments
from isthmus.service.log.upkeep import FOLDER


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres("full_page_writes=off") as one:
        yield one


@pytest.fixture(autouse=True)
def _on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders may lie in memory, which the doctor says."""
    monkeypatch.setattr("isthmus.service.log.durability._filesystem", lambda _: "ext4")


def place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    """Return an empty place of a kind: a folder, or a database of its own."""
    if kind == "sqlite":
        return Place(folder)
    import psycopg

    server, name = request.getfixturevalue("server"), f"d{uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return Place(folder, server.url.replace("/postgres", f"/{name}"))


def records(log: EventLog) -> list[Record]:
    return [record for part in log.read() for record in part]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_while_writing_is_what_was_there_at_its_mark(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """R11: sealing and writing go on; each backup, put back, is the log up to its mark."""
    where, rng = place(kind, tmp_path / "data", request), random.Random(11)
    with closing(Vault(where.folder)) as vault:
        vault.create(tenant="Shop", scopes=["events"])
    (where.folder / "Shop.model.json").write_text("{}")
    with closing(open_log(where, "Shop")) as log:
        segments, ending = Segments(where.folder / FOLDER / "Shop"), threading.Event()
        log.put([erasure("x", "nobody"), *some(rng, 0, 500)])

        def write() -> None:
            first = 500
            while not ending.is_set():
                first += len(log.put(some(rng, first, rng.randint(1, 40))).records)
                if rng.random() < 0.1:
                    segments.seal(log)

        writer = threading.Thread(target=write)
        writer.start()
        outs = []
        for n in range(count(2, 20)):
            time.sleep(0.1)
            outs.append(tmp_path / f"backup-{n}")
            backup(where, outs[-1])
        ending.set()
        writer.join()
        whole, secret = records(log), log.secret
    for n, out in enumerate(outs):
        mark = check(out)["logs"]["Shop"]  # type: ignore[index]
        back = place(("sqlite", "postgresql")[n % 2], tmp_path / f"back-{n}", request)
        restore(out, back)
        with closing(open_log(back, "Shop")) as log:
            assert (log.seq, log.secret) == (mark, secret)
            assert records(log) == [record for record in whole if record.seq <= mark]
            segments = Segments(back.folder / FOLDER / "Shop")
            segments.seal(log)
            assert same(segments, log)
            assert log.put([Entry("after", "event", "shop", "u", "i", "view")]).seq == mark + 1
        with closing(Vault(back.folder)) as vault:
            assert (len(vault.known()), len(vault.audit())) == (1, 1)
        assert (back.folder / "Shop.model.json").read_text() == "{}"
    assert len({check(out)["logs"]["Shop"] for out in outs}) == len(outs), "the log grew meanwhile"  # type: ignore[index]


def test_what_is_damaged_or_in_the_way_is_refused(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """R10 for backups: every byte that changed is found before anything is put back."""
    rng, data, out = random.Random(12), tmp_path / "data", tmp_path / "out"
    with closing(open_log(Place(data), "shop")) as log:
        log.put(some(rng, 0, 50))
        Segments(data / FOLDER / "shop").seal(log)
    with closing(Vault(data)) as vault:
        vault.create(tenant="shop", scopes=["events"])
    backup(Place(data), out)
    with pytest.raises(InputError, match="exists already"):
        backup(Place(data), out)
    with pytest.raises(InputError, match="holds no event log"):
        backup(Place(tmp_path / "data" / FOLDER), tmp_path / "other")
    with pytest.raises(InputError, match="no such folder"):
        backup(Place(tmp_path / "none"), tmp_path / "other")
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != MANIFEST]
    assert len(files) == 4
    for n in range(count(40, 400)):
        path = files[n % 4]
        whole = path.read_bytes()
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ rng.randint(1, 255)]) + whole[at + 1 :])
        with pytest.raises(ArtefactError, match="changed"):
            restore(out, Place(tmp_path / "back"))
        path.write_bytes(whole)
    assert not (tmp_path / "back").exists()
    (out / "more").write_text("x")
    with pytest.raises(ArtefactError, match="does not belong"):
        check(out)
    (out / "more").unlink()
    restore(out, Place(tmp_path / "back"))
    with pytest.raises(InputError, match="is not empty"):
        restore(out, Place(tmp_path / "back"))
    base = place("postgresql", tmp_path / "pg", request)
    restore(out, base)
    with pytest.raises(InputError, match="holds a log of 'shop' already"):
        restore(out, replace(base, folder=tmp_path / "pg2"))
    assert not (tmp_path / "pg2").exists()


def test_backup_restore_and_doctor_on_the_command_line(tmp_path: Path, server: Postgres) -> None:
    data = tmp_path / "data"
    with closing(open_log(Place(data), "default")) as log:
        log.put(some(random.Random(13), 0, 20))
        Segments(data / FOLDER / "default").seal(log)
        done = isthmus("backup", f"sqlite:///{data}", tmp_path / "out", "--json")
        assert json.loads(done.out)["logs"] == {"default": 20}, done.err
    assert isthmus("restore", tmp_path / "out", tmp_path / "back").code == 0
    assert isthmus("restore", tmp_path / "out", tmp_path / "back").code == 2
    assert isthmus("backup", tmp_path / "back", tmp_path / "out2").code == 0
    good = isthmus("doctor", tmp_path / "back", tmp_path / "out", "--strict", "--json")
    assert good.code == 0, good.out
    weak = isthmus("doctor", server.url)
    assert (weak.code, "tear pages" in weak.out) == (0, True), weak.out
    assert isthmus("doctor", server.url, "--strict").code == 1
    assert isthmus("doctor", "postgresql://isthmus:s3cret@127.0.0.1:9/x").code == 1
    assert isthmus("doctor", tmp_path / "none").code == 2
    assert "s3cret" not in isthmus("doctor", "postgresql://isthmus:s3cret@127.0.0.1:9/x", "--json").out


def test_the_doctor_finds_damage(tmp_path: Path) -> None:
    with closing(open_log(Place(tmp_path), "shop")) as log:
        log.put(some(random.Random(14), 0, 300))
        Segments(tmp_path / FOLDER / "shop").seal(log)
    with closing(Vault(tmp_path)) as vault:
        vault.create(tenant="shop", scopes=["events"])

    def levels() -> dict[str, str]:
        return {one.name: one.level for one in look(str(tmp_path))}

    assert set(levels().values()) <= {"ok", "note"}, levels()
    folder = tmp_path / FOLDER / "shop"
    path = verified(folder, read_manifest(folder).segments[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + b"abc")
    assert levels()["segments: shop"] == "fail"
    path.write_bytes(whole)
    with closing(apsw.Connection(str(tmp_path / "system.db"))) as db:
        db.execute("UPDATE audit SET said = '{}'")
    assert levels()["audit log"] == "fail"
    with (tmp_path / "shop.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 64)
    assert levels()["shop.db"] == "fail"


def test_the_doctor_opens_a_model_and_says_where_nothing_is(tmp_path: Path) -> None:
    model = shutil.copytree(models() / "first", tmp_path / "model")
    (good,) = look(str(model))
    assert (good.name, good.level) == ("model", "ok")
    assert good.said.endswith(version_of(model))
    file = max(model.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    (bad,) = look(str(model))
    assert (bad.name, bad.level) == ("model", "fail"), bad
    assert file.name in bad.said
    (tmp_path / "empty").mkdir()
    assert ("events", "note") in [(one.name, one.level) for one in look(str(tmp_path / "empty"))]


def test_the_doctor_knows_disks_that_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_log(Place(tmp_path), "shop").close()
    for kind, level in (("tmpfs", "weak"), ("nfs4", "weak"), ("ext4", "ok")):
        monkeypatch.setattr("isthmus.service.log.durability._filesystem", lambda _, kind=kind: kind)
        assert next(one.level for one in look(str(tmp_path)) if one.name == "disk") == level
    monkeypatch.undo()
    assert next(one.said for one in look("/proc") if one.name == "disk").startswith("proc")


def test_the_doctor_knows_what_redis_cannot_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = pytest.importorskip("redis")
    said = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}

    class Fake:
        def config_get(self, name: str) -> dict[str, str]:
            return {name: said[name]}

        def close(self) -> None: ...

    monkeypatch.setattr(redis.Redis, "from_url", lambda *_, **__: Fake())

    def weak() -> list[str]:
        return [one.name for one in look("redis://x") if one.level == "weak"]

    assert weak() == []
    said["appendfsync"] = "everysec"
    assert weak() == ["appendfsync"]
    said.update({"appendonly": "no", "maxmemory-policy": "allkeys-lru"})
    assert weak() == ["appendonly", "maxmemory-policy"]
