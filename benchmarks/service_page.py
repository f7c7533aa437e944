"""The report of the benchmark of the service: one table of goals, one section a part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from service_client import CONNECTIONS, K
from service_world import METHODS

#: What stands below this line of a report was written by hand, and stays.
KEPT = "## What this says"


class Goal(NamedTuple):
    """A figure of the plan: what was asked, what was reached, and whether that is enough."""

    id: str
    what: str
    goal: str
    figure: str
    met: bool


def page(data: dict, before: str = "") -> str:
    """Return the report; what a person wrote ``before`` stays below it."""
    parts = data["parts"]
    lines = [
        "# The service: speed and load",
        "",
        f"{data['items']:,} items unless another number is named, {data['persons']:,} persons, {', '.join(METHODS)};",
        f"k = {K}, {CONNECTIONS} connections unless another number is named. The generator shares the machine.",
        "",
        "| id | what | goal | figure | |",
        "|---|---|---|---|---|",
        *(f"| {g.id} | {g.what} | {g.goal} | {g.figure} | {'met' if g.met else '**missed**'} |" for g in goals(parts)),
        "",
    ]
    for name, section in SECTIONS.items():
        if name in parts:
            lines += [*section(parts[name]), "", _where(name, parts[name]["machine"]), ""]
    kept = before.partition(KEPT)[2]
    return "\n".join(lines) + (f"{KEPT}{kept}" if kept else "")


def _where(name: str, machine: dict) -> str:
    """Say when and where a part was measured."""
    return (
        f"`python benchmarks/bench_service.py --only {name}`; {machine['created']}, {machine['cores']} core(s) for\n"
        f"server and generator, load average {machine['load_before']:.1f} before, {machine['load_after']:.1f} after,\n"
        f"Python {machine['python']}, uvicorn {machine['uvicorn']}, fastapi {machine['fastapi']}."
    )


def goals(parts: dict) -> list[Goal]:
    """Return the figures of the plan that the parts reached."""
    return [goal for name, found in parts.items() if name in GOALS for goal in GOALS[name](found)]


def _of_pace(part: dict) -> Iterator[Goal]:
    figures = part["figures"]
    empty, ready, half = figures["empty route"], figures["list ready"], figures["list ready, half load"]
    rate, single = ready["requests_per_second"], figures["one event"]["requests_per_second"]
    share = rate / empty["requests_per_second"]
    fresh, new = part["fresh_ms"]["p99"], part["new_item_ms"]["max"]
    said = f"{rate:,.0f}/s, p99 {ready['p99_ms']:.1f} ms"
    few = "lists of a few persons"
    yield Goal("show 2", f"{few}, beside an empty route", "≥ 50 %", f"{share:.0%}", share >= 0.5)
    yield Goal("show 2", f"{few}: p99 at half that load", "≤ 25 ms", f"{half['p99_ms']:.1f} ms", half["p99_ms"] <= 25)
    yield Goal("L1", f"{few}, without reasons", "≥ 500/s, p99 ≤ 100 ms", said, rate >= 500 and ready["p99_ms"] <= 100)
    yield Goal("L3", "single events on disk", "≥ 2,000/s", f"{single:,.0f}/s", single >= 2000)
    yield Goal("L4", "event → next list, p99", "≤ 50 ms", f"{fresh:.1f} ms", fresh <= 50)
    yield Goal("show 3", "new item's text → listable, at most", "≤ 1 s", f"{new:.0f} ms", new <= 1000)


def _of_anybody(part: dict) -> Iterator[Goal]:
    figures = part["figures"]
    empty, ready, half = figures["empty route"], figures["list of anybody"], figures["list of anybody, half load"]
    share = ready["requests_per_second"] / empty["requests_per_second"]
    yield Goal("show 2", "lists of anybody, beside an empty route", "≥ 50 %", f"{share:.0%}", share >= 0.5)
    said = f"{half['p99_ms']:.1f} ms"
    yield Goal("show 2", "lists of anybody: p99 at half that load", "≤ 25 ms", said, half["p99_ms"] <= 25)
    for name in ("with reasons, asked before", "with reasons, all ready", "with reasons, not ready yet"):
        rate, late = figures[name]["requests_per_second"], figures[name]["p99_ms"]
        said = f"{rate:,.0f}/s, p99 {late:.0f} ms"
        yield Goal("L1", f"lists {name}", "≥ 500/s, p99 ≤ 100 ms", said, rate >= 500 and late <= 100)


def _of_many_items(part: dict) -> Iterator[Goal]:
    full, steady = part["every item scored"], part["every item scored, 100 requests/s"]
    rate, late = full["requests_per_second"], steady["p99_ms"]
    said = f"{rate:,.0f}/s at most; at 100/s p99 {late:.0f} ms"
    yield Goal("L2", "100,000 items, exact, to be scored", "≥ 100/s, p99 ≤ 150 ms", said, rate >= 100 and late <= 150)


def _of_many_events(part: dict) -> Iterator[Goal]:
    rate, late = part["events_per_second"], part["batches of 100 events"]["p99_ms"]
    said = f"{rate:,.0f}/s, p99 {late:.0f} ms"
    goal = "≥ 20,000/s, p99 ≤ 100 ms"
    yield Goal("L3", "events in batches of 100 on disk", goal, said, rate >= 20_000 and late <= 100)


def _of_overload(part: dict) -> Iterator[Goal]:
    for name in ("lists to be scored", "batches of 100 events"):
        one = part[name]
        share = one["good_per_second"] / one["peak_per_second"]
        times = one["offered_per_second"] / one["peak_per_second"]
        rest, grown = one["rest_p99_ms"], one["memory_most_mb"] - one["memory_before_mb"]
        back = one["recovered_s"]
        yield Goal(
            "L5",
            f"{name}, {times:.1f} times the peak: good answers",
            "≥ 80 % of the peak",
            f"{share:.0%}",
            share >= 0.8,
        )
        yield Goal("L5", f"{name}: p99 of the rest", "≤ 100 ms", f"{rest:.0f} ms", rest <= 100)
        yield Goal("L5", f"{name}: memory", "bounded", f"+{grown:.0f} MB", grown <= 200)
        yield Goal("L5", f"{name}: as before again after", "≤ 5 s", f"{back:.1f} s", back <= 5)


def _of_reloads(part: dict) -> Iterator[Goal]:
    times = part["p99_ms"] / part["idle_p99_ms"]
    said = f"{times:.1f} times ({part['p99_ms']:.1f} and {part['idle_p99_ms']:.1f} ms)"
    what = f"p99 under {part['reloads']} reloads beside idle"
    yield Goal("M1", what, "≤ 2 times", said, times <= 2)
    yield Goal("M1", "failed requests meanwhile", "0", f"{part['failed']} of {part['requests']:,}", part["failed"] == 0)


def _of_shadow(part: dict) -> Iterator[Goal]:
    more = part["on_p99_ms"] / part["off_p99_ms"] - 1
    said = f"{more:+.0%} ({part['on_p99_ms']:.1f} and {part['off_p99_ms']:.1f} ms)"
    yield Goal("M5", "p99 with a shadow of every request", "≤ +10 %", said, more <= 0.1)


def _table(figures: dict) -> list[str]:
    cells = ("requests_per_second", "server_cpu_us", "p50_ms", "p99_ms", "failed")
    rows = [
        " | ".join((f"| {name}", *(f"{one[cell]:,.{int('ms' in cell)}f}" for cell in cells), "")).rstrip()
        for name, one in figures.items()
    ]
    head = ["| what | requests/s | server CPU, µs a request | p50 ms | p99 ms | failed |", "|---|---|---|---|---|---|"]
    return [*head, *rows]


def _pace(part: dict) -> list[str]:
    figures, fresh, new = part["figures"], part["fresh_ms"], part["new_item_ms"]
    empty, mine = figures["empty route"], figures["list ready"]
    rate = mine["requests_per_second"] / empty["requests_per_second"]
    cpu = empty["server_cpu_us"] / mine["server_cpu_us"]
    rounds = part["rounds"]["list ready"]
    return [
        "## Pace",
        "",
        f"{part['bytes']:,} bytes a list; medians of {len(rounds)} interleaved rounds.",
        "",
        *_table(figures),
        "",
        f"From the answer to an event to the answer with the list that counts it: p50 {fresh['p50']:.1f} ms,",
        f"p99 {fresh['p99']:.1f} ms ({fresh['n']} persons never asked for before). Memory: {part['rss_mb']:,.0f} MB.",
        f"From a new item's text until it can be listed: p50 {new['p50']:.0f} ms,",
        f"at most {new['max']:.0f} ms ({new['n']} items).",
        "",
        f"A list that is ready: {rate:.0%} of the requests/s of the empty route, {cpu:.0%} by processor time.",
    ]


def _anybody(part: dict) -> list[str]:
    figures = part["figures"]
    empty, mine = figures["empty route"], figures["list of anybody"]
    rate = mine["requests_per_second"] / empty["requests_per_second"]
    return [
        "## Lists of anybody",
        "",
        "Persons are drawn from all of them; the list of each was made ready in idle time after the start, which took",
        f"{part['ready_s']:,.0f} s. Medians of {len(part['rounds']['list of anybody'])} interleaved rounds.",
        "",
        *_table(figures),
        "",
        f"A list of anybody: {rate:.0%} of the requests/s of the empty route. Memory: {part['rss_mb']:,.0f} MB.",
        f"Reasons of all were ready {part['reasons_ready_s']:,.0f} s after they were first asked for, and took",
        f"{part['reasons_mb']:,.0f} MB.",
    ]


def _many_items(part: dict) -> list[str]:
    figures = {name: one for name, one in part.items() if name != "machine"}
    return ["## 100,000 items, lists to be scored", "", *_table(figures)]


def _many_events(part: dict) -> list[str]:
    figures = {"batches of 100 events": part["batches of 100 events"]}
    return [
        "## Events in batches, 8 connections",
        "",
        *_table(figures),
        "",
        f"{part['events_per_second']:,.0f} events/s.",
    ]


def _overload(part: dict) -> list[str]:
    names = [name for name in part if name != "machine"]
    rows = [
        ("peak: answers/s of 16 connections", "peak_per_second", ",.0f"),
        ("offered, requests/s that were answered", "offered_per_second", ",.0f"),
        ("good answers/s", "good_per_second", ",.0f"),
        ("lists of a cheaper layer/s", "cheaper_per_second", ",.0f"),
        ("refused/s (429, 503)", "refused_per_second", ",.0f"),
        ("of those with Retry-After", "refused_and_told_when", ".0%"),
        ("other statuses", "other_statuses", ",.0f"),
        ("p99 of good answers, ms", "good_p99_ms", ",.0f"),
        ("p50 of the rest, ms", "rest_p50_ms", ",.0f"),
        ("p99 of the rest, ms", "rest_p99_ms", ",.0f"),
        ("p99 at half the peak before, ms", "calm_p99_ms", ",.1f"),
        ("as before again after, s", "recovered_s", ".1f"),
        ("cores the service kept busy", "server_cores", ".2f"),
        ("cores the generator kept busy", "generator_cores", ".2f"),
        ("memory before, MB", "memory_before_mb", ",.0f"),
        ("memory at most, MB", "memory_most_mb", ",.0f"),
    ]
    return [
        "## Five times what can be done",
        "",
        "Requests come at five times the peak over 600 connections, whatever the answers. A list is good if it is the",
        "model's, a receipt if the events are on disk; the rest are lists of a cheaper layer, and refusals.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            "| " + " | ".join([said, *(format(part[name][key], form) for name in names)]) + " |"
            for said, key, form in rows
            if key in part[names[0]]
        ),
    ]


def _reloads(part: dict) -> list[str]:
    return [
        "## Models loaded under load",
        "",
        f"16 persons, 400 requests/s; {part['reloads']} models one after the other, {part['reload_s']:.1f} s each:",
        f"{part['requests']:,} requests, {part['failed']} failed. Idle p50 {part['idle_p50_ms']:.1f} ms, "
        f"p99 {part['idle_p99_ms']:.1f} ms;",
        f"meanwhile p50 {part['p50_ms']:.1f} ms, p99 {part['p99_ms']:.1f} ms, at most {part['most_ms']:.0f} ms.",
    ]


def _shadow(part: dict) -> list[str]:
    return [
        "## A shadow",
        "",
        f"{part['rate']:,.0f} requests/s for ready lists, a shadow of every request on and off in turns: p50 "
        f"{part['on_p50_ms']:.2f} and {part['off_p50_ms']:.2f} ms,",
        f"p99 {part['on_p99_ms']:.2f} and {part['off_p99_ms']:.2f} ms; {part['failed']} failed.",
    ]


SECTIONS = {
    "pace": _pace,
    "anybody": _anybody,
    "L2": _many_items,
    "L3": _many_events,
    "L5": _overload,
    "M1": _reloads,
    "M5": _shadow,
}
GOALS = {
    "pace": _of_pace,
    "anybody": _of_anybody,
    "L2": _of_many_items,
    "L3": _of_many_events,
    "L5": _of_overload,
    "M1": _of_reloads,
    "M5": _of_shadow,
}
