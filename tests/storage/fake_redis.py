"""A Redis without sockets, and a stage on which nodes that share one store and one Redis take turns."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txregistry.storage.cache_keys import CacheKeys, Lives
from txregistry.storage.cached import CachedDriver
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.storage.redis_cache import RedisCache, Refused

TIMEOUT = 0.25


class FakeRedis:
    """What a server holds, and how it behaves.

    `answers` False leaves commands in its sockets, where `wake` finds them; `alive` False refuses connections; `full`
    refuses values.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.data: dict[bytes, tuple[bytes, float | None]] = {}
        self.answers = True
        self.alive = True
        self.full = False
        self.commands: list[tuple[bytes, ...]] = []
        self._late: list[tuple[tuple[bytes, ...], Deferred[Any]]] = []

    def take(self, command: tuple[bytes, ...]) -> Deferred[Any]:
        """A command that arrives."""
        if not self.alive:
            return fail(ConnectionError("refused"))
        if not self.answers:
            reply: Deferred[Any] = Deferred()
            self._late.append((command, reply))
            return reply.addTimeout(TIMEOUT, self.clock)
        return self._run(command)

    def wake(self, order: Callable[[list[Any]], list[Any]] = list) -> None:
        """Run what was left in the sockets, whoever still waits for it; of several connections in any `order`."""
        self.answers = True
        late, self._late = order(self._late), []
        for command, reply in late:
            result = self._run(command)
            if reply.called:
                result.addErrback(lambda _: None)
            else:
                result.chainDeferred(reply)

    def _run(self, command: tuple[bytes, ...]) -> Deferred[Any]:
        self.commands.append(command)
        try:
            return succeed(getattr(self, "_" + command[0].decode().lower())(*command[1:]))
        except Refused as error:
            return fail(error)

    def _live(self, key: bytes) -> tuple[bytes, float | None] | None:
        found = self.data.get(key)
        if found is not None and found[1] is not None and found[1] <= self.clock.seconds():
            del self.data[key]
            return None
        return found

    def _ping(self) -> str:
        return "PONG"

    def _get(self, key: bytes) -> bytes | None:
        found = self._live(key)
        return None if found is None else found[0]

    def _pttl(self, key: bytes) -> int:
        found = self._live(key)
        if found is None:
            return -2
        return -1 if found[1] is None else round((found[1] - self.clock.seconds()) * 1000)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> str | None:
        if self.full:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        if b"NX" in options and self._live(key) is not None:
            return None
        life = int(options[options.index(b"PX") + 1]) / 1000
        self.data[key] = (value, self.clock.seconds() + life)
        return "OK"

    def _del(self, *keys: bytes) -> int:
        return sum(self.data.pop(key, None) is not None for key in keys)

    def _scan(self, cursor: bytes, _match: bytes, pattern: bytes, _count: bytes, count: bytes) -> list[Any]:
        keys = sorted(self.data)
        at = int(cursor)
        end = at + int(count)
        plain = pattern.removesuffix(b"*").replace(b"\\", b"")
        return [b"%d" % (end if end < len(keys) else 0), [key for key in keys[at:end] if key.startswith(plain)]]


class Stage:
    """Lets what several actors do happen in a chosen order, once it is `held`."""

    def __init__(self) -> None:
        self.held = False
        self.pending: dict[str, deque[tuple[Callable[[], Deferred[Any]], Deferred[Any]]]] = {}

    def do(self, actor: str, call: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        if not self.held:
            return call()
        result: Deferred[Any] = Deferred()
        self.pending.setdefault(actor, deque()).append((call, result))
        return result

    def ready(self) -> list[str]:
        return [actor for actor, waiting in self.pending.items() if waiting]

    def step(self, actor: str) -> None:
        """Let happen what the actor waits for; commands that were sent together happen together."""
        waiting, self.pending[actor] = self.pending[actor], deque()
        for call, result in waiting:
            call().chainDeferred(result)


class StagedDriver(MemoryDriver):
    """A memory driver whose verbs wait for their turn."""

    def __init__(self, stage: Stage, actor: str, clock: Clock, contents: Contents) -> None:
        super().__init__(clock, contents=contents)
        self._stage, self._actor = stage, actor

    def read(self, path, limit):
        return self._stage.do(self._actor, lambda: MemoryDriver.read(self, path, limit))

    def stat(self, path):
        return self._stage.do(self._actor, lambda: MemoryDriver.stat(self, path))

    def list(self, prefix, cursor=None, limit=1000):
        return self._stage.do(self._actor, lambda: MemoryDriver.list(self, prefix, cursor, limit))

    def put(self, path, data, if_absent=False, if_match=None):
        return self._stage.do(self._actor, lambda: MemoryDriver.put(self, path, data, if_absent, if_match))

    def remove(self, path):
        return self._stage.do(self._actor, lambda: MemoryDriver.remove(self, path))


class FakeLink:
    def __init__(self, redis: FakeRedis, stage: Stage, actor: str) -> None:
        self._redis, self._stage, self._actor = redis, stage, actor

    def call(self, *command: bytes) -> Deferred[Any]:
        return self._stage.do(self._actor, lambda: self._redis.take(command))

    def close(self) -> Deferred[None]:
        return succeed(None)


class World:
    """Nodes over one store and one Redis."""

    def __init__(self, lives: Lives | None = None, root: str = "/prod") -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.redis = FakeRedis(self.clock)
        self.stage = Stage()
        self.contents = Contents()
        self.lives = lives or Lives()
        self.root = root

    def cache(self, actor: str = "", **more: Any) -> RedisCache:
        return RedisCache(
            lambda size: FakeLink(self.redis, self.stage, actor),
            self.clock,
            "redis.example:6379",
            longest=self.lives.long,
            guard=self.lives.guard,
            **more,
        )

    def node(self, actor: str = "", *, store: tuple[str, ...] = ("memory",), **more: Any) -> CachedDriver:
        keys = CacheKeys(store, self.root, self.lives)
        inner = StagedDriver(self.stage, actor, self.clock, self.contents)
        driver = CachedDriver(inner, self.cache(actor, lifeless=keys.originals, **more), keys, self.clock)
        driver.prepare()
        return driver


def interleavings(make: Callable[[], World]) -> Iterator[tuple[list[str], World]]:
    """Each order in which the actors of a world can take their steps, with the world after it.

    `make` starts the actors on a stage that is held.
    """
    waiting: list[list[str]] = [[]]
    while waiting:
        order = waiting.pop()
        world = make()
        for actor in order:
            world.stage.step(actor)
        ready = world.stage.ready()
        if ready:
            waiting.extend([*order, actor] for actor in ready)
        else:
            yield order, world


def failure_of(deferred: Deferred[Any]) -> Failure | None:
    """The failure of a Deferred that has fired, None if it succeeded."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "the Deferred has not fired"
    return outcome[0] if isinstance(outcome[0], Failure) else None
