"""Signed addresses from which clients fetch objects without us: the bucket's own, or those of CloudFront."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from txregistry.errors import Unavailable
from txregistry.storage.s3.bucket import Bucket
from txregistry.storage.s3.options import Signing


def signed_url(bucket: Bucket, path: str, seconds: int, now: float) -> str:
    """An address from which the object at `path` can be read for so many seconds from `now`, of the epoch.

    It is made without a request, unless the credentials are those of a role and have to be renewed.
    """
    key, signing = bucket.root + path, bucket.connection.options.cloudfront
    with bucket.connection.errors(path):
        if signing is None:
            url: str = bucket.client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket.name, "Key": key}, ExpiresIn=seconds
            )
            return url
        return _cloudfront(signing, key, now + seconds)


def _cloudfront(signing: Signing, key: str, until: float) -> str:
    from botocore.signers import CloudFrontSigner  # noqa: PLC0415 - few installations have it

    private = _private_key(signing.key)

    def sign(message: bytes) -> bytes:
        return private.sign(message, PKCS1v15(), SHA1())  # noqa: S303 - the only hash that CloudFront takes

    signer = CloudFrontSigner(signing.key_id, sign)
    expires = datetime.fromtimestamp(until, UTC)
    url: str = signer.generate_presigned_url(f"{signing.base}/{quote(key)}", date_less_than=expires)
    return url


def _private_key(key: str) -> RSAPrivateKey:
    """The key of a PEM, or of the file that holds one. Unavailable."""
    text = key.encode()
    try:
        if not key.lstrip().startswith("-----BEGIN") and os.path.exists(key):
            with open(key, "rb") as file:
                text = file.read()
        private = load_pem_private_key(text, None)
    except (OSError, ValueError) as error:
        raise Unavailable("", f"cloudfront: keysecret cannot be used: {type(error).__name__}") from error
    if not isinstance(private, RSAPrivateKey):
        raise Unavailable("", "cloudfront: keysecret is no RSA key")
    return private
