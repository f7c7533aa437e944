"""Write a folder of the service's data as this version writes it: ``python -m tests.written.make NAME``.

Run it for every release and keep what it writes: later versions must open it and answer the same
(tests/test_service_upgrade.py). ``first`` was written by the first version of the service, before it had consents,
quotas, segments and pointers of trials.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import closing
from pathlib import Path

from isthmus.service.lock.vault import Vault
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry
from isthmus.service.log.segments import Segments
from isthmus.service.log.upkeep import FOLDER
from isthmus.service.rollout.pointer import Ended, Pointer, write_pointer

HERE = Path(__file__).parent
NOW = 1_700_000_000_000_000


def deed(number: int) -> Entry:
    """Return an event of one of four people."""
    value = None if number % 3 else number / 4
    event = "purchase" if number % 2 else "view"
    return Entry(
        f"e{number}", "event", "north", f"old-{number % 4}", f"i{number % 3}", event, value, NOW + number * 1_000_000
    )


def make(folder: Path) -> None:
    """Write a log, keys, an audit log, segments and a pointer."""
    data = folder / "data"
    with closing(Vault(data)) as vault:
        scopes = ["events", "recommend", "persons", "consents", "models"]
        key = vault.create(tenant="default", scopes=scopes, platforms=["north"], quota=(1000, None))[1]
        vault.revoke(vault.create(tenant="default", scopes=["events"])[0].prefix)
    with closing(open_log(Place(data), "default")) as log:
        segments = Segments(data / FOLDER / "default")
        log.put([deed(number) for number in range(12)])
        segments.seal(log)
        title = json.dumps({"domain": "source", "title": "The sea at night"})
        said = json.dumps({"from_platform": "north", "to_platform": "south", "allowed": False})
        log.put(
            [
                *(deed(number) for number in range(12, 24)),
                Entry("item-1", "item", "north", item="new-1", ts=NOW, body=title),
                Entry("consent-1", "consent", "north", "old-1", ts=NOW, body=said),
                Entry("erase-1", "erase", ts=NOW + 99, body=json.dumps({"accounts": [["north", "old-3"]]})),
            ]
        )
        segments.clean(log)
        segments.seal(log)
    ended = Ended("canary", "second", "0" * 12, "2 of 100 lists failed", NOW)
    write_pointer(data / "default.model.json", Pointer("first", "first", ("second",), ended=ended))
    (folder / "key.txt").write_text(key)
    for lock in data.rglob("*.lock"):
        lock.unlink()


if __name__ == "__main__":
    shutil.rmtree(HERE / sys.argv[1], ignore_errors=True)
    make(HERE / sys.argv[1])
