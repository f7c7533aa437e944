"""The service as a process of its own: killed, ended, refused; and the client that talks to it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.pages import blocks_of, text_of
from tests.small_service import account, event, item, models, recommender, started
from tests.test_cli import isthmus

from isthmus.client import Client, Event, Item, ServiceError, Wishes
from isthmus.errors import InputError
from isthmus.service.lists.live import Live
from isthmus.service.lock.vault import Vault

PAGE = text_of("service.md")


def test_killed_and_started_again_nothing_answered_is_lost(tmp_path: Path) -> None:
    acked: list[str] = []

    def send(url: str, sender: int) -> None:
        with Client(url, tries=1) as client:
            for n in range(10_000):
                deed = Event(**event(n % 20, {"platform": "north", "user": f"s{sender}"}))  # type: ignore[arg-type]
                try:
                    receipt = client.send([deed] * 2)
                except ServiceError:
                    return
                acked.extend(receipt.ids)

    with started(tmp_path) as (process, url):
        senders = [threading.Thread(target=send, args=(url, n)) for n in range(3)]
        for sender in senders:
            sender.start()
        while len(acked) < 30:
            time.sleep(0.05)
        process.kill()
        for sender in senders:
            sender.join()
    with started(tmp_path) as (process, url):
        with Client(url) as client:
            told = [client.export_person(("north", f"s{sender}")) for sender in range(3)]
            ids = [deed["id"] for one in told for deed in one["events"]]  # type: ignore[attr-defined]
            assert set(acked) <= set(ids)
            assert len(ids) == len(set(ids))
            lists = client.recommend([("north", "s0"), ("north", "nobody")], target="source", k=5, scores=True)
            mine, nobody = lists.lists
            assert [place.item for place in mine.items] != [place.item for place in nobody.items]
            assert mine.items[0].score is not None
            assert lists.model == "first"
            best = mine.items[0].item
            wishes = Wishes(exclude=(("north", best),), context=(("north", item(5)["item"], "like"),), reasons=3)
            (other,) = client.recommend([("north", "s0")], target="source", k=5, wishes=wishes).lists
            assert best not in [place.item for place in other.items]
            assert item(5)["item"] in [why.item for place in other.items for why in place.reasons]
            (none,) = client.recommend([("north", "s0")], target="source", wishes=Wishes(platforms=("south",))).lists
            assert none.items == ()
        ended_under_load(process, url)


def ended_under_load(process: object, url: str) -> None:
    """SIGTERM: health says 503, whoever heeds that sees no request fail, the exit code is 0."""
    statuses: list[int] = []
    ready: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=url) as client:
            while 503 not in ready:
                statuses.append(client.post("/v1/recommend", json={"persons": [account()]}).status_code)
                ready.append(client.get("/readyz").status_code)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    _, err = process.communicate(timeout=20)  # type: ignore[attr-defined]
    for asker in askers:
        asker.join()
    assert process.returncode == 0, err  # type: ignore[attr-defined]
    assert set(statuses) == {200}
    assert set(ready) == {200, 503}
    assert "Traceback" not in err
    for line in err.splitlines():
        json.loads(line)
    assert account()["user"] not in err


def test_what_cannot_be_served_is_refused_in_one_line(tmp_path: Path) -> None:
    model = models() / "first"
    data = ("--data", tmp_path / "d")
    for words, said in (
        (("serve", model, "--host", "0.0.0.0", "--port", 0, *data), "there is no key"),
        (("serve", tmp_path / "none", "--port", 0, *data), "none: no such folder"),
        (("serve", tmp_path, "--port", 0, *data), "is not a model. Fix: name a folder written by isthmus fit"),
        (("serve", models(), "--port", 0, *data), f"did you mean {models()}/"),
        (("keys", "list", "--data", tmp_path / "mistyped"), "no service keeps its data here"),
        (("serve", model, "--data", "redis://x", "--port", 0), "sqlite:///DIR"),
        (("serve", model, "--host", "no.such.host.example", "--port", 0, *data), "cannot listen"),
        (("serve", model, "--deadline", 0, "--port", 0, *data), "deadline"),
        (("serve", model, "--tenant", "a b=x", "--port", 0, *data), "NAME=MODEL"),
    ):
        done = isthmus(*words)
        assert done.code == 2, (words, done.out, done.err)
        assert said in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "mistyped").exists()
    made = isthmus("keys", "create", "--data", tmp_path / "fresh", "--scope", "events")
    assert (made.code, len(made.out.split())) == (0, 1)
    assert "fresh is new" in made.err
    assert isthmus("keys", "create", "--data", tmp_path / "fresh", "--scope", "events").err == ""


def test_a_model_that_cannot_be_served_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("event")

    monkeypatch.setattr(Live, "build", broken)
    done = isthmus("serve", models() / "first", "--port", 0, "--data", tmp_path / "d")
    assert done.code == 2, done.err
    assert done.err.strip().splitlines() == ["isthmus: first: cannot be served: KeyError. Fix: fit it again"]


def test_the_client_tries_again_and_says_what_went_wrong() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) == 1:
            raise httpx.ReadError("reset")
        if len(seen) == 2:
            return httpx.Response(503, headers={"retry-after": "0"}, json={"detail": "later"})
        body = {"accepted": 1, "ids": ["x"], "duplicates": [], "conflicts": [], "data_version": 7}
        return httpx.Response(202, json=body)

    with Client("http://s", key="isk_1", transport=httpx.MockTransport(answer)) as client:
        assert client.send([Event("shop", "u", "i", "purchase")]).data_version == 7
    for wrong in ("127.0.0.1:8080", "service", "ftp://x"):
        with pytest.raises(InputError, match="write http://"):
            Client(wrong)
    with Client("http://s", transport=httpx.MockTransport(answer)) as client:
        for persons in (("shop", "u17"), ["shop:u17"]):
            with pytest.raises(InputError, match="no list of pairs"):
                client.recommend(persons)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match="isthmus serve"), Client("http://127.0.0.1:1", tries=1) as client:
        client.recommend([("shop", "u17")])
    bodies = [json.loads(request.content) for request in seen]
    assert bodies[0] == bodies[1] == bodies[2], "with the same id each time"
    assert re.fullmatch("[0-9a-f]{32}", bodies[0]["events"][0]["id"])
    assert "ts" not in bodies[0]["events"][0]
    assert seen[0].headers["authorization"] == "Bearer isk_1"

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        said = {"detail": "no item", "fix": "put it", "where": "items", "request_id": "r1"}
        return httpx.Response(404, json=said)

    seen.clear()
    with Client("http://s", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ServiceError, match=r"items: no item\. Fix: put it") as caught:
            client.remove_item("shop", "a/ü")
        assert (caught.value.status, caught.value.request_id, len(seen)) == (404, "r1", 1)
        assert seen[0].url.raw_path == b"/v1/items/shop%3Aa%2F%C3%BC"
    unreachable = httpx.MockTransport(lambda _: (_ for _ in ()).throw(httpx.ConnectError("no")))
    with Client("http://s", transport=unreachable, tries=2) as client, pytest.raises(ServiceError, match="no answer"):
        client.put_items([Item("shop", "i", "books")])


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [line for body in blocks_of(PAGE, "bash") for line in body.splitlines()]
    commands = [line for line in commands if not line.startswith("isthmus models ")]  # see test_service_models.py
    assert [line.split()[:2] for line in commands if line.startswith("isthmus ")] == [
        ["isthmus", "serve"],
        ["isthmus", "keys"],
        ["isthmus", "keys"],
        ["isthmus", "keys"],
        ["isthmus", "keys"],
        ["isthmus", "serve"],
    ]
    (program,) = blocks_of(PAGE, "python")
    curls = [line for line in commands if line.startswith("curl ")]
    assert len(curls) == 3
    who, what = account(), item(3)
    new = dict(recommender().items.filter(domain="source").select("domain", "title").row(0, named=True))

    def here(text: str) -> str:
        text = text.replace("http://127.0.0.1:8080", url).replace('"shop"', f'"{who["platform"]}"')
        text = text.replace("shop:u17", f"{who['platform']}:{who['user']}").replace('"video"', '"south"')
        return (
            text.replace('"u17"', f'"{who["user"]}"')
            .replace('"b3"', f'"{what["item"]}"')
            .replace('"books"', f'"{new["domain"]}"')
        )

    with started(tmp_path / "MODEL.service") as (process, url):
        for curl in curls:
            found = re.search(r"(/v1/\S+) .*-d '(.*)'", curl)
            assert found is not None
            method = "PUT" if " -X PUT " in curl else "POST"
            headers = {"content-type": "application/json"}
            answer = httpx.request(method, url + here(found[1]), content=here(found[2]), headers=headers)
            assert answer.status_code in (200, 202), answer.text
        exec(compile(here(program), "service.md", "exec"), {})
        process.terminate()
        assert process.wait(20) == 0
    made = [line for line in commands if line.startswith("isthmus keys")]
    monkeypatch.chdir(tmp_path)
    prefix = ""
    for line in made:
        done = isthmus(*shlex.split(line.replace("PREFIX", prefix))[1:])
        assert done.code == 0, (line, done.err)
        prefix = prefix or done.out.split("_")[1]
    vault = Vault(tmp_path / "MODEL.service")
    assert len(vault.audit()) >= 2
    vault.close()


def test_every_promise_names_a_test_that_exists() -> None:
    tests = Path(__file__).parent
    page = text_of("guarantees.md")
    files = {path.name: path.read_text(encoding="utf-8") for path in tests.glob("test_*.py")}
    found = 0
    for row in page.splitlines():
        file = ""
        for name, test in re.findall(r"`(test_\w+\.py)?::(\w+)`", row):
            file = name or file
            assert f"def {test}(" in files[file], (file, test)
            found += 1
    assert found >= 20


def test_every_id_of_the_plan_has_a_row_with_a_figure() -> None:
    """What was run for each id of the reliability plan that the service promises."""
    page = Path(__file__).parents[1] / "benchmarks" / "reports" / "2026-11-22-reliability" / "README.md"
    rows = [line.strip("|").split("|") for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    told = {name for row in rows[2:] for name in re.findall(r"[A-Z]\d+", row[0])}
    numbers = {"R": range(1, 17), "M": (1, 2, 3, 4, 5, 7), "I": range(1, 6), "S": (*range(1, 9), 10, 14, 15, 16, 17)}
    numbers |= {"P": (1, 2, 4, 5, 9, 10), "O": (1, 2, 3, 4, 7)}
    assert {f"{letter}{number}" for letter, some in numbers.items() for number in some} <= told
    assert all(re.search(r"\d", row[2]) and re.search("`|the same", row[3]) for row in rows[2:])
