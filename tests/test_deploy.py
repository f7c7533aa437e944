"""Compose file and manifests: of the right form, and true of the service; nothing is run in a cluster."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from functools import lru_cache
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import ValidationError
from tests.deploy_forms import (
    KINDS,
    Budget,
    Claim,
    Compose,
    Container,
    Deployment,
    Form,
    Job,
    Kustomization,
    Pod,
    Policy,
    Scaler,
    Service,
)
from tests.pages import blocks_of, text_of

from isthmus.cli.main import app
from isthmus.service.lock.operations import find

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@lru_cache(maxsize=1)
def manifests() -> tuple[Form, ...]:
    documents = [
        one for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())
    ]
    return tuple(KINDS[one["kind"]].model_validate(one) for one in documents)


def some(kind: type[Form]) -> dict[str, Form]:
    return {one.metadata.name: one for one in manifests() if isinstance(one, kind)}  # type: ignore[attr-defined]


def pods() -> dict[str, Pod]:
    return {name: one.spec.template for name, one in {**some(Deployment), **some(Job)}.items()}  # type: ignore[attr-defined]


def understood(words: list[str]) -> dict[str, object]:
    """Return what the command line makes of some words; an unknown verb or option is an error."""
    command, rest, verb = typer.main.get_command(app), list(words), ["isthmus"]
    while hasattr(command, "commands"):
        verb.append(rest.pop(0))
        command = command.commands[verb[-1]]
    return {"verb": " ".join(verb), **command.make_context(verb[-1], rest).params}


def test_a_misspelt_field_would_be_found() -> None:
    good = some(Budget)["isthmus"].model_dump(by_alias=True, exclude_none=True)
    Budget.model_validate(good)
    for bad in (
        {**good, "specs": {}},
        {**good, "spec": {**good["spec"], "minAvailible": 1}},
        {**good, "apiVersion": "v1"},
    ):
        with pytest.raises(ValidationError):
            Budget.model_validate(bad)
    with pytest.raises(Exception, match="prot"):
        understood(["serve", "MODEL", "--prot", "1"])


def test_manifests_hold_together() -> None:
    whole = [one for one in manifests() if isinstance(one, Kustomization)]
    assert len(whole) == 1
    assert set(whole[0].resources) == {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {
        "kustomization.yaml",
        "keys.yaml",
    }
    deployments, claims = some(Deployment), some(Claim)
    for name, one in deployments.items():
        assert one.spec.selector.match_labels.items() <= one.spec.template.metadata.labels.items(), name  # type: ignore[attr-defined]
    for name, pod in pods().items():
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        for container in pod.spec.containers:
            assert {mount.name for mount in container.volume_mounts} == set(volumes), name
            assert container.image in {image.name for image in whole[0].images}
        used = {one.persistent_volume_claim.claim_name for one in volumes.values() if one.persistent_volume_claim}
        assert used <= set(claims), name
    labels = [pod.metadata.labels for pod in pods().values()]
    for budget in some(Budget).values():
        wanted = budget.spec.selector.match_labels.items()  # type: ignore[attr-defined]
        assert any(wanted <= one.items() for one in labels)
    for scaler in some(Scaler).values():
        spec = scaler.spec  # type: ignore[attr-defined]
        assert spec.scale_target_ref.name in deployments
        assert spec.min_replicas < spec.max_replicas
        assert spec.scale_target_ref.name != "isthmus", "one process writes an event log"
    assert deployments["isthmus"].spec.replicas == 1  # type: ignore[attr-defined]
    assert deployments["isthmus"].spec.strategy.type == "Recreate"  # type: ignore[attr-defined]


def test_ports_paths_and_times_are_those_of_the_service() -> None:
    pod = pods()["isthmus"]
    (container,) = pod.spec.containers
    said = understood(container.args)
    ports = {port.name: port.container_port for port in container.ports}
    assert ports == {"http": said["port"]}
    for probe in (container.startup_probe, container.readiness_probe, container.liveness_probe):
        assert probe is not None
        assert probe.http_get.port in ports
        operation = find("GET", probe.http_get.path)
        assert operation is not None
        assert operation.open
        assert not operation.scope
    scraped = pod.metadata.annotations
    assert find("GET", scraped["prometheus.io/path"]).name == "metrics"  # type: ignore[union-attr]
    assert int(scraped["prometheus.io/port"]) == said["port"]
    assert container.lifecycle is not None
    wait = int(container.lifecycle.pre_stop.exec.command[1])
    from isthmus.service.settings import ServiceSettings

    assert wait + ServiceSettings().drain + 5 <= pod.spec.termination_grace_period_seconds
    service = some(Service)["isthmus"].spec  # type: ignore[attr-defined]
    assert service.ports[0].target_port in ports
    assert service.selector.items() <= pod.metadata.labels.items()
    (consumer,) = pods()["isthmus-consumer"].spec.containers
    assert service.ports[0].port == 80
    assert consumer.args[consumer.args.index("--to") + 1] == "http://isthmus"
    policy = some(Policy)["isthmus"].spec  # type: ignore[attr-defined]
    assert policy.pod_selector.match_labels.items() <= pod.metadata.labels.items()
    assert [port.port for rule in policy.ingress for port in rule.ports] == [said["port"]]
    letting = [one.pod_selector.match_labels for rule in policy.ingress for one in rule.peers if one.pod_selector]
    assert pods()["isthmus-consumer"].metadata.labels in letting


def test_every_command_is_one_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.cli import consume

    monkeypatch.setenv("ISTHMUS_STREAM", "redis://h/0?stream=x")
    monkeypatch.setenv("ISTHMUS_KEY", "k")
    environment = {one.name for container in containers() for one in container.env}
    source = Path(consume.__file__).read_text(encoding="utf-8")
    assert environment == set(re.findall(r'envvar="(\w+)"', source))
    compose = composed()
    ours = [one.command for one in compose.services.values() if one.image == "isthmus"]
    verbs = {str(understood(words)["verb"]) for words in [*ours, *(container.args for container in containers())]}
    assert verbs == {
        f"isthmus {verb}" for verb in ("serve", "consume", "keys create", "watch rules", "watch dashboard")
    }
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"run --rm isthmus (keys create .*?) >", page)
    assert understood(made.split())["scope"] == ["metrics"]


def test_every_command_of_the_operating_page_is_one_the_command_line_takes() -> None:
    page = text_of("operate.md")
    blocks = blocks_of(page, "bash")
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("isthmus ")]
    assert len(lines) >= 8
    for line in lines:
        understood(shlex.split(line)[1:])


def containers() -> list[Container]:
    return [container for pod in pods().values() for container in pod.spec.containers]


def composed() -> Compose:
    return Compose.model_validate(yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8")))


def test_the_compose_file_holds_together() -> None:
    compose = composed()
    for name, service in compose.services.items():
        assert set(service.depends_on) <= set(compose.services), name
        assert set(service.secrets) <= set(compose.secrets), name
        for mount in service.volumes:
            source = re.sub(r"\$\{[^}]*\}", "x", mount).split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), (name, source)
            elif source != "x":
                assert source in compose.volumes, (name, source)
        assert all(port.startswith("127.0.0.1:") for port in service.ports), "others reach nothing before you say so"
    ours = compose.services["isthmus"]
    said = understood(ours.command)
    assert ours.ports[0].endswith(f":{said['port']}")
    assert ours.healthcheck is not None
    assert f"http://127.0.0.1:{said['port']}/readyz" in ours.healthcheck.test[-1]
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("isthmus", "/metrics")
    assert job["static_configs"][0]["targets"] == [f"isthmus:{said['port']}"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    words = compose.services["rules"].command
    mounted = dict(mount.split(":")[:2] for mount in compose.services["prometheus"].volumes)
    assert words[-1] == "/rules/alerts.yml"
    assert scrape["rule_files"] == [f"{mounted['rules']}/alerts.yml"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_prometheus_and_alertmanager_take_their_files() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", DEPLOY / "prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if shutil.which("amtool"):
        done = subprocess.run(["amtool", "check-config", DEPLOY / "alertmanager.yml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_image_is_made_from_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    for line in lines:
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            assert all((ROOT / word).exists() for word in words[1:-1]), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', "\n".join(lines))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (user,) = re.findall(r"^USER (\d+):(\d+)$", "\n".join(lines), re.M)
    for pod in pods().values():
        assert (str(pod.spec.security_context.run_as_user), str(pod.spec.security_context.run_as_group)) == user
    assert "EXPOSE 8080" in lines
    assert re.findall(r'^ENTRYPOINT \["(\w+)"\]$', "\n".join(lines), re.M) == [*project["scripts"]]
