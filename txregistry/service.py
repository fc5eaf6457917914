"""The assembly: from settings to a running server, in the order in which things happen.

twistd calls `make` first, then opens sockets through `privilegedStartService` (still as root if it was started so),
changes to the configured user, and calls `startService`. What cannot work ends the start at the earliest of these
with one line and exit status 1.
"""

# Twisted's services have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txregistry import config
from txregistry.auth.factory import AccessError, AccessOptions, check, make_guard, warnings
from txregistry.concurrency import Shields
from txregistry.config.kinds import without_login
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.errors import StorageError
from txregistry.fronts import accel_prefix_of, cors_of, front_warnings, proxies_of, redirects_of
from txregistry.hangup import on_hangup
from txregistry.hooks import load_hooks
from txregistry.listen import (
    Endpoint,
    ListenError,
    describe,
    is_local,
    listen,
    parse,
    registry_name,
    tls_context,
)
from txregistry.logs import AccessLog, keep_from
from txregistry.mail import MailService
from txregistry.startup import StartFailed, allow_many_files, end_start
from txregistry.storage.disk import is_local as is_near
from txregistry.storage.factory import (
    EngineError,
    open_diff_queue,
    open_driver,
    place_of,
    require,
    require_cache,
    with_cache,
)
from txregistry.storage.pool import Pool
from txregistry.version import __version__
from txregistry.web.app import WebOptions, make_resource
from txregistry.web.hot import Hot
from txregistry.web.site import RegistrySite

#: How long a stop waits for commits that are under way, in seconds.
SHUTDOWN_SECONDS = 30.0
#: When leftovers of dead uploads are looked for: after the start, and from then on, in seconds.
FIRST_SWEEP, SWEEP_EVERY = 60.0, 3600.0
#: The keys of engines that tell one store from another.
_PLACES = (
    *("boto_bucket", "boto_host", "s3_endpoint", "swift_authurl", "swift_container", "os_auth_url", "os_glance_url"),
    *("elliptics_nodes", "elliptics_namespace"),
)

_log = Logger()


def make(settings: config.Settings, reactor: Any, *, daemon: bool = False) -> MultiService:
    """The service of a process that serves alone; SystemExit with one line for what can be seen to be wrong."""
    try:
        registry = RegistryService(settings, reactor, daemon=daemon)
        mail = MailService(settings, reactor)
    except (config.ConfigError, StartFailed) as error:
        raise SystemExit(f"txregistry: {error}") from None
    whole = MultiService()
    registry.setServiceParent(whole)
    # Last, so that whatever the level the log begins with what was started.
    LogLevelService(settings.loglevel, reactor).setServiceParent(whole)
    mail.setServiceParent(whole)
    return whole


def endpoints_of(
    settings: config.Settings, files: Mapping[str, bytes] | None = None
) -> tuple[list[Endpoint], Any]:
    """What can be known before anything is opened: the endpoints, and the TLS context if one needs it.

    `files` are contents, by path, that were read by a process that may read more than this one. StartFailed for
    settings that this version, or this machine, cannot serve.
    """
    try:
        check(access_options_of(settings), files)
        require(settings.storage.engine, settings.storage.alternate)
        if settings.cache_lru is not None:
            require_cache()
        if settings.cache is not None:
            require_cache("cache")
        endpoints = [parse(text) for text in settings.listen]
        tls = None
        if any(endpoint.needs_certificate for endpoint in endpoints):
            assert settings.tls_certificate is not None, "the configuration asks for it"
            assert settings.tls_key is not None, "the configuration defaults to the certificate's file"
            tls = tls_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, files)
    except (AccessError, EngineError, ListenError) as error:
        raise StartFailed(str(error)) from None
    return endpoints, tls


class LogLevelService(Service):
    """Applies `loglevel` once the server has told what it runs."""

    def __init__(self, loglevel: str, reactor: Any) -> None:
        self._loglevel = loglevel
        self._reactor = reactor

    def startService(self) -> None:
        """Filter the log from now on."""
        super().startService()
        self._reactor.callWhenRunning(keep_from, self._loglevel)


