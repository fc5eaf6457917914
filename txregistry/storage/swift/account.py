"""Who we are for Swift: tokens, and the address of the account that they are for."""

from __future__ import annotations

from txregistry.errors import Unavailable
from txregistry.storage.openstack.http import Http, ask
from txregistry.storage.openstack.keystone import Keystone, KeystoneOptions
from txregistry.storage.openstack.tokens import Refused, Session, Tokens
from txregistry.storage.swift.options import SwiftOptions, TempAuthOptions

#: Seconds that a token lives whose server does not say.
LIFE = 3600.0


class Account:
    """An account: a token, and the address below which its containers are."""

    def __init__(self, options: SwiftOptions, http: Http) -> None:
        self._region = options.region
        self._signs_in: Keystone | TempAuth
        if isinstance(options.auth, KeystoneOptions):
            self._signs_in = Keystone(options.auth, http)
        else:
            self._signs_in = TempAuth(options.auth, http)

    async def token(self) -> str:
        """A token that should be good. Refused, or Unavailable."""
        return await self._signs_in.token()

    async def url(self) -> str:
        """The account's address, without a slash at its end. Unavailable where the catalog has none."""
        return await self._signs_in.endpoint("object-store", self._region)

    def refused(self, token: str) -> None:
        """Swift answered 401 to this token."""
        self._signs_in.refused(token)


class TempAuth:
    """Signing in by version 1: one request, whose answer has the token and the address in headers."""

    def __init__(self, options: TempAuthOptions, http: Http) -> None:
        self._options, self._http = options, http
        self._tokens = Tokens(self._sign_in, http.seconds)

    async def token(self) -> str:
        """A token that should be good. Refused, or Unavailable."""
        return (await self._tokens.session()).token

    async def endpoint(self, _service_type: str, _region: str | None) -> str:
        """The only address that there is."""
        return (await self._tokens.session()).url

    def refused(self, token: str) -> None:
        """The next one who asks signs in anew."""
        self._tokens.refused(token)

    async def _sign_in(self) -> Session:
        options = self._options
        headers = {"X-Auth-User": options.user, "X-Auth-Key": options.key}
        try:
            answer = await ask(self._http, "GET", options.auth_url, headers)
        except Unavailable as error:
            raise Unavailable("", f"{options.auth_url} does not answer: {error.reason}") from error
        if answer.status in (401, 403):
            raise Refused("", f"{options.auth_url} refuses user {options.user} ({answer.status})")
        token, url = (answer.headers.get(f"x-{name}") for name in ("auth-token", "storage-url"))
        if answer.status not in (200, 204) or not token or not url:
            raise Unavailable("", f"{options.auth_url} answers {answer.status}, which is no sign-in of version 1")
        life = answer.headers.get("x-auth-token-expires", "")
        return Session(token, float(life) if life.isdigit() else LIFE, url=url.rstrip("/"))
