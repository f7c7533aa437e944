"""Compose file and manifests: valid by the official schemas, and true of the service; nothing is run in a cluster."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from tests.pages import blocks_of, text_of

from isthmus.cli.main import app
from isthmus.service.lock.operations import find

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = (
    "1.25",
    kubernetes_validate.latest_version(),
)  # the oldest and the newest whose schemas come with the package
FREE = {"labels", "matchLabels", "annotations", "selector", "requests", "limits"}  # maps whose keys are ours to choose
Manifest = dict[str, Any]


@lru_cache(maxsize=1)
def manifests() -> tuple[Manifest, ...]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return tuple(one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8")))


def some(kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


def pods() -> dict[str, Manifest]:
    return {name: one["spec"]["template"] for name, one in {**some("Deployment"), **some("Job")}.items()}


def whole() -> Manifest:
    (one,) = (one for one in manifests() if one["kind"] == "Kustomization")
    return one


def understood(words: list[str]) -> dict[str, object]:
    """Return what the command line makes of some words; an unknown verb or option is an error."""
    command, rest, verb = typer.main.get_command(app), list(words), ["isthmus"]
    while hasattr(command, "commands"):
        verb.append(rest.pop(0))
        command = command.commands[verb[-1]]
    return {"verb": " ".join(verb), **command.make_context(verb[-1], rest).params}


def fields(part: object) -> Iterator[tuple[Manifest, str]]:
    """Yield every mapping in ``part``, with each key that a schema names."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if isinstance(part, dict):
            yield part, key
        # a selector of a Service is free, one of a Deployment holds `matchLabels`
        if key not in FREE or (isinstance(value, dict) and "matchLabels" in value):
            yield from fields(value)


def test_kubernetes_takes_every_manifest_and_no_misspelt_field(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = kubernetes_validate.utils
    monkeypatch.setattr(utils, "schema_contents", lru_cache(utils.schema_contents))  # else read anew for each call
    checked = [one for one in manifests() if one["kind"] != "Kustomization"]
    kinds = {"Deployment", "Job", "Service", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget"}
    assert {one["kind"] for one in checked} == kinds | {"HorizontalPodAutoscaler"}
    for one in checked:
        for release in KUBERNETES:
            assert release.startswith(kubernetes_validate.validate(one, release, strict=True))
    for one in (
        some("Deployment")["isthmus"],
        *some("HorizontalPodAutoscaler").values(),
        some("NetworkPolicy")["isthmus"],
    ):
        bad = copy.deepcopy(one)
        for part, key in list(fields(bad)):
            if part is bad and key in ("apiVersion", "kind"):
                continue  # they choose the schema
            value = part.pop(key)
            part[key + "s"] = value
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(bad, KUBERNETES[-1], strict=True)
            del part[key + "s"]
            part[key] = value
    page = " ".join((DEPLOY / "README.md").read_text(encoding="utf-8").split())
    assert f"Kubernetes {KUBERNETES[0]} and {KUBERNETES[-1].removesuffix('.0')} " in page
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate({**some("Job")["isthmus-keys"], "apiVersion": "v1"}, KUBERNETES[-1], strict=True)


def test_the_kustomization_has_known_fields_only() -> None:
    # no package brings its schema: these are the fields in use
    assert whole().keys() == {"apiVersion", "kind", "namespace", "resources", "images"}
    assert whole()["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert all(image.keys() == {"name", "newName", "newTag"} for image in whole()["images"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_makes_manifests_that_kubernetes_takes(tmp_path: Path) -> None:
    def made(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)

    done = made(DEPLOY / "kubernetes")
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) == len(manifests()) - 2  # itself, and the job that is run once
    (image,) = whole()["images"]
    for one in documents:
        kubernetes_validate.validate(one, KUBERNETES[-1], strict=True)
        assert one["metadata"]["namespace"] == whole()["namespace"]
        for container in one["spec"]["template"]["spec"]["containers"] if one["kind"] == "Deployment" else ():
            assert container["image"] == f"{image['newName']}:{image['newTag']}"
    folder = shutil.copytree(DEPLOY / "kubernetes", tmp_path / "bad")
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    (folder / "kustomization.yaml").write_text(text.replace("resources:", "resorces:"), encoding="utf-8")
    assert "resorces" in made(folder).stderr


def test_the_command_line_takes_no_misspelt_option() -> None:
    with pytest.raises(Exception, match="prot"):
        understood(["serve", "MODEL", "--prot", "1"])


def test_every_pod_may_do_as_little_as_it_needs() -> None:
    for pod in pods().values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        safe = spec["securityContext"]
        assert safe["runAsNonRoot"] is True
        assert min(safe["runAsUser"], safe["runAsGroup"], safe["fsGroup"]) >= 1000
        assert safe["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}
            assert "memory" in resources["limits"]
            amounts = [*resources["requests"].values(), *resources["limits"].values()]
            assert all(re.fullmatch(r"\d+(m|Mi|Gi)?", amount) for amount in amounts)  # the schema takes any text
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)


def test_manifests_hold_together() -> None:
    names = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert set(whole()["resources"]) == names - {"kustomization.yaml", "keys.yaml"}
    deployments, claims = some("Deployment"), some("PersistentVolumeClaim")
    for name, one in deployments.items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items(), name
    for name, pod in pods().items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), name
            assert container["image"] in {image["name"] for image in whole()["images"]}
        kept = [one["persistentVolumeClaim"] for one in volumes.values() if "persistentVolumeClaim" in one]
        assert {one["claimName"] for one in kept} <= set(claims), name
    labels = [pod["metadata"]["labels"] for pod in pods().values()]
    budgets = some("PodDisruptionBudget")
    assert budgets.keys() == deployments.keys()
    for budget in budgets.values():
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= one.items() for one in labels)
    for scaler in some("HorizontalPodAutoscaler").values():
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] in deployments
        assert spec["minReplicas"] < spec["maxReplicas"]
        assert spec["scaleTargetRef"]["name"] != "isthmus", "one process writes an event log"
    assert deployments["isthmus"]["spec"]["replicas"] == 1
    assert deployments["isthmus"]["spec"]["strategy"]["type"] == "Recreate"


