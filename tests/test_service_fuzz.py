"""Requests made up from the OpenAPI document [I1]: no failure of ours, nothing undocumented, no door left open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_service import started
from tests.tiers import count

from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.vault import Vault

#: All checks but positive_data_acceptance: some refusals (a time before 1970, an unknown domain) no schema can say.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
)


@pytest.mark.slow
def test_no_request_made_up_from_the_document_finds_a_failure(tmp_path: Path) -> None:
    data = tmp_path / "data"
    vault = Vault(data)
    key = vault.create(tenant="default", scopes=SCOPES)[1]
    vault.close()
    with started(data, "--deadline", 20, "--no-warm") as (process, url):
        words = [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json"]
        words += ["--workers", 1, "--max-examples", count(4, 250), "--seed", count(1, 2), "--checks", ",".join(CHECKS)]
        words += ["--header", f"Authorization: Bearer {key}", "--generation-database", "none", "--no-color"]
        words += ["--request-timeout", 30, "--suppress-health-check", "all", "--warnings", "off"]
        words += ["--report", "json", "--report-json-path", tmp_path / "report.json"]
        done = subprocess.run([str(word) for word in words], cwd=tmp_path, capture_output=True, text=True)
        assert process.poll() is None, "it still serves"
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == 0, done.stdout[-6000:]
    assert report["failures"] == report["errors"] == []
    cases = report["test_cases"]
    print("cases:", cases, "seconds:", report["running_time"])
    assert cases["generated"] >= count(500, 10_000), cases
