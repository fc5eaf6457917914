"""The assembly: from settings to a running server, in the order in which things happen.

twistd calls `make` first, then opens sockets through `privilegedStartService` (still as root if it was started so),
changes to the configured user, and calls `startService`. What cannot work ends the start at the earliest of these
with one line and exit status 1.
"""

# Twisted's services have hardly any annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txregistry import config
from txregistry.concurrency import Shields
from txregistry.config.keys import default_of
from txregistry.config.schema import KEYS
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.errors import StorageError
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
from txregistry.storage.factory import EngineError, open_driver, require
from txregistry.storage.pool import Pool
from txregistry.version import __version__
from txregistry.web.app import WebOptions, make_resource
from txregistry.web.site import RegistrySite

#: How long a stop waits for commits that are under way, in seconds.
SHUTDOWN_SECONDS = 30.0
#: When leftovers of dead uploads are looked for: after the start, and from then on, in seconds.
FIRST_SWEEP, SWEEP_EVERY = 60.0, 3600.0

_log = Logger()


class StartFailed(Exception):
    """The server cannot start; the text is one line."""


def make(
    options: Mapping[str, Any], environ: Mapping[str, str], cwd: str, reactor: Any, *, daemon: bool = False
) -> MultiService:
    """The service for the options of the command line; SystemExit with one line for what can be seen to be wrong."""
    try:
        settings = config.load(
            options["config"],
            options["flavor"],
            environ,
            cwd,
            config.Options(
                storage_path=options["storage-path"],
                listen=tuple(options["listen"]),
                tls_certificate=options["tls-certificate"],
                tls_key=options["tls-key"],
                tls_client_ca=options["tls-client-ca"],
            ),
        )
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


def endpoints_of(settings: config.Settings) -> tuple[list[Endpoint], Any]:
    """What can be known before anything is opened: the endpoints, and the TLS context if one needs it.

    StartFailed for settings that this version, or this machine, cannot serve.
    """
    if not settings.standalone and not settings.disable_token_auth:
        raise StartFailed(
            "standalone: found false, which asks for the tokens of an index; this version cannot check them and would"
            " let everybody in; allowed is standalone: true"
        )
    if settings.users_file is not None:
        raise StartFailed(
            "users_file: this version cannot check passwords and would let everybody in; allowed is to leave it out"
        )
    try:
        require(settings.storage.engine)
        endpoints = [parse(text) for text in settings.listen]
        tls = None
        if any(endpoint.needs_certificate for endpoint in endpoints):
            assert settings.tls_certificate is not None, "the configuration asks for it"
            assert settings.tls_key is not None, "the configuration defaults to the certificate's file"
            tls = tls_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    except (EngineError, ListenError) as error:
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
    """One registry with its sockets, its storage and its threads."""

    def __init__(self, settings: config.Settings, reactor: Any, *, daemon: bool = False) -> None:
        self.settings = settings
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._daemon = daemon
        self._endpoints, self._tls = endpoints_of(settings)
        self._access_log = AccessLog(settings.access_log, daemon=daemon) if settings.access_log else None
        self.shields = Shields()
        self._pool = Pool(reactor, settings.threads)
        self._driver = open_driver(settings.storage.engine, settings.storage.path, self._pool, reactor)
        self.registry = Registry(self._driver, policy_of(settings), self.shields, reactor)
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = reactor
        self._first_sweep: IDelayedCall | None = None
        resource = make_resource(self.registry, web_options_of(settings))
        self.site = RegistrySite(
            resource, reactor, access_log=self._access_log.write if self._access_log else None
        )

        # Twisted would log each start and stop of the factory.
        self.site.noisy = False

    def privilegedStartService(self) -> None:
        """Open the sockets. Nobody is served before the reactor runs."""
        super().privilegedStartService()
        try:
            for endpoint in self._endpoints:
                self.ports.append(listen(self._reactor, endpoint, self.site, self._tls))
        except ListenError as error:
            self._fail(str(error))

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
        self._first_sweep = self._reactor.callLater(FIRST_SWEEP, self._sweeping.start, SWEEP_EVERY)
        self._reactor.callWhenRunning(self._tell)

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

    async def _stop(self) -> None:
        ports, self.ports = self.ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        if self._first_sweep is not None and self._first_sweep.active():
            self._first_sweep.cancel()
        if self._sweeping.running:
            self._sweeping.stop()
        # Uploads under way are saved as far as they came, as if their clients had left.
        self.site.cut_connections()
        await self.shields.drained(self._reactor, SHUTDOWN_SECONDS)
        if self.shields:
            _log.warn("{count} commits had not ended after {seconds} s",
                      count=len(self.shields), seconds=SHUTDOWN_SECONDS)  # fmt: skip
        await self._driver.close()
        await self._pool.stop()
        if self._access_log is not None:
            self._access_log.close()

    def _fail(self, line: str) -> NoReturn:
        """End the start with one line: on the terminal, or in a daemon's log and to the twistd that waits for it."""
        if not self._daemon:
            # sys.stderr leads into the log by now.
            os.write(2, f"txregistry: {line}\n".encode(errors="backslashreplace"))
            raise SystemExit(1)
        _log.critical("{line}", line=line)
        raise StartFailed(line)

    def _tell(self) -> None:
        """A few lines for whoever started it: what runs, where, for whom, and what to type next."""
        if not self.running:
            return
        settings = self.settings
        addresses = [port.getHost() for port in self.ports]
        file = f"of {settings.source}" if settings.source else "without a configuration file"
        _log.info("txregistry {version}, flavor {flavor} {file}",
                  version=__version__, flavor=settings.flavor, file=file)  # fmt: skip
        _log.info("storing in {path} ({engine})", path=settings.storage.path, engine=settings.storage.engine)
        for address, endpoint in zip(addresses, self._endpoints, strict=True):
            _log.info("listening on {address}", address=describe(address, endpoint.encrypted))
        for line in (*settings.warnings, *unused_keys(settings), *self._exposed(addresses)):
            _log.warn("{line}", line=line)
        _log.info("{who}", who=who_may_push(settings, self._endpoints))
        name = next(filter(None, map(registry_name, addresses)), None)
        if name is not None:
            _log.info("try: docker tag alpine {name}/alpine && docker push {name}/alpine", name=name)

    def _exposed(self, addresses: list[IAddress]) -> list[str]:
        """A warning for each address that is open to everybody on the network."""
        return [
            f"anybody who can reach {describe(address, endpoint.encrypted)} may push and delete; listen on"
            " interface=127.0.0.1 behind a proxy that asks for passwords, or on https: with tls_client_ca"
            for address, endpoint in zip(addresses, self._endpoints, strict=True)
            if not is_local(address) and not _asks_for_certificate(self.settings, endpoint)
        ]


