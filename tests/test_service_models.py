"""Folders of models: what is damaged, foreign or harmful is refused with a reason; the model that answers goes on."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import os
import random
import shutil
import stat
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load, save_file
from tests import bad_models
from tests.pages import text_of
from tests.small_models import active, save, serving, with_weights
from tests.small_service import started
from tests.test_cli import isthmus
from tests.tiers import count

import isthmus as package
from isthmus.errors import ArtefactError, InputError
from isthmus.recommender import Recommender, closed
from isthmus.service.rollout.models import Models
from isthmus.service.rollout.signing import Trust, keygen, sign


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model that answers, and one that lists otherwise."""
    path = tmp_path_factory.mktemp("models")
    save(path / "active")
    save(path / "other", lambda content: with_weights(content, (0.0, 0.1, 0.9)))
    return path


def test_bad_models_are_refused_with_a_reason_and_the_old_one_goes_on(folder: Path, tmp_path: Path) -> None:
    bad = list(bad_models.damaged())
    assert len(bad) == 50
    who = dict(zip(("platform", "user"), active().content.people.accounts.row(0)[:2], strict=True))

    async def test() -> None:
        async with serving(folder, tmp_path / "data") as (client, service):
            body = {"persons": [who], "k": 5}
            before = (await client.post("/v1/recommend", json=body)).content
            for what, damage in bad:
                shutil.rmtree(folder / "bad", ignore_errors=True)
                shutil.copytree(folder / "active", folder / "bad")
                damage(folder / "bad")
                refused = await client.post("/v1/models/bad/activate")
                assert refused.status_code == 422, (what, refused.text)
                assert len(refused.json()["detail"]) > 8, what
                assert (await client.post("/v1/recommend", json=body)).content == before, what
            for path in ("canary", "shadow"):
                refused = await client.post(f"/v1/models/bad/{path}", json={"share": 0.5})
                assert refused.status_code == 422, path
            assert (await client.post("/v1/models/bad/promote?force=true")).status_code == 422
            assert service.tenant().rollout.arms == []
            text = (await client.get("/metrics")).text
            assert 'status="5' not in text

    asyncio.run(test())
    shutil.rmtree(folder / "bad")


