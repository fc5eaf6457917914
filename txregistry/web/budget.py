"""Memory for bodies that are held as a whole: so many bytes in all, however many clients send them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txregistry.errors import TooManyRequests
from txregistry.web.body import Body
from txregistry.web.request import RegistryRequest

#: Bytes of all large bodies, and from what size on a body is one of them: a thousand clients may well send small ones.
BUDGET = 64 * 1024 * 1024
SMALL = 64 * 1024
#: Seconds that somebody waits before bodies are given up that have not come to their end in that time.
PATIENCE = 30.0


class Budget:
    """So many bytes; who asks for more than is left waits for his turn.

    Who only says that much will come keeps nobody waiting for long: while others wait, a body has PATIENCE seconds.
    """

    def __init__(self, total: int = BUDGET) -> None:
        self._total = total
        self._left = total
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        self._coming: dict[Body, float] = {}  # bodies that are being read, and since when
        self._call: IDelayedCall | None = None

    @asynccontextmanager
    async def body(self, request: RegistryRequest, limit: int) -> AsyncIterator[bytes]:
        """The whole body of a request, as `Body.read` gives it; its bytes count until the block ends.

        TooManyRequests for one that comes too slowly while others wait.
        """
        clock = request.site.reactor
        length = limit if request.body.length is None else request.body.length
        # One that is too long is refused unread.
        size = 0 if length <= SMALL or length > limit else min(length, self._total)
        await self._take(size, clock)
        try:
            if size:
                self._coming[request.body] = clock.seconds()
            try:
                data = await request.body.read(limit)
            finally:
                self._coming.pop(request.body, None)
            yield data
        finally:
            self._left += size
            self._wake()

    async def _take(self, size: int, clock: IReactorTime) -> None:
        if size and (self._waiting or size > self._left):
            turn: Deferred[None] = Deferred(self._give_up)
            self._waiting.append((size, turn))
            self._mind(clock)
            await turn
        else:
            self._left -= size

    def _give_up(self, turn: Deferred[None]) -> None:
        """Forget who no longer waits; those behind may have waited for nobody else."""
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            self._left -= size
            turn.callback(None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _mind(self, clock: IReactorTime) -> None:
        """Look after the bodies that come, as long as somebody waits."""
        if self._waiting and self._call is None:
            self._call = clock.callLater(PATIENCE, self._hurry, clock)

    def _hurry(self, clock: IReactorTime) -> None:
        self._call = None
        begun = clock.seconds() - PATIENCE
        for body in [body for body, since in self._coming.items() if since <= begun]:
            body.fail(TooManyRequests(int(PATIENCE)))
        self._mind(clock)
