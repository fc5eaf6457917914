"""A partial object of a driver below another one."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txregistry.interfaces import IPartial, Tap


@implementer(IPartial)
class WrappedPartial:
    """Passes everything on to `inner`; a subclass does what its driver has to do besides."""

    def __init__(self, inner: IPartial) -> None:
        self.inner = inner

    @property
    def offset(self) -> int:
        """See IPartial."""
        return self.inner.offset

    @property
    def state(self) -> bytes:
        """See IPartial."""
        return self.inner.state

    def write(self, batch: Sequence[bytes], at: int, tap: Tap | None = None) -> Deferred[None]:
        """See IPartial."""
        return self.inner.write(batch, at, tap)

    def checkpoint(self, state: bytes) -> Deferred[None]:
        """See IPartial."""
        return self.inner.checkpoint(state)

    def read(self, tap: Tap) -> Deferred[None]:
        """See IPartial."""
        return self.inner.read(tap)

    def commit(self, path: str) -> Deferred[None]:
        """See IPartial."""
        return self.inner.commit(path)

    def cancel(self) -> Deferred[None]:
        """See IPartial."""
        return self.inner.cancel()

    def close(self) -> Deferred[None]:
        """See IPartial."""
        return self.inner.close()
