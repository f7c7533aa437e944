"""Figures, health, alert rules and dashboard: judged by Prometheus' own tool where it is at hand."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import apsw
import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.alert_cases import promtool_tests
from tests.pages import text_of
from tests.small_service import account, event, served
from tests.test_cli import isthmus
from tests.tiers import count

from isthmus.errors import InputError, StorageError
from isthmus.service.core import Service
from isthmus.service.lock.key import EVERY, SCOPES
from isthmus.service.lock.vault import Vault
from isthmus.service.watch.shipped import dashboard, rules

Client = httpx.AsyncClient
ROOT = Path(__file__).parents[1]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")


def promtool(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def parsed() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Return every query of the dashboard with Grafana's variables filled in."""
    panels = json.loads(dashboard())["panels"]
    said = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "5m").replace("$instance", ".*") for query in said]


def scraped(folder: Path) -> str:
    """Return the figures of a service that has seen everything once."""
    texts = []

    async def test(client: Client, service: Service) -> None:
        assert (await client.post("/v1/events", json={"events": [event(1)]})).status_code == 202
        assert (await client.post("/v1/recommend", json={"persons": [account()]})).status_code == 200
        assert (await client.post("/v1/recommend", json={"persons": 3})).status_code == 422
        assert (await client.get("/nowhere")).status_code == 404
        texts.append((await client.get("/metrics")).text)

    served(folder, test)
    return texts[0]


