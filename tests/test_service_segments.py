"""Sealed segments: what the log holds, without what was erased; whole or refused; a source of training."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import polars as pl
import pytest
from tests.small_postgres import Postgres, postgres
from tests.small_service import account, event, item, served
from tests.test_cli import isthmus
from tests.tiers import count

from isthmus.data.importer import import_corpus
from isthmus.data.sources.segments import MANIFEST, read_manifest, verified
from isthmus.errors import ArtefactError
from isthmus.service.core import Service
from isthmus.service.log import segments as sealing
from isthmus.service.log.base import EventLog, Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry
from isthmus.service.log.segments import Segments

USERS = [f"user-{n:03d}" for n in range(30)]
HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
SPEC = """
name = "sealed"
[[source]]
kind = "events"
path = "segments"
format = "segments"
[[source]]
kind = "items"
path = "segments"
format = "segments"
"""


def some(rng: random.Random, first: int, n: int) -> list[Entry]:
    return [
        Entry(f"e{k}", "event", "shop", rng.choice(USERS), f"i{rng.randint(0, 9)}", "view", ts=NOW + k * HOUR)
        for k in range(first, first + n)
    ]


def erasure(name: str, *users: str) -> Entry:
    return Entry(name, "erase", body=json.dumps({"accounts": [["shop", user] for user in users]}))


def rows(segments: Segments) -> pl.DataFrame:
    files = [verified(segments.folder, one) for one in segments.manifest.segments]
    return pl.concat([pl.read_parquet(path) for path in files]).sort("seq")


def held(log: EventLog) -> list[tuple[object, ...]]:
    found = [record for part in log.read(kinds=("event",)) for record in part]
    return [(one.seq, one.entry.id, one.entry.user, one.entry.item, one.entry.ts) for one in found]


def same(segments: Segments, log: EventLog) -> bool:
    frame = rows(segments).select("seq", "id", "user", "item", pl.col("ts").dt.timestamp("us"))
    return frame.rows() == held(log)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as one:
        yield one


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    url = request.getfixturevalue("server").url if request.param == "postgresql" else ""
    with closing(open_log(Place(tmp_path / "data", url), "shop")) as opened:
        yield opened


def test_segments_hold_what_the_log_holds(log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed part by part, erased before, between and after, with and without the names at hand; terms that end."""
    monkeypatch.setattr(sealing, "ROWS", 300)
    rng, segments = random.Random(1), Segments(tmp_path / "segments")
    assert segments.seal(log) == 0
    log.put(some(rng, 0, 700))
    log.put([erasure("x0", USERS[0])])
    assert segments.seal(log) == len(held(log))
    assert segments.seal(log) == 0
    assert same(segments, log)
    frame = rows(segments)
    for one in segments.manifest.segments:
        part = pl.read_parquet(segments.folder / one.file)
        assert part.equals(part.sort("platform", "user", "ts", "seq"))
    log.put([*some(rng, 700, 100), Entry("new", "item", "shop", item="i77", ts=NOW, body='{"domain": "books"}')])
    gone = log.put([erasure("x1", USERS[1], USERS[2])])
    assert gone.erased > 20
    assert segments.clean(log, [("shop", USERS[1])]) > 10, "one by name, one by tombstone"
    assert not {USERS[1], USERS[2]} & set(rows(segments)["user"])
    log.put([*some(rng, 800, 50), Entry("back", "event", "shop", USERS[1], "i1", "view", ts=NOW)])
    assert segments.seal(log) > 100
    assert same(segments, log), "who came back after being erased stays"
    assert USERS[1] in set(rows(segments)["user"])
    log.put([Entry("x2", "expire", ts=NOW + 400 * HOUR)])
    segments.clean(log)
    assert same(segments, log)
    assert rows(segments).height < frame.height / 2 + 200
    assert segments.manifest.items is not None
    assert segments.manifest.items.rows == 1
    held_bytes = b"".join(path.read_bytes() for path in segments.folder.iterdir())
    assert USERS[2].encode() not in held_bytes
    assert len(list(segments.folder.iterdir())) == len(segments.manifest.files) + 1
    log.put([erasure("x3", *USERS)])
    segments.clean(log)
    assert segments.manifest.rows == 0