def test_ports_paths_and_times_are_those_of_the_service() -> None:
    pod = pods()["isthmus"]
    (container,) = pod["spec"]["containers"]
    said = understood(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": said["port"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[kind]["httpGet"]
        assert asked["port"] in ports
        operation = find("GET", asked["path"])
        assert operation is not None
        assert operation.open
        assert not operation.scope
    assert "annotations" not in pod["metadata"], "a scrape that annotations start sends no key"
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    from isthmus.service.settings import ServiceSettings

    assert wait + ServiceSettings().drain + 5 <= pod["spec"]["terminationGracePeriodSeconds"]
    service = some("Service")["isthmus"]["spec"]
    assert service["ports"][0]["targetPort"] in ports
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    (consumer,) = pods()["isthmus-consumer"]["spec"]["containers"]
    assert service["ports"][0]["port"] == 80
    assert consumer["args"][consumer["args"].index("--to") + 1] == "http://isthmus"
    policy = some("NetworkPolicy")["isthmus"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [said["port"]]
    peers = [one for rule in policy["ingress"] for one in rule["from"]]
    letting = [one["podSelector"]["matchLabels"] for one in peers if "podSelector" in one]
    assert pods()["isthmus-consumer"]["metadata"]["labels"] in letting


def test_every_command_is_one_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.cli import consume

    monkeypatch.setenv("ISTHMUS_STREAM", "redis://h/0?stream=x")
    monkeypatch.setenv("ISTHMUS_KEY", "k")
    environment = {one["name"] for container in containers() for one in container.get("env", [])}
    source = Path(consume.__file__).read_text(encoding="utf-8")
    assert environment == set(re.findall(r'envvar="(\w+)"', source))
    compose = composed()
    ours = [one["command"] for one in compose["services"].values() if one["image"] == "isthmus"]
    verbs = {str(understood(words)["verb"]) for words in [*ours, *(container["args"] for container in containers())]}
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


def containers() -> list[Manifest]:
    return [container for pod in pods().values() for container in pod["spec"]["containers"]]


def composed() -> Manifest:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def faults(*files: Path) -> dict[str, list[str]]:
    """Return what the schema of the Compose specification finds in each file at fault."""
    words = ["--builtin-schema", "vendor.compose-spec", "--output-format", "json"]
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", *words, *files], capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert not said.get("parse_errors")
    found: dict[str, list[str]] = {}
    for one in said["errors"]:
        found.setdefault(Path(one["filename"]).name, []).append(one["path"] + ": " + one["message"])
    assert done.returncode == bool(found), done.stderr
    return found


def test_compose_takes_the_file_and_no_misspelt_field(tmp_path: Path) -> None:
    good, bad = DEPLOY / "compose.yaml", []
    text = good.read_text(encoding="utf-8")
    changes = {"healthcheck:": "healtcheck:", "retries:": "retry:", "condition:": "conditon:", "secrets:": "secret:"}
    for number, (right, wrong) in enumerate(changes.items()):
        bad.append(tmp_path / f"{number}.yaml")
        bad[-1].write_text(text.replace(right, wrong), encoding="utf-8")
    found = faults(good, *bad)
    assert found.keys() == {path.name for path in bad}
    for path, wrong in zip(bad, changes.values(), strict=True):
        assert wrong[:-1] in " ".join(found[path.name])


def test_the_compose_file_holds_together() -> None:
    compose = composed()
    for name, service in compose["services"].items():
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        for mount in service["volumes"]:
            source = re.sub(r"\$\{[^}]*\}", "x", mount).split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), (name, source)
            elif source != "x":
                assert source in compose["volumes"], (name, source)
        ports = service.get("ports", [])
        assert all(port.startswith("127.0.0.1:") for port in ports), "others reach nothing before you say so"
    ours = compose["services"]["isthmus"]
    said = understood(ours["command"])
    assert ours["ports"][0].endswith(f":{said['port']}")
    assert f"http://127.0.0.1:{said['port']}/readyz" in ours["healthcheck"]["test"][-1]
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("isthmus", "/metrics")
    assert job["static_configs"][0]["targets"] == [f"isthmus:{said['port']}"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    words = compose["services"]["rules"]["command"]
    mounted = dict(mount.split(":")[:2] for mount in compose["services"]["prometheus"]["volumes"])
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
    (extras,) = re.findall(r'"isthmus\[([\w,]+)\]"', "\n".join(lines))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (user,) = re.findall(r"^USER (\d+):(\d+)$", "\n".join(lines), re.M)
    for pod in pods().values():
        safe = pod["spec"]["securityContext"]
        assert (str(safe["runAsUser"]), str(safe["runAsGroup"])) == user
    assert "EXPOSE 8080" in lines
    fetching = [line for line in lines if re.search(r"\bpip (wheel|install|download)\b", line)]
    assert len(fetching) == 2
    assert "--require-hashes --no-deps" in fetching[0], "packages come by hash"
    assert re.search(r"pip install .*--no-index --find-links /wheels", fetching[1]), "and from nowhere else"
    assert re.findall(r'^ENTRYPOINT \["(\w+)"\]$', "\n".join(lines), re.M) == [*project["scripts"]]