def test_harmful_models_are_refused_and_run_nothing(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "CANARY"
    harmful = list(bad_models.harmful(canary))
    assert len(harmful) == 30
    for what, damage in harmful:
        shutil.copytree(folder / "other", tmp_path / "bad")
        damage(tmp_path / "bad")
        with pytest.raises(ArtefactError) as refused:
            Recommender.open(tmp_path / "bad")
        assert len(refused.value.what) > 8, what
        assert not canary.exists(), what
        shutil.rmtree(tmp_path / "bad")
    (tmp_path / "models").mkdir()
    shutil.copytree(folder / "active", tmp_path / "models" / "active")
    (tmp_path / "models" / "linked").symlink_to(folder / "other")
    models = Models(tmp_path / "models" / "active", tmp_path / "models", tmp_path / "pointer.json")
    with pytest.raises(ArtefactError, match="is a link"):
        models.open("linked")


def test_mutated_arrays_are_read_or_refused() -> None:
    from safetensors.numpy import save as packed

    whole = packed({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.int64)})
    rng, refused = np.random.default_rng(0), 0
    for _ in range(count(4000, 20_000)):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        try:
            load(bytes(content[: int(rng.integers(len(content) // 2, len(content) + 1))]))
        except (SafetensorError, KeyError):
            refused += 1
    assert refused > 1000


def test_the_package_reads_no_format_that_can_hold_a_program() -> None:
    forbidden = {
        ("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("yaml", "load"), ("dill", "load"),
        ("marshal", "loads"), ("np", "load"), ("numpy", "load"), ("shelve", "open"),
    }  # fmt: skip
    found, seen = [], 0
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            seen += 1
            named = node.func
            flags = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            bad = isinstance(named, ast.Name) and named.id in ("eval", "exec")
            if isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name):
                bad |= (named.value.id, named.attr) in forbidden
                bad |= (named.value.id, named.attr) == ("torch", "load")
            bad |= flags.get("trust_remote_code") is True or flags.get("allow_pickle") is True
            if bad:
                found.append(f"{file.name}:{node.lineno}")
    assert found == []
    assert seen > 10_000


def test_every_flipped_byte_is_found(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    model = tmp_path / "model"
    shutil.copytree(folder / "other", model)
    keygen(tmp_path / "key", tmp_path / "key.pub")
    sign(model, tmp_path / "key")
    place = (model, tmp_path, tmp_path / "pointer.json")
    models, trusting = Models(*place), Models(*place, Trust([tmp_path / "key.pub"]))
    whole = bad_models.digest(model)
    files = sorted(model.iterdir())
    for n in range(count(150, 1000)):
        file = files[n % len(files)]
        content = file.read_bytes()
        bad_models.flip_byte(file, rng)
        with pytest.raises(ArtefactError):
            (trusting if file.name == "signature.json" else models).open("model")
        file.write_bytes(content)
    assert bad_models.digest(model) == whole
    trusting.open("model")


def test_a_tampered_model_is_refused_whatever_was_done_to_it(folder: Path, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        keygen(tmp_path / f"{name}.pem", tmp_path / f"{name}.pub")
    models = tmp_path / "models"
    shutil.copytree(folder / "active", models / "active")
    shutil.copytree(folder / "other", tmp_path / "other")
    sign(models / "active", tmp_path / "ours.pem")
    sign(tmp_path / "other", tmp_path / "theirs.pem")
    opened = Models(models / "active", models, tmp_path / "pointer.json", Trust([tmp_path / "ours.pub"]))
    opened.open("active")
    ways = bad_models.tampered(np.random.default_rng(3), tmp_path / "other")
    for what, damage in itertools.islice(ways, count(40, 100)):
        shutil.copytree(models / "active", models / "bad")
        damage(models / "bad")
        with pytest.raises(ArtefactError):
            _opened(opened, what)
        shutil.rmtree(models / "bad")
    both = Models(
        models / "active", models, tmp_path / "p.json", Trust([tmp_path / f"{n}.pub" for n in ("ours", "theirs")])
    )
    shutil.copytree(tmp_path / "other", models / "other")
    both.open("other")
    with pytest.raises(ArtefactError, match="not trusted"):
        opened.open("other")


def _opened(models: Models, what: str) -> None:
    models.open("bad")
    pytest.fail(what)


def test_a_service_that_trusts_a_key_serves_nothing_else(folder: Path, tmp_path: Path) -> None:
    keygen(tmp_path / "key", tmp_path / "key.pub")
    shutil.copytree(folder, tmp_path / "models")
    with pytest.raises(ArtefactError, match="is not signed"):
        asyncio.run(_refused(tmp_path))
    sign(tmp_path / "models" / "active", tmp_path / "key")

    async def test() -> None:
        async with serving(tmp_path / "models", tmp_path / "data", trust=[tmp_path / "key.pub"]) as (client, _):
            refused = await client.post("/v1/models/other/activate")
            assert (refused.status_code, refused.json()["detail"]) == (422, "is not signed")
            sign(tmp_path / "models" / "other", tmp_path / "key")
            assert (await client.post("/v1/models/other/activate")).status_code == 200

    asyncio.run(test())


async def _refused(path: Path) -> None:
    async with serving(path / "models", path / "data", trust=[path / "key.pub"]):
        pass


def test_keys_and_signatures_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    model, key = tmp_path / "model", tmp_path / "keys" / "mine"
    shutil.copytree(folder / "other", model)
    assert isthmus("models", "keygen", key).code == 0
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    again = isthmus("models", "keygen", key)
    assert (again.code, "exists already" in again.err) == (2, True)
    public = f"{key}.pub"
    unsigned = isthmus("models", "verify", model, "--trust", public)
    assert (unsigned.code, "is not signed" in unsigned.err) == (2, True)
    assert isthmus("models", "sign", model, "--key", key).code == 0
    done = isthmus("models", "verify", model, "--trust", public, "--json")
    assert (done.code, len(json.loads(done.out)["sha256"])) == (0, 64)
    for words in (("sign", model, "--key", public), ("verify", model, "--trust", key), ("sign", model, "--key", "no")):
        wrong = isthmus("models", *words)
        assert wrong.code == 2, words
        assert len(wrong.err.strip().splitlines()) == 1
    Recommender(active().content).save(model)
    assert isthmus("models", "verify", model, "--trust", public).code == 2, "a new model takes its place, unsigned"
    with pytest.raises(InputError, match="no ed25519 key"):
        Trust([model / "model.json"])


@pytest.mark.timeout(count(300, 3600))
def test_a_kill_during_a_reload_leaves_a_whole_model(folder: Path, tmp_path: Path) -> None:
    rng, seen = random.Random(5), set()
    pointer = tmp_path / "data" / "default.model.json"
    rounds = count(2, 30)
    for n in range(rounds + 1):
        with started(tmp_path / "data", model=folder / "active") as (process, url):
            with httpx.Client(base_url=url, timeout=20) as client:
                said = client.get("/v1/models").json()
                seen.add(said["active"])
                account = dict(zip(("platform", "user"), active().content.people.accounts.row(n)[:2], strict=True))
                answer = client.post("/v1/recommend", json={"persons": [account]})
                assert (answer.status_code, answer.json()["model"]) == (200, said["active"])
                if n == rounds:
                    break
                reloads = threading.Thread(target=_reload, args=(url,))
                reloads.start()
                time.sleep(rng.uniform(0.05, 0.5))
                process.kill()
                reloads.join()
            left = json.loads(pointer.read_text()) if pointer.exists() else {"active": "active"}
            assert left["active"] in ("active", "other")
    assert seen <= {"active", "other"}


def test_the_page_is_true(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of("service.md")
    lines = [line.split()[1:] for line in page.splitlines() if line.startswith("isthmus models ")]
    assert len(lines) == 9
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISTHMUS_KEY", raising=False)
    shutil.copytree(folder / "other", tmp_path / "models" / "model-2")
    shutil.copytree(folder / "active", tmp_path / "models" / "active")
    shutil.copytree(folder / "active", tmp_path / "MODEL")
    with started(tmp_path / "data", model=tmp_path / "models" / "active") as (_, url):
        for words in lines:
            local = words[1] in ("keygen", "sign", "verify")
            done = isthmus(*words, *(() if local else ("--url", url)))
            assert done.code == 0, (words, done.out, done.err)
        _verbs(url)


def _reload(url: str) -> None:
    """Activate one model after the other until the service is gone."""
    with httpx.Client(base_url=url) as client:
        for n in range(1000):
            try:
                client.post(f"/v1/models/{('other', 'active')[n % 2]}/activate")
            except httpx.TransportError:
                return


def _verbs(url: str) -> None:
    """The verbs of trials, against a service that runs."""
    for words, code, said in (
        (("list",), 0, "active"),
        (("shadow", "model-2", "--share", 0.5), 0, "model-2: shadow of 50.0%"),
        (("canary", "model-2", "--share", 0.25, "--errors", 0.1), 0, "model-2: canary of 25.0%"),
        (("list",), 0, "0.2500"),
        (("end", "model-2", "shadow"), 0, "model-2 is no shadow any more"),
        (("check", "model-2"), 0, "model-2 passes"),
        (("promote", "model-2"), 0, "model-2 passes"),
        (("rollback",), 0, "active answers"),
        (("canary", "none"), 1, "no model 'none'"),
        (("promote", "active"), 1, "is the model that answers"),
    ):
        done = isthmus("models", *words, "--url", url)
        assert done.code == code, (words, done.out, done.err)
        assert said in done.out + done.err, (words, done.out, done.err)


def test_arrays_read_in_parts_are_the_arrays_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    kinds = (np.float32, np.float64, np.float16, np.int8, np.int32, np.int64, np.uint8, np.bool_)
    shapes = ((), (0,), (1,), (7,), (50,), (0, 4), (5, 0), (17, 3), (4, 9, 2))
    written = {
        f"{n}-{m}": np.asarray(9 * rng.random(s)).astype(k) for n, k in enumerate(kinds) for m, s in enumerate(shapes)
    }
    save_file(written, tmp_path / "some.safetensors")
    for step in (1, 64, closed.STEP):
        monkeypatch.setattr(closed, "STEP", step)
        found = closed.arrays_of(tmp_path / "some.safetensors")
        assert found.keys() == written.keys()
        for name, array in written.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
            assert np.array_equal(found[name], array), name
