"""A Redis that may go away at any time, and what may be believed of it meanwhile.

What was deleted or overwritten in the store must not be answered from Redis any more. A key whose change Redis has
not acknowledged is therefore not asked for until it has. A Redis that fails once is left alone at once, so that
requests lose no more than one short wait; it is asked again in the background, less and less often, and used when it
has answered for every key that was changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txregistry.concurrency import Shields, start

#: How docker-registry named its keys. Their values are bare, so a change deletes them.
ORIGINAL = b"cache_path:"
#: What a change leaves at a key of ours: no value, and nothing that a late reader could overwrite.
CHANGED = b""

#: Connections that read and fill. Changes have one of their own: on several, a later one could overtake.
READERS = 2
#: Keys that are changed, or looked at, together.
_BATCH = 500
#: Most keys that are remembered as not acknowledged.
_UNSURE_LIMIT = 10_000
#: Most seconds that the end of connections, or of changes under way, is waited for.
_CLOSING = 1.0
#: Seconds between two warnings.
_WARN_EVERY = 60.0
#: Seconds between two batches of the search for entries without a life, which Redis spends serving.
_BREATH = 0.01

_log = Logger()


class Refused(Exception):
    """Redis answered that it will not; nothing was changed."""


class Link(Protocol):
    """One or several connections to a Redis, which come and go on their own."""

    def call(self, *command: bytes) -> Deferred[Any]:
        """The reply to a command, within a bounded time; Refused, or another exception if there was none."""
        ...

    def close(self) -> Deferred[None]:
        """Close them, whatever is under way; never fails."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is, and how long it may take to answer, in seconds."""

    host: str
    port: int = 6379
    db: int = 0
    password: str | None = None
    timeout: float = 0.25


class RedisLink:
    """Connections through txredisapi."""

    def __init__(self, address: Address, size: int, clock: IReactorTime) -> None:
        # Only installations that use Redis have it, and it takes the reactor on import.
        import txredisapi  # noqa: PLC0415

        self._refusal = txredisapi.ResponseError
        self._clock = clock
        self._timeout = address.timeout
        self._password = address.password
        # The lazy pool: the other kind waits for its first connection for ever. `replyTimeout` closes a connection
        # that is stuck; with numbers converted the bytes `123` would come back as 123.
        self._pool = txredisapi.lazyConnectionPool(
            host=address.host,
            port=address.port,
            dbid=address.db or None,
            password=address.password or None,
            poolsize=size,
            charset=None,
            convertNumbers=False,
            replyTimeout=address.timeout,
        )
        # What it tells of a password that is refused goes nowhere else, and nobody waits for it.
        self._refused: str | None = None
        self._pool._connected.addErrback(self._note)

    def _note(self, failure: Any) -> None:
        message: str = failure.getErrorMessage()
        # A server that knows no AUTH repeats its arguments.
        self._refused = message.replace(self._password, "[redacted]") if self._password else message

    def call(self, *command: bytes) -> Deferred[Any]:
        """The reply to a command."""
        reply: Deferred[Any] = self._pool.execute_command(*command)
        # Without a connection a command waits for one, which `replyTimeout` does not count.
        reply.addTimeout(2 * self._timeout, self._clock)
        return reply.addErrback(self._failed)

    def _failed(self, failure: Any) -> Any:
        if failure.check(self._refusal):
            raise Refused(str(failure.value)) from None
        if self._refused is not None:
            raise ConnectionError(self._refused) from None
        return failure

    def close(self) -> Deferred[None]:
        """Close all connections."""
        closed: Deferred[None] = self._pool.disconnect()
        closed.addTimeout(_CLOSING, self._clock)
        return closed.addErrback(lambda _: None)


class _Links:
    def __init__(self, open_link: Callable[[int], Link]) -> None:
        self.changes = open_link(1)
        self.reads = open_link(READERS)

    def close(self) -> Deferred[Any]:
        return DeferredList([self.changes.close(), self.reads.close()], consumeErrors=True)


