"""The queue of diffs in a Redis: the list, and the form of its elements, that docker-registry and its worker use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from txregistry.storage.redis_cache import Link

LIST = b"diff-worker"
#: Elements that stay in the list; for one more the oldest goes.
LIMIT = 1024
#: Seconds that an echo lives.
_ECHO = 5


class RedisQueue:
    """Ids of images as JSON strings, put in at the left and taken out at the right.

    `open_link` makes a connection, which is given up when it fails; another is made for the next command.
    """

    def __init__(self, open_link: Callable[[], Link]) -> None:
        self._open_link = open_link
        self._link: Link | None = None

    async def push(self, image_id: str) -> None:
        """Put an image into the queue."""
        await self._call(b"LPUSH", LIST, json.dumps(image_id).encode("ascii"))
        await self._call(b"LTRIM", LIST, b"0", b"%d" % (LIMIT - 1))

    async def pop(self) -> str | None:
        """Take the oldest out; None if there is none, or it is no id."""
        element = await self._call(b"RPOP", LIST)
        try:
            value = None if element is None else json.loads(element)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, str) else None

    async def echo(self, key: bytes, value: bytes) -> bytes | None:
        """Set a key for some seconds, and read it again."""
        await self._call(b"SETEX", key, b"%d" % _ECHO, value)
        found: bytes | None = await self._call(b"GET", key)
        return found

    async def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            link, self._link = self._link, None
            await link.close()

    async def _call(self, *command: bytes) -> Any:
        if self._link is None:
            self._link = self._open_link()
        link = self._link
        try:
            return await link.call(*command)
        except Exception:
            # It would try to come back again and again, even if nobody asks any more.
            if self._link is link:
                self._link = None
            link.close()
            raise
