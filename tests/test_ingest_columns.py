"""Times as logs write them become instants."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from test_import import EVENTS, LOG, run


@pytest.mark.parametrize(
    ("time", "written", "instant"),
    [
        ('"unix_s"', "1388534400", "2014-01-01T00:00:00"),
        ('"unix_s"', "1388534400.25", "2014-01-01T00:00:00.250000"),
        ('"unix_s"', "1.3885344E9", "2014-01-01T00:00:00"),
        ('"unix_ms"', "1388534400001", "2014-01-01T00:00:00.001000"),
        ('"unix_us"', "1388534400000001", "2014-01-01T00:00:00.000001"),
        ('"iso"', "2014-01-01T08:00:00+08:00", "2014-01-01T00:00:00"),
        ('"iso"', "2014-01-01 00:00:00Z", "2014-01-01T00:00:00"),
        ('{ format = "iso", zone = "Asia/Shanghai" }', "2014-01-01", "2013-12-31T16:00:00"),
        ('{ format = "iso", zone = "UTC" }', "2014-01-01 10:30", "2014-01-01T10:30:00"),
        ('{ format = "iso", zone = "America/New_York" }', "2014-07-01T00:00:00.5", "2014-07-01T04:00:00.500000"),
        ('{ format = "iso", zone = "Europe/Berlin" }', "2021-10-31 02:30:00", "2021-10-31T00:30:00"),
        ('{ format = "%d.%m.%Y", zone = "UTC" }', "31.12.2013", "2013-12-31T00:00:00"),
        ('{ format = "%Y-%m-%d %H:%M:%S %z" }', "2014-01-01 01:00:00 +0100", "2014-01-01T00:00:00"),
    ],
)
def test_times(tmp_path: Path, time: str, written: str, instant: str) -> None:
    spec = EVENTS.replace('{ format = "unix_s" }', time)
    corpus = run(tmp_path, spec, log_csv=f"{LOG}u,i,,{written}\n")
    assert corpus.events["ts"].to_list() == [datetime.fromisoformat(instant).replace(tzinfo=UTC)]


def test_times_of_several_columns(tmp_path: Path) -> None:
    spec = EVENTS.replace('ts = "ts"', 'ts = ["y", "m", "d"]').replace(
        '{ format = "unix_s" }', '{ format = "%Y %m %d", zone = "UTC" }'
    )
    corpus = run(tmp_path, spec.replace(' value = "value",', ""), log_csv="user,item,y,m,d\nu,i,2009,4,1\n")
    assert corpus.events["ts"].to_list() == [datetime(2009, 4, 1, tzinfo=UTC)]
