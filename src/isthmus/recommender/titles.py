"""Titles of works: what stays of a title when edition, medium, year, punctuation and spelling are taken away."""

from __future__ import annotations

from typing import Final

import polars as pl

_MEDIA: Final = (
    r"(?:motion picture|movie|film|tv series|television series|musical|soundtrack|novel|book|audiobook|album)"
)
_KINDS: Final = (
    r"special|final|deluxe|extended|collector'?s|collectors|anniversary|unrated|limited|illustrated|revised|expanded|updated|"
    r"international|remastered|definitive|annotated|unabridged|abridged|complete|original|director'?s|theatrical|"
    r"widescreen|full screen|kindle|paperback|hardcover|large print|critical|premium|standard|ultimate|digital"
)
#: English words of an edition or a medium, wherever they stand.
_EDITION: Final = (
    r"\b(?:music|songs) (?:from|inspired by) (?:and inspired by )?(?:the )?(?:original )?"
    r"(?:motion picture|movie|film|series|musical)\b",
    rf"\b(?:the )?(?:original |official |complete )*(?:{_MEDIA} )?(?:soundtrack|score|ost|cast recording)(?: album)?\b",
    rf"\b(?:\d+(?:st|nd|rd|th) )?(?:(?:{_KINDS}) )+(?:edition|version|cut|release)\b",
    r"\b(?:\d+(?:st|nd|rd|th)|first|second|third|fourth|fifth|new) edition\b",
    r"\b(?:blu-?ray|dvd|vhs|4k(?: uhd)?|uhd|audio cd|cd|vinyl|lp|e-?book|kindle|paperback|hardcover|audiobook|"
    r"unabridged|mass market|box set|boxed set)\b",
    rf"\b(?:the|a|an) {_MEDIA}(?: adaptation)?$",
    r"\b(?:movie|film) tie-?in\b",
    r"\bnoveli[sz]ation\b",
)
#: The same where no spaces part the words.
_UNSPACED: Final = (
    r"(?:电影|電影|影视|影視|原创|原創|官方|游戏|遊戲|动画|動畫)*(?:原声|原聲)(?:带|帶|大碟|专辑|專輯|音乐|音樂)?",
    r"(?:电影|電影|小说|小說|漫画|漫畫|话剧|話劇|电视剧|電視劇|音乐剧|音樂劇|有声|有聲|动画|動畫)版",
    r"(?:原著|长篇|長篇)(?:小说|小說)",
    r"(?:典藏|珍藏|纪念|紀念|精装|精裝|平装|平裝|修订|修訂|插图|插圖|豪华|豪華|加长|加長|完整|数字|數位|新|重制|重製|"
    r"导演剪辑|導演剪輯|限量|普及|\d+周年(?:纪念)?)版",
    r"第[一二三四五六七八九十\d]+版",
    r"(?:有声书|有聲書|电影票|影视原著)",
    r"(?:オリジナル[・ ]?)?サウンドトラック|劇場版|完全版|特装版|通常版|文庫版",
    r"(?:오리지널 ?)?사운드트랙|개정판|극장판",
)
#: Medium words at the end of an unspaced title.
_TAIL: Final = r"[\s·:\-]*(?:小说|小說|电影|電影|影片|电视剧|電視劇|漫画|漫畫|音乐剧|映画|小説|영화|소설)$"
_BRACKETS: Final = r"\(([^()]*)\)|\[([^\[\]]*)\]|【([^【】]*)】|〈([^〈〉]*)〉"
_QUOTES: Final = r"[《》「」『』“”\"‘’´`]"
_ROMAN: Final = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_COUNTED: Final = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "一": "1", "二": "2", "三": "3", "四": "4", "五": "5", "六": "6", "七": "7", "八": "8", "九": "9", "十": "10",
}  # fmt: skip
#: Signs that a title is another part of a story.
_SEQUEL: Final = (
    r"续集|續集|续篇|續篇|前传|前傳|外传|外傳|番外|后传|後傳|sequel|prequel|spin-?off|returns|上册|下册|中册|上卷|下卷"
)
_WIDE: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"


