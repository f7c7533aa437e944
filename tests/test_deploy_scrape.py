"""The job that reads the figures in Kubernetes: true of the manifests, and taken by a real Prometheus with a key."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.small_service import started
from tests.test_cli import isthmus
from tests.test_deploy import DEPLOY, some, whole
from tests.watch_parts import free_port, running, until

from isthmus.service.lock.operations import find

FILE = DEPLOY / "prometheus-kubernetes.yml"
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus (Debian: prometheus)")


def job() -> dict[str, Any]:
    (one,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))["scrape_configs"]
    return one


def test_the_job_asks_the_service_of_the_manifests_with_a_key() -> None:
    operation = find("GET", job()["metrics_path"])
    assert operation is not None
    assert (job()["job_name"], operation.scope) == ("isthmus", "metrics")
    (port,) = some("Service")["isthmus"]["spec"]["ports"]
    assert job()["static_configs"] == [{"targets": [f"isthmus.{whole()['namespace']}.svc:{port['port']}"]}]
    peers = [one for rule in some("NetworkPolicy")["isthmus"]["spec"]["ingress"] for one in rule["from"]]
    letting = [one["namespaceSelector"]["matchLabels"] for one in peers if "namespaceSelector" in one]
    (namespace,) = (one["kubernetes.io/metadata.name"] for one in letting)
    secret, key = Path(job()["authorization"]["credentials_file"]).parts[-2:]
    text = " ".join(FILE.read_text(encoding="utf-8").split())
    assert f"kubectl -n {namespace} create secret generic {secret} --from-file={key}=" in text
    (container,) = some("Job")["isthmus-keys"]["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    assert words[words.index("--scope") + 1] == operation.scope


@needs_prometheus
def test_prometheus_reads_the_figures_of_a_service_with_keys(tmp_path: Path) -> None:
    made = isthmus("keys", "create", "--data", f"sqlite:///{tmp_path}/data", "--scope", "metrics", "--tenant", "*")
    (tmp_path / "key").write_text(made.out)
    own = free_port()
    with started(tmp_path / "data") as (_, url):
        assert httpx.get(f"{url}/metrics").status_code == 401
        one = job()
        one["authorization"]["credentials_file"] = str(tmp_path / "key")
        one["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
        said = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [one]}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(said))
        subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True, capture_output=True)
        words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
        server = f"http://127.0.0.1:{own}"
        words = ["prometheus", *words, f"--web.listen-address=127.0.0.1:{own}"]
        with running(list(words), f"{server}/-/ready", tmp_path / "prom.log"):

            def up() -> bool:
                found = httpx.get(f"{server}/api/v1/query", params={"query": "isthmus_ready"}).json()["data"]["result"]
                return bool(found) and found[0]["value"][1] == "1"

            until(up, 20, tmp_path / "prom.log")
