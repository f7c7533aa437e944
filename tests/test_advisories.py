"""S17: a list of advisories in OSV's format is compared with the lock; the bill of materials names all of the lock."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools import advisories, sbom

SAMPLE = Path(__file__).with_name("advisories.json")


def lock(folder: Path, *pins: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text("# pins\n" + "\n".join(pins) + "\n")
    return path


@pytest.mark.parametrize(
    ("pin", "hit"),
    [
        ("made-up-web==1.3.9", "EXAMPLE-1"),
        ("Made_up_Web==1.4", ""),
        ("made-up-web==1.4rc1", "EXAMPLE-1"),
        ("made.up.web==2.2+cpu", "EXAMPLE-1"),
        ("made-up-web==2.3+cpu", ""),
        ("made-up-maths==1.1.0", "EXAMPLE-2"),
        ("made-up-maths==1.2", ""),
        ("made-up-json==2.9", ""),
        ("made-up-json==3.2", "EXAMPLE-3"),
        ("made-up-json==3.3", ""),
        ("made-up-webs==1.0", ""),
    ],
)
def test_what_an_advisory_names_is_told_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pin: str, hit: str
) -> None:
    code = advisories.main([str(SAMPLE), "--lock", str(lock(tmp_path, pin, "numpy==2.0"))])
    said = capsys.readouterr().out
    assert (code, hit in said and "EXAMPLE" in said) == (int(bool(hit)), bool(hit)), said
    assert "3 advisories of PyPI, the newest of 2026-03-04" in said


def test_a_hit_says_which_hole_how_bad_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    advisories.main([str(SAMPLE), "--lock", str(lock(tmp_path, "made-up-web==1.0"))])
    assert "EXAMPLE-1, CVE-0000-0001 (critical): made-up-web 1.0" in capsys.readouterr().out


def test_an_export_is_a_zip_of_records_and_an_empty_one_is_no_all_clear(tmp_path: Path) -> None:
    path, pins = tmp_path / "all.zip", lock(tmp_path, "made-up-json==3.0")
    said = json.loads(SAMPLE.read_text(encoding="utf-8"))
    with ZipFile(path, "w") as packed:
        for one in said:
            packed.writestr(f"{one['id']}.json", json.dumps(one))
    assert advisories.main([str(path), "--lock", str(pins)]) == 1
    for nothing in ("[]", json.dumps(said[4])):
        empty = tmp_path / "empty.json"
        empty.write_text(nothing)
        assert advisories.main([str(empty), "--lock", str(pins)]) == 2
    assert advisories.main([str(path), "--lock", str(lock(tmp_path))]) == 2, "nothing locked, nothing compared"


def test_a_version_that_cannot_be_read_counts_as_concerned() -> None:
    bounds = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "in-may"}]}
    assert advisories.affects({"ranges": [bounds]}, "9.0")


def test_every_pin_of_the_lock_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = advisories.locked(advisories.LOCK.read_text(encoding="utf-8"))
    assert len(packages) > 100
    made = [
        {"id": f"X-{name}", "affected": [{"package": {"ecosystem": "PyPI", "name": name}, "versions": [number]}]}
        for name, number in packages.items()
    ]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(made))
    assert advisories.main([str(path)]) == 1
    assert f"{len(packages)} hit(s)" in capsys.readouterr().out


def test_the_bill_of_materials_names_all_that_is_locked(tmp_path: Path) -> None:
    out = tmp_path / "bom.json"
    sbom.main([str(out)])
    said = json.loads(out.read_text())
    lines = [line for line in advisories.LOCK.read_text().splitlines() if "==" in line]
    assert len(said["components"]) == len(lines) > 100
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.5")
    assert all(one["purl"].startswith("pkg:pypi/") for one in said["components"])
