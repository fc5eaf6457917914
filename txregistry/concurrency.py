"""Deferreds whose cancellation waits, and the shield around what must be finished.

Klein cancels a route's Deferred when its client leaves. A thread cannot be stopped, and a commit must not be:
so neither a pool job nor a shielded coroutine ends early. The wish to cancel is remembered and delivered as
`CancelledError` once the work has really ended, when nothing that it uses is still in use.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


class Patient(Deferred[T]):
    """A Deferred that fires only when its work has ended, however early it was cancelled."""

    _cancel_wanted = False

    def cancel(self) -> None:
        """Remember the wish; `deliver` fires with `CancelledError` in place of the result.

        Once fired it may be waiting for an inner Deferred, which is cancelled as always.
        """
        if self.called:
            super().cancel()
        else:
            self._cancel_wanted = True

    def deliver(self, result: T | Failure) -> None:
        """End the wait with the work's result, or with `CancelledError` if that was wished meanwhile."""
        if self._cancel_wanted:
            self.errback(CancelledError())
        elif isinstance(result, Failure):
            self.errback(result)
        else:
            self.callback(result)


def start(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine at once up to its first wait; its Deferred."""
    return Deferred.fromCoroutine(coroutine)


def within(work: Deferred[T], seconds: float, clock: IReactorTime) -> Deferred[T]:
    """The result of `work`, or Twisted's TimeoutError after so many seconds.

    It is cancelled then, but not waited for: a thread that hangs takes no notice of that.
    """
    outer: Deferred[T] = Deferred(lambda _: work.cancel())

    def give_up() -> None:
        if not outer.called:
            outer.errback(TimeoutError())
            work.cancel()

    call = clock.callLater(seconds, give_up)

    def ended(result: T | Failure) -> None:
        if call.active():
            call.cancel()
        if outer.called:
            return
        if isinstance(result, Failure):
            outer.errback(result)
        else:
            outer.callback(result)

    work.addBoth(ended)
    return outer


class Shields:
    """The shielded work that is under way, so that a shutdown can wait for it."""

    def __init__(self) -> None:
        self._open: set[Deferred[Any]] = set()
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def shield(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine to its end whether or not whoever waits for it is cancelled."""
        work = start(coroutine)
        outer: Patient[T] = Patient()
        self._open.add(work)

        def ended(result: T | Failure) -> None:
            self._open.discard(work)
            outer.deliver(result)
            if not self._open:
                idle, self._idle = self._idle, []
                for waiting in idle:
                    waiting.callback(None)

        work.addBoth(ended)
        return outer

    def drained(self, clock: IReactorTime, timeout: float) -> Deferred[None]:
        """Fires when no shielded work is left, or after `timeout` seconds."""
        done: Deferred[None] = Deferred()
        if not self._open:
            done.callback(None)
            return done
        self._idle.append(done)

        def give_up() -> None:
            if done in self._idle:
                self._idle.remove(done)
                done.callback(None)

        call = clock.callLater(timeout, give_up)

        def stop_clock(_: None) -> None:
            if call.active():
                call.cancel()

        return done.addCallback(stop_clock)
