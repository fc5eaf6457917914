"""Accounts of this registry: whether a name and a password belong together, and new ones for who may have them."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TypeVar, cast

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txregistry.auth.users import UserExists, UserInvalid, UsersFile, hash_password, is_password
from txregistry.errors import TooManyRequests, UpstreamUnavailable, V1Error
from txregistry.interfaces import IPool

T = TypeVar("T")

#: Seconds for which a password that was right need not be hashed again.
REMEMBERED = 300.0
_MOST_REMEMBERED = 10_000
#: Wrong passwords and new accounts of one address within so many seconds.
TRIES, WINDOW = 10, 60.0
_MOST_ADDRESSES = 10_000
#: Passwords that are hashed at once, and those that wait: in all, and of one address.
_AT_ONCE = 2
_WAITING, _WAITING_OF_ONE = 100, 10

_log = Logger()


class Accounts:
    """The accounts of a users file; new ones are made for clients if `open`.

    `address` is that of the client, whose share of the hashing is limited: TooManyRequests beyond it.
    UpstreamUnavailable if the file cannot be read or written.
    """

    def __init__(self, file: UsersFile, pool: IPool, clock: IReactorTime, *, open: bool) -> None:
        self.open = open
        self._file = file
        self._pool = pool
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._waiting: dict[str, int] = {}
        self._slots = DeferredSemaphore(_AT_ONCE)
        #: For names that there are not, so that these take as long.
        self._nobody: str | None = None

    async def exists(self, name: str) -> bool:
        """Whether there is an account of this name."""
        return name in await self._users()

    async def check(self, name: str, password: str, address: str) -> bool:
        """Whether these are an account's name and password."""
        hashed = (await self._users()).get(name)
        key = self._remembered_as(name, password)
        if self._is_remembered(key, hashed):
            return True
        self._require_tries(address)
        right = await self._hash(address, self._compare, password, hashed)
        if right and hashed is not None:
            self._right[key] = (self._clock.seconds() + REMEMBERED, hashed)
            self._right.move_to_end(key)
            if len(self._right) > _MOST_REMEMBERED:
                self._right.popitem(last=False)
        else:
            self._count_try(address)
        return right

    def knows(self, name: str, password: str) -> bool:
        """Whether it can be told at once that these are an account's name and password.

        They were found right a while ago, and its line in the users file is what it was then. False says nothing.
        """
        hashed = self._file.read_now().get(name)
        return hashed is not None and self._is_remembered(self._remembered_as(name, password), hashed)

    def _remembered_as(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{password}".encode("utf-8", "surrogateescape"), "sha256")

    def _is_remembered(self, key: bytes, hashed: str | None) -> bool:
        until, remembered = self._right.get(key, (0.0, ""))
        return hashed is not None and remembered == hashed and self._clock.seconds() < until

    async def create(self, name: str, password: str, address: str) -> None:
        """Make a new account; V1Error for a name or password that cannot be, UserExists."""
        if await self.exists(name):
            raise UserExists(name)
        self._require_tries(address)
        self._count_try(address)
        await self._valid(self._hash(address, self._file.create, name, password))
        _log.info("an account was made for {name}", name=name)

    async def change(self, name: str, password: str, address: str) -> None:
        """Give an account another password; V1Error for one that cannot be."""
        await self._valid(self._hash(address, self._file.set, name, password))

    # -- threads ----------------------------------------------------------------------------------------------------

    async def _users(self) -> Mapping[str, str]:
        try:
            return cast(Mapping[str, str], await self._pool.run_small(self._file.read))
        except OSError as error:
            raise _unavailable(error) from None

    def _compare(self, password: str, hashed: str | None) -> bool:
        """In a thread: whether it is this account's password; False in the same time if there is no account."""
        if hashed is None:
            self._nobody = self._nobody or hash_password(secrets.token_hex(16))
        return is_password(password, hashed or self._nobody or "") and hashed is not None

    async def _hash(self, address: str, job: Callable[..., T], *args: object) -> T:
        """Run a job that hashes, when it is its turn."""
        waiting = self._waiting.get(address, 0)
        if waiting >= _WAITING_OF_ONE or sum(self._waiting.values()) >= _WAITING:
            raise TooManyRequests(1)
        self._waiting[address] = waiting + 1
        try:
            await self._slots.acquire()
            try:
                # Its Deferred fires when the job has ended, also for a client that has left.
                return cast(T, await self._pool.run(job, *args))
            except OSError as error:
                raise _unavailable(error) from None
            finally:
                self._slots.release()
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    @staticmethod
    async def _valid(work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except UserInvalid as error:
            raise V1Error(message=str(error)) from None

    # -- limits -----------------------------------------------------------------------------------------------------

    def _require_tries(self, address: str) -> None:
        tries = self._tries.get(address)
        if tries is None:
            return
        now = self._clock.seconds()
        while tries and tries[0] <= now - WINDOW:
            tries.popleft()
        if len(tries) >= TRIES:
            raise TooManyRequests(max(1, int(tries[0] + WINDOW - now) + 1))

    def _count_try(self, address: str) -> None:
        self._tries.setdefault(address, deque()).append(self._clock.seconds())
        self._tries.move_to_end(address)
        if len(self._tries) > _MOST_ADDRESSES:
            self._tries.popitem(last=False)


def _unavailable(error: OSError) -> UpstreamUnavailable:
    _log.error("users_file: {error}", error=error)
    return UpstreamUnavailable("the accounts cannot be read or written")
