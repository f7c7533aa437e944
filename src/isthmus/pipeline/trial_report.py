"""Trials of transfer over several shares of the people, and their report: verdict, forest plot, few-shot curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from isthmus.encode.text import TextEncoder
from isthmus.errors import InputError
from isthmus.evaluate.cards import data_card
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.report import Cards, Report
from isthmus.evaluate.sections import Section
from isthmus.evaluate.verdict import few_shot_curve
from isthmus.model.base import Features
from isthmus.pipeline.trials import Trial, TrialSettings, trial
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.leaks import audit, require_clean
from isthmus.split.temporal import TEST, Split
from isthmus.transfer.pretrained import read_card


def features_of(split: Split, settings: TrialSettings) -> Features:
    """Return what is known of the items of a split, as the methods and carriers of a trial read it.

    Raises
    ------
    InputError
        A sequence model was pre-trained with another text encoder than the bundled one.
    """
    for carrier, chosen in settings.starts.items():
        card = read_card(chosen["start"]) if chosen.get("start") else {}  # type: ignore[arg-type]
        if carrier == "sequence" and card.get("encoder", "") not in ("", TextEncoder(None).fingerprint):
            raise InputError(
                "was pre-trained with another text encoder", where=chosen["start"], fix="take the bundled one"
            )
    texts = "language" in settings.starts
    vectors = "text" in settings.methods or "sequence" in settings.starts
    return Readers(vocabulary(split), None, vectors=vectors, texts=texts).read(split.corpus.items)


def trials(
    split: Split,
    domain: str,
    features: Features,
    settings: TrialSettings,
    shares: Sequence[float],
    *,
    work: Path | None = None,
) -> dict[float, Trial]:
    """Return a trial for each share of the people that teaches in the domain; 0 is zero-shot.

    With a folder ``work`` for what is done, trials that were stopped go on there.

    Raises
    ------
    InputError
        Nobody is asked about the domain on test, or no share is given.
    """
    inside = split.corpus.items["domain"].gather(split.events["item"]) == domain
    if not (inside & (split.events["part"] == TEST)).any():
        raise InputError(f"no test event in domain '{domain}'", where=split.corpus.name, fix="cut earlier")
    if not shares:
        raise InputError("no share of the people", fix="give at least one, such as 1")
    parts = {share: split if share == 1 else split.thinned(domain, share=share, seed=0) for share in sorted(shares)}
    return {share: trial(part, domain, features, settings, work=work) for share, part in parts.items()}


def report(trials: Mapping[float, Trial], split: Split) -> Report:
    """Return the report of some trials in one domain.

    The verdict, all systems and the forest plot are of the largest share; with several shares there is a curve.

    Parameters
    ----------
    trials : mapping of float to Trial
        By share of the people that teaches.
    split : Split
        Where they were run.

    Raises
    ------
    LeakError
        The audit found a leak.
    """
    flags = audit(split)
    require_clean(flags)
    share = max(trials)
    chosen = trials[share]
    verdict = chosen.verdict()
    points: dict[str, dict[float, list[Outcome]]] = {}
    for at, done in trials.items():
        for name, outcomes in done.arms.items():
            points.setdefault(name, {})[at] = outcomes
    runs = chosen.arms["transfer"]
    section = Section(
        [outcomes[0] for outcomes in chosen.arms.values()],
        main="transfer",
        seeds=runs if len(runs) > 1 else (),
        verdict=verdict,
        curve=few_shot_curve(points) if len(trials) > 1 else None,
    )
    cards = Cards(
        title=f"{split.corpus.name}: did transfer to {chosen.task.domain} help?",
        protocol=split.card,
        data=data_card(split.corpus),
        audit=[asdict(flag) for flag in flags if flag.level != "ok"],
        notes=[verdict.sentence, *_notes(share, len(runs))],
    )
    return Report.build(cards, [section])


def _notes(share: float, runs: int) -> list[str]:
    taught = "Everybody" if share == 1 else f"{share:.0%} of the people" if share else "Nobody"
    return [
        f"{taught} taught in the target. Arms: transfer (all that is known, carriers pre-trained), scratch (the same, "
        "carriers not pre-trained), no source (ground methods that see the target only), sources (ground methods that "
        f"see all); {runs} run(s) of what draws. The table and the tests of the systems are of the first run."
    ]
