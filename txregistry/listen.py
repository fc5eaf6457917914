"""Where the server listens: endpoint strings, the TLS certificate, and what to say when either cannot be used."""

# Twisted's TLS and endpoints have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import errno
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from txregistry.web.tls import TLSPort
from txregistry.web.transport import RegistryPort


class ListenError(Exception):
    """The server cannot listen as told; the text is one line that says why."""


#: TLS 1.2 with forward secrecy and authenticated encryption alone; the suites of TLS 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"

#: The endpoints that are a port of ours; all others are left to Twisted.
PORTS = ("tcp", "tcp6", "https")
_DEFAULT_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint string that was understood.

    `kind` is its first word; `port`, `interface` and `backlog` are set for `tcp`, `tcp6` and `https`.
    """

    text: str
    kind: str
    port: int = 0
    interface: str = ""
    backlog: int = _DEFAULT_BACKLOG

    @property
    def needs_certificate(self) -> bool:
        """Whether it uses the certificate of the configuration."""
        return self.kind == "https"

    @property
    def encrypted(self) -> bool:
        """Whether clients speak TLS to it."""
        return self.kind in ("https", "ssl")


def parse(text: str) -> Endpoint:
    """Read an endpoint string: Twisted's own kinds, and `https:PORT[:interface=ADDRESS][:backlog=N]`. ListenError."""
    kind, *rest = (re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\):", text))
    kind = kind.lower()
    if kind not in PORTS:
        if not rest:
            raise ListenError(f"endpoint {text!r}: an endpoint is written like tcp:5000 or https:5443")
        return Endpoint(text, kind)
    fields = {"interface": "::" if kind == "tcp6" else "", "backlog": str(_DEFAULT_BACKLOG)}
    for position, part in enumerate(rest):
        name, is_named, value = part.partition("=")
        if not is_named and position == 0:
            name, value = "port", part
        if name not in ("port", "interface", "backlog") or not value:
            raise ListenError(f"endpoint {text!r}: {kind}: takes a port, then interface= and backlog=, not {part!r}")
        fields[name] = value
    port, interface, backlog = fields.get("port", ""), fields["interface"], fields["backlog"]
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ListenError(f"endpoint {text!r}: a port is a number from 0 to 65535, not {port!r}")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", backlog):
        raise ListenError(f"endpoint {text!r}: backlog is a number from 1 up, not {backlog!r}")
    if interface:
        interface = "127.0.0.1" if interface == "localhost" else interface.strip("[]")
        try:
            ipaddress.ip_address(interface.partition("%")[0])
        except ValueError:
            raise ListenError(
                f"endpoint {text!r}: interface is an address of this machine such as 127.0.0.1"
                f" (write the colons of an IPv6 address as '\\:'), not {interface!r}"
            ) from None
    return Endpoint(text, kind, int(port), interface, int(backlog))


def tls_context(
    certificate: str, key: str, client_ca: str | None = None, files: Mapping[str, bytes] | None = None
) -> ssl.SSLContext:
    """What `https:` endpoints serve with, from PEM files: the certificate with its chain, its key, and an authority.

    TLS 1.2 and newer, HTTP/1.1 alone by ALPN. With `client_ca` a client must show a certificate of that authority.
    The files are read now, while the process may still be root, unless they are among `files`, where a process that
    may not read them has their contents by path. ListenError for a file that cannot be read or used.
    """
    chain, private = credentials(certificate, key, files)
    trusted = _certificates(client_ca, "client authority", files or {}) if client_ca else []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The end of a connection is told by HTTP's lengths. That some clients do not take leave by TLS is no error.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    pem += private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _load(context, pem)
        if trusted:
            context.load_verify_locations(cadata=b"".join(each.public_bytes(Encoding.DER) for each in trusted))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise ListenError(f"the certificate {certificate} cannot be used: {reason}") from None
    except OSError as error:
        raise ListenError(f"the certificate {certificate} cannot be given to OpenSSL: {error}") from None
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context its certificate and key, for which it takes nothing but a path: that of a file in memory."""
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def credentials(certificate: str, key: str, files: Mapping[str, bytes] | None = None) -> tuple[list[Any], Any]:
    """The certificates of a PEM file, in order, and the key that belongs to the first; see `tls_context`.

    They are those of the package cryptography. ListenError.
    """
    chain = _certificates(certificate, "certificate", files or {})
    private = _private_key(key, files or {})
    if chain[0].public_key() != private.public_key():
        raise ListenError(f"the certificate {certificate} and the key {key} do not belong together")
    return chain, private


def read_pem(path: str, what: str) -> bytes:
    """The content of a file of certificates or keys, which `what` names in the ListenError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ListenError(f"cannot read the {what} {path}: {os.strerror(error.errno or errno.EIO)}") from None


