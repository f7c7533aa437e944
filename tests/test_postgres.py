"""A real PostgreSQL as the source of events and items: a private server, started and stopped here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from isthmus.data.importer import import_corpus
from isthmus.errors import DataError

sa = pytest.importorskip("sqlalchemy")


def _tool(name: str) -> str | None:
    """Return a PostgreSQL program: Debian keeps those of a server out of the path."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((str(home / name) for home in homes if (home / name).exists()), shutil.which(name))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server of our own on a free port of the loopback address."""
    initdb, control = _tool("initdb"), _tool("pg_ctl")
    if not (initdb and control):
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    home = Path(tempfile.mkdtemp(prefix="isthmus-postgres-"))  # pytest's own folders are closed to other users
    who: dict[str, object] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(home, "postgres")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-h 127.0.0.1 -p {port} -k {home} -c fsync=off"
    quiet = {"check": True, "cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **who}
    try:
        subprocess.run([initdb, "-D", home / "data", "-U", "isthmus", "-A", "trust", "-E", "UTF8", "-N"], **quiet)
        subprocess.run([control, "-D", home / "data", "-o", options, "-w", "-l", home / "log", "start"], **quiet)
        yield f"postgresql+psycopg://isthmus@127.0.0.1:{port}/postgres"
        subprocess.run([control, "-D", home / "data", "-m", "fast", "stop"], **quiet)
    finally:
        shutil.rmtree(home, ignore_errors=True)


SPEC = """
name = "orders"
[[source]]
kind = "events"
platform = "shop"
domain = "books"
url = "${SHOP_DB}"
query = "select buyer, sku, stars, at from orders order by at"
columns = { user = "buyer", item = "sku", value = "stars", ts = "at" }
event = "rate"
time = "iso"
scale = [1, 5]
[[source]]
kind = "items"
platform = "shop"
domain = "books"
url = "${SHOP_DB}"
query = "select sku, name from goods"
columns = { item = "sku", title = "name" }
"""


@pytest.fixture(scope="module")
def shop(server: str) -> str:
    """URL of a database with typed columns: bigint, text, numeric, timestamp with time zone."""
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text("create table orders (buyer bigint, sku text, stars numeric(2,1), at timestamptz)"))
        connection.execute(sa.text("create table goods (sku text primary key, name text)"))
        connection.execute(sa.text("insert into goods values ('007', '深海之夜'), ('008', 'The Lighthouse')"))
        connection.execute(
            sa.text(
                "insert into orders select 9007199254740993 + n / 2, case n % 2 when 0 then '007' else '008' end, "
                "1 + n % 5 * 0.5, timestamptz '2024-03-01 12:00:00+02' + n * interval '1 hour' "
                "from generate_series(0, 199) n"
            )
        )
    engine.dispose()
    return server


def test_tables_of_postgresql_become_a_corpus(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", shop)
    (tmp_path / "SPEC.toml").write_text(SPEC, encoding="utf-8")
    corpus = import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert corpus.events.height == 200
    assert corpus.items.rows_by_key("item", unique=True, named=True)["007"]["title"] == "深海之夜"
    first = corpus.events.sort("ts").row(0, named=True)
    assert (first["user"], first["item"], first["value"]) == ("9007199254740993", "007", 0.0)
    assert first["ts"].isoformat() == "2024-03-01T10:00:00+00:00"
    assert corpus.events["value"].max() == 0.5
    assert shop not in (tmp_path / "corpus" / "corpus.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("from orders", "from order_book"), 'relation "order_book" does not exist'),
        (("select buyer", "select buyer, 1/0"), "division by zero"),
        (("select buyer", "selekt buyer"), "syntax error"),
    ],
)
def test_what_the_server_refuses_is_said_and_nothing_is_written(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], says: str
) -> None:
    monkeypatch.setenv("SHOP_DB", shop)
    (tmp_path / "SPEC.toml").write_text(SPEC.replace(*change), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_an_unreachable_server_is_an_error_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", "postgresql+psycopg://isthmus:s3cret-word@127.0.0.1:9/postgres?connect_timeout=2")
    (tmp_path / "SPEC.toml").write_text(SPEC, encoding="utf-8")
    with pytest.raises(DataError, match="query failed") as caught:
        import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert "s3cret-word" not in str(caught.value)


def test_a_null_id_is_rejected_not_guessed(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", shop)
    spec = SPEC.replace("select buyer, sku", "select case when sku = '008' then null else buyer end as buyer, sku")
    (tmp_path / "SPEC.toml").write_text(spec.replace('"orders"', '"orders"\nmax_reject_share = 0.6', 1), "utf-8")
    import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert pl.read_parquet(tmp_path / "corpus" / "rejects.parquet").height == 100
