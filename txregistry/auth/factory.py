"""From what an operator decided about access to the guard that decides about requests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from txregistry.auth.accounts import Accounts
from txregistry.auth.guard import Guard, Parts
from txregistry.auth.image_lists import ImageLists
from txregistry.auth.sessions import Sessions
from txregistry.auth.signatures import KeyInvalid, Signatures, load_public
from txregistry.auth.users import UsersFile
from txregistry.interfaces import IPool, IStorageDriver

_KEY_LIMIT = 1024 * 1024


class AccessError(Exception):
    """What was decided cannot be done; the text is one line."""


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """What an operator decided; paths are absolute.

    With `index_endpoint` the tokens of that index are asked for, with `users_file` the passwords of its accounts, new
    ones being made for everybody if `accounts_open`. `privileged_key` is the file of a public key. One that is not
    `standalone` and has no index lets everybody in. `glance_endpoints` are those that a request may name together with
    a token of its own for Glance.
    """

    index_endpoint: str | None = None
    users_file: str | None = None
    accounts_open: bool = False
    secret_key: str | None = field(default=None, repr=False)
    privileged_key: str | None = None
    privileged_require_date: bool = False
    standalone: bool = True
    glance_endpoints: tuple[str, ...] = ()


def check(options: AccessOptions, files: Mapping[str, bytes] | None = None) -> Signatures | None:
    """Look at what can be seen to be wrong before anything is opened; what tells privileged requests. AccessError.

    `files` are contents, by path, that were read by a process that may read more than this one.
    """
    if options.users_file is not None and not options.standalone:
        raise AccessError(
            "users_file: found with standalone: false, where nobody asks for passwords; allowed is one of the two"
        )
    if options.accounts_open and options.users_file is None:
        raise AccessError("accounts: found open without users_file; allowed is both, or closed")
    if options.index_endpoint is not None:
        _require("treq", "index", "standalone: false")
    if options.users_file is not None:
        _require("bcrypt", "accounts", "users_file")
        folder = os.path.dirname(options.users_file)
        if not os.path.isdir(folder):
            raise AccessError(f"users_file: there is no folder {folder}")
    if options.privileged_key is None:
        return None
    try:
        key = load_public((files or {}).get(options.privileged_key) or _read(options.privileged_key))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise AccessError(f"privileged_key: {options.privileged_key} cannot be read: {reason}") from None
    except KeyInvalid as error:
        raise AccessError(f"privileged_key: {options.privileged_key}: {error}") from None
    return Signatures(key, options.privileged_require_date)


def make_guard(
    options: AccessOptions,
    signatures: Signatures | None,
    driver: IStorageDriver,
    pool: IPool,
    reactor: Any,
    is_near: Callable[[str], bool] = lambda _path: False,
) -> Guard:
    """The guard, of options that `check` has looked at. `driver` is the engine itself, without a cache before it.

    `is_near` tells whether to look at a path never means to wait for a network.
    """
    key = options.secret_key or secrets.token_hex(32)
    index = accounts = None
    if options.index_endpoint is not None:
        # Few have an index, and its HTTP client takes a while to import.
        from txregistry.auth.index import Index, make_agent  # noqa: PLC0415

        agent, connections = make_agent(reactor)
        index = Index(options.index_endpoint, agent, reactor, connections)
    if options.users_file is not None:
        file = UsersFile(options.users_file, in_place=is_near(os.path.dirname(options.users_file)))
        accounts = Accounts(file, pool, reactor, open=options.accounts_open)
    return Guard(
        Parts(
            now=reactor.seconds,
            cookies=Sessions(key, "session", reactor.seconds),
            tokens=Sessions(key, "token", reactor.seconds),
            lists=ImageLists(driver),
            signatures=signatures,
            index=index,
            accounts=accounts,
            glance_endpoints=options.glance_endpoints,
        )
    )


def warnings(options: AccessOptions) -> list[str]:
    """Lines for the log of a start."""
    lines = []
    if options.secret_key is None and (options.index_endpoint is not None or options.users_file is not None):
        lines.append(
            "secret_key is not set: sessions end with this process, and those of other workers and nodes do not count"
        )
    if options.privileged_key is not None and not options.privileged_require_date:
        lines.append(
            "privileged_require_date is off: a signed request without X-Docker-Date can be sent again by whoever saw it"
        )
    return lines


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_KEY_LIMIT)


def _require(module: str, extra: str, key: str) -> None:
    if find_spec(module) is None:
        raise AccessError(f"{key}: needs {module}, which is not installed: pip install 'txregistry[{extra}]'")