def policy_of(settings: config.Settings) -> Policy:
    """What `core` reads of the settings."""
    return Policy(
        manifest_limit=settings.max_manifest_size,
        delete=settings.delete,
        accept_unknown_media_types=settings.accept_unknown_media_types,
        accept_missing_blobs=settings.accept_missing_blobs,
        upload_expiry=settings.upload_purge_age,
    )


def web_options_of(settings: config.Settings) -> WebOptions:
    """What `web` reads of the settings."""
    return WebOptions(
        external_url=settings.external_url or "",
        flavor=settings.flavor,
        registry_endpoints=settings.registry_endpoints,
    )


def _asks_for_certificate(settings: config.Settings, endpoint: Endpoint) -> bool:
    return endpoint.needs_certificate and settings.tls_client_ca is not None


def who_may_push(settings: config.Settings, endpoints: list[Endpoint]) -> str:
    """One line about access."""
    closed = [_asks_for_certificate(settings, endpoint) for endpoint in endpoints]
    what = "pull, push and delete" if settings.delete else "pull and push"
    if all(closed):
        return f"whoever shows a certificate of {settings.tls_client_ca} may {what}"
    if any(closed):
        return f"anybody who can connect may {what}; https: asks for a certificate of {settings.tls_client_ca}"
    return f"anybody who can connect may {what}"


def unused_keys(settings: config.Settings) -> list[str]:
    """A warning if keys are set that this version reads but does not act on."""
    names = [
        key.name
        for key in KEYS
        if key.later and (not key.engines or settings.storage.engine in key.engines)
        if key.name in settings.values and settings.values[key.name] != default_of(key)
    ]
    return [f"no effect in this version: {', '.join(names)}"] if names else []
