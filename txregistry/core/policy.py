"""What an operator decides about how the registry behaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits and switches that `core` reads; sizes in bytes, times in seconds."""

    #: Largest manifest taken; the specification asks for 4 MiB at least.
    manifest_limit: int = 4 * 1024 * 1024
    #: Whether tags, manifests and blobs can be deleted.
    delete: bool = True
    #: Whether manifests of a type that CNCF distribution cannot read are taken. It will not see them.
    accept_unknown_media_types: bool = False
    #: Whether a manifest may name blobs and manifests that the repository lacks.
    accept_missing_blobs: bool = False
    #: How long an upload session may stay untouched.
    upload_expiry: float = 7 * 24 * 3600
    #: Bytes that must stay free after an upload; below, uploads are refused before their first byte.
    space_reserve: int = 16 * 1024 * 1024
