"""Signing in with Keystone, version 3 of its API, and the addresses of services from its catalog."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from txregistry.errors import Unavailable
from txregistry.storage.openstack.http import Answer, Http, ask
from txregistry.storage.openstack.tokens import Refused, Session, Tokens

#: How often Keystone is asked when it does not answer, and seconds between.
ATTEMPTS, PAUSE = 3, 0.5
#: Seconds that a token lives whose end cannot be read.
LIFE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeystoneOptions:
    """Where to sign in, and as whom: a user with a password in a project, or an application credential.

    `auth_url` may lack the version. A domain is known by its id, or by its name where that is None.
    """

    auth_url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    project_name: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    application_credential_id: str | None = None
    application_credential_secret: str | None = field(default=None, repr=False)

    @property
    def tokens_url(self) -> str:
        """Where tokens are made. What once was said in version 2 is said in 3."""
        base = self.auth_url.rstrip("/").removesuffix("/tokens").removesuffix("/auth")
        for version in ("/v2.0", "/v2", "/v3"):
            base = base.removesuffix(version)
        return f"{base}/v3/auth/tokens"

    @property
    def who(self) -> str:
        """The user and the project, for people."""
        if self.application_credential_id:
            return f"application credential {self.application_credential_id}"
        return f"user {self.username}" + (f" in project {self.project_name}" if self.project_name else "")

    def request(self) -> bytes:
        """The body of a sign-in."""
        if self.application_credential_id:
            # It belongs to a project already.
            credential = {"id": self.application_credential_id, "secret": self.application_credential_secret or ""}
            identity: dict[str, Any] = {"methods": ["application_credential"], "application_credential": credential}
            return json.dumps({"auth": {"identity": identity}}).encode()
        user = {
            "name": self.username,
            "password": self.password or "",
            "domain": _domain(self.user_domain_id, self.user_domain_name),
        }
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if self.project_name:
            domain = _domain(self.project_domain_id, self.project_domain_name)
            auth["scope"] = {"project": {"name": self.project_name, "domain": domain}}
        return json.dumps({"auth": auth}).encode()


def _domain(number: str | None, name: str | None) -> dict[str, str]:
    return {"id": number} if number else {"name": name or "Default"}


class Keystone:
    """Tokens of one user, and the catalog that comes with them."""

    def __init__(self, options: KeystoneOptions, http: Http) -> None:
        self._options, self._http = options, http
        self._tokens = Tokens(self._sign_in, http.seconds)

    async def token(self) -> str:
        """A token that should be good. Refused when Keystone does not take the credentials; Unavailable."""
        return (await self._tokens.session()).token

    async def project(self) -> str:
        """The id of the project that the tokens are for; empty if they are for none."""
        return (await self._tokens.session()).project

    def refused(self, token: str) -> None:
        """A service answered 401 to this token: the next one who asks signs in anew."""
        self._tokens.refused(token)

    async def endpoint(self, service_type: str, region: str | None) -> str:
        """The public address of a service, without a slash at its end; of the first region if that is None.

        Unavailable when the catalog has none.
        """
        session = await self._tokens.session()
        for service in session.catalog:
            if service.get("type") != service_type:
                continue
            for endpoint in service.get("endpoints", ()):
                here = region is None or region in (endpoint.get("region"), endpoint.get("region_id"))
                if here and endpoint.get("interface") == "public":
                    return str(endpoint["url"]).rstrip("/")
        where = f" in region {region}" if region else ""
        # Without a project a token has no catalog at all.
        hint = "" if session.catalog else "; the catalog is empty, so the user needs a project"
        raise Unavailable("", f"Keystone's catalog has no public address of {service_type}{where}{hint}")

    async def _sign_in(self) -> Session:
        url = self._options.tokens_url
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await ask(
                    self._http, "POST", url, {"Content-Type": "application/json"}, self._options.request()
                )
            except Unavailable as error:
                if attempt == ATTEMPTS:
                    raise Unavailable("", f"Keystone at {url} does not answer: {error.reason}") from error
            else:
                if answer.status not in (429, 500, 502, 503, 504) or attempt == ATTEMPTS:
                    return self._session_of(answer, url)
            await self._http.sleep(PAUSE * attempt)
        raise AssertionError("the loop returns or raises")

    def _session_of(self, answer: Answer, url: str) -> Session:
        if answer.status in (400, 401, 403):
            raise Refused("", f"Keystone at {url} refuses {self._options.who} ({answer.status})")
        token = answer.headers.get("x-subject-token")
        try:
            body: dict[str, Any] = json.loads(answer.body)["token"]
            catalog = tuple(body.get("catalog", ()))
            life = _life(body)
            project = str(body.get("project", {}).get("id") or "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            token = None
        if answer.status != 201 or not token:
            raise Unavailable("", f"{url} answers {answer.status}, which is no token of Keystone's version 3")
        return Session(token, life, catalog, project=project)


def _life(token: dict[str, Any]) -> float:
    """Seconds from its making to its end: by Keystone's clock alone, as ours may be another."""
    try:
        begin, end = (datetime.fromisoformat(token[name]) for name in ("issued_at", "expires_at"))
        return max(0.0, (end - begin).total_seconds())
    except (KeyError, ValueError, TypeError):
        return LIFE
