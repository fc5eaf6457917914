"""The one place where it is decided whether a request may go on.

In this order, as old servers did: a privileged signature, a session, then whatever the registry asks for: nothing, a
token of the index, or for what changes something a name and password. A session or token allows what it was made for,
a repository and an access, and of images those that the index says the repository has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from txregistry.auth.facts import By, Facts, Grant, Kind, Refused, basic
from txregistry.auth.glance import glance_access
from txregistry.auth.image_lists import ImageLists, Images
from txregistry.auth.sessions import CLEAR, COOKIE, Session, Sessions
from txregistry.auth.signatures import Signatures
from txregistry.auth.tokens import Token, allows_method, random_token, token_text
from txregistry.errors import V1Error
from txregistry.model.v1.image import ImageJson, check_listed
from txregistry.model.v1.names import V1Repository

if TYPE_CHECKING:
    from txregistry.auth.accounts import Accounts
    from txregistry.auth.index import Index

_CLASSES = {"GET": "read", "HEAD": "read", "PUT": "write", "POST": "write", "DELETE": "delete"}

#: What a refused client is told to come with.
BASIC_CHALLENGE = 'Basic realm="txregistry"'
INDEX_CHALLENGE = "Token"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a guard asks: with an `index` its tokens, with `accounts` passwords, with neither nothing.

    `glance_endpoints` are those that a request may name together with a token of its own. Without any, nobody looks
    for either.
    """

    now: Callable[[], float]
    cookies: Sessions
    tokens: Sessions
    lists: ImageLists
    signatures: Signatures | None = None
    index: Index | None = None
    accounts: Accounts | None = None
    glance_endpoints: tuple[str, ...] = ()


