"""The tokens of an index: what an Authorization header says, and which requests that fits. Nothing is verified here."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from txregistry.errors import V1Error
from txregistry.model.v1.names import V1Repository

#: `name=value` wherever it stands: clients write `Token Token signature=...`. A name is tried at its first letter
#: only, since whatever it matches from a later one it matches from there too, and long ones would take very long.
_PARAMETER = re.compile(r'(?<![A-Za-z0-9_])([A-Za-z0-9_]++)[:=][\s"]?([^",]+)"?')

_ALPHABET = string.ascii_uppercase + string.digits

#: Access -> the methods that it is for; a token of any other access, or of none, is for all. HEAD is in none, as with
#: old servers.
METHODS: dict[str, frozenset[str]] = {
    "read": frozenset({"GET"}),
    "write": frozenset({"POST", "PUT"}),
    "delete": frozenset({"DELETE"}),
}


def parameters(authorization: str) -> Mapping[str, str]:
    """The parameters in an Authorization header, whatever its scheme; the last of a name counts."""
    return dict(_PARAMETER.findall(authorization))


def repository_of(authorization: str) -> V1Repository | None:
    """The repository that an Authorization header speaks of, whatever its scheme; None without a proper one."""
    name = parameters(authorization).get("repository")
    return None if name is None else _repository(name)


def token_text(signature: str, repository: V1Repository, access: str) -> str:
    """A token, as it is handed out."""
    return f'Token signature={signature},repository="{repository}",access={access}'


def random_token(repository: V1Repository, access: str) -> str:
    """A token that nobody verifies, for clients that do not go on without."""
    return token_text("".join(secrets.choice(_ALPHABET) for _ in range(16)), repository, access)


def allows_method(access: str | None, method: str) -> bool:
    """Whether a token or session of this access is for a method."""
    return access not in METHODS or method in METHODS[access]


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says of itself."""

    signature: str | None
    repository: V1Repository
    access: str | None

    @classmethod
    def parse(cls, authorization: str) -> Token | None:
        """Read an Authorization header; None for another scheme, and without a repository of exactly two parts."""
        scheme, _, _ = authorization.partition(" ")
        if scheme.lower() != "token":
            return None
        found = parameters(authorization)
        name = found.get("repository", "")
        namespace, slash, rest = name.partition("/")
        if not (namespace and slash and rest) or "/" in rest:
            return None
        repository = _repository(name)
        return None if repository is None else cls(found.get("signature"), repository, found.get("access"))


def _repository(name: str) -> V1Repository | None:
    try:
        # Tokens have it in its quoted form.
        return V1Repository.parse(unquote_plus(name))
    except V1Error:
        return None
