"""What becomes of messages, without a broker: read, merged, refused, waiting, dead."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from isthmus.client import Event, Receipt, ServiceError
from isthmus.errors import ArtefactError, DataError, StorageError
from isthmus.service.streams.intake import Delivery, Intake, UnsettledError, read_events, replay
from isthmus.service.streams.letters import Letter, Letters
from isthmus.service.streams.place import place_of
from isthmus.service.streams.redis_source import content_of

ONE = {"platform": "shop", "user": "u", "item": "i", "event": "like"}


def message(name: str, **more: object) -> Delivery:
    return Delivery(name, json.dumps({**ONE, **more}).encode())


class Service:
    """Takes events, but refuses those of the user ``bad``; may be away."""

    def __init__(self) -> None:
        self.away: list[int] = []
        self.calls: list[int] = []
        self.ids: list[str] = []
        self.scope = True

    def send(self, events: Sequence[Event]) -> Receipt:
        self.calls.append(len(events))
        if self.away:
            raise ServiceError("not now", status=self.away.pop())
        if not self.scope:
            raise ServiceError("the key lacks the scope", status=403)
        if not events or any(event.user == "bad" for event in events):
            raise ServiceError("cannot be used", status=422)
        if any(event.platform == "foreign" for event in events):
            raise ServiceError("the key may not", status=403)
        known = tuple(str(event.id) for event in events if event.id in self.ids)
        self.ids += [str(event.id) for event in events if event.id not in self.ids]
        return Receipt(len(events) - len(known), (), known, (), len(self.ids))


def with_intake(work: Callable[[Intake], Coroutine[None, None, None]], service: Service, letters: Letters) -> Intake:
    async def run() -> Intake:
        intake = Intake(service.send, letters, "test://s", pause=0.001)
        sender = asyncio.create_task(intake.run())
        try:
            async with asyncio.timeout(20):
                await work(intake)
        finally:
            sender.cancel()
        return intake

    return asyncio.run(run())


def test_messages_are_read_in_three_forms_and_named_the_same_each_time() -> None:
    single = read_events(message("m1"))
    (again,) = read_events(message("m1"))
    assert single == [again]
    assert read_events(message("m2"))[0].id != again.id
    assert read_events(message("m1", item="j"))[0].id != again.id
    several = json.dumps([ONE, ONE, {**ONE, "id": "own"}]).encode()
    wrapped = json.dumps({"events": [ONE, ONE, {**ONE, "id": "own"}]}).encode()
    for body in (several, wrapped):
        first, second, third = read_events(Delivery("m", body))
        assert first.id != second.id
        assert third.id == "own"
    sent = datetime(2026, 5, 1, tzinfo=UTC)
    assert read_events(Delivery("m", json.dumps(ONE).encode(), sent))[0].ts == sent
    said = json.dumps({**ONE, "ts": "2026-04-01T00:00:00Z"}).encode()
    assert read_events(Delivery("m", said, sent))[0].ts == datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b'"text"', "valid"),
        (b"[]", "at least 1 item"),
        (b"[" * 100_000, "no JSON"),
        (b'{"platform": "shop"}', "Field required"),
        (json.dumps({**ONE, "tenant": "x"}).encode(), "not permitted"),
        (json.dumps({**ONE, "event": "secret-word"}).encode(), "Input should be"),
        (json.dumps({**ONE, "value": float("nan")}).encode(), "no JSON"),
        (json.dumps([ONE] * 1001).encode(), "at most 1000"),
        (b'{"platform": "shop", "user": "\\ud800", "item": "i"}', "no JSON"),
    ],
)
def test_what_is_no_event_is_said(body: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_events(Delivery("m", body))
    assert "secret-word" not in str(caught.value)


def test_messages_are_sent_together_and_only_the_refused_one_dies(tmp_path: Path) -> None:
    service, letters = Service(), Letters(tmp_path / "dead.jsonl")

    async def work(intake: Intake) -> None:
        good = [message(f"m{n}", id=f"e{n}") for n in range(300)]
        await intake.take([*good[:150], message("b", user="bad"), message("f", platform="foreign"), *good[150:]])
        await intake.take([message("m0", id="e0")])

    intake = with_intake(work, service, letters)
    assert sorted(service.ids) == sorted(f"e{n}" for n in range(300))
    assert (intake.counts.stored, intake.counts.known, intake.counts.dead, intake.counts.messages) == (300, 1, 2, 303)
    assert service.calls[0] == 302
    assert service.calls.count(1) == 300 + 2 * 5 + 1
    dead = {letter.message: letter for letter in letters.read()}
    assert (dead["b"].error, dead["b"].tries) == ("cannot be used", 5)
    assert json.loads(dead["f"].content)["platform"] == "foreign"
    assert stat.S_IMODE((tmp_path / "dead.jsonl").stat().st_mode) == 0o600


def test_messages_wait_while_the_service_is_away(tmp_path: Path) -> None:
    service, letters = Service(), Letters(tmp_path / "dead.jsonl")
    service.away = [0, 429, 500, 503, 507]

    async def work(intake: Intake) -> None:
        await intake.take([message("m", id="e")])

    intake = with_intake(work, service, letters)
    assert service.ids == ["e"]
    assert (intake.counts.stored, intake.counts.dead) == (1, 0)


def test_a_key_without_its_scope_kills_no_message(tmp_path: Path) -> None:
    service, letters = Service(), Letters(tmp_path / "dead.jsonl")
    service.scope = False

    async def work(intake: Intake) -> None:
        taken = asyncio.create_task(intake.take([message("m", id="e")]))
        while len(service.calls) < 4:
            await asyncio.sleep(0.01)
        intake.end()
        with pytest.raises(UnsettledError):
            await taken
        with pytest.raises(UnsettledError):
            await intake.take([message("n")])

    with_intake(work, service, letters)
    assert not letters.read()


def test_a_message_is_not_let_go_before_its_letter_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters, full, put = Letters(tmp_path / "dead.jsonl"), [True, True], Letters.put

    def fail(self: Letters, letter: Letter) -> bool:
        if full:
            full.pop()
            raise StorageError("the disk is full")
        return put(self, letter)

    monkeypatch.setattr(Letters, "put", fail)

    async def work(intake: Intake) -> None:
        await intake.take([Delivery("m", b"{")])

    assert with_intake(work, Service(), letters).counts.dead == 1
    assert not full
    assert len(letters.read()) == 1


def test_letters_survive_a_cut_line_and_come_once(tmp_path: Path) -> None:
    path = tmp_path / "box" / "dead.jsonl"
    letters = Letters(path)
    made = [Letter.of("s", f"m{n}", body, "wrong", 5) for n, body in enumerate((b"{", b"\xff\x00", "é\n".encode()))]
    assert [letters.put(letter) for letter in [*made, made[0]]] == [True, True, True, False]
    assert Letters(path).read() == made
    assert [letter.content for letter in made] == [b"{", b"\xff\x00", "é\n".encode()]
    with path.open("ab") as handle:
        handle.write(b'{"id": "half')
    later = Letter.of("s", "m9", b"x", "wrong", 5)
    assert Letters(path).put(later)
    assert Letters(path).read() == [*made, later]
    assert not Letters(path).put(made[1])
    Letters(path).remove({made[0].id, later.id})
    assert Letters(path).read() == made[1:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "other").write_text("a\nb\n")
    with pytest.raises(ArtefactError, match="no dead letters"):
        Letters(tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "box").iterdir()) == ["dead.jsonl", "dead.jsonl.lock"]


def test_replayed_letters_leave_and_the_rest_stays(tmp_path: Path) -> None:
    letters, service = Letters(tmp_path / "dead.jsonl"), Service()
    for name, body in (("a", b"{"), ("b", message("b").body), ("c", message("c", user="bad").body)):
        letters.put(Letter.of("s", name, body, "wrong", 5, datetime(2026, 5, 1, tzinfo=UTC)))
    assert replay(letters, service.send) == (1, 2)
    assert [letter.message for letter in letters.read()] == ["a", "c"]
    service.away = [503]
    with pytest.raises(ServiceError):
        replay(letters, service.send)
    assert len(letters.read()) == 2


def test_urls_name_streams_and_logs_name_no_password() -> None:
    place = place_of("amqp://u:p%40ss@host/v?queue=q&heartbeat=5&claim=2.5")
    assert (place.address, place.name, place.label) == ("amqp://u:p%40ss@host/v?heartbeat=5", "q", "amqp://host/q")
    assert place.claim == 2.5
    assert place_of("nats://h?stream=s&subject=a.b").subject == "a.b"
    assert (
        content_of({b"platform": b"shop", b"user": b"\xff"})[0]
        == json.dumps({"platform": "shop", "user": "�"}).encode()
    )
    assert content_of({b"data": b"x", b"platform": b"shop"}) == (b"x", "")
