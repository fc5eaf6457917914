"""A configuration file in a folder of its own, and what it loads as."""

from __future__ import annotations

import os
from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from txregistry.config import ConfigError, Options, Settings, document, load

NO_OPTIONS = Options()


def flavor(keys: str, name: str = "dev") -> str:
    """A file of one flavor."""
    return f"{name}: {{{keys}}}"


class ConfigCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.patch(document, "SYSTEM_FILES", ())

    def write(self, text: str | bytes, name: str = "config.yml") -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def load(
        self,
        text: str | bytes | None = None,
        *,
        flavor: str | None = None,
        environ: Mapping[str, str] | None = None,
        options: Options = NO_OPTIONS,
    ) -> Settings:
        if text is not None:
            self.write(text)
        return load(None, flavor, environ or {}, self.folder, options)

    def line(self, text: str | bytes | None = None, **further) -> str:
        """The one line of the error, the folder's name left out."""
        line = str(self.assertRaises(ConfigError, self.load, text, **further))
        self.assertEqual(line.splitlines(), [line])
        return line.replace(self.folder + "/", "")
