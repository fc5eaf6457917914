"""TarSum, version 0: a checksum of what is in a layer, whatever its order and compression.

Clients before docker 0.10 send no other. The sum is that of the image's JSON and of the sorted sums of all members.
"""

from __future__ import annotations

from hashlib import sha256

from txregistry.model.decompress import DEFAULT_LIMITS, DecompressionFailed, Decompressor, Limits
from txregistry.model.digest import Digest
from txregistry.model.tar import Member, TarError, TarReader, TarUnsupported

#: A layer with more members gets no sum: sorting them takes memory for all of them.
MEMBER_LIMIT = 500_000
_HEADER = b"name%bmode%duid%dgid%dsize%dmtime%dtypeflag%blinkname%buname%bgname%bdevmajor%ddevminor%d"


class TarSum:
    """Takes a layer as it is sent, and finds its tarsum and its diff id on the way.

    It runs in the job that writes the layer, and never fails: a layer that is no whole archive just has no sum.
    """

    def __init__(self, image_json: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        self._json = image_json
        self._sums = _MemberSums()
        self._reader: TarReader | None = TarReader(self._sums)
        self._decompressor: Decompressor | None = Decompressor(self._plain, limits)
        self._content = sha256()
        self._diff_id: Digest | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the layer."""
        if self._decompressor is None:
            return
        try:
            self._decompressor.feed(data)
        except (DecompressionFailed, TarError):
            self._give_up()

    def finish(self) -> str | None:
        """The tarsum, `tarsum+sha256:` and 64 digits; None unless the layer is one whole archive that is read here."""
        if self._decompressor is None:
            return None
        try:
            self._decompressor.finish()
            if self._reader is not None:
                self._reader.finish()
        except (DecompressionFailed, TarError):
            self._give_up()
            return None
        self._diff_id = Digest("sha256", self._content.hexdigest())
        if self._reader is None:
            return None
        return f"tarsum+sha256:{self._sums.over(self._json)}"

    @property
    def diff_id(self) -> Digest | None:
        """After `finish`: the digest of the layer without its compression; None if it is no whole archive.

        One with sparse members, or with too many, has a diff id though it has no tarsum.
        """
        return self._diff_id

    @property
    def compression(self) -> str | None:
        """`plain`, `gzip`, `bzip2`, `xz`, `lzma` or `zstd`; None if that is not known or the layer cannot be read."""
        return None if self._decompressor is None else self._decompressor.name

    def _plain(self, piece: bytes | memoryview) -> None:
        self._content.update(piece)
        if self._reader is not None:
            try:
                self._reader.feed(piece)
            except TarUnsupported:
                self._reader = None

    def _give_up(self) -> None:
        self._decompressor = self._reader = None
        self._sums = _MemberSums()


class _MemberSums:
    """The sums of an archive's members."""

    def __init__(self) -> None:
        self._sums: list[bytes] = []
        self._regular = False
        self._hasher = sha256()

    def begin(self, member: Member) -> None:
        self._hasher = sha256(_HEADER % member)  # its fields are in the order in which they are hashed
        self._regular = member.is_regular

    def content(self, piece: memoryview) -> None:
        if self._regular:
            self._hasher.update(piece)

    def end(self) -> None:
        if len(self._sums) == MEMBER_LIMIT:
            raise TarUnsupported("too many members")
        self._sums.append(self._hasher.digest())

    def over(self, image_json: bytes) -> str:
        """The sum over all; raw sums sort as their hexadecimal forms do, at half the memory."""
        total = sha256(image_json)
        for raw in sorted(self._sums):
            total.update(raw.hex().encode("ascii"))
        return total.hexdigest()