@needs_promtool
def test_prometheus_finds_nothing_to_mend_in_the_figures(tmp_path: Path) -> None:
    text = scraped(tmp_path)
    done = promtool("check", "metrics", stdin=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {name.partition("_")[0] for name in names} == {"isthmus", "process"}
    assert 'isthmus_requests_total{operation="recommend",status="422"} 1.0' in text, "all statuses are counted"
    assert 'isthmus_request_duration_seconds_count{operation="recommend"} 2.0' in text
    assert "isthmus_audit_intact 1.0" in text


def test_figures_do_not_multiply_with_people_items_and_tenants(tmp_path: Path) -> None:
    tenants = tuple(f"t{n}" for n in range(20))

    async def test(client: Client, service: Service) -> None:
        for number in range(count(1000, 100_000) // 1000):
            for tenant in tenants[:1] if number else tenants:
                one = service.tenant(tenant)
                headers = {"authorization": f"Bearer {keys[tenant]}"}
                who = [{"platform": "north", "user": f"u{number}-{n}"} for n in range(1000)]
                events = [event(n % 40, who[n], item=f"i{number % 10}-{n}") for n in range(1000)]
                assert (await client.post("/v1/events", json={"events": events}, headers=headers)).status_code == 202
                assert one.live.state.persons > 1000
        for path in (f"/nowhere/{n}" for n in range(100)):
            await client.get(path)
        for tenant in tenants:
            headers = {"authorization": f"Bearer {keys[tenant]}"}
            for body in ({"persons": [account()]}, {"persons": [{"platform": "x", "user": "y"}]}, {}):
                await client.post("/v1/recommend", json=body, headers=headers)
        headers = {"authorization": f"Bearer {operator}"}
        text = (await client.get("/metrics", headers=headers)).text
        series = [line for line in text.splitlines() if not line.startswith("#")]
        assert sum("isthmus_persons" in line for line in series) == 20
        print(f"{len(series)} series, {service.tenant(tenants[0]).live.state.persons} persons, {len(tenants)} tenants")
        assert len(series) <= 2000
        assert not re.search(r'[ui]\d+-\d+|"north"', text)

    vault = Vault(tmp_path)
    keys = {tenant: vault.create(tenant=tenant, scopes=SCOPES)[1] for tenant in tenants}
    operator = vault.create(tenant=EVERY, scopes=["metrics"])[1]
    vault.close()
    served(tmp_path, test, tenants=tenants)


def test_health_says_why(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        async def asked() -> tuple[int, list[str], int]:
            one, two = await client.get("/readyz"), await client.get("/v2/health/ready")
            assert two.json() == {"ready": two.status_code == 200}
            return one.status_code, one.json()["reasons"], two.status_code

        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert await asked() == (200, [], 200)
        tenant = service.tenant()
        take = tenant.log._take

        def refuse(entries: object) -> None:
            raise StorageError("the disk is full")

        tenant.log._take = refuse  # type: ignore[method-assign, assignment]
        assert (await client.post("/v1/events", json={"events": [event(1)]})).status_code == 507
        assert await asked() == (503, ["events cannot be written"], 503)
        assert "isthmus_ready 0.0" in (await client.get("/metrics")).text
        tenant.log._take = take  # type: ignore[method-assign]
        assert (await client.post("/v1/events", json={"events": [event(1)]})).status_code == 202
        assert await asked() == (200, [], 200)
        assert tenant.writes.lag == 0.0
        service.doors.draining = True
        assert await asked() == (503, ["draining"], 503)

    served(tmp_path, test)


def test_a_changed_audit_log_shows_in_the_figures(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        for number in range(3):
            await service.note("default", "me", "tried", {"number": number})
        service.patrol.look()
        assert "isthmus_audit_intact 1.0" in (await client.get("/metrics")).text
        service.vault._db.execute("UPDATE audit SET actor = 'you' WHERE number = 2")
        service.patrol.look()
        text = (await client.get("/metrics")).text
        assert "isthmus_audit_intact 0.0" in text

    served(tmp_path, test)


def test_a_hundred_changes_of_the_audit_log_are_all_found(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    for number in range(50):
        vault.note("default", f"key{number % 3}", "model activated", {"model": f"m{number}"})
    rng = random.Random(4)
    columns = ("ts", "tenant", "actor", "action", "said", "before", "hash")
    found = 0
    db = apsw.Connection(str(tmp_path / "system.db"))
    for _ in range(100):
        number, column = rng.randint(1, 50), rng.choice(columns)
        ((kept,),) = db.execute(f"SELECT {column} FROM audit WHERE number = ?", (number,)).fetchall()
        changed = kept + 1 if isinstance(kept, int) else kept[:-1] + ("0" if kept[-1] != "0" else "1")
        db.execute(f"UPDATE audit SET {column} = ? WHERE number = ?", (changed, number))
        try:
            vault.audit()
        except InputError:
            found += 1
        db.execute(f"UPDATE audit SET {column} = ? WHERE number = ?", (kept, number))
        assert len(vault.audit()) == 50
    db.close()
    vault.close()
    assert found == 100


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    assert isthmus("watch", "rules", "--out", file).code == 0
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stderr
    plain = [
        {**rule, "annotations": {"runbook_url": rule["annotations"]["runbook_url"]}}
        for rule in parsed()
        if "alert" in rule
    ]  # type: ignore[index]
    assert len(plain) >= 12
    tests = tmp_path / "tests.yml"
    tests.write_text(json.dumps(promtool_tests(plain, "short.yml")))
    (tmp_path / "short.yml").write_text(json.dumps({"groups": [{"name": "isthmus", "rules": plain}]}))
    done = promtool("test", "rules", tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_links_to_what_to_do() -> None:
    page = text_of("operate.md")
    sections = {line.removeprefix("### ").strip() for line in page.splitlines() if line.startswith("### ")}
    alerts = [rule for rule in parsed() if "alert" in rule]
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"docs/operate.md#{str(rule['alert']).lower()}"  # type: ignore[index]
        assert rule["alert"] in sections
        assert rule["annotations"]["summary"]  # type: ignore[index]
    done = isthmus("watch", "rules", "--runbooks", "https://wiki.example/isthmus")
    assert done.out.count("runbook_url: https://wiki.example/isthmus#") == len(alerts)


@needs_promtool
def test_every_query_of_the_dashboard_can_be_asked_and_finds_something(tmp_path: Path) -> None:
    families = list(text_string_to_metric_families(scraped(tmp_path / "d")))
    known = {sample.name for family in families for sample in family.samples}
    known |= {family.name + end for family in families for end in ("_total", "_bucket") if not family.samples}
    asked = queries() + [str(rule["expr"]) for rule in parsed()]
    assert len(asked) >= 30
    for query in asked:
        named = set(re.findall(r"\b(?:isthmus|process)_[a-z0-9_]+", query))
        assert named <= known | {"isthmus"}, query
    records = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(asked)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "q", "rules": records}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stderr
    page = json.loads(isthmus("watch", "dashboard").out)
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"]) >= 20
