"""Cleaning of behaviour: duplicates, bursts and bots. Each rule has a switch, and every row it takes is returned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from isthmus.data.spec import Clean
from isthmus.types import Bools, Ints

_SECOND = 1_000_000
_MINUTE = 60 * _SECOND


@dataclass(frozen=True)
class Clocks:
    """What times tell, by platform code: ``fine`` ones are finer than minutes, ``order`` ones are places."""

    fine: Bools
    order: Bools


def clean_events(rows: pl.DataFrame, clean: Clean, clocks: Clocks) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the events that stay, sorted by account and time, and those that go, with a column ``rule``.

    ``rows`` has account, platform (u32), item (u32), event (u8), value, ts (µs) and whatever else is to be kept.
    Rules: ``duplicates`` (all equal, or repeated at once where there is only an order), ``near_duplicates`` (same
    account, item and event again within seconds), ``bursts`` (more events in a minute than a person makes) and
    ``bots`` (most of the account in bursts, or its gaps between events nearly all equal). The last three judge only
    platforms whose times are finer than minutes.
    """
    rows = rows[in_order(rows["account"].to_numpy(), rows["ts"].to_numpy())]
    gone: list[pl.DataFrame] = []
    for rule in (_repeats, _bots):
        verdict = rule(rows, clean, clocks)
        if verdict is None:
            continue
        marked = rows.with_columns(verdict.alias("rule"))
        gone.append(marked.filter(pl.col("rule").is_not_null()))
        rows = marked.filter(pl.col("rule").is_null()).drop("rule")
    return rows, pl.concat(gone) if gone else rows.clear().with_columns(pl.lit(None, dtype=pl.String).alias("rule"))


