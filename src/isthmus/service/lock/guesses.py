"""How often an address may come without a valid key."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING, Final

from isthmus.service.lock.limits import Buckets
from isthmus.service.problems import RequestError

if TYPE_CHECKING:
    from isthmus.service.lock.key import Key

#: Keys remembered that were right, and addresses remembered that came without one.
MOST: Final = 10_000


class Guesses:
    """Finds keys, and looks at no more keys of an address that came without a valid one too often.

    Keys that were right before are always looked at: who shares an address with somebody who guesses goes on.

    Parameters
    ----------
    find : callable
        Returns the key of a text, None if it opens nothing.
    a_minute : int
        How often an address may come without a valid key in a minute, and at once; 0 for no limit.
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> guesses = Guesses({"right": "a key"}.get, 2, clock=lambda: 0.0)
    >>> [guesses.find("10.0.0.1", text) for text in ("right", "a", "b", "right")]
    ['a key', None, None, 'a key']
    >>> guesses.find("10.0.0.1", "c")
    Traceback (most recent call last):
    ...
    isthmus.service.problems.RequestError: too many requests without a valid key
    """

    def __init__(
        self, find: Callable[[str], Key | None], a_minute: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find = find
        self._wrong = Buckets(a_minute / 60, a_minute, clock=clock, most=MOST)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def find(self, address: str, token: str) -> Key | None:
        """Return the key of a text, None if it opens nothing.

        Raises
        ------
        RequestError
            The address came without a valid key too often: whether this one is valid is not looked at.
        """
        name, hashed = network(address), blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        wait = self._wrong.wait(name)
        if wait and hashed not in self._right:
            headers = {"retry-after": str(int(wait) + 1)}
            raise RequestError(429, "too many requests without a valid key", headers=headers)
        key = self._find(token)
        if key is None:
            self._wrong.take(name)
            self._right.pop(hashed, None)
        else:
            self._right[hashed] = None
            self._right.move_to_end(hashed)
            if len(self._right) > MOST:
                self._right.popitem(last=False)
        return key


@lru_cache(1024)
def network(address: str) -> str:
    """Return whose an address is: a customer of a provider has a whole network of IPv6 addresses.

    Examples
    --------
    >>> network("10.0.0.1"), network("::ffff:10.0.0.1"), network("2001:db8:1:2:3::4"), network("")
    ('10.0.0.1', '10.0.0.1', '2001:db8:1:2::/64', '')
    """
    try:
        six = IPv6Address(address)
    except ValueError:
        return address
    return str(six.ipv4_mapped or ip_network((int(six), 64), strict=False))