class RegistryService(Service):
    """One registry with its sockets, its storage and its threads.

    In a process that serves alone; `worker.py` has what differs in one of several.
    """

    #: Whether this is the process that does what one process for each store does: it sweeps.
    background = True

    def __init__(
        self,
        settings: config.Settings,
        reactor: Any,
        *,
        daemon: bool = False,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.settings = settings
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._daemon = daemon
        self._endpoints, self._tls = endpoints_of(settings, files)
        hooks = None if settings.hooks is None else load_hooks(settings.hooks)
        self._restore_hangup: Callable[[], None] | None = None
        self._access_log = AccessLog(settings.access_log, daemon=daemon) if settings.access_log else None
        self.shields = Shields()
        self._pool = Pool(reactor, settings.threads)
        self._driver = driver_of(settings, self._pool, reactor)
        diff_queue = diff_queue_of(settings, reactor)
        self.registry = Registry(
            self._driver, policy_of(settings), self.shields, reactor, self._pool, diff_queue, hooks
        )
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = reactor
        self._first_sweep: IDelayedCall | None = None
        access = access_options_of(settings)
        self.guard = make_guard(access, check(access, files), self._driver, self._pool, reactor, is_near)
        web = replace(web_options_of(settings), redirects=redirects_of(settings, self._driver))
        resource = make_resource(self.registry, web, self.guard)
        self.site = RegistrySite(
            resource,
            reactor,
            access_log=self._access_log.write if self._access_log else None,
            proxies=proxies_of(settings),
        )
        self.site.hot = Hot(self.site, self.guard)
        # Twisted would log each start and stop of the factory.
        self.site.noisy = False

    def privilegedStartService(self) -> None:
        """Open the sockets. Nobody is served before the reactor runs."""
        super().privilegedStartService()
        allow_many_files()
        self._restore_hangup = on_hangup(self._reactor, self._reopen_log)
        try:
            for number, endpoint in enumerate(self._endpoints):
                self.ports.append(self._open(number, endpoint))
        except ListenError as error:
            self._fail(str(error))

    def _open(self, _number: int, endpoint: Endpoint) -> IListeningPort:
        return listen(self._reactor, endpoint, self.site, self._tls)

    def _reopen_log(self) -> None:
        """At a SIGHUP let the next line open the access log anew: somebody may have renamed its file."""
        self.site.flush_log()
        if self._access_log is not None:
            self._access_log.close()

    def startService(self) -> None:
        """Prepare the storage, then tell what runs."""
        super().startService()
        try:
            self._driver.prepare()
        except StorageError as error:
            self._fail(error.reason or str(error))
        try:
            if self._access_log is not None:
                self._access_log.open()
        except OSError as error:
            self._fail(f"access_log: {self.settings.access_log} cannot be written: {os.strerror(error.errno or 0)}")
        self.registry.v1.start()
        if self.background:
            self._first_sweep = self._reactor.callLater(FIRST_SWEEP, self._sweeping.start, SWEEP_EVERY)
        self._when_started()

    def _when_started(self) -> None:
        self._reactor.callWhenRunning(self.tell)

    async def _sweep(self) -> None:
        try:
            await self.registry.janitor.sweep()
        except Exception:
            # A mistake in the sweep must not end it for good, nor anything else.
            _log.failure("the sweep failed")

    def stopService(self) -> Deferred[None]:
        """Stop listening, let commits end, and let go of the storage and the threads."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def stop_accepting(self) -> None:
        """Close the ports and begin nothing new; connections go on."""
        ports, self.ports = self.ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        if self._first_sweep is not None and self._first_sweep.active():
            self._first_sweep.cancel()
        if self._sweeping.running:
            self._sweeping.stop()

    async def _stop(self) -> None:
        await self.stop_accepting()
        await self.guard.close()
        # Uploads under way are saved as far as they came, as if their clients had left.
        self.site.cut_connections()
        await self.shields.drained(self._reactor, SHUTDOWN_SECONDS)
        if self.shields:
            _log.warn("{count} commits had not ended after {seconds} s",
                      count=len(self.shields), seconds=SHUTDOWN_SECONDS)  # fmt: skip
        await self.registry.v1.stop()
        await self._driver.close()
        await self._pool.stop()
        self.site.flush_log()
        if self._access_log is not None:
            self._access_log.close()
        if self._restore_hangup is not None:
            self._restore_hangup()

    def _fail(self, line: str) -> NoReturn:
        end_start(line, daemon=self._daemon)

    def tell(self) -> None:
        """A few lines for whoever started it: what runs, where, for whom, and what to type next."""
        if not self.running:
            return
        settings = self.settings
        addresses = [port.getHost() for port in self.ports]
        file = f"of {settings.source}" if settings.source else "without a configuration file"
        _log.info("txregistry {version}, flavor {flavor} {file}",
                  version=__version__, flavor=settings.flavor, file=file)  # fmt: skip
        storage = settings.storage
        place = place_of(storage.engine, storage.path, storage.keys, storage.alternate)
        _log.info("storing in {place} ({engine})", place=without_login(place), engine=storage.engine)
        for address, endpoint in zip(addresses, self._endpoints, strict=True):
            _log.info("listening on {address}", address=describe(address, endpoint.encrypted))
        told = (*settings.warnings, *front_warnings(settings), *access_warnings(settings))
        for line in (*told, *self._exposed(addresses)):
            _log.warn("{line}", line=without_login(line))
        _log.info("{who}", who=without_login(who_may_push(settings, self._endpoints)))
        name = next(filter(None, map(registry_name, addresses)), None)
        if name is not None and self.guard.knows_v2:
            _log.info("try: docker tag alpine {name}/alpine && docker push {name}/alpine", name=name)

    def _exposed(self, addresses: list[IAddress]) -> list[str]:
        """A warning for each address that is open to everybody on the network."""
        if not self.guard.is_open:
            return []
        return [
            f"anybody who can reach {describe(address, endpoint.encrypted)} may push and delete; listen on"
            " interface=127.0.0.1 behind a proxy that asks for passwords, or on https: with tls_client_ca"
            for address, endpoint in zip(addresses, self._endpoints, strict=True)
            if not is_local(address) and not _asks_for_certificate(self.settings, endpoint)
        ]


def driver_of(settings: config.Settings, pool: Pool, reactor: Any) -> Any:
    """The storage, with a cache beside it if one is configured; not yet prepared."""
    storage, redis = settings.storage, settings.cache_lru
    driver = open_driver(storage.engine, storage.path, pool, reactor, storage.keys)
    if redis is None:
        return driver
    # Folders of one name on two machines are two stores.
    machine = socket.gethostname() if "local" in (storage.engine, storage.alternate) else ""
    places = [str(storage.keys.get(name)) for name in _PLACES]
    store = [storage.engine, storage.alternate or "", machine, storage.path or "", *places]
    root = str(settings.values.get("storage_path") or "")
    return with_cache(driver, (redis.host, redis.port, redis.db, redis.password), store, root, reactor)


def policy_of(settings: config.Settings) -> Policy:
    """What `core` reads of the settings."""
    return Policy(
        manifest_limit=settings.max_manifest_size,
        delete=settings.delete,
        accept_unknown_media_types=settings.accept_unknown_media_types,
        accept_missing_blobs=settings.accept_missing_blobs,
        upload_expiry=settings.upload_purge_age,
    )


def diff_queue_of(settings: config.Settings, reactor: Any) -> Any:
    """The queue of diffs that is shared with others, if one is configured."""
    redis = settings.cache
    return None if redis is None else open_diff_queue((redis.host, redis.port, redis.db, redis.password), reactor)


def web_options_of(settings: config.Settings) -> WebOptions:
    """What `web` reads of the settings."""
    return WebOptions(
        external_url=settings.external_url or "",
        flavor=settings.flavor,
        registry_endpoints=settings.registry_endpoints,
        standalone=settings.standalone,
        accel_prefix=accel_prefix_of(settings),
        cors=cors_of(settings),
    )


def access_options_of(settings: config.Settings) -> AccessOptions:
    """What `auth` reads of the settings."""
    has_index = not settings.standalone and not settings.disable_token_auth
    glance: Any = settings.storage.keys.get("glance_request_endpoints")
    return AccessOptions(
        index_endpoint=settings.index_endpoint if has_index else None,
        users_file=settings.users_file,
        accounts_open=settings.accounts == "open",
        secret_key=settings.secret_key,
        privileged_key=settings.privileged_key,
        privileged_require_date=settings.privileged_require_date,
        standalone=settings.standalone,
        glance_endpoints=glance or (),
    )


def access_warnings(settings: config.Settings) -> list[str]:
    """Warnings about what is decided over access; a key that was made for this start counts as none."""
    secret_key = settings.secret_key if "secret_key" in settings.values else None
    return warnings(replace(access_options_of(settings), secret_key=secret_key))


def _asks_for_certificate(settings: config.Settings, endpoint: Endpoint) -> bool:
    return endpoint.needs_certificate and settings.tls_client_ca is not None


def who_may_push(settings: config.Settings, endpoints: list[Endpoint]) -> str:
    """One line about access."""
    closed = [_asks_for_certificate(settings, endpoint) for endpoint in endpoints]
    what = "pull, push and delete" if settings.delete else "pull and push"
    if settings.users_file is not None:
        more = ", which anybody may get," if settings.accounts == "open" else ""
        return f"whoever has an account of {settings.users_file}{more} may {what}; V1 clients may pull without"
    if not settings.standalone and not settings.disable_token_auth:
        return f"whoever has a token of {settings.index_endpoint} may do what it is for, by V1; V2 is not spoken"
    if all(closed):
        return f"whoever shows a certificate of {settings.tls_client_ca} may {what}"
    if any(closed):
        return f"anybody who can connect may {what}; https: asks for a certificate of {settings.tls_client_ca}"
    return f"anybody who can connect may {what}"