class Guard:
    """Decides over each request."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.accounts = parts.accounts
        #: Whether nobody is kept out.
        self.is_open = parts.index is None and parts.accounts is None
        #: Whether it need not see a request at all.
        self.asks_nothing = self.is_open and not parts.glance_endpoints
        #: Whether it can decide over V2, whose clients have no tokens of an index.
        self.knows_v2 = parts.index is None

    def allows_now(self, v2: bool, authorization: str) -> bool:
        """Whether it can be told at once that a request which reads goes on, with its headers as they were set.

        It has no cookie, and none of the headers that a guard looks at but `authorization`, which is empty without
        that. False says nothing: `allow` or `allow_v2` has to be asked.
        """
        if self.asks_nothing:
            return True
        if self.accounts is None:
            return False
        given = basic(authorization) if v2 else None
        return not v2 or (given is not None and self.accounts.knows(*given))

    async def allow(self, facts: Facts) -> Grant:
        """Let a request go on, or raise Refused; UpstreamUnavailable if it cannot be known, StorageError.

        Denied if it asks for a Glance that it may not.
        """
        grant = await self._allow(facts)
        return grant if facts.kind is Kind.OPEN else self._with_glance(grant, facts)

    async def _allow(self, facts: Facts) -> Grant:
        if facts.kind is Kind.OPEN:
            return Grant(By.ANYBODY)
        if self._is_signed(facts):
            return Grant(By.SIGNATURE)
        if self.is_open or (self.accounts is not None and facts.reads):
            return Grant(By.ANYBODY)
        cookie = facts.cookie(COOKIE)
        session = None if cookie is None else self._parts.cookies.open(cookie)
        grant = None if session is None else await self._by_session(facts, session)
        if grant is None or not _lists(grant, facts):
            grant = await self._by_token(facts) or await self._by_password(facts) or grant
        if grant is not None:
            return grant
        clear = CLEAR if cookie is not None and session is None else None
        raise Refused(INDEX_CHALLENGE if self.accounts is None else BASIC_CHALLENGE, clear)

    async def allow_v2(self, facts: Facts) -> Grant:
        """Let a request of V2 go on, or raise Refused; Denied if it asks for a Glance that it may not.

        A password is asked for even to read: V2's clients show theirs only if they had to from the first request on.
        """
        return self._with_glance(await self._allow_v2(facts), facts)

    async def _allow_v2(self, facts: Facts) -> Grant:
        if self._is_signed(facts):
            return Grant(By.SIGNATURE)
        if self.is_open:
            return Grant(By.ANYBODY)
        grant = await self._by_password(facts)
        if grant is None:
            raise Refused(BASIC_CHALLENGE)
        return grant

    async def check_push(self, grant: Grant, image: ImageJson) -> None:
        """Whether the push of an image may begin; V1Error, with the texts of old servers.

        The image, and its parent, have to be of the repository that was granted: whoever could build on any image
        could read its ancestors.
        """
        if grant.listed is None:
            return
        check_listed(image.image_id, grant.listed)
        if image.parent is not None and not await self._parts.lists.reaches(grant.listed, image.parent.text):
            raise V1Error(message="Image depends on a non existing parent")

    def token(self, grant: Grant, repository: V1Repository, access: str) -> str:
        """A token of ours, for clients that do not go on without: with accounts it is good for whoever has one."""
        if self.accounts is None or grant.user is None:
            return random_token(repository, access)
        sealed = self._parts.tokens.seal(self._parts.tokens.new(repository, access, grant.user))
        return token_text(sealed, repository, access)

    async def close(self) -> None:
        """Let go of connections."""
        if self._parts.index is not None:
            await self._parts.index.close()

    def _with_glance(self, grant: Grant, facts: Facts) -> Grant:
        access = glance_access(facts.headers, self._parts.glance_endpoints)
        return grant if access is None else replace(grant, glance=access)

    # -- each way ---------------------------------------------------------------------------------------------------

    def _is_signed(self, facts: Facts) -> bool:
        signatures = self._parts.signatures
        return signatures is not None and signatures.signed(
            facts.method, facts.path, facts.headers, self._parts.now()
        )

    async def _by_session(self, facts: Facts, session: Session) -> Grant | None:
        grant = await self._bound(facts, By.SESSION, session, None)
        renewed = self._parts.cookies.renewed(session)
        if grant is None or renewed is None:
            return grant
        return replace(grant, set_cookie=self._parts.cookies.cookie(renewed, facts.secure))

    async def _by_token(self, facts: Facts) -> Grant | None:
        token = Token.parse(facts.authorization)
        if token is None or not allows_method(token.access, facts.method):
            return None
        if facts.kind is Kind.REPOSITORY and facts.repository != token.repository:
            return None
        if self.accounts is not None:
            session = self._parts.tokens.open(token.signature or "")
            if session is None or (session.repository, session.access) != (token.repository, token.access):
                return None
            listed = None
        else:
            assert self._parts.index is not None
            session = self._parts.cookies.new(token.repository, token.access)
            method_class = _CLASSES.get(facts.method, facts.method)
            verified = await self._parts.index.verify(facts.authorization, method_class, token.repository)
            if verified is None:
                return None
            listed, is_new = verified
            if is_new and not await self._parts.lists.save(token.repository, listed):
                # Sessions go by the list that is stored.
                return await self._bound(facts, By.TOKEN, session, listed)
        grant = await self._bound(facts, By.TOKEN, session, listed)
        if grant is None:
            return None
        fresh = self._parts.cookies.new(session.repository, session.access, session.user)
        return replace(grant, set_cookie=self._parts.cookies.cookie(fresh, facts.secure))

    async def _by_password(self, facts: Facts) -> Grant | None:
        given = facts.basic()
        if self.accounts is None or given is None:
            return None
        name, password = given
        if not await self.accounts.check(name, password, facts.address):
            return None
        return Grant(By.ACCOUNT, facts.repository, user=name)

    async def _bound(self, facts: Facts, by: By, session: Session, listed: Images | None) -> Grant | None:
        """A grant for a request that a session covers; `listed` are the index's images, if they are known already."""
        if not allows_method(session.access, facts.method):
            return None
        if facts.kind is Kind.REPOSITORY and facts.repository != session.repository:
            return None
        grant = Grant(by, session.repository, session.access, session.user)
        if self.accounts is not None:
            return grant if session.user is not None and await self.accounts.exists(session.user) else None
        if facts.kind is Kind.IMAGE:
            if listed is None:
                listed = await self._parts.lists.load(session.repository)
            # An image that is begun is refused when its JSON has been looked at, as old servers did.
            if not facts.begins_image and not await self._covers(listed, facts):
                return None
        return replace(grant, listed=listed)

    async def _covers(self, listed: Images, facts: Facts) -> bool:
        image = facts.image_id or ""
        return await self._parts.lists.reaches(listed, image) if facts.reads else image in listed


def _lists(grant: Grant, facts: Facts) -> bool:
    """False if the push of an image begins that is not of the session's repository: its token may be for another."""
    return not facts.begins_image or grant.listed is None or facts.image_id in grant.listed
