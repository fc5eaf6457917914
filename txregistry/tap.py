"""`twistd registry`: its options, and the service that they make.

`twistd registry --help` loads this module alone: what is heavy waits for `makeService`.
"""

# Twisted's options have no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.application.service import IService
from twisted.python import usage

from txregistry.version import __version__

if TYPE_CHECKING:
    from txregistry import config

#: What twistd calls its pid file unless told otherwise.
_PID_FILE = "twistd.pid"


class Options(usage.Options):
    """The options after `registry`; one that is given wins over the configuration key of its name."""

    synopsis = "[options]"
    longdesc = (
        "A container registry. Without a configuration file it serves the loopback interface, port 5000,"
        " and stores in the user's data folder. 'txregistry config sample' prints a commented configuration,"
        " 'txregistry config check' says what one means."
    )
    optParameters: ClassVar[list[list[Any]]] = [
        [
            "config",
            "c",
            None,
            "YAML file of flavors; default: $DOCKER_REGISTRY_CONFIG, else config.yml in the working directory,"
            " else one under /etc.",
        ],
        ["flavor", "f", None, "Flavor of that file; default: $SETTINGS_FLAVOR, else dev."],
        ["storage-path", None, None, "Folder of local storage (key: storage_path)."],
        ["tls-certificate", None, None, "PEM file with the certificate and its chain (key: tls_certificate)."],
        ["tls-key", None, None, "PEM file with its private key (key: tls_key)."],
        [
            "tls-client-ca",
            None,
            None,
            "PEM file of authorities; clients must then show a certificate of one (key: tls_client_ca).",
        ],
        [
            "workers",
            None,
            None,
            "Processes that serve, beside one that keeps them running: a number, or auto for one on each CPU;"
            " default: 0, which is one process that serves by itself (key: workers).",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Where to listen; may be given several times (key: listen). A Twisted endpoint such as tcp:5000,
        tcp:5000:interface=127.0.0.1 or unix:/run/registry.sock, or https:5443, which serves the certificate.
        """
        self["listen"].append(endpoint)

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"txregistry {__version__}\n")
        sys.exit(0)

    def postOptions(self) -> None:
        """In the foreground drop twistd's default pid file, which lets a folder be the working directory of one server
        only and stays behind after a crash. A daemon keeps it: it is the way to stop one.
        """
        twistd = getattr(self, "parent", None)
        if twistd is not None and twistd["nodaemon"] and twistd["pidfile"] == _PID_FILE:
            twistd["pidfile"] = ""

    @property
    def daemon(self) -> bool:
        """Whether twistd is about to leave the terminal."""
        twistd = getattr(self, "parent", None)
        return twistd is not None and not twistd["nodaemon"]


def settings_of(
    options: Mapping[str, Any], environ: Mapping[str, str], cwd: str, snapshot: config.Snapshot | None = None
) -> config.Settings:
    """The settings that the options and the configuration ask for; config.ConfigError if they cannot be read."""
    from txregistry import config  # noqa: PLC0415 - takes time

    return config.load(
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
            workers=options["workers"],
        ),
        snapshot,
    )


def makeService(options: Options) -> IService:
    """The registry that the options and the configuration ask for; SystemExit with one line if it cannot be."""
    # The reactor is chosen by twistd before it calls this; the rest is what takes time to import.
    from twisted.internet import reactor  # noqa: PLC0415

    from txregistry import config  # noqa: PLC0415

    cwd = os.getcwd()
    try:
        snapshot = config.take(options["config"], os.environ, cwd)
        settings = settings_of(options, os.environ, cwd, snapshot)
    except config.ConfigError as error:
        raise SystemExit(f"txregistry: {error}") from None
    if settings.workers == 0:
        from txregistry import service  # noqa: PLC0415

        return service.make(settings, reactor, daemon=options.daemon)

    from txregistry.workers.parent import make  # noqa: PLC0415

    return make(options, settings, snapshot, cwd, reactor, daemon=options.daemon)