def title_parts(titles: pl.Series) -> pl.DataFrame:
    """Return what is compared of each title.

    Returns
    -------
    polars.DataFrame
        key: the words that name the work, without edition, medium, year, punctuation, accents and leading article;
        main: the key before a subtitle; numbers: numbers and signs of a sequel, which must be equal in one work;
        year: a year named in brackets; null for a title that says nothing.

    Examples
    --------
    >>> titles = pl.Series(["The Martian: A Novel", "Martian (2015) [Blu-ray]", "《流浪地球2》电影原声带", "Rocky II"])
    >>> title_parts(titles).select("key", "numbers", "year").rows()
    [('martian', '', None), ('martian', '', 2015), ('流浪地球', '2', None), ('rocky', '2', None)]
    """
    plain = pl.col("title").str.normalize("NFKD").str.replace_all("[\u0300-\u036f]", "").str.normalize("NFKC")
    plain = plain.str.to_lowercase().str.replace_all(r"[’‘´`]", "'").str.replace_all("&", " and ")
    frame = titles.cast(pl.String).rename("title").to_frame().with_columns(plain)
    year = pl.col("title").str.extract(r"[(\[]((?:18|19|20)\d\d)[)\]]").cast(pl.Int64)
    frame = frame.with_columns(year=year, bare=_without(pl.col("title"), True))
    frame = frame.with_columns(bare=pl.coalesce(pl.when(_says("bare")).then("bare"), _without(pl.col("title"), False)))
    frame = frame.with_columns(main=pl.col("bare").str.replace(r"(\S)\s*(?::| - | – | — |--).*$", "$1"))
    frame = frame.with_columns(_words("bare").alias("key"), _words("main").alias("main"))
    numbers = pl.col("key").str.extract_all(rf"\d+|{_SEQUEL}").list.unique().list.sort().list.join(" ")
    frame = frame.with_columns(numbers=numbers)
    named = [_named(name) for name in ("key", "main")]
    return frame.with_columns(named).select("key", "main", "numbers", "year")


def _without(text: pl.Expr, whole: bool) -> pl.Expr:
    """Return ``text`` without words of an edition; with ``whole`` without anything in brackets too."""
    out = text.str.replace_all(r"[(\[]\s*(?:18|19|20)\d\d\s*[)\]]", " ")
    out = out.str.replace_all(r"\((\d+|part [^()]*|book [^()]*|vol[^()]*|第[^()]*)\)", " $1 ")
    out = out.str.replace_all(_BRACKETS, " " if whole else " $1$2$3$4 ").str.replace_all(_QUOTES, " ")
    for pattern in (*_EDITION, *_UNSPACED, _TAIL):
        out = out.str.strip_chars(" :;,.-–—·").str.replace_all(pattern, " ")
    return out


def _words(column: str) -> pl.Expr:
    """Return the words of a title, single spaces between; none between letters of unspaced scripts."""
    out = pl.col(column).str.replace_all("'", "").str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    out = out.str.replace(r"^(?:the|a|an) (.+)$", "$1").str.replace(r"^(.+) (?:the|a|an)$", "$1")
    for roman, digit in _ROMAN.items():
        out = out.str.replace_all(rf"(\S) {roman}\b", f"${{1}} {digit}")
    for word, digit in _COUNTED.items():
        out = out.str.replace_all(rf"\b(part|book|volume|vol|season|chapter|episode) {word}\b", digit)
        out = out.str.replace_all(rf"第{word}(?:部|季|卷|集|册|章|辑)", f" {digit} ")
    out = out.str.replace_all(r"\b(?:part|book|volume|vol|season|chapter|episode) (\d+)\b", "$1")
    out = out.str.replace_all(r"第(\d+)(?:部|季|卷|集|册|章|辑)", " $1 ")
    for _ in range(2):
        out = out.str.replace_all(rf"([{_WIDE}]) +([{_WIDE}\d])", "$1$2")
    return out.str.replace_all(" +", " ").str.strip_chars()


def _named(column: str) -> pl.Expr:
    """Return the words without numbers and signs of a sequel, or with them where nothing else is left."""
    rest = pl.col(column).str.replace_all(rf"\d+|{_SEQUEL}", " ").str.replace_all(" +", " ").str.strip_chars()
    return pl.when(rest != "").then(rest).when(pl.col(column) != "").then(column).alias(column)


def _says(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"[\p{L}\p{N}]")
