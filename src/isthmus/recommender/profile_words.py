"""A profile in words, English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from isthmus.data.phrases import Language, grammar
from isthmus.files import Json

#: The words a profile is told in, by language.
WORDS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "title": "Profile of {person}",
        "accounts": "Accounts: {list}",
        "nothing": "Nothing is known of this person's tastes yet.",
        "known": "{events} events on {items} items{span}",
        "span": ", {first} to {last}",
        "category": "Interests",
        "word": "Words in what they met",
        "none": "Nothing stands out.",
        "interest": "{name}: {lift:.1f} times as much as others there ({sure}), {share:.0%} of all{trend}",
        "sure": "at least {low:.1f} times",
        "unsure": "may be chance",
        "rising": ", rising lately",
        "falling": ", falling lately",
        "steady": "",
        "evidence": "for example: {list}",
        "platform": "On {platform}: {events} events on {items} items{span}",
        "interests": "interests: {list}",
        "domains": "domains: {list}",
        "languages": "Languages: {list}",
        "price": "prices: {low:g} to {high:g}{currency}, middle {median:g}; {level:.0%} of what others meet costs less",
        "periods": "Over time",
        "period": "{name}: {list} ({events} events)",
        "hours": "Time of day (UTC): {list}",
        "lately": "Newest: {list}",
        "night": "0-6 h",
        "morning": "6-12 h",
        "afternoon": "12-18 h",
        "evening": "18-24 h",
        "comma": ", ",
        "stop": "; ",
        "dated": "{told} ({date})",
        "note": "Nothing about protected attributes is read or inferred.",
    },
    "zh": {
        "title": "{person}的画像",
        "accounts": "账号：{list}",
        "nothing": "目前对此人的喜好一无所知。",
        "known": "{items}个物品上的{events}次行为{span}",
        "span": "，{first}至{last}",
        "category": "兴趣",
        "word": "接触内容中的词语",
        "none": "没有突出的兴趣。",
        "interest": "{name}：是同平台其他人的{lift:.1f}倍（{sure}），占全部的{share:.0%}{trend}",
        "sure": "至少{low:.1f}倍",
        "unsure": "可能是偶然",
        "rising": "，近期上升",
        "falling": "，近期下降",
        "steady": "",
        "evidence": "例如：{list}",
        "platform": "在{platform}：{items}个物品上的{events}次行为{span}",
        "interests": "兴趣：{list}",
        "domains": "领域：{list}",
        "languages": "语言：{list}",
        "price": "价格：{low:g}至{high:g}{currency}，中位数{median:g}；其他人接触的物品中有{level:.0%}更便宜",
        "periods": "随时间的变化",
        "period": "{name}：{list}（{events}次行为）",
        "hours": "活跃时段（UTC）：{list}",
        "lately": "最近：{list}",
        "night": "0至6点",
        "morning": "6至12点",
        "afternoon": "12至18点",
        "evening": "18至24点",
        "comma": "、",
        "stop": "；",
        "dated": "{told}（{date}）",
        "note": "不读取、也不推断任何受保护属性。",
    },
}


def told(data: Json, language: Language = "en") -> str:
    """Return the text of a profile's ``data`` (:attr:`isthmus.recommender.profile.Profile.data`).

    Raises
    ------
    InputError
        There is no such language.

    Examples
    --------
    >>> print(told({"person": "shop:7", "accounts": [], "events": 0}, "zh").splitlines()[0])
    shop:7的画像
    """
    grammar(language)
    return "\n".join(_Teller(language).lines(data)) + "\n"


class _Teller:
    """Puts the parts of a profile into the words of one language."""

    def __init__(self, language: Language) -> None:
        self.words = WORDS[language]
        self.language = language

    def _say(self, what: str, **values: object) -> str:
        return self.words[what].format(**values)

    def lines(self, data: Json) -> list[str]:
        accounts = [f"{platform}:{user}" for platform, user in cast("list[tuple[str, str]]", data["accounts"])]
        lines = [self._say("title", person=data["person"])]
        if not data["events"]:
            return [*lines, self.words["nothing"]]
        lines += [self._say("accounts", list=self.words["comma"].join(accounts)), self._count("known", data)]
        for kind in ("category", "word"):
            lines += self._interests([one for one in self._rows(data, "interests") if one["kind"] == kind], kind)
        if not data["interests"]:
            lines += ["", self.words["none"]]
        lines += [line for one in self._rows(data, "platforms") for line in self._platform(one)]
        lines += self._times(data)
        return [*lines, "", self.words["note"]]

    def _rows(self, data: Mapping[str, object], name: str) -> list[Json]:
        return [cast("Json", row) for row in cast("list[object]", data[name])]

    def _count(self, what: str, part: Json) -> str:
        span = self._say("span", first=part["first"], last=part["last"]) if part["first"] else ""
        return self._say(what, **{**part, "span": span})

    def _interests(self, rows: list[Json], kind: str) -> list[str]:
        if not rows:
            return []
        lines = ["", self.words[kind]]
        for row in rows:
            sure = self._say("sure", low=row["low"]) if cast("float", row["low"]) > 1 else self.words["unsure"]
            lines.append("- " + self._say("interest", **{**row, "sure": sure, "trend": self.words[str(row["trend"])]}))
            if row["evidence"]:
                lines.append("  " + self._say("evidence", list=self._events(row)))
        return lines

    def _events(self, row: Json, name: str = "evidence") -> str:
        """Return events in the words of the project's narration."""
        rules, parts = grammar(self.language), []
        for one in self._rows(row, name):
            title = f"{rules.quotes[0]}{one['title']}{rules.quotes[1]}"
            clause = rules.template(str(one["event"]), "").replace("{t}", title)
            place = rules.place.replace("{p}", str(one["platform"])).replace("{c}", clause)
            parts.append(self._say("dated", told=place, date=one["date"]) if one["date"] else place)
        return self.words["stop"].join(parts)

    def _shares(self, shares: object) -> str:
        found = cast("Mapping[str, float]", shares)
        return self.words["comma"].join(f"{name} {share:.0%}" for name, share in found.items())

    def _platform(self, row: Json) -> list[str]:
        lines = ["", self._count("platform", row)]
        names = [str(one["name"]) for one in self._rows(row, "interests") if one["kind"] == "category"]
        names = names or [str(one["name"]) for one in self._rows(row, "interests")]
        if names:
            lines.append("  " + self._say("interests", list=self.words["comma"].join(names)))
        if len(cast("Mapping[str, float]", row["domains"])) > 1:
            lines.append("  " + self._say("domains", list=self._shares(row["domains"])))
        if row["price"] is not None:
            price = cast("Json", row["price"])
            currency = f" {price['currency']}" if price["currency"] else ""
            lines.append("  " + self._say("price", **{**price, "currency": currency}))
        return lines

    def _times(self, data: Json) -> list[str]:
        lines = [""]
        if data["languages"]:
            lines.append(self._say("languages", list=self._shares(data["languages"])))
        if data["hours"]:
            hours = cast("Mapping[str, float]", data["hours"])
            lines.append(self._say("hours", list=self._shares({self.words[name]: v for name, v in hours.items() if v})))
        if data["periods"]:
            lines.append(self.words["periods"])
        for row in self._rows(data, "periods"):
            names = self.words["comma"].join(cast("list[str]", row["interests"])) or "–"
            lines.append("- " + self._say("period", name=row["name"], list=names, events=row["events"]))
        if data["lately"]:
            lines.append(self._say("lately", list=self._events(data, "lately")))
        return lines if len(lines) > 1 else []
