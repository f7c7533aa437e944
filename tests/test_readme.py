"""The README is true: its files, commands and programs work, in the order they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import polars as pl
import pytest
from tests.pages import text_of
from tests.small_service import started
from tests.tour import write_tour
from typer.testing import CliRunner

from isthmus.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, "docs/quickstart.md": text_of("quickstart.md")}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: str, kind: str) -> list[str]:
    return [body for name, body in FENCE.findall(page) if name == kind]


def files(page: str) -> dict[str, str]:
    """Return the CSV files a page shows, by the last file name that stands before each."""
    found = {}
    for match in FENCE.finditer(page):
        if match[1] == "csv":
            found[re.findall(r"`(\w+\.csv)`", page[: match.start()])[-1]] = match[2]
    return found


def commands(page: str) -> list[str]:
    """Return the commands that end by themselves."""
    lines = [line for body in blocks(page, "bash") for line in body.splitlines()]
    return [line for line in lines if line.startswith("isthmus ") and not line.startswith("isthmus serve")]


def write_files(page: str, folder: Path) -> None:
    """Put the logs, the spec and the small files of a page into ``folder``."""
    write_tour(folder)
    (folder / "SPEC.toml").write_text(blocks(page, "toml")[0], encoding="utf-8")
    (folder / "SPEC-typo.toml").write_text(blocks(page, "toml")[0].replace("columns", "colums", 1), encoding="utf-8")
    for name, body in files(page).items():
        if not (folder / name).exists():
            (folder / name).write_text(body, encoding="utf-8")


def test_the_counts_are_those_we_know() -> None:
    assert len(commands(README)) == 29
    assert len(blocks(README, "python")) == 2
    assert len(blocks(README, "toml")) == 1
    assert len(blocks(README, "console")) == 1
    assert list(files(README)) == ["shop.csv", "videos.csv", "users.csv", "since.csv", "new_items.csv"]
    assert set(re.findall(r"^```(\w+)", README, re.M)) == {"bash", "csv", "toml", "python", "console"}


def test_the_number_of_methods_is_true() -> None:
    from isthmus.train.methods import GROUND

    words = {8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}
    without_graph_and_pictures = [name for name in GROUND if name not in ("graph", "image")]
    assert f"a tuned blend of {words[len(without_graph_and_pictures)]} methods" in README


def test_it_opens_with_the_two_commands_and_the_picture() -> None:
    assert blocks(README, "bash")[0].split("\n")[:2] == ["make demo", "make test"]
    assert README.index("make demo") < README.index("docs/images/report.png") < README.index("\n## ")
    for target in ("demo", "test"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_everything_a_page_points_at_exists(name: str) -> None:
    page = PAGES[name]
    places = re.findall(r"\]\(([^)#:]+)\)", page) + re.findall(r"`(docs/[\w./-]+|CONTRIBUTING\.md)`", page)
    assert places
    base = ROOT / name
    missing = [place for place in places if not (ROOT / place).exists() and not (base.parent / place).exists()]
    assert not missing
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size < 300_000


def test_the_logs_it_shows_look_like_the_logs_the_tour_runs_on(tmp_path: Path) -> None:
    write_tour(tmp_path)
    for name in ("shop.csv", "videos.csv"):
        shown, real = files(README)[name], (tmp_path / name).read_text(encoding="utf-8")
        assert shown.splitlines()[0] == real.splitlines()[0]
        separator = ";" if name == "videos.csv" else ","
        assert len(shown.splitlines()[1].split(separator)) == len(real.splitlines()[1].split(separator))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_and_program_works_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(README, tmp_path)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    for command in commands(README):
        done = runner.invoke(app, command.split()[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}"
    lists = pl.read_parquet("out/recs.parquet")
    assert lists.columns == ["platform", "user", "domain", "item", "rank", "score", "item_platform"]
    assert set(lists["domain"]) == {"books", "films"}
    some = pl.read_csv("some.csv", infer_schema=False)
    assert set(some["user"]) == {"0000007", "never-seen-before"}
    for program in blocks(README, "python"):
        exec(compile(program, "README.md", "exec"), {})
    assert (tmp_path / "report-films" / "report.html").exists()
    curls = [line for body in blocks(README, "bash") for line in body.splitlines() if line.startswith("curl ")]
    asks = [re.findall(r"(?:-X (\S+) )?\S*127\.0\.0\.1:8080(\S+) .*-d '(.*)'$", curl)[0] for curl in curls]
    assert [(method, path.split("/")[2]) for method, path, _ in asks] == [("", "recommend"), ("PUT", "consents")]
    typed, answers = {"content-type": "application/json"}, []
    with started(tmp_path / "service", model=tmp_path / "model") as (_, url):
        for method, path, sent in asks:
            answers.append(httpx.request(method or "POST", url + path, content=sent, headers=typed, timeout=60))
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    answer = answers[0]
    first = answer.json()["lists"][0]["items"]
    assert len(first) == 3
    assert first[0]["reasons"]


def test_the_messages_it_shows_are_those_that_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(README, tmp_path)
    monkeypatch.chdir(tmp_path)
    command, *shown = blocks(README, "console")[0].splitlines()
    done = CliRunner().invoke(app, command.removeprefix("$ isthmus ").split())
    assert done.exit_code == 2
    assert done.stderr.startswith(shown[0])
    assert len(shown) == 1


def test_the_quickstart_uses_the_same_files_and_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGES["docs/quickstart.md"]
    assert len(commands(page)) == 6
    write_files(README, tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}"
    assert pl.read_ndjson("recs.jsonl").columns == [
        "platform",
        "user",
        "domain",
        "item",
        "rank",
        "score",
        "item_platform",
    ]