def test_a_crash_at_any_write_leaves_segments_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any step of sealing and erasing, the manifest is true, and the next try ends the work."""
    rng = random.Random(2)
    for step in range(1, 20):
        with closing(open_log(Place(tmp_path / str(step)), "shop")) as log:
            segments = Segments(tmp_path / str(step) / "segments")
            for part in range(4):
                log.put(some(rng, 10 * part, 10))
                segments.seal(log)
            log.put([*some(rng, 40, 20), erasure("x", USERS[3], USERS[4])])
            left = [step]

            def crash(path: Path, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] <= 0:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(sealing, "FEW", 3)
                patch.setattr(sealing, "durable", crash)
                patch.setattr("isthmus.data.sources.segments.durable", crash)
                try:
                    segments.clean(log, [("shop", USERS[3])])
                    segments.seal(log)
                except KeyboardInterrupt:
                    assert rows(segments).height > 20, "every file the manifest names is there and whole"
            again = Segments(segments.folder)
            again.seal(log)
            assert same(again, log)
            assert len(list(again.folder.iterdir())) == len(again.manifest.files) + 1


def test_many_small_segments_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure goes through few files, however often was sealed; what is damaged is not made whole by it."""
    monkeypatch.setattr(sealing, "ROWS", 400)
    rng, segments = random.Random(5), Segments(tmp_path / "segments")
    with closing(open_log(Place(tmp_path), "shop")) as log:
        most = 0
        for n in range(90):
            log.put(some(rng, 12 * n, 12))
            segments.seal(log)
            most = max(most, len(segments.manifest.segments))
        listed = segments.manifest.segments
        large = [one for one in listed if one.rows >= 200]
        assert most <= sealing.FEW + 1 + len(large)
        assert all(one.rows <= 400 for one in listed)
        assert len(large) >= 3
        assert [one.first for one in listed[1:]] == [one.last + 1 for one in listed[:-1]]
        assert same(segments, log)
        log.put([erasure("x", USERS[2])])
        assert segments.clean(log, [("shop", USERS[2])]) > 10
        assert same(segments, log)
        damaged = segments.folder / segments.manifest.segments[-1].file
        damaged.write_bytes(damaged.read_bytes() + b"x")
        held_before = len(segments.manifest.segments)
        for n in range(90, 90 + 2 * sealing.FEW):
            log.put(some(rng, 12 * n, 12))
            segments.seal(log)
        assert len(segments.manifest.segments) >= held_before + sealing.FEW
        with pytest.raises(ArtefactError, match="changed or is damaged"):
            rows(segments)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """R10 for segments and their manifest."""
    rng, folder = random.Random(3), tmp_path / "segments"
    with closing(open_log(Place(tmp_path), "shop")) as log:
        log.put([*some(rng, 0, 60), Entry("new", "item", "shop", item="i77", ts=NOW, body='{"domain": "books"}')])
        Segments(folder).seal(log)
    files = sorted(folder.iterdir())
    assert len(files) == 3
    found, flips = 0, count(150, 1000)
    for n in range(flips):
        path = files[n % 3]
        whole = path.read_bytes()
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ rng.randint(1, 255)]) + whole[place + 1 :])
        try:
            for one in read_manifest(folder).files:
                verified(folder, one)
        except ArtefactError:
            found += 1
        path.write_bytes(whole)
    assert found == flips
    for one in read_manifest(folder).files:
        verified(folder, one)
    files[0].rename(folder / "other.parquet")
    with pytest.raises(ArtefactError, match="missing"):
        verified(folder, read_manifest(folder).segments[0])


def test_segments_are_a_source_of_a_corpus(tmp_path: Path) -> None:
    rng, folder = random.Random(4), tmp_path / "segments"
    body = json.dumps({"domain": "books", "title": "The sea at night", "categories": ["a", "b"], "available_from": NOW})
    with closing(open_log(Place(tmp_path), "shop")) as log:
        Segments(folder).seal(log)
        (tmp_path / "SPEC.toml").write_text(SPEC)
        with pytest.raises(ArtefactError, match="no folder of segments"):
            import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
        items = [Entry(f"i{n}", "item", "shop", item=f"i{n}", ts=NOW, body=body) for n in range(10)]
        log.put([*some(rng, 0, 200), *items, Entry("i3b", "item", "shop", item="i3", body=body.replace("sea", "sky"))])
        Segments(folder).seal(log)
        expected = held(log)
    corpus = import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert sorted(corpus.events.select("user", "item", pl.col("ts").dt.timestamp("us")).rows()) == sorted(
        (user, what, ts) for _, _, user, what, ts in expected
    )
    titles = dict(corpus.items.select("item", "title").iter_rows())
    assert (len(titles), titles["i3"], titles["i4"]) == (10, "The sky at night", "The sea at night")
    assert corpus.items["categories"].to_list()[0] == ["a", "b"]
    one = next(folder.glob("events-*"))
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="changed or is damaged"):
        import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus2")