def _certificates(path: str, what: str, files: Mapping[str, bytes]) -> list[Any]:
    """All certificates of a PEM file, in order."""
    data = files[path] if path in files else read_pem(path, what)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ListenError(f"the {what} {path} has no certificate in PEM form")
    try:
        return load_pem_x509_certificates(data)
    except ValueError:
        raise ListenError(f"the {what} {path} is not a valid certificate") from None


def _private_key(path: str, files: Mapping[str, bytes]) -> Any:
    data = files[path] if path in files else read_pem(path, "key")
    if b"PRIVATE KEY-----" not in data:
        raise ListenError(f"the key {path} has no private key in PEM form")
    if b"ENCRYPTED" in data:
        raise ListenError(f"the key {path} is protected by a passphrase; give it without one")
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ListenError(f"the key {path} is not a valid private key") from None


def listen(
    reactor: Any, endpoint: Endpoint, factory: IProtocolFactory, tls: ssl.SSLContext | None = None
) -> IListeningPort:
    """Open the socket now. `tls` is what `tls_context` gave; ListenError if the socket cannot be opened."""
    try:
        if endpoint.kind in PORTS:
            kind = TLSPort if endpoint.needs_certificate else RegistryPort
            port = kind(endpoint.port, factory, endpoint.backlog, endpoint.interface, reactor)
            if isinstance(port, TLSPort):
                assert tls is not None, "an endpoint with TLS has a certificate"
                port.context = tls
            port.startListening()
            return port
        return _now(serverFromString(reactor, endpoint.text).listen(factory))
    except CannotListenError as error:
        raise ListenError(f"cannot listen on {endpoint.text}: {reason(error.socketError)}") from None
    except Exception as error:
        # Each kind of endpoint, those of plug-ins included, fails in a way of its own.
        raise ListenError(f"cannot listen on {endpoint.text}: {_one_line(error)}") from None


def _now(done: Deferred[IListeningPort]) -> IListeningPort:
    """The result of a Deferred that has fired, as those of Twisted's server endpoints have."""
    results: list[object] = []
    done.addBoth(results.append)
    if not results:
        raise ListenError("this kind of endpoint does not open its socket at once")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    opened = results[0]
    assert IListeningPort.providedBy(opened)
    return opened


def reason(error: object) -> str:
    """Why a socket could not be opened, as a person would say it."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "the address is already in use by another program"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied (ports below 1024 need root, or the capability cap_net_bind_service)"
    if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return _one_line(error)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def is_local(address: IAddress) -> bool:
    """Whether only this machine can reach an address."""
    if isinstance(address, IPv4Address | IPv6Address):
        return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
    return isinstance(address, UNIXAddress)


def describe(address: IAddress, encrypted: bool) -> str:
    """An address as a person would write it: a URL, or the path of a socket."""
    if isinstance(address, IPv4Address | IPv6Address):
        host = f"[{address.host}]" if isinstance(address, IPv6Address) else address.host
        return f"{'https' if encrypted else 'http'}://{host}:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    return str(address)


def registry_name(address: IAddress) -> str | None:
    """What a client on this machine would write before `/` in an image name; None for a socket without a port."""
    if isinstance(address, IPv4Address | IPv6Address):
        wildcard = address.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        host = "localhost" if wildcard or is_local(address) else address.host
        return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
    return None
