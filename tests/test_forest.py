"""The plots of a verdict and its place in the report, also on a narrow screen."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.arms import Draws, task

from isthmus.evaluate.forest import curve, forest, places_of
from isthmus.evaluate.report import Cards, Report
from isthmus.evaluate.sections import Section
from isthmus.evaluate.verdict import Verdict, few_shot_curve

P = 200
LONG = "cold, overlap 冷启动的人而且在别的平台上有过行为"


def row(**changes):
    plain = {
        "rival": "scratch",
        "role": "rival",
        "of": "persons",
        "slice": "cold person",
        "n": 100,
        "difference": 0.02,
        "low": 0.01,
        "high": 0.03,
        "outcome": "helped",
    }
    return plain | changes


@pytest.fixture(scope="module")
def report():
    few = np.arange(P) < 8
    asked = task(P, **{"cold person": np.arange(P) < 60, LONG: np.arange(P) % 3 > 0, "few": few})
    draws = Draws(asked, "report", spread=0.1)
    arms = {
        "transfer": draws.arm(5, 0.8, "transfer"),
        "scratch": draws.arm(5, 0, "scratch"),
        "no source": draws.arm(1, 0.7, "no source"),
        "shuffled": draws.arm(3, 0.8, "shuffled"),
    }
    shares = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    points = {
        "transfer": {share: draws.arm(5, 0.5 + share) for share in shares},
        "迁移 <b>": {share: draws.arm(5, 2 * share) for share in shares[1:]},
    }
    section = Section(
        [runs[0] for runs in arms.values()],
        main="transfer",
        verdict=Verdict.of(arms),
        curve=few_shot_curve(points),
    )
    return Report.build(Cards("Transfer 迁移"), [section, replace(section, title="plain", verdict=None, curve=None)])


def test_a_point_stands_where_its_difference_says():
    plot = forest([row(difference=0.0, low=-0.1, high=0.1), row(slice="x", difference=0.05, outcome="hurt")])
    assert 'cx="50.0%"' in plot
    assert 'cx="73.0%"' in plot
    assert re.findall(r'svg class="mark (\w*)"', plot) == ["win", "loss"]
    assert plot.count('class="grid zero" x1="50.0%"') == 2


def test_rows_stand_under_their_rival():
    rows = [row(of="all", slice="all"), row(), row(rival="shuffled", role="control", of="all", outcome="")]
    text = re.sub(r"<svg.*?</svg>", "", forest(rows), flags=re.S)
    order = [
        text.index(word) for word in ("against scratch", "all people", "cold person", "against shuffled", "control")
    ]
    assert order == sorted(order)
    assert text.count("n = 100") == 3
    assert text.count("+0.0200") == 3
    assert text.count("<tbody>") == 2
    assert forest([]) == ""


def test_a_tiny_slice_does_not_widen_the_axis():
    wide = row(slice="tiny", n=4, low=-3.0, high=4.0)
    plot = forest([row(), wide])
    assert "low-cut high-cut" in plot
    assert forest([row(), row(slice="tiny")]).count("cut") == 0
    assert 'x2="80.' not in forest([wide])
    assert "cut" not in forest([wide])
    unknown = forest([row(low=None, high=None)])
    assert "+0.0200<small></small>" in unknown


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.3), (-0.2, 0.2), (0.01, 0.04), (-0.5, -0.1), (-0.004, 0.011)])
def test_no_difference_has_a_label(low, high):
    labels = re.findall(r">([^<>]*)</text>", forest([row(difference=(low + high) / 2, low=low, high=high)]))
    assert 0.0 in [float(label.replace("−", "-")) for label in labels]


def test_names_are_escaped():
    plot = forest([row(slice="<script>", rival="“甲” & 乙")])
    assert "<script>" not in plot
    assert "“甲” &amp; 乙" in plot
    rows = [{"arm": "<i>", "share": 0.1, "mean": 0.1, "low": 0.0, "high": 0.2}]
    assert "<i>" not in curve(rows)


def test_shares_stand_by_their_logarithm_with_nothing_first():
    places = places_of([0.0, 0.01, 0.1, 1.0])
    assert np.diff(places[1:]) == pytest.approx([places[2] - places[1]] * 2, abs=0.01)
    assert places[0] < places[1]
    close = places_of([0.0, 0.5, 1.0])
    assert np.diff(close).min() > 10
    assert len({*places_of([0.0])}) == len({*places_of([0.3])}) == 1
    assert np.diff(places_of([0.0, 0.01, 0.03, 0.1, 0.3, 1.0])).min() > 10


def test_a_line_goes_through_its_points():
    rows = [
        {"arm": arm, "share": share, "mean": 0.1 * share, "low": 0.0, "high": 0.1}
        for arm in ("transfer", "scratch")
        for share in (0.0, 0.1, 1.0)
    ]
    plot = curve(rows)
    assert plot.count('class="join"') == 4
    assert plot.count('class="dot"') == 6
    assert [text for text in ("0", "10 %", "100 %") if f">{text}</text>" not in plot] == []
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)%"', plot)][:3]
    assert heights[0] == 88.0
    assert heights[2] == 5.0
    gap = [{**found, "mean": None, "low": None, "high": None} if found["share"] == 0.1 else found for found in rows]
    assert curve(gap).count('class="join"') == 2
    assert curve([]) == ""


def test_the_report_carries_the_verdict(report, tmp_path):
    report.save(tmp_path / "r")
    again = Report.open(tmp_path / "r")
    section = again.data["sections"][0]
    assert section["verdict"]["outcome"] in ("helped", "no detectable difference", "hurt")
    page = again.html
    sentence = section["verdict"]["sentence"]
    assert page.count(sentence.replace("<", "&lt;")) >= 2
    assert "Did transfer help?" in page
    assert "from random weights" in page
    assert "events of each history in random order" in page
    assert "迁移 &lt;b&gt;" in page
    assert page.count('class="forest"') == page.count('class="curve"') == 1


def test_an_older_report_is_still_shown(report):
    data = {**report.data, "sections": [dict(section) for section in report.data["sections"]]}
    for section in data["sections"]:
        del section["verdict"], section["curve"]
    assert "Did transfer help?" not in Report(data).html


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plots_fit_a_narrow_screen(browser, report, tmp_path, scheme):
    report.save(tmp_path / "r")
    page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
    page.goto((tmp_path / "r" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.forest').parentElement)") <= 0
    assert page.evaluate("document.querySelector('.forest .mark').getBoundingClientRect().width") >= 100
    sizes = "[...document.querySelectorAll('.forest th, .forest small, .curve')].map(e => getComputedStyle(e).fontSize)"
    assert min(float(size[:-2]) for size in page.evaluate(sizes)) >= 12
    labels = page.evaluate(LABELS)
    assert len(labels) == 6
    assert all(right <= left for (_, right), (left, _) in pairwise(labels))
    page.close()


#: Left and right ends of the labels under the curve.
LABELS = """() => [...document.querySelectorAll('.curve text[y="100%"]')].map(e => {
  const box = e.getBoundingClientRect(); return [box.left, box.right]; })"""
