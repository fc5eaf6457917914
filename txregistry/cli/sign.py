"""`txregistry sign`: a privileged request, ready to be sent by curl."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from txregistry.auth.signatures import DATE_HEADER, DATE_WINDOW, HASHES, sign
from txregistry.cli.key import KeyUnread, read_private

_HEADER = re.compile(r"([A-Za-z0-9-]+):[ \t]*([^\r\n]*)\Z")


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    command = commands.add_parser(
        "sign",
        help="sign a privileged request",
        description="Print a curl command that sends a request with the privileges of a private key, whose public half"
        f" is the registry's privileged_key. It has to be used within {DATE_WINDOW // 60} minutes.",
    )
    command.add_argument("key", metavar="PRIVATE", help="the private key, PEM (PKCS #1 or PKCS #8)")
    command.add_argument("method", metavar="METHOD", help="GET, PUT, ...")
    command.add_argument("url", metavar="URL", help="http://... or https://...")
    command.add_argument(
        "--header",
        "-H",
        action="append",
        default=[],
        metavar="NAME: VALUE",
        help="a header of the request; those that begin with X-Docker are signed",
    )
    command.add_argument("--digest", choices=HASHES, default=HASHES[0], help="default: %(default)s")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the command."""
    address = urlsplit(options.url)
    if address.scheme not in ("http", "https") or not address.netloc:
        return _fail(f"{options.url!a} is no http: or https: URL")
    headers = {}
    for text in options.header:
        match = _HEADER.match(text)
        if match is None or match[1].lower() in (DATE_HEADER.lower(), "x-signature"):
            return _fail(f"{text!a} cannot be used as a header")
        headers[match[1]] = match[2].strip()
    method = options.method.upper()
    # As the server takes any number of slashes at the beginning of a path for one.
    path = "/" + unquote(address.path).lstrip("/")
    try:
        key = read_private(options.key)
    except KeyUnread as error:
        return _fail(str(error))
    headers.update(sign(key, method, path, headers, time.time(), options.digest))
    words = ["curl", *(["--head"] if method == "HEAD" else ["-X", method])]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    sys.stdout.write(shlex.join([*words, options.url]) + "\n")
    return 0


def _fail(line: str) -> int:
    sys.stderr.write(f"txregistry: {line}\n")
    return 1
