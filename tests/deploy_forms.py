"""The parts of Compose and Kubernetes that deploy/ uses, as strict models: an unknown or misspelt field is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(m|Mi|Gi)?$")]
Path = Annotated[str, StringConstraints(pattern=r"^/")]
Labels = dict[str, str]


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=False)


class Meta(Form):
    name: Name
    labels: Labels = {}


class Port(Form):
    name: Name
    port: int | None = None
    container_port: int | None = None
    target_port: str | int | None = None


class Get(Form):
    path: Path
    port: str


class Probe(Form):
    http_get: Get
    period_seconds: int = Field(ge=1)
    timeout_seconds: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=3, ge=1)


class Exec(Form):
    command: list[str]


class Hook(Form):
    exec: Exec


class Lifecycle(Form):
    pre_stop: Hook


class Amounts(Form):
    requests: dict[Literal["cpu", "memory", "storage"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity] = {}


class Dropped(Form):
    drop: list[Literal["ALL"]]


class Closed(Form):
    allow_privilege_escalation: Literal[False]
    read_only_root_filesystem: Literal[True]
    capabilities: Dropped


class Mount(Form):
    name: Name
    mount_path: Path
    read_only: bool = False


class SecretKey(Form):
    name: Name
    key: str


class From(Form):
    secret_key_ref: SecretKey


class Env(Form):
    name: str
    value_from: From


class Container(Form):
    name: Name
    image: str
    args: list[str]
    ports: list[Port] = []
    env: list[Env] = []
    resources: Amounts
    security_context: Closed
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    volume_mounts: list[Mount]


class Claimed(Form):
    claim_name: Name


class Empty(Form):
    size_limit: Quantity


class Volume(Form):
    name: Name
    persistent_volume_claim: Claimed | None = None
    empty_dir: Empty | None = None


class Seccomp(Form):
    type: Literal["RuntimeDefault"]


class PodSecurity(Form):
    run_as_non_root: Literal[True]
    run_as_user: int = Field(ge=1000)
    run_as_group: int = Field(ge=1000)
    fs_group: int
    seccomp_profile: Seccomp


class PodSpec(Form):
    automount_service_account_token: Literal[False]
    restart_policy: Literal["Never"] | None = None
    termination_grace_period_seconds: int = Field(default=30, ge=1)
    security_context: PodSecurity
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume]


class PodMeta(Form):
    labels: Labels
    annotations: Labels = {}


class Pod(Form):
    metadata: PodMeta
    spec: PodSpec


class Selector(Form):
    match_labels: Labels = Field(min_length=1)


class Strategy(Form):
    type: Literal["Recreate", "RollingUpdate"]


class DeploymentSpec(Form):
    replicas: int = Field(ge=1)
    strategy: Strategy | None = None
    selector: Selector
    template: Pod


class Kind(Form):
    api_version: str
    kind: str
    metadata: Meta


class Deployment(Kind):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    spec: DeploymentSpec


class JobSpec(Form):
    backoff_limit: int
    template: Pod


class Job(Kind):
    api_version: Literal["batch/v1"]
    kind: Literal["Job"]
    spec: JobSpec


class ServiceSpec(Form):
    selector: Labels
    ports: list[Port]


class Service(Kind):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    spec: ServiceSpec


class ClaimSpec(Form):
    access_modes: list[Literal["ReadWriteOnce"]]
    resources: Amounts


class Claim(Kind):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    spec: ClaimSpec


class BudgetSpec(Form):
    min_available: int | None = None
    max_unavailable: int | None = None
    selector: Selector


class Budget(Kind):
    api_version: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    spec: BudgetSpec


class Peer(Form):
    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None


class PolicyPort(Form):
    protocol: Literal["TCP", "UDP"]
    port: int


class Ingress(Form):
    model_config = ConfigDict(extra="forbid")
    peers: list[Peer] = Field(alias="from", min_length=1)
    ports: list[PolicyPort] = Field(min_length=1)


class PolicySpec(Form):
    pod_selector: Selector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: list[Ingress]
    egress: list[Ingress]


class Policy(Kind):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    spec: PolicySpec


class Scaled(Form):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    name: Name


class Target(Form):
    type: Literal["Utilization"]
    average_utilization: int = Field(ge=1, le=100)


class Measured(Form):
    name: Literal["cpu", "memory"]
    target: Target


class Measure(Form):
    type: Literal["Resource"]
    resource: Measured


class ScalerSpec(Form):
    scale_target_ref: Scaled
    min_replicas: int = Field(ge=1)
    max_replicas: int = Field(ge=1)
    metrics: list[Measure]


class Scaler(Kind):
    api_version: Literal["autoscaling/v2"]
    kind: Literal["HorizontalPodAutoscaler"]
    spec: ScalerSpec


class Image(Form):
    name: str
    new_name: str
    new_tag: str


class Kustomization(Form):
    api_version: Literal["kustomize.config.k8s.io/v1beta1"]
    kind: Literal["Kustomization"]
    namespace: Name
    resources: list[str]
    images: list[Image]


KINDS: dict[str, type[Form]] = {
    kind.model_fields["kind"].annotation.__args__[0]: kind  # type: ignore[union-attr]
    for kind in (Deployment, Job, Service, Claim, Budget, Policy, Scaler, Kustomization)
}


class Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Build(Plain):
    context: str
    dockerfile: str


class After(Plain):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Health(Plain):
    test: list[str]
    interval: str
    timeout: str
    retries: int
    start_period: str


class ComposeService(Plain):
    image: str
    build: Build | None = None
    command: list[str] = []
    depends_on: dict[str, After] = {}
    environment: dict[str, str] = {}
    ports: list[str] = []
    volumes: list[str] = []
    secrets: list[str] = []
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[Literal["ALL"]] = []
    security_opt: list[str] = []
    restart: Literal["unless-stopped"] | None = None
    stop_grace_period: str | None = None
    ulimits: dict[Literal["nofile"], int] = {}
    healthcheck: Health | None = None
    user: str | None = None


class SecretFile(Plain):
    file: str


class Compose(Plain):
    name: Name
    services: dict[Name, ComposeService]
    volumes: dict[Name, dict[str, str]]
    secrets: dict[str, SecretFile]
