"""What a profile must not name: words of protected attributes, in English and Chinese."""

from __future__ import annotations

from typing import Final

import polars as pl

#: Attributes nobody's profile may say anything about, each with words that tell it (a star stands for any ending). They
#: are the special categories of the GDPR (article 9) and the grounds of article 21 of the EU Charter that a catalogue
#: may name.
PROTECTED: Final[dict[str, tuple[str, ...]]] = {
    "gender": (
        "gender* women womens woman female* feminine men mens male males masculine girls boys ladies gentlemen",
        "性别 男性 女性 男士 女士 男装 女装 男鞋 女鞋 男款 女款 男生 女生",
    ),
    "age": (
        "age ages aged teen teens teenage* elderly seniors retiree*",
        "年龄 老年 中老年 青少年",
    ),
    "origin": (
        "ethnic* racial* race races nationality african-american* latino* latina* immigrant* migrant*",
        "民族 种族 国籍 籍贯 移民",
    ),
    "religion": (
        "religio* christian* catholic* protestant* islam* muslim* jewish judaism hindu* buddhis* sikh* atheis* "
        "bible* quran koran torah church* mosque* synagogue* spiritual* faith faiths",
        "宗教 信仰 基督 天主教 佛教 佛学 伊斯兰 穆斯林 道教 犹太 印度教 圣经 古兰经 教会",
    ),
    "politics": (
        "politic* socialis* communis* conservatism liberalism republicans democrats feminis* trade-union* union*",
        "政治 党派 党员 政党 工会 女权",
    ),
    "health": (
        "health* medical* medicine* disease* illness* diabet* cancer* hiv aids disab* pregnan* maternity fertility "
        "contracept* depression anxiety adhd autis* mental* incontinence genetic* addiction* wheelchair*",
        "健康 医疗 医药 疾病 癌症 糖尿病 艾滋 残疾 怀孕 孕妇 孕期 备孕 避孕 抑郁 焦虑症 "
        "自闭症 精神病 心理疾病 基因 轮椅",
    ),
    "sexuality": (
        "sex sexes sexual* erotic* gay gays lesbian* lgbt* queer* bisexual* homosexual* transgender* adult-only",
        "性取向 性生活 同性恋 双性恋 跨性别 情色 情趣 耽美",
    ),
    "family": (
        "marital marriage* divorce* widow* parenting",
        "婚姻 婚恋 离异 离婚 丧偶 育儿",
    ),
}


def _pattern() -> str:
    english = [
        word.replace("-", "[- ]?").replace("*", r"\w*") for words in PROTECTED.values() for word in words[0].split()
    ]
    chinese = [word for words in PROTECTED.values() for word in words[1].split()]
    return rf"(?i)\b(?:{'|'.join(english)})\b|{'|'.join(chinese)}"


_FOUND: Final = _pattern()


def names_protected(texts: pl.Series) -> pl.Series:
    """Return whether each text has a word of a protected attribute, bool (len,); an empty text has none.

    Examples
    --------
    >>> names_protected(pl.Series(["Women's shoes", "Robots", "健康食品", None])).to_list()
    [True, False, True, False]
    """
    return texts.str.contains(_FOUND).fill_null(False)
