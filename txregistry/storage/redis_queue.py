"""The queue of diffs in a Redis: the list, and the form of its elements, that docker-registry and its worker use."""

from __future__ import annotations

import json

from txregistry.storage.redis_cache import Link

LIST = b"diff-worker"
#: Elements that stay in the list; for one more the oldest goes.
LIMIT = 1024


class RedisQueue:
    """Ids of images as JSON strings, put in at the left and taken out at the right."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def push(self, image_id: str) -> None:
        """Put an image into the queue."""
        await self._link.call(b"LPUSH", LIST, json.dumps(image_id).encode("ascii"))
        await self._link.call(b"LTRIM", LIST, b"0", b"%d" % (LIMIT - 1))

    async def pop(self) -> str | None:
        """Take the oldest out; None if there is none, or it is no id."""
        element = await self._link.call(b"RPOP", LIST)
        try:
            value = None if element is None else json.loads(element)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, str) else None

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()
