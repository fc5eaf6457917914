"""Proofs that an answer still holds: whatever it was made of is looked at again, at once and in the store itself.

A proof is made of what the answer says and not of a second look at the store, which another process may have changed
in between. So it does not matter when it was made, nor that what it was made of came out of a cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from txregistry.interfaces import IProvesFresh, IStorageDriver


class Proof:
    """That some objects hold these bytes, that others are there, and that others are not."""

    __slots__ = ("_driver", "_gone", "_same", "_there")

    def __init__(
        self,
        driver: IProvesFresh,
        same: Sequence[tuple[str, bytes]] = (),
        there: Sequence[str] = (),
        gone: Sequence[str] = (),
    ) -> None:
        self._driver = driver
        self._same = same
        self._there = there
        self._gone = gone

    def holds(self) -> bool:
        """Whether it is so now; False as well where that cannot be told without waiting."""
        driver = self._driver
        for path, data in self._same:
            if driver.read_now(path, len(data)) != data:
                return False
        for path in self._there:
            if not driver.exists_now(path):
                return False
        return not any(map(driver.exists_now, self._gone))


def proving(driver: IStorageDriver) -> IProvesFresh | None:
    """The driver, if it can prove anything: on a network, or behind an API, every look has to be waited for."""
    return IProvesFresh(driver) if IProvesFresh.providedBy(driver) else None