def in_order(accounts: Ints, ts: Ints) -> Ints:
    """Return the stable order of rows by account, then time.

    Examples
    --------
    >>> in_order(np.array([1, 0, 1]), np.array([5, 9, 5])).tolist()
    [1, 0, 2]
    """
    if accounts.size == 0:
        return np.zeros(0, dtype=np.int64)
    low = int(ts.min())
    unit = _SECOND if not (ts % _SECOND).any() else 1
    span = ((int(ts.max()) - low) // unit + 1).bit_length()
    if span + int(accounts.max()).bit_length() > 63:
        return np.lexsort((ts, accounts))
    packed = (accounts.astype(np.int64) << span) | ((ts - low) // unit)
    return np.argsort(packed, kind="stable")


def _repeats(rows: pl.DataFrame, clean: Clean, clocks: Clocks) -> pl.Series | None:
    """Return the rule that takes each row (null: none): exact and near duplicates."""
    if not clean.duplicates and not clean.near_seconds:
        return None
    pair = (pl.col("account").cast(pl.UInt64) * 2**32 + pl.col("item")).alias("pair")
    several = rows.select(pair)["pair"].is_duplicated()
    if not several.any():
        return None
    keys = ["account", "item", "event"]
    found = (
        rows.select("account", "platform", "item", "event", "value", "ts")
        .with_row_index("row")
        .filter(several)
        .sort(*keys, "ts", "value", maintain_order=True)
    )
    same = pl.all_horizontal(pl.col(key) == pl.col(key).shift() for key in keys)
    gap = pl.col("ts") - pl.col("ts").shift()
    order = pl.Series(clocks.order[found["platform"].to_numpy()])
    fine = pl.Series(clocks.fine[found["platform"].to_numpy()])
    equal = same & pl.col("value").eq_missing(pl.col("value").shift())
    exact = equal & pl.when(order).then(gap <= _SECOND).otherwise(gap == 0)
    near = same & fine & (gap <= round(clean.near_seconds * _SECOND))
    rule = (
        pl.when(exact & clean.duplicates)
        .then(pl.lit("duplicates"))
        .when(near & ~exact & (clean.near_seconds > 0))
        .then(pl.lit("near_duplicates"))
    )
    taken = found.select("row", rule.alias("rule")).filter(pl.col("rule").is_not_null())
    return _spread(rows.height, taken["row"], taken["rule"])


def _spread(height: int, places: pl.Series, rules: pl.Series) -> pl.Series | None:
    if places.is_empty():
        return None
    empty = pl.repeat(None, height, dtype=pl.String, eager=True).alias("rule")
    return empty.scatter(places, rules)


def _bots(rows: pl.DataFrame, clean: Clean, clocks: Clocks) -> pl.Series | None:
    """Return the rule that takes each row (null: none): bursts, and everything a bot did."""
    account, ts = rows["account"].to_numpy(), rows["ts"].to_numpy()
    fine = clocks.fine[rows["platform"].to_numpy()]
    if not fine.any():
        return None
    burst = bursts(account, ts, clean.burst_per_minute) & fine if clean.burst_per_minute else np.zeros_like(fine)
    counts = np.bincount(account)
    bot = np.bincount(account, weights=burst, minlength=counts.size) > counts / 2
    if clean.bot_gap_bits:
        some = _even(account, ts, clean) & fine
        bits, gaps = gap_entropy(account[some], ts[some])
        bot[: bits.size] |= (gaps >= clean.bot_min_events) & (bits < clean.bot_gap_bits)
    robot = bot[account] & fine
    if not (burst | robot).any():
        return None
    rule = np.where(robot, "bots", np.where(burst, "bursts", ""))
    taken = np.flatnonzero(rule != "")
    return _spread(rows.height, pl.Series(taken), pl.Series(rule[taken]))


def _even(account: Ints, ts: Ints, clean: Clean) -> Bools:
    """Return the events of accounts that may have a gap entropy below the limit ``b``: a cheap necessary condition.

    Entropy is at least -log2 of the largest share (min-entropy), so that the commonest gap has a share above 2^-b,
    and at least 2^(1-b) - 1 of all neighbouring gaps are equal.
    """
    accounts = int(account.max()) + 1 if account.size else 0
    gap = np.diff(ts) // _SECOND
    use = (account[1:] == account[:-1]) & (gap > 0)
    owner, gap = account[1:][use], gap[use]
    number = np.bincount(owner, minlength=accounts)
    equal = (gap[1:] == gap[:-1]) & (owner[1:] == owner[:-1])
    neighbours = np.bincount(owner[1:][equal], minlength=accounts)
    least = (2 ** (1 - clean.bot_gap_bits) - 1) * number - 2
    found: Bools = ((number >= clean.bot_min_events) & (neighbours >= least))[account]
    return found


def bursts(account: Ints, ts: Ints, per_minute: int) -> Bools:
    """Return which events lie in a stretch of more than ``per_minute`` events of one account within a minute.

    Parameters
    ----------
    account, ts : arrays (E,)
        Sorted by account, then time in microseconds.
    per_minute : int
        Events that are still a person's.
    """
    size, reach = ts.size, per_minute
    mark = np.zeros(size + 1, dtype=np.int64)
    if size > reach:
        last = np.arange(reach, size)
        hit = (account[last] == account[last - reach]) & (ts[last] - ts[last - reach] < _MINUTE)
        np.add.at(mark, last[hit] - reach, 1)
        np.add.at(mark, last[hit] + 1, -1)
    found: Bools = np.cumsum(mark)[:-1] > 0
    return found


def gap_entropy(account: Ints, ts: Ints) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], Ints]:
    """Return for each account the entropy in bits of its gaps in whole seconds above 0, and how many gaps it has.

    H = log2 n - (1/n) Σ c log2 c over the counts c of equal gaps (Shannon 1948).

    Examples
    --------
    >>> bits, gaps = gap_entropy(np.zeros(4, dtype=int), np.array([0, 60, 120, 180]) * 1_000_000)
    >>> float(bits[0]), int(gaps[0])
    (0.0, 3)
    """
    accounts = int(account.max()) + 1 if account.size else 0
    same = account[1:] == account[:-1]
    gap = (ts[1:] - ts[:-1]) // _SECOND
    use = same & (gap > 0)
    pairs = pl.DataFrame({"account": account[1:][use].astype(np.int64), "gap": gap[use]})
    counts = pairs.group_by("account", "gap").len()
    owner, count = counts["account"].to_numpy(), counts["len"].to_numpy().astype(np.float64)
    total = np.bincount(owner, weights=count, minlength=accounts)
    inner = np.bincount(owner, weights=count * np.log2(count), minlength=accounts)
    safe = np.maximum(total, 1)
    return np.log2(safe) - inner / safe, total.astype(np.int64)
