"""One limit of rate for several processes, kept in Redis; without Redis each process keeps its own."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.lock.limits import Buckets

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Seconds a request waits for Redis, at most.
PATIENCE: Final = 0.2
#: Seconds until Redis, once lost, is looked for again, at first and at last.
PAUSES: Final = (0.1, 2.0)
#: The bucket of :class:`~isthmus.service.lock.limits.Buckets`, by the clock of Redis.
_SCRIPT: Final = """
local said = redis.call('TIME')
local now = tonumber(said[1]) + tonumber(said[2]) / 1e6
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + 1 / rate
local wait = full - now - burst / rate
if wait > 1e-6 then return string.format('%.6f', wait) end
redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil(1000 * (full - now)) + 1000)
return '0'
"""


class SharedBuckets:
    """Token buckets that several processes share; Redis holds a number for each key's hash, for as long as it matters.

    Parameters
    ----------
    url : str
        ``redis://HOST/DB`` or ``rediss://``.
    own : Buckets
        The limits of this process, which hold while Redis does not answer.

    Raises
    ------
    InputError
        Another URL, or the package ``redis`` is lacking.
    """

    def __init__(self, url: str, own: Buckets) -> None:
        if urlsplit(url).scheme not in ("redis", "rediss"):
            raise InputError("shared limits are kept in Redis", where="--limits", fix="redis://HOST:6379/0")
        self._own = own
        self._redis = _connection(url)
        self._search: asyncio.Task[None] | None = None

    @property
    def degraded(self) -> bool:
        """Whether Redis is away, so that this process keeps its own limits."""
        return self._search is not None

    async def start(self) -> None:
        """Make the first connection, which takes longer than a question."""
        if not await self._answers(5 * PATIENCE):
            self._lose("no answer at the start")

    async def take(self, name: str) -> float:
        """Return 0 if ``name`` may ask now, else the seconds until it may."""
        if not self._own.rate:
            return 0.0
        if self.degraded:
            return self._own.take(name)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(name)
        except Exception as error:
            self._lose(type(error).__name__)
            return self._own.take(name)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._search is not None:
            self._search.cancel()
            await asyncio.gather(self._search, return_exceptions=True)
        await self._redis.aclose()

    def _lose(self, why: str) -> None:
        if self._search is None:
            logger.warning("limits: Redis does not answer (%s); this process keeps its own", why)
            self._search = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Wait until Redis answers in time again."""
        wait = PAUSES[0]
        while True:
            await asyncio.sleep(wait)
            if await self._answers(PATIENCE):
                break
            wait = min(2 * wait, PAUSES[1])
        self._search = None
        logger.info("limits: Redis answers again")

    async def _answers(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._redis.ping()
        except Exception:
            return False
        return True

    async def _ask(self, name: str) -> float:
        key = "isthmus:limit:" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        said = await self._redis.eval(_SCRIPT, 1, key, str(self._own.rate), str(self._own.burst))
        return float(said)


def _connection(url: str) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise InputError("redis is not installed", where="--limits", fix="pip install 'isthmus[stream]'") from None
    never = Retry(NoBackoff(), 0)
    try:
        return Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=never)
    except ValueError as error:
        raise InputError(str(error), where="--limits", fix="redis://HOST:6379/0") from None
