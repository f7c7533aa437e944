"""The words in which behaviour is told: one grammar a language, and the same grammar read backwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, Literal, NamedTuple

from isthmus.errors import DataError, InputError, nearest
from isthmus.types import EVENTS

Language = Literal["en", "zh"]
Order = Literal["oldest", "newest"]

#: Characters that would tear a sentence apart, and how they are written inside quotes.
ESCAPES: Final[dict[str, str]] = {
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    **{chr(code): f"\\u{code:04x}" for code in (*range(9), 11, 12, *range(14, 32), *range(127, 160), 0x2028, 0x2029)},
}
#: Platforms that need no quotes where a language does without.
BARE: Final = "[A-Za-z0-9_-]+"
_UNESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}
_NUMBER: Final = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


class Told(NamedTuple):
    """One event as a sentence tells it; ``value`` is in [0, 1] for ratings, else seconds or times."""

    event: str
    title: str
    platform: str
    value: float | None


@dataclass(frozen=True)
class Grammar:
    """How one language tells an event: ``{t}`` title, ``{v}`` value, ``{c}`` clause, ``{p}`` platform.

    ``bare`` says whether a platform of plain letters and digits goes without quotes.
    """

    quotes: tuple[str, str]
    place: str
    place_quotes: tuple[str, str]
    bare: bool
    phrases: dict[str, str]
    rated: str
    seconds: str
    times: str
    joiners: dict[Order, str]
    stop: str

    def template(self, event: str, kind: str) -> str:
        """Return the template of an event; ``kind`` of its value: none (``""``), rated, seconds or times."""
        if kind == "rated":
            return self.rated
        tail = {"": "", "seconds": self.seconds, "times": self.times}[kind]
        return self.phrases[event] + tail

    @cached_property
    def readers(self) -> list[tuple[str, str, re.Pattern[str]]]:
        """(event, kind of value, pattern of a clause with its place), the longest templates first."""
        kinds = [(event, kind) for event in EVENTS for kind in ("", "seconds", "times")] + [("rate", "rated")]
        kinds.sort(key=lambda pair: -len(self.template(*pair)))
        return [(event, kind, self._pattern(self.template(event, kind))) for event, kind in kinds]

    def _pattern(self, template: str) -> re.Pattern[str]:
        title = _quoted(self.quotes, "title")
        clause = re.escape(template).replace(r"\{t\}", title).replace(r"\{v\}", f"(?P<value>{_NUMBER})")
        before, after = self.place.split("{c}")
        ends = "|".join(re.escape(end) for end in (*self.joiners.values(), self.stop))
        return re.compile(f"{self._reader(before)}{clause}{self._reader(after)}(?P<end>{ends})", re.DOTALL)

    def _reader(self, place: str) -> str:
        if "{p}" not in place:
            return re.escape(place)
        name = _quoted(self.place_quotes, "platform")
        name = f"(?:{name}|(?P<bare>{BARE}))" if self.bare else name
        return "(?:" + re.escape(place).replace(r"\{p\}", name) + ")?"


def _quoted(quotes: tuple[str, str], name: str) -> str:
    opening, closing = map(re.escape, quotes)
    return rf"{opening}(?P<{name}>(?:[^\\{closing}]|\\.)*){closing}"


GRAMMARS: Final[dict[Language, Grammar]] = {
    "en": Grammar(
        quotes=('"', '"'),
        place="{c} on {p}",
        place_quotes=("[", "]"),
        bare=True,
        phrases={
            "view": "viewed {t}",
            "click": "clicked {t}",
            "cart": "put {t} in the cart",
            "purchase": "bought {t}",
            "rate": "rated {t}",
            "play": "played {t}",
            "like": "liked {t}",
            "comment": "commented on {t}",
            "share": "shared {t}",
            "impression": "was shown {t}",
            "ad_click": "clicked an ad for {t}",
        },
        rated="rated {v} of 5 {t}",
        seconds=" for {v} seconds",
        times=" {v} times",
        joiners={"oldest": ", then ", "newest": ", before that "},
        stop=".",
    ),
    "zh": Grammar(
        quotes=("《", "》"),
        place="在{p}{c}",
        place_quotes=("「", "」"),
        bare=False,
        phrases={
            "view": "浏览了{t}",
            "click": "点击了{t}",
            "cart": "把{t}加入购物车",
            "purchase": "购买了{t}",
            "rate": "给{t}评了分",
            "play": "播放了{t}",
            "like": "喜欢{t}",
            "comment": "评论了{t}",
            "share": "分享了{t}",
            "impression": "看到了{t}的推荐",
            "ad_click": "点击了{t}的广告",
        },
        rated="给{t}打了{v}分（满分5分）",
        seconds="{v}秒",
        times="{v}次",
        joiners={"oldest": "，然后", "newest": "，此前"},
        stop="。",
    ),
}


def grammar(language: str) -> Grammar:
    """Return the grammar of a language, or raise :class:`InputError`."""
    if language not in GRAMMARS:
        raise InputError(f"no language '{language}'{nearest(language, list(GRAMMARS))}", fix="languages: en, zh")
    return GRAMMARS[language]


def parse(text: str, language: Language = "en") -> list[Told]:
    """Return the events that a narrated ``text`` tells, in its order: the way back from ``narrate``.

    Raises
    ------
    DataError
        The text is not one that ``narrate`` wrote in this language; says at which character.

    Examples
    --------
    >>> for told in parse('viewed "Reef" on books, then rated 4.5 of 5 "Wreck".'):
    ...     print(told.event, told.title, told.platform, told.value)
    view Reef books None
    rate Wreck books 0.9
    """
    rules, place, at, told = grammar(language), "", 0, []
    while at < len(text):
        event, kind, match = _next(rules, text, at)
        parts = match.groupdict()
        named = parts.get("bare") or parts["platform"]
        place = place if named is None else _unescape(named)
        number = None if not kind else float(parts["value"]) / (5 if kind == "rated" else 1)
        told.append(Told(event, _unescape(parts["title"]), place, number))
        at = match.end()
    return told


def _next(rules: Grammar, text: str, at: int) -> tuple[str, str, re.Match[str]]:
    for event, kind, pattern in rules.readers:
        match = pattern.match(text, at)
        if match:
            return event, kind, match
    raise DataError(f"no event at character {at}: {text[at : at + 40]!r}", where="narrated text")


@cache
def _escaped() -> re.Pattern[str]:
    return re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        word = match.group(1)
        return chr(int(word[1:], 16)) if len(word) == 5 else _UNESCAPES.get(word, word)

    return _escaped().sub(plain, text)
