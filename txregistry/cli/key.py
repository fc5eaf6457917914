"""`txregistry key public`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from txregistry.auth.signatures import KeyInvalid, load_private, public_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


class KeyUnread(Exception):
    """A key's file that cannot be used; the text is one line."""


def read_private(path: str) -> RSAPrivateKey:
    """The private key in a file; KeyUnread."""
    try:
        with open(path, "rb") as file:
            return load_private(file.read())
    except OSError as error:
        raise KeyUnread(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
    except KeyInvalid as error:
        raise KeyUnread(f"{path}: {error}") from None


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    group = commands.add_parser(
        "key", help="make the public key of privileged requests", description="Keys of privileged requests."
    )
    group.set_defaults(show=group)
    inner = group.add_subparsers(title="commands", metavar="COMMAND")
    public = inner.add_parser(
        "public",
        help="print the public half of a private key",
        description="Print the public half of an RSA private key, for privileged_key. A private key is made by:"
        " openssl genrsa -out private.pem 2048",
    )
    public.add_argument("file", metavar="PRIVATE", help="the private key, PEM (PKCS #1 or PKCS #8)")
    public.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    try:
        key = read_private(options.file)
    except KeyUnread as error:
        sys.stderr.write(f"txregistry: {error}\n")
        return 1
    sys.stdout.write(public_pem(key).decode("ascii"))
    return 0
