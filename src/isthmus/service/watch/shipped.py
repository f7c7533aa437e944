"""Alert rules and dashboard as they are shipped."""

from __future__ import annotations

from importlib import resources
from typing import Final

#: Where the page lies that says what to do about an alert, unless said otherwise.
RUNBOOKS: Final = "docs/operate.md"


def rules(runbooks: str = RUNBOOKS) -> str:
    """Return the alert rules for Prometheus, YAML.

    Parameters
    ----------
    runbooks : str
        Address of ``docs/operate.md``; every alert links to its section there.
    """
    return _text("alerts.yml").replace("RUNBOOKS", runbooks)


def dashboard() -> str:
    """Return the dashboard for Grafana, JSON; import it and choose a Prometheus."""
    return _text("dashboard.json")


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
