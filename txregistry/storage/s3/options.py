"""What the S3 engine is told: from the configuration's keys to one value that the rest of the package reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

#: Where Google speaks the S3 interface.
GOOGLE = "storage.googleapis.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How addresses of a CloudFront distribution are signed: `base` is its URL, `key` a PEM or the path of one."""

    base: str
    key_id: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """A bucket, where it is, and how to speak with it.

    `root` is what all keys begin with, empty or with a slash at its end. None leaves it to the library's own chain of
    environment, profile and role. `cacert` is the path of a PEM file with the authorities to trust. `google` says that
    the server takes no trailing checksums, no condition on a PUT in S3's headers, no copies as parts and no list of
    keys to delete.
    """

    bucket: str
    root: str = ""
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    region: str | None = None
    path_style: bool | None = None
    secure: bool = True
    cacert: str | None = None
    checksums: str = "when_supported"
    encrypt: bool = False
    kms_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    cloudfront: Signing | None = None
    google: bool = False

    @property
    def place(self) -> str:
        """The bucket and its server, for people."""
        return f"bucket {self.bucket} at {self.endpoint or 'Amazon S3'}"


def root_of(storage_path: str | None) -> str:
    """What all keys begin with: `storage_path` without slashes around it, and with one behind it.

    The same keys as docker-registry's, which dropped one slash in front, for every `storage_path` with which that
    could list what it had written.
    """
    inner = (storage_path or "").strip("/")
    return f"{inner}/" if inner else ""


def from_keys(engine: str, storage_path: str | None, keys: Mapping[str, Any]) -> S3Options:
    """The options of `s3` or `gcs` from the keys of the configuration, defaults included."""
    root, bucket = root_of(storage_path), keys["boto_bucket"]
    if engine == "gcs":
        return S3Options(
            bucket=bucket,
            root=root,
            endpoint=f"{'https' if keys['gs_secure'] else 'http'}://{GOOGLE}",
            access_key=keys["gs_access_key"] or None,
            secret_key=keys["gs_secret_key"] or None,
            region="auto",
            path_style=True,
            checksums="when_required",
            google=True,
        )
    return S3Options(
        bucket=bucket,
        root=root,
        endpoint=_endpoint(keys),
        access_key=keys["s3_access_key"] or None,
        secret_key=keys["s3_secret_key"] or None,
        region=keys["s3_region"] or None,
        path_style=_path_style(keys),
        secure=keys["s3_secure"],
        cacert=keys["s3_cacert"] or None,
        checksums=keys["s3_checksums"],
        encrypt=keys["s3_encrypt"],
        kms_key=keys["s3_kms_key"] or None,
        proxy=_proxy(keys),
        cloudfront=_cloudfront(keys["cloudfront"]),
    )


def _endpoint(keys: Mapping[str, Any]) -> str | None:
    if keys["s3_endpoint"]:
        return str(keys["s3_endpoint"])
    if not keys["boto_host"]:
        return None
    secure = keys["s3_secure"] if keys["boto_secure"] is None else keys["boto_secure"]
    port = f":{keys['boto_port']}" if keys["boto_port"] else ""
    return f"{'https' if secure else 'http'}://{keys['boto_host']}{port}"


def _path_style(keys: Mapping[str, Any]) -> bool | None:
    if keys["s3_path_style"] is not None:
        return bool(keys["s3_path_style"])
    if keys["boto_calling_format"]:
        return str(keys["boto_calling_format"]).endswith("OrdinaryCallingFormat")
    return None


def _proxy(keys: Mapping[str, Any]) -> str | None:
    if not keys["boto_proxy"]:
        return None
    user = ""
    if keys["boto_proxy_user"]:
        user = quote(keys["boto_proxy_user"], safe="")
        if keys["boto_proxy_pass"]:
            user += ":" + quote(keys["boto_proxy_pass"], safe="")
        user += "@"
    port = f":{keys['boto_proxy_port']}" if keys["boto_proxy_port"] else ""
    return f"http://{user}{keys['boto_proxy']}{port}"


def _cloudfront(block: Mapping[str, Any] | None) -> Signing | None:
    if not block or not (block["base"] and block["keyid"] and block["keysecret"]):
        return None
    base = block["base"] if "://" in block["base"] else f"https://{block['base']}"
    return Signing(base=base.rstrip("/"), key_id=block["keyid"], key=block["keysecret"])
