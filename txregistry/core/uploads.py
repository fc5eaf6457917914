"""Upload sessions: a blob arrives in one or many requests, perhaps at several workers, until its digest is told.

Storage is the truth: a session is a partial object of the driver, and whoever holds that may write. The digest so far
is saved with each checkpoint, so that any worker can go on with it; where that cannot be had, the closing request reads
the bytes once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from txregistry.concurrency import Shields
from txregistry.core.links import commit_linked
from txregistry.core.policy import Policy
from txregistry.core.transfer import Body, receive
from txregistry.errors import (
    BlobUploadUnknown,
    Busy,
    ChunkOutOfOrder,
    DigestInvalid,
    LostRace,
    NoSpace,
    NotFound,
    RegistryError,
    StorageError,
    UploadBusy,
)
from txregistry.interfaces import IPartial, IStorageDriver
from txregistry.model.digest import Digest, known_algorithm
from txregistry.model.hashing import Sha256, resumed, upload_hasher
from txregistry.model.names import RepositoryName
from txregistry.model.uploads import UploadState, check_chunk, check_received
from txregistry.storage import layout

if TYPE_CHECKING:
    from hashlib import _Hash

    Hasher = _Hash | Sha256

#: First and last byte that a client says it sends.
Chunk = tuple[int, int]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


class Uploads:
    """The upload sessions of all repositories."""

    def __init__(self, driver: IStorageDriver, policy: Policy, shields: Shields) -> None:
        self._driver = driver
        self._policy = policy
        self._shields = shields

    async def start(self, name: RepositoryName, algorithm: str = "sha256") -> str:
        """Begin a session; its id. `algorithm` is that of the digest to come, if the client told it (end-4c)."""
        known_algorithm(algorithm)
        await self._require_space(0)
        uuid = str(uuid4())
        partial = await self._driver.partial(layout.upload(name, uuid), create=True)
        try:
            if algorithm != "sha256":
                await partial.checkpoint(UploadState(algorithm).encode())
        finally:
            await partial.close()
        return uuid

    async def offset(self, name: RepositoryName, uuid: str) -> int:
        """How many bytes of a session have arrived to stay (end-13); BlobUploadUnknown."""
        try:
            return (await self._driver.peek(_path(name, uuid))).offset
        except NotFound:
            raise BlobUploadUnknown({"upload": uuid}) from None

    async def append(self, name: RepositoryName, uuid: str, body: Body, chunk: Chunk | None) -> int:
        """Take a chunk (end-5); the bytes in the session after it.

        ChunkOutOfOrder, SizeInvalid and UploadBusy leave the session as it was. A client that leaves in the middle
        will find there what had arrived.
        """
        session = await self._open(name, uuid)
        try:
            check_chunk(session.start, chunk, body.length)
            await self._require_space(body.length or 0)
            await session.receive(body, chunk, None)
            await session.save()
            return session.partial.offset
        except LostRace:
            raise ChunkOutOfOrder(session.start) from None
        finally:
            await session.partial.close()

    async def finish(self, name: RepositoryName, uuid: str, body: Body, chunk: Chunk | None, digest: Digest) -> None:
        """Take the last chunk or none, and make the whole a blob of the repository (end-6).

        A digest that does not match ends the session: what arrived is of no use to anybody.
        """
        session = await self._open(name, uuid)
        try:
            check_chunk(session.start, chunk, body.length)
            await self._require_space(body.length or 0)
            await session.receive(body, chunk, digest.algorithm)
            found = await session.digest(digest.algorithm)
            if found != digest:
                size = session.partial.offset
                await self._shields.shield(session.drop())
                raise DigestInvalid({"digest": str(digest), "found": str(found), "bytes": size})
            await self._shields.shield(self._commit(session, name, digest))
        except LostRace:
            raise ChunkOutOfOrder(session.start) from None
        finally:
            await session.partial.close()

    async def monolithic(self, name: RepositoryName, body: Body, digest: Digest) -> None:
        """Take a whole blob in one request (end-4b)."""
        uuid = await self.start(name)
        try:
            await self.finish(name, uuid, body, None, digest)
        except BaseException:
            # Nobody else knows this session, so nobody could come back to it.
            await self._shields.shield(self._discard(name, uuid))
            raise

    async def cancel(self, name: RepositoryName, uuid: str) -> None:
        """End a session without a blob (end-14); BlobUploadUnknown, UploadBusy."""
        session = await self._open(name, uuid)
        try:
            await self._shields.shield(session.drop())
        except LostRace:
            raise UploadBusy(1) from None
        finally:
            await session.partial.close()

    async def _discard(self, name: RepositoryName, uuid: str) -> None:
        try:
            await self.cancel(name, uuid)
        except (RegistryError, StorageError):
            # Dropped already, or left to the sweep of old sessions.
            return

    async def _commit(self, session: _Session, name: RepositoryName, digest: Digest) -> None:
        link = layout.layer_link(name, digest)
        await commit_linked(self._driver, session.partial, layout.blob_data(digest), link, digest)

    async def _open(self, name: RepositoryName, uuid: str) -> _Session:
        path = _path(name, uuid)
        try:
            partial = await self._driver.partial(path)
        except NotFound:
            raise BlobUploadUnknown({"upload": uuid}) from None
        except Busy as busy:
            raise UploadBusy(busy.retry_after) from None
        return _Session(partial, self._shields)

    async def _require_space(self, wanted: int) -> None:
        free = await self._driver.free_space()
        if free is not None and free < wanted + self._policy.space_reserve:
            raise NoSpace("", f"{wanted} bytes are offered, {free} are free")


class _Session:
    """An upload session that this request holds."""

    def __init__(self, partial: IPartial, shields: Shields) -> None:
        self.partial = partial
        self.start = partial.offset
        self._shields = shields
        self._state = UploadState.decode(partial.state)
        self._hasher: Hasher | None = None

    async def receive(self, body: Body, chunk: Chunk | None, algorithm: str | None) -> None:
        """Append a body, hashed on the way if its beginning was. One cut short is kept as far as it came."""
        if self.start == 0:
            self._hasher = upload_hasher(algorithm or self._state.algorithm)
        else:
            self._hasher = resumed(self._state.hasher, self._state.digests.get(Sha256.name))
        expected = None if chunk is None else chunk[1] - chunk[0] + 1
        try:
            await receive(body, self.partial, self._tap, expected, cheap=True)
        except StorageError:
            # After a failed write the last checkpoint is what there is.
            raise
        except BaseException:
            await self._shields.shield(self._save_what_came())
            raise
        # Closed without a checkpoint, the session stays as it was before this request.
        check_received(chunk, self.partial.offset - self.start)

    async def save(self) -> None:
        """Make what arrived durable, and note its digest so far."""
        digests = {} if self._hasher is None else {self._hasher.name: self._hasher.copy().hexdigest()}
        state = self._hasher.state() if isinstance(self._hasher, Sha256) else None
        await self.partial.checkpoint(UploadState(self._state.algorithm, digests, state).encode())

    async def digest(self, algorithm: str) -> Digest:
        """The digest of all bytes: hashed on arrival, or noted with the last chunk, or by reading them again."""
        if self._hasher is not None and self._hasher.name == algorithm:
            return Digest(algorithm, self._hasher.hexdigest())
        noted = self._state.digests.get(algorithm)
        if noted is not None and self.partial.offset == self.start:
            return Digest(algorithm, noted)
        self._hasher = upload_hasher(algorithm)
        await self.partial.read(self._tap)
        return Digest(algorithm, self._hasher.hexdigest())

    async def drop(self) -> None:
        """End the session; what arrived is gone."""
        await self.partial.cancel()

    def _tap(self, pieces: Sequence[bytes]) -> None:
        if self._hasher is not None:
            for piece in pieces:
                self._hasher.update(piece)

    async def _save_what_came(self) -> None:
        try:
            await self.save()
        except StorageError:
            # Then the last checkpoint is what there is.
            return


def check_id(uuid: str) -> None:
    """BlobUploadUnknown for text that is no id of ours: it goes into no path and no header."""
    if not _UUID.match(uuid):
        raise BlobUploadUnknown({"upload": uuid[:100], "reason": "no upload's id; use the Location as it was given"})


def _path(name: RepositoryName, uuid: str) -> str:
    """Where a session lies."""
    check_id(uuid)
    return layout.upload(name, uuid)
