"""`txregistry user add` and `txregistry user remove`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from txregistry import config
from txregistry.auth.users import UserInvalid, UsersFile, check_name


def add(commands: Any) -> None:
    """Add the commands to the parser's subcommands."""
    group = commands.add_parser(
        "user", help="add and remove accounts", description="Accounts in the users file of a configuration."
    )
    group.set_defaults(show=group)
    inner = group.add_subparsers(title="commands", metavar="COMMAND")
    adding = inner.add_parser(
        "add",
        help="add an account, or change its password",
        description="Add an account, or change its password. The password is asked for, or, if the standard input is"
        " no terminal, is its first line.",
    )
    removing = inner.add_parser("remove", help="remove an account", description="Remove an account.")
    for command, run in ((adding, add_user), (removing, remove_user)):
        command.add_argument("name", metavar="NAME")
        command.add_argument("--users-file", metavar="FILE", help="default: users_file of the configuration")
        command.add_argument("--config", "-c", metavar="FILE", help="the configuration, found as by the server")
        command.add_argument("--flavor", "-f", help="default: $SETTINGS_FLAVOR, else dev")
        command.set_defaults(run=run)


def add_user(options: argparse.Namespace) -> int:
    """Add the account."""
    try:
        file = _file(options)
        check_name(options.name)
        file.set(options.name, _password())
    except (config.ConfigError, UserInvalid, OSError) as error:
        return _fail(str(error))
    except ImportError:
        return _fail("this needs bcrypt, which is not installed: pip install 'txregistry[accounts]'")
    return 0


def remove_user(options: argparse.Namespace) -> int:
    """Remove the account."""
    try:
        there = _file(options).remove(options.name)
    except (config.ConfigError, OSError) as error:
        return _fail(str(error))
    return 0 if there else _fail(f"there is no account {options.name!a}")


def _file(options: argparse.Namespace) -> UsersFile:
    path = options.users_file
    if path is None:
        path = config.load(options.config, options.flavor, os.environ, os.getcwd()).users_file
    if path is None:
        raise config.ConfigError("users_file: found nothing; allowed is a path there, or --users-file")
    return UsersFile(path)


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise UserInvalid("these are two passwords")
    return password


def _fail(line: str) -> int:
    sys.stderr.write(f"txregistry: {line}\n")
    return 1
