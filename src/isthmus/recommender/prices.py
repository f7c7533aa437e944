"""Prices as catalogues write them: numbers out of texts such as "$12.99", "1.299,00 €" and "¥88 - ¥120"."""

from __future__ import annotations

from typing import Final

import polars as pl

#: Keys of an item's attributes that hold its price, the first that is there counts.
KEYS: Final = ("price", "Price", "list_price", "price_text", "售价", "价格")
#: Ways to write a currency.
CURRENCIES: Final = {
    "US$": "USD", "$": "USD", "USD": "USD", "€": "EUR", "EUR": "EUR", "£": "GBP", "GBP": "GBP", "₹": "INR",
    "INR": "INR", "¥": "CNY", "￥": "CNY", "元": "CNY", "CNY": "CNY", "RMB": "CNY", "人民币": "CNY",
    "JPY": "JPY", "円": "JPY",
}  # fmt: skip
_SIGN: Final = r"(US\$|\$|€|£|₹|¥|￥|元|円|人民币|USD|EUR|GBP|INR|CNY|RMB|JPY)"
_NUMBER: Final = r"\d(?:[\d.,'\u00a0\u202f ]*\d)?"
_FREE: Final = r"(?i)\bfree\b|免费"
_NOTHING: Final = pl.lit(None, pl.String)


def prices(items: pl.DataFrame) -> pl.DataFrame:
    """Return the price of each item, from its JSON attributes.

    A comma or a dot is the decimal sign if it is the last of the two kinds and one or two digits follow, or if it
    stands alone and other than three digits follow; of a range the middle is taken. What has no number is null, "free"
    is 0.

    Parameters
    ----------
    items : polars.DataFrame
        Column attributes (JSON text or null).

    Returns
    -------
    polars.DataFrame
        price (f64 or null), currency (three letters; null where the text names none); one row an item.

    Examples
    --------
    >>> texts = ["$1,299.00", "1.299,50 €", "¥88 - ¥120", 4.5, "Free to play", "ask us"]
    >>> frame = prices(pl.DataFrame({"attributes": [f'{{"price": "{text}"}}' for text in texts]}))
    >>> frame["price"].to_list(), frame["currency"].to_list()
    ([1299.0, 1299.5, 104.0, 4.5, 0.0, None], ['USD', 'EUR', 'CNY', None, None, None])
    """
    found = [pl.col("attributes").str.json_path_match(f"$['{key}']") for key in KEYS]
    has = "attributes" in items.columns and items.schema["attributes"] == pl.String
    text = (pl.coalesce(found) if has else _NOTHING).alias("said")
    said = items.select(text)
    number = pl.col("said").str.extract_all(_NUMBER).list.head(2)
    first, second = (_number(number.list.get(place, null_on_oob=True)) for place in (0, 1))
    ranged = pl.col("said").str.contains(r"\d[^\d]*(?:-|–|—|~|～|至|到|\bto\b)[^\d]*\d")
    price = pl.when(ranged).then((first + second) / 2).otherwise(first)
    free = pl.col("said").str.contains(_FREE)
    sign = pl.col("said").str.extract(_SIGN, 1)
    return said.select(
        price=pl.when(price.is_null() & free).then(0.0).otherwise(price),
        currency=sign.replace_strict(CURRENCIES, default=None, return_dtype=pl.String),
    )


def _number(text: pl.Expr) -> pl.Expr:
    """Return a number written with dots, commas, apostrophes or spaces, as f64."""
    plain = text.str.replace_all(r"['\s\u00a0\u202f]", "")
    comma = plain.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    dot = plain.str.replace_all(",", "", literal=True)
    neither = plain.str.replace_all(r"[.,]", "")
    both = plain.str.contains(r"\..*,|,.*\.")
    chosen = (
        pl.when(both & plain.str.contains(r",\d{1,2}$"))
        .then(comma)
        .when(both)
        .then(dot)
        .when(plain.str.contains(r"^\d{1,3}(?:[.,]\d{3})(?:[.,]\d{3})+$|^\d{1,3},\d{3}$"))
        .then(neither)
        .when(plain.str.contains(","))
        .then(comma)
        .otherwise(dot)
    )
    return chosen.cast(pl.Float64, strict=False)
