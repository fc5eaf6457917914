"""The users file: a name and a bcrypt hash in each line, as `htpasswd -B` writes it.

Everything here blocks, for hashing even long: it runs in a thread. Several processes may write the file at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping

#: What bcrypt takes of a password, in bytes.
PASSWORD_LIMIT = 72
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}\Z")
#: Bytes of a users file that are read at most.
_FILE_LIMIT = 64 * 1024 * 1024


class UserInvalid(Exception):
    """A name or password that cannot be; the text is one line."""


class UserExists(Exception):
    """There is an account of this name."""


def check_name(name: str) -> None:
    """UserInvalid for a name that no new account may have."""
    if not _NAME.match(name):
        raise UserInvalid("a name has 1 to 64 letters, digits and ._@-, and begins with a letter or digit")


def check_password(password: str) -> bytes:
    """The bytes of a password; UserInvalid for one that no account may have."""
    data = password.encode("utf-8", "surrogateescape")
    if not data or b"\0" in data:
        raise UserInvalid("the password is empty")
    if len(data) > PASSWORD_LIMIT:
        raise UserInvalid(f"the password is longer than {PASSWORD_LIMIT} bytes")
    return data


def hash_password(password: str) -> str:
    """A new bcrypt hash; UserInvalid."""
    import bcrypt  # noqa: PLC0415  # only for those who keep accounts

    return bcrypt.hashpw(check_password(password), bcrypt.gensalt()).decode("ascii")


def is_password(password: str, hashed: str) -> bool:
    """Whether a password belongs to a hash."""
    import bcrypt  # noqa: PLC0415

    try:
        return bcrypt.checkpw(check_password(password), hashed.encode("ascii"))
    except (UserInvalid, ValueError):
        return False


class UsersFile:
    """The users file at `path`; one that is not there has no users.

    Where it may be looked at `in_place`, that never waits for a network.
    """

    def __init__(self, path: str, in_place: bool = False) -> None:
        self.path = path
        self._in_place = in_place
        # One value, as several threads may set it.
        self._last: tuple[tuple[int, ...], Mapping[str, str]] = ((), {})

    def read(self) -> Mapping[str, str]:
        """The hashes by name, read again only if the file has changed; OSError if it cannot be read.

        Lines that begin with # and those that are not of this form count for nothing.
        """
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return {}
        seen = _state(found)
        before, users = self._last
        if seen != before:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                users = dict(_parse(file.read(_FILE_LIMIT)))
            self._last = (seen, users)
        return users

    def read_now(self) -> Mapping[str, str]:
        """The same at once, on the reactor's thread, if the file has not changed since it was read; else nothing."""
        try:
            found = os.stat(self.path) if self._in_place else None
        except OSError:
            return {}
        before, users = self._last
        return users if found is not None and _state(found) == before else {}

    def create(self, name: str, password: str) -> None:
        """Add an account; UserExists, UserInvalid, OSError."""
        check_name(name)
        hashed = hash_password(password)
        with self._locked():
            if name in self.read():
                raise UserExists(name)
            self._write(name, hashed)

    def set(self, name: str, password: str) -> None:
        """Add an account, or give it another password; UserInvalid, OSError."""
        check_name(name)
        hashed = hash_password(password)
        with self._locked():
            self._write(name, hashed)

    def remove(self, name: str) -> bool:
        """Remove an account; whether there was one. OSError."""
        with self._locked():
            there = name in self.read()
            if there:
                self._write(name, None)
            return there

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, which lies beside the file, as that is replaced by each change."""
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, name: str, hashed: str | None) -> None:
        """Replace the line of a name, or add one; all others stay as they are."""
        try:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
                mode = os.fstat(file.fileno())
        except FileNotFoundError:
            lines, mode = [], None
        lines = [line for line in lines if line.partition(":")[0].strip() != name]
        if hashed is not None:
            lines.append(f"{name}:{hashed}")
        temporary = f"{self.path}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                if mode is not None:
                    os.fchmod(descriptor, mode.st_mode & 0o777)
                    if (mode.st_uid, mode.st_gid) != (os.geteuid(), os.getegid()):
                        # Only root may give it back to whoever owned it.
                        with contextlib.suppress(PermissionError):
                            os.fchown(descriptor, mode.st_uid, mode.st_gid)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _parse(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, hashed = line.strip().partition(":")
        if colon and not name.startswith("#") and _HASH.match(hashed):
            yield name, hashed
