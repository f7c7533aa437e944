"""For every alert: series with which it fires, and series with which it is silent, for ``promtool test rules``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UP: Final = 'up{job="isthmus",instance="a"}'


@dataclass(frozen=True)
class Case:
    """Series as promtool writes them, and when to look."""

    fires: dict[str, str]
    silent: dict[str, str]
    at: str
    labels: dict[str, str]


def _share(name: str, label: str, bad: str, good: str) -> tuple[dict[str, str], dict[str, str]]:
    series = f'{name}{{instance="a",{label}="%s"}}'
    few = {series % bad: "0+1x60", series % good: "0+999x60"}
    many = {series % bad: "0+100x60", series % good: "0+900x60"}
    return many, few


def _slow(quick: int, all_: int) -> dict[str, str]:
    series = 'isthmus_request_duration_seconds_bucket{operation="recommend",instance="a",le="%s"}'
    return {series % "0.25": f"0+{quick}x60", series % "1.0": f"0+{all_}x60", series % "+Inf": f"0+{all_}x60"}


_T: Final = '{instance="a",tenant="t"}'
_TENANT: Final = {"instance": "a", "tenant": "t"}
_ERRORS = _share("isthmus_requests_total", "status", "500", "200")
_DEGRADED = _share("isthmus_lists_total", "layer", "popular", "model")
_DISK = {'isthmus_data_disk_bytes{instance="a"}': "1e12x60"}
_FREE: Final = 'isthmus_data_free_bytes{instance="a"}'
_FILES = {'process_max_fds{job="isthmus",instance="a"}': "1000x60"}
_OPEN: Final = 'process_open_fds{job="isthmus",instance="a"}'
_DRIFT: Final = 'isthmus_drift_alarm{instance="a",tenant="t",of="domains"}'
_ONE: Final = {"instance": "a"}
_JOB: Final = {"instance": "a", "job": "isthmus"}

CASES: Final[dict[str, Case]] = {
    "IsthmusDown": Case({UP: "0x60"}, {UP: "1x60"}, "2m", _JOB),
    "IsthmusNotReady": Case(
        {'isthmus_ready{instance="a"}': "0x60"}, {'isthmus_ready{instance="a"}': "1 0 1x60"}, "3m", _ONE
    ),
    "IsthmusErrors": Case(*_ERRORS, "15m", _ONE),
    "IsthmusSlow": Case(_slow(980, 1000), _slow(999, 1000), "20m", _ONE),
    "IsthmusEventLag": Case(
        {f"isthmus_event_lag_seconds{_T}": "9x60"}, {f"isthmus_event_lag_seconds{_T}": "4x60"}, "3m", _TENANT
    ),
    "IsthmusDegraded": Case(*_DEGRADED, "20m", _ONE),
    "IsthmusDrift": Case({_DRIFT: "0 1x60"}, {_DRIFT: "0x60"}, "3m", {**_TENANT, "of": "domains"}),
    "IsthmusRolledBack": Case(
        {f"isthmus_canary_rollbacks_total{_T}": "0x9 1x60"},
        {f"isthmus_canary_rollbacks_total{_T}": "1x60"},
        "30m",
        _TENANT,
    ),
    "IsthmusModelStale": Case(
        {f"isthmus_model_written_timestamp_seconds{_T}": "-2600000x100"},
        {f"isthmus_model_written_timestamp_seconds{_T}": "-2500000x100"},
        "90m",
        _TENANT,
    ),
    "IsthmusDiskLow": Case({_FREE: "9e10x60", **_DISK}, {_FREE: "2e11x60", **_DISK}, "10m", _ONE),
    "IsthmusAuditBroken": Case(
        {'isthmus_audit_intact{instance="a"}': "1 0x60"}, {'isthmus_audit_intact{instance="a"}': "1x60"}, "3m", _ONE
    ),
    "IsthmusFilesHigh": Case({_OPEN: "900x60", **_FILES}, {_OPEN: "700x60", **_FILES}, "10m", _JOB),
}


def promtool_tests(rules: list[dict[str, object]], file: str) -> dict[str, object]:
    """Return the input of ``promtool test rules``: two tests an alert, of which one expects it and one does not."""
    tests = []
    for rule in rules:
        if "alert" not in rule:
            continue
        name = str(rule["alert"])
        case = CASES[name]
        for series, fires in ((case.fires, True), (case.silent, False)):
            shown = {UP: "1x120", **series}
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": key, "values": values} for key, values in shown.items()],
                    "alert_rule_test": [
                        {"eval_time": case.at, "alertname": name, "exp_alerts": _expected(rule, case) if fires else []}
                    ],
                }
            )
    return {"rule_files": [file], "evaluation_interval": "1m", "tests": tests}


def _expected(rule: dict[str, object], case: Case) -> list[dict[str, object]]:
    return [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": rule["annotations"]}]  # type: ignore[dict-item]
