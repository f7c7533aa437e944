"""Tokens of an OpenID Connect issuer beside keys: who signed them, for whom, and what they open."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Final

import jwt

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.lock.issuer import PublicKey, checked, read_keys
from isthmus.service.lock.key import Key
from isthmus.service.settings import DEFAULT_TENANT, TokenSettings

#: Characters of a token, at most.
LONGEST: Final = 8192
#: Seconds a token may be good for; what lasts longer is a key.
LIFE: Final = 31 * 86400
#: What may stand in a token's header; anything else could ask for another key or another way to check it.
HEADERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_TYPES: Final = ("JWT", "AT+JWT", "APPLICATION/AT+JWT")


class Tokens:
    """What tokens open.

    Parameters
    ----------
    settings : TokenSettings
        Whose tokens.
    secret : bytes
        Key of the names under which their owners appear in logs.
    scopes : sequence of str
        Scopes there are; others of a token mean nothing here.

    Raises
    ------
    InputError
        An address that may not be asked, or a file without keys. An issuer that does not answer is asked again later.
    """

    def __init__(self, settings: TokenSettings, secret: bytes, scopes: Sequence[str]) -> None:
        self.settings, self._secret, self._scopes = settings, secret, tuple(scopes)
        self.keys: dict[str, PublicKey] = {}
        self._read = self._tried = float("-inf")
        self._reading = asyncio.Lock()
        self._behind: asyncio.Task[None] | None = None
        if "://" in (settings.jwks or settings.issuer):
            checked(settings.jwks or settings.issuer)
            self.refresh()
        else:
            self._load()

    def _load(self) -> None:
        self._tried = time.monotonic()
        self.keys = read_keys(self.settings.issuer, self.settings.jwks)
        self._read = self._tried

    def refresh(self) -> None:
        """Read the keys again; those known stay if that fails."""
        try:
            self._load()
        except InputError as error:
            logger.error("keys of the issuer of tokens: %s", error)

    async def prepare(self, token: str) -> None:
        """Read the issuer's keys again if they are old, or lack the one ``token`` names; not too often."""
        if not is_token(token):
            return
        lacking = self._named(token) not in self.keys
        now = time.monotonic()
        if now < self._tried + self.settings.pause or not (lacking or now > self._read + self.settings.fresh):
            return
        if not lacking:
            if self._behind is None or self._behind.done():
                self._behind = asyncio.create_task(self._again())
            return
        await self._again()

    async def _again(self) -> None:
        async with self._reading:
            if time.monotonic() >= self._tried + self.settings.pause:
                await asyncio.to_thread(self.refresh)

    @staticmethod
    def _named(token: str) -> str:
        """Return the id of the key a token names, empty for none."""
        try:
            name = jwt.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, RecursionError):
            return ""
        return name if isinstance(name, str) else ""

    def find(self, token: str) -> Key | None:
        """Return what a token opens, None if nothing."""
        try:
            return self._opened(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError, OverflowError):
            return None

    def _opened(self, token: str) -> Key | None:
        if not is_token(token):
            return None
        header = jwt.get_unverified_header(token)
        known = self.keys.get(header["kid"]) if isinstance(header.get("kid"), str) else None
        kind = header.get("typ", "JWT")
        if known is None or set(header) - HEADERS or not isinstance(kind, str) or kind.upper() not in _TYPES:
            return None
        claims = jwt.decode(
            token,
            known.key,
            algorithms=[known.algorithm],
            audience=self.settings.audience,
            issuer=self.settings.issuer,
            leeway=self.settings.leeway,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        if int(claims["exp"]) > time.time() + LIFE:
            return None
        tenant, platforms = self._tenant(claims), self._platforms(claims)
        if tenant is None or platforms is None:
            return None
        who = f"{claims['iss']}\n{claims['sub']}".encode()
        name = "jwt-" + hmac.digest(self._secret, who, "sha256").hex()[:12]
        scopes, events, lists = self._scopes_of(claims), self.settings.events, self.settings.lists
        return Key(name, tenant, scopes, platforms, expires=int(claims["exp"]), events=events, lists=lists)

    def _scopes_of(self, claims: Mapping[str, object]) -> tuple[str, ...]:
        said: set[str] = set()
        for name in ("scope", "scp", "permissions"):
            said.update(_words(claims.get(name)) or ())
        return tuple(scope for scope in self._scopes if scope in said)

    def _tenant(self, claims: Mapping[str, object]) -> str | None:
        if not self.settings.tenant_claim:
            return DEFAULT_TENANT
        said = claims.get(self.settings.tenant_claim)
        return said if isinstance(said, str) and said else None

    def _platforms(self, claims: Mapping[str, object]) -> tuple[str, ...] | None:
        """Return the platforms a token is bound to; None if it should say some and does not."""
        if not self.settings.platforms_claim:
            return ()
        return _words(claims.get(self.settings.platforms_claim)) or None


def is_token(text: str) -> bool:
    """Return whether a text looks like a token rather than a key.

    Examples
    --------
    >>> is_token("aaaa.bbbb.cccc"), is_token("isk_0123_xyz")
    (True, False)
    """
    return text.count(".") == 2 and len(text) <= LONGEST


def _words(said: object) -> tuple[str, ...] | None:
    """Return the words of a claim: a text with blanks between them, or a list."""
    if isinstance(said, str):
        return tuple(said.split())
    if isinstance(said, list) and all(isinstance(one, str) for one in said):
        return tuple(said)
    return None
