"""API keys and how many requests each may make."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping

from serve_app.errors import ServiceError


class KeyRing:
    """The known API keys, of which only the hashes are held.

    Args:
        hashes: SHA-256 in hexadecimal digits, by the key's name; empty: everybody may enter.
    """

    def __init__(self, hashes: Mapping[str, str]):
        self._hashes = {name: bytes.fromhex(digest) for name, digest in hashes.items()}

    def identify(self, authorization: str | None) -> str | None:
        """Return the name of the key in an Authorization header; None where no key is needed.

        Raises:
            ServiceError: ``unauthorized``.
        """
        if not self._hashes:
            return None
        scheme, _, key = (authorization or "").partition(" ")
        offered = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        # Every hash is compared, each in constant time: how long it takes says nothing.
        for name, digest in self._hashes.items():
            if hmac.compare_digest(offered, digest):
                found = name
        if found is None or scheme.lower() != "bearer":
            raise ServiceError("unauthorized", "send an API key: Authorization: Bearer KEY")
        return found


class RateLimits:
    """A token bucket for each key.

    Args:
        per_s: requests per second, on average.
        burst: requests that may come at once.
        clock: seconds that only grow.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def take(self, name: str) -> None:
        """Take one token of a key.

        Raises:
            ServiceError: ``rate_limited``.
        """
        now = self._clock()
        tokens, counted = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._per_s)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            raise ServiceError("rate_limited", "too many requests with this key; try again soon")
        self._buckets[name] = (tokens - 1, now)