def test_the_service_seals_erases_and_ends_terms(tmp_path: Path) -> None:
    """P1 and P10 over HTTP: an erased person is in no byte of log and segments; events older than the term are gone."""
    old, young = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        tenant = service.tenants["default"]
        who = {"platform": "north", "user": "someone-to-be-erased"}
        deeds = [event(n % 5, who, id=f"a{n}") for n in range(10)] + [event(1, ts=old, id="old"), event(2, ts=young)]
        new = {"platform": "north", "user": "old-and-new"}
        deeds += [event(1, new, ts=old, id="old2"), event(1, new, ts=young, id="new2")]
        await client.post("/v1/events", json={"events": deeds})
        assert await asyncio.to_thread(tenant.upkeep.segments.seal, tenant.log) == 14
        receipt = (await client.delete(f"/v1/persons/north:{who['user']}")).json()
        assert (receipt["events"], receipt["sealed"]) == (10, 10)
        held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert who["user"].encode() not in held
        assert new["user"].encode() in held
        assert await tenant.upkeep.end_terms(365) == 2
        assert tenant.upkeep.segments.manifest.rows == 2
        told = (await client.get(f"/v1/persons/north:{new['user']}")).json()
        assert [deed["id"] for deed in told["events"]] == ["new2"]
        replayed = tenant._built(tenant.live.base, tenant.live.version, tenant.log.read())
        assert tenant.live.state.digest() == replayed.state.digest()
        (tenant.upkeep.segments.folder / MANIFEST).write_text("{}")
        await client.post("/v1/events", json={"events": [event(1, who, id="b")]})
        answer = await client.delete(f"/v1/persons/north:{who['user']}")
        assert (answer.status_code, answer.json()["sealed"], answer.json()["wiped"]) == (200, 0, False)

    served(tmp_path, test)


def test_sealing_and_terms_go_on_by_themselves(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        segments = service.tenants["default"].upkeep.segments
        await client.post("/v1/events", json={"events": [event(1, {"platform": "north", "user": "new"})]})

        def sealed() -> list[str]:
            with suppress(ArtefactError, FileNotFoundError):  # it is being written anew
                return rows(segments)["user"].to_list() if segments.manifest.rows else []
            return []

        until = time.monotonic() + 20
        while sealed() != ["new"] and time.monotonic() < until:
            await asyncio.sleep(0.02)
        told = (await client.get(f"/v1/persons/north:{account()['user']}")).json()
        assert told["events"] == [], "the old one is gone"
        assert sealed() == ["new"], "the new one is sealed, and nothing else"

    with closing(open_log(Place(tmp_path), "default")) as log:
        log.put([Entry("old", "event", **account(), item=item()["item"], event="click", ts=1_000_000)])
    served(tmp_path, test, keep_days=30.0, seal=0.05)


def test_sealing_on_the_command_line(tmp_path: Path) -> None:
    with closing(open_log(Place(tmp_path), "default")) as log:
        log.put(some(random.Random(5), 0, 20))
        busy = isthmus("events", "seal", "--data", tmp_path)
        assert (busy.code, "another service" in busy.err) == (2, True)
    done = isthmus("events", "seal", "--data", f"sqlite:///{tmp_path}", "--json")
    assert json.loads(done.out)["sealed"] == 20
    assert isthmus("events", "seal", "--data", tmp_path).code == 0
    for words, said in (
        (("--data", tmp_path / "none"), "no events"),
        (("--data", tmp_path, "--tenant", "x"), "no events"),
        (("--data", "postgresql://a@b/c"), "needs a folder"),
        (("--data", "postgresql://a@127.0.0.1:9/c", "--folder", tmp_path), "cannot be reached"),
    ):
        refused = isthmus("events", "seal", *words)
        assert (refused.code, said in refused.err) == (2, True), refused.err
