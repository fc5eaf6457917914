"""Privileged requests: signed by the one RSA key whose public half is configured, they may do everything.

`X-Signature: data=<base64>` signs `METHOD,path,Name:value,...` with the headers that begin with `X-Docker`, by
PKCS #1 v1.5. The body is not signed, and nothing but a signed `X-Docker-Date` keeps a request from being sent again.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

#: Seconds that a signed date may be away from now.
DATE_WINDOW = 300
DATE_HEADER = "X-Docker-Date"
#: The digests that a signature may be made of, the most probable first. Never MD5.
HASHES = ("sha256", "sha1", "sha512", "sha384")

#: As commas join what is signed, a comma within could make two headers one, and hide a date.
_AMBIGUOUS = re.compile(r",x-docker[^,:]*:", re.IGNORECASE)


class KeyInvalid(Exception):
    """A file that is no RSA key; the text is one line without the file's name."""


def message(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """What is signed of a request; `path` is percent-decoded and without query, names of headers are in any case."""
    named = {"-".join(word.capitalize() for word in name.split("-")): value for name, value in headers.items()}
    signed = sorted((name, value) for name, value in named.items() if name.startswith("X-Docker"))
    return ",".join([method, path, *(f"{name}:{value}" for name, value in signed)]).encode("utf-8", "surrogateescape")


def load_public(data: bytes) -> RSAPublicKey:
    """Read a public key: PKCS #1 as by `pyrsa-priv2pub`, or as by `openssl rsa -pubout`; KeyInvalid."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # for those few who use it
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid(
            "found no RSA public key in PEM (BEGIN RSA PUBLIC KEY or BEGIN PUBLIC KEY);"
            " `txregistry key public` makes one of a private key"
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise KeyInvalid("found a key that is not RSA")
    return key


def load_private(data: bytes) -> RSAPrivateKey:
    """Read a private key in PEM, PKCS #1 or PKCS #8, without passphrase; KeyInvalid."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise KeyInvalid("found a key with a passphrase; take it off with `openssl rsa`") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalid("found no private key in PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyInvalid("found a key that is not RSA")
    return key


def public_pem(key: RSAPrivateKey) -> bytes:
    """The public half of a key as PKCS #1, which old servers read as well."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)


def sign(
    key: RSAPrivateKey, method: str, path: str, headers: Mapping[str, str], now: float, digest: str = "sha256"
) -> dict[str, str]:
    """The headers that make a request with these others privileged: the date, and the signature."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415

    date = formatdate(now, usegmt=True)
    signed = message(method, path, {**headers, DATE_HEADER: date})
    data = key.sign(signed, PKCS1v15(), _hash(digest))
    return {DATE_HEADER: date, "X-Signature": f"data={base64.b64encode(data).decode('ascii')}"}


class Signatures:
    """Tells which requests were signed by the privileged key; with `require_date` only those with a signed date."""

    def __init__(self, key: RSAPublicKey, require_date: bool) -> None:
        self._key = key
        self._require_date = require_date

    def signed(self, method: str, path: str, headers: Mapping[str, str], now: float) -> bool:
        """Whether this request was; `headers` has names in lower case, `now` is in seconds of the epoch."""
        signature = _signature(headers.get("x-signature", ""))
        if signature is None or not self._is_timely(headers.get(DATE_HEADER.lower()), now):
            return False
        values = [value for name, value in headers.items() if name.startswith("x-docker")]
        if any(_AMBIGUOUS.search(text) for text in (path, *values)):
            return False
        return self._verify(signature, message(method, path, headers))

    def _is_timely(self, date: str | None, now: float) -> bool:
        if date is None:
            return not self._require_date
        try:
            parsed = parsedate_to_datetime(date)
            stamp = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            return False
        return abs(now - stamp) <= DATE_WINDOW

    def _verify(self, signature: bytes, signed: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415

        for name in HASHES:
            try:
                self._key.verify(signature, signed, PKCS1v15(), _hash(name))
            except (InvalidSignature, UnsupportedAlgorithm):
                continue  # some systems no longer have SHA-1
            return True
        return False


def _hash(name: str) -> Any:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    return getattr(hashes, name.upper())()


def _signature(header: str) -> bytes | None:
    """The signature in an X-Signature header; None without."""
    items = (item.strip().partition("=") for item in header.split(";"))
    data = {name: value for name, equals, value in items if equals}.get("data")
    if not data:
        return None
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return None
