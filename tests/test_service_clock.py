"""R16: the machine's clock goes back a day, forward a day and home again while the service runs (libfaketime)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.issuer import AUDIENCE, ISSUER, claims, key_file, signed
from tests.small_service import account, event, started

from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.vault import Vault

DAY = 86_400
WHO = {"platform": "north", "user": "clock"}
JUMPS = {"+0": 0, "-1d": -DAY, "+1d": DAY, "-30d": -30 * DAY, "+0s": 0}


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the clock of processes started from now on, also while they run."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("no libfaketime here (Debian: apt-get install libfaketime)")
    file = tmp_path / "clock"
    for name, value in {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }.items():
        monkeypatch.setenv(name, value)

    def put(said: str) -> None:
        file.write_text(said)
        time.sleep(2.2)

    file.write_text("+0")
    return put


def test_no_jump_of_the_clock_loses_or_reorders_an_event_and_tokens_are_judged_by_it(
    tmp_path: Path, set_clock: Callable[[str], None]
) -> None:
    data, now = tmp_path / "data", int(time.time())
    vault = Vault(data)
    always, today = (vault.create(tenant="default", scopes=SCOPES, days=days)[1] for days in (None, 0.5))
    vault.close()
    scope = " ".join(SCOPES)
    valid = {
        signed("ed", claims(scope=scope, nbf=now - 60, exp=now + 3600)): (-60, 3600),
        signed("ed", claims(scope=scope, nbf=now - 2 * DAY, exp=now - DAY // 2)): (-2 * DAY, -DAY // 2),
        signed("ed", claims(scope=scope, nbf=now + DAY // 2, exp=now + 2 * DAY)): (DAY // 2, 2 * DAY),
        today: (-999 * DAY, DAY // 2),
    }
    words = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks", key_file(tmp_path, "ed"), "--no-warm", "--seal", 2)
    words = (*words, "--deadline", 20)
    names: list[str] = []
    with started(data, *words) as (process, url), httpx.Client(base_url=url, timeout=30) as client:

        def ask(token: str, path: str, body: object) -> httpx.Response:
            return client.post(path, json=body, headers={"authorization": f"Bearer {token}"})

        for said, seconds in JUMPS.items():
            set_clock(said)
            for number in range(10):
                names.append(f"{said}:{number}")
                answer = ask(always, "/v1/events", {"events": [event(len(names) % 20, WHO, id=names[-1])]})
                assert answer.status_code == 202, (said, answer.text)
                lists = ask(always, "/v1/recommend", {"persons": [WHO, account()], "k": 5})
                assert lists.status_code == 200
                assert not lists.json()["degraded"], "deadlines are kept by another clock"
            for token, (first, last) in valid.items():
                expected = 200 if first <= seconds < last else 401
                assert ask(token, "/v1/recommend", {"persons": [WHO]}).status_code == expected, (said, first, last)
            health = client.get("/readyz")
            assert health.status_code == 200, (said, health.text)
        told = client.get("/v1/persons/north:clock", headers={"authorization": f"Bearer {always}"}).json()["events"]
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in err) == (0, False), err
    assert [one["id"] for one in told] == names, "all there, in the order in which they came"
    for one in told:
        jump = JUMPS[str(one["id"]).partition(":")[0]]
        apart = datetime.fromisoformat(one["ts"]) - datetime.now(UTC) - timedelta(seconds=jump)
        assert abs(apart) < timedelta(minutes=10)
    with started(data, *words) as (_, url), httpx.Client(base_url=url, timeout=30) as client:
        again = client.get("/v1/persons/north:clock", headers={"authorization": f"Bearer {always}"}).json()["events"]
    assert again == told
    print(f"{len(names)} events over {len(JUMPS)} jumps, {len(valid)} tokens and keys judged at each")