async def _replies(replies: Iterable[Deferred[Any]]) -> list[Any]:
    """All replies to commands sent together; the first failure, once all have ended."""
    outcomes = await DeferredList(list(replies), consumeErrors=True)
    for success, value in outcomes:
        if not success:
            value.raiseException()
    return [value for _, value in outcomes]


class RedisCache:
    """Keys and values, each with a life, in a Redis.

    `open_link` makes connections, as many as it is told. `longest` is the longest life of any entry in seconds, and
    `guard` how long a change keeps late readers from filling a key. `retry` is the first and the longest wait between
    two attempts to reach Redis. Entries without a life that match `lifeless` are looked for once and dropped.
    """

    def __init__(
        self,
        open_link: Callable[[int], Link],
        clock: IReactorTime,
        where: str,
        *,
        longest: float,
        guard: float,
        retry: tuple[float, float] = (0.5, 30.0),
        lifeless: bytes | None = None,
    ) -> None:
        self._open_link = open_link
        self._clock = clock
        self._where = where
        self._longest = longest
        self._guard = guard
        self._retry = retry
        self._lifeless = lifeless
        self._links: _Links | None = None
        self._unsure: set[bytes] = set()
        self._not_before = 0.0
        self._warned = float("-inf")
        self._silenced = False
        self._shields = Shields()
        self._recovery: Deferred[None] | None = None
        self._cleaning: Deferred[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Reach for Redis; until it answers nothing is cached."""
        self._recovery = start(self._recover(0.0))

    async def close(self) -> None:
        """Let changes under way end, then let go of Redis."""
        self._closed = True
        await self._shields.drained(self._clock, _CLOSING)
        for running in (self._recovery, self._cleaning):
            if running is not None:
                running.cancel()
        if self._links is not None:
            links, self._links = self._links, None
            await links.close()

    def usable(self, keys: Sequence[bytes]) -> bool:
        """Whether Redis may be asked for these keys."""
        return (
            self._links is not None
            and self._unsure.isdisjoint(keys)
            and self._clock.seconds() >= self._not_before
        )

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """The values of keys, None for each that is not there or has no life; None if Redis cannot be asked."""
        links = self._links
        if links is None or not self.usable(keys):
            return None
        try:
            replies = await _replies(links.reads.call(verb, key) for key in keys for verb in (b"GET", b"PTTL"))
        except CancelledError:
            raise
        except Exception as error:
            self._lost(links, error)
            return None
        if not self.usable(keys):
            return None
        found = dict(zip(keys, zip(replies[::2], replies[1::2], strict=True), strict=True))
        immortal = [key for key, (value, life) in found.items() if value is not None and life == -1]
        if immortal:
            # Written by another program that does not tell us of changes. It is in the way of our own.
            await self.forget(immortal)
        return [value if life > 0 else None for value, life in found.values()]

    def fill(self, key: bytes, value: bytes, seconds: float) -> Deferred[None]:
        """Set what was read from the store, unless something is at the key by now. Never fails."""
        return self._shields.shield(self._fill(key, value, seconds))

    async def _fill(self, key: bytes, value: bytes, seconds: float) -> None:
        links = self._links
        milliseconds = int(seconds * 1000)
        if links is None or milliseconds <= 0 or not self.usable([key]):
            return
        try:
            await links.reads.call(b"SET", key, value, b"NX", b"PX", b"%d" % milliseconds)
        except Refused as error:
            self._warn(error)  # full, perhaps; nothing was set
        except Exception as error:
            # It may be set yet, at any time.
            self._remember([key])
            self._lost(self._links, error)

    def forget(self, keys: Sequence[bytes]) -> Deferred[None]:
        """Let nobody read the old values of keys that were changed in the store; never fails.

        It ends in bounded time, and is not ended by a cancel: what Redis does not acknowledge is told it later.
        """
        return self._shields.shield(self._forget(keys))

    async def _forget(self, keys: Sequence[bytes]) -> None:
        self._remember(keys)
        links = self._links
        if links is None:
            return
        try:
            for at in range(0, len(keys), _BATCH):
                await self._erase(links, keys[at : at + _BATCH])
        except Exception as error:
            self._remember(keys)
            # By now there may be other links, which have not been told either.
            self._lost(self._links, error)
            return
        if self._links is links:
            self._unsure.difference_update(keys)

    def _remember(self, keys: Iterable[bytes]) -> None:
        self._unsure.update(keys)
        if len(self._unsure) > _UNSURE_LIMIT:
            # All that is in Redis now will have died by then.
            self._unsure.clear()
            self._not_before = self._clock.seconds() + self._longest

    async def _erase(self, links: _Links, keys: Iterable[bytes]) -> None:
        """Delete keys of the original's form, mark those of ours."""
        await _replies([self._erase_one(links.changes, key) for key in keys])

    def _erase_one(self, link: Link, key: bytes) -> Deferred[Any]:
        if key.startswith(ORIGINAL):
            return link.call(b"DEL", key)
        marked = link.call(b"SET", key, CHANGED, b"PX", b"%d" % max(1, int(self._guard * 1000)))

        def delete(failure: Any) -> Deferred[Any]:
            failure.trap(Refused)  # a full Redis still deletes
            return link.call(b"DEL", key)

        return marked.addErrback(delete)

    # -- losing it, and having it back ----------------------------------------------------------------------------

    def _lost(self, links: _Links | None, error: Exception) -> None:
        """Leave Redis alone until it answers again; what failed on earlier links says nothing of these."""
        if links is None or links is not self._links or self._closed:
            return
        self._links = None
        links.close()
        self._warn(error)
        self._recovery = start(self._recover(self._retry[0]))

    async def _recover(self, delay: float) -> None:
        wait = self._retry[0]
        while not self._closed:
            if delay:
                try:
                    await deferLater(self._clock, delay)
                except CancelledError:
                    return
            links = _Links(self._open_link)
            try:
                await self._settle(links)
            except Exception as error:
                await links.close()
                if self._closed or isinstance(error, CancelledError):
                    return
                self._warn(error)
                delay, wait = wait, min(2 * wait, self._retry[1])
                continue
            self._links = links
            if self._silenced:
                self._silenced = False
                _log.info("Redis at {where} answers", where=self._where)
            if self._lifeless is not None and self._cleaning is None:
                self._cleaning = start(self._drop_lifeless(links, self._lifeless))
            return

    async def _settle(self, links: _Links) -> None:
        """See that Redis answers on both kinds of connections, and tell it of all changes that it does not know."""
        await _replies([links.changes.call(b"PING"), links.reads.call(b"PING")])
        while self._unsure:
            batch = set(islice(self._unsure, _BATCH))
            # Whatever is changed again meanwhile must be told again.
            self._unsure -= batch
            try:
                await self._erase(links, batch)
            except BaseException:
                self._unsure |= batch
                raise

    async def _drop_lifeless(self, links: _Links, pattern: bytes) -> None:
        """Drop what other programs left for ever, a few keys at a time; again with the next links if these fail."""
        cursor = b"0"
        dropped = 0
        try:
            while True:
                cursor, keys = await links.reads.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _BATCH)
                lives = await _replies(links.reads.call(b"PTTL", key) for key in keys)
                immortal = [key for key, life in zip(keys, lives, strict=True) if life == -1]
                if immortal:
                    await links.changes.call(b"DEL", *immortal)
                dropped += len(immortal)
                if cursor in (b"0", 0):
                    break
                await deferLater(self._clock, _BREATH)
        except Exception as error:
            self._cleaning = None
            if not isinstance(error, CancelledError):
                self._lost(links, error)
            return
        self._lifeless = None
        if dropped:
            _log.info("dropped {dropped} entries without a life from Redis at {where}",
                      dropped=dropped, where=self._where)  # fmt: skip

    def _warn(self, error: Exception) -> None:
        now = self._clock.seconds()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            self._silenced = True
            _log.warn("Redis at {where} cannot be used ({reason}: {error}); requests go on without it",
                      where=self._where, reason=type(error).__name__, error=str(error))  # fmt: skip
