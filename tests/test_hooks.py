"""Finding the operator's hooks by name, and what is said of those that cannot be used."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from tests.test_service import WithSettings
from txregistry import config
from txregistry.hooks import load_hooks
from txregistry.interfaces import IHooks
from txregistry.service import RegistryService, make
from txregistry.startup import StartFailed

#: Names of modules are never used twice in one process.
PREFIX = "hooks_of_a_test_"
METHODS = """
    def tag_created(self, namespace, repository, tag, image_id): pass
    def tag_deleted(self, namespace, repository, tag, image_id): pass
    def before_put_image_json(self, image_json): pass
"""
HEAD = """
from zope.interface import implementer, moduleProvides
from txregistry.interfaces import IHooks
"""


class Case(WithSettings, SynchronousTestCase):
    def module(self, text: str) -> str:
        """The name of a new module."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        name = PREFIX + str(abs(hash(str(folder))))
        (folder / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        self.addCleanup(sys.modules.pop, name, None)
        return name

    def refused(self, name: str, reason: str) -> None:
        error = self.assertRaises(StartFailed, load_hooks, name)
        self.assertEqual(str(error), f"hooks: {name} cannot be used: {reason}")


class LoadTests(Case):
    def test_a_class_or_what_was_made_of_it(self) -> None:
        name = self.module(f"@implementer(IHooks)\nclass Hooks:{METHODS}\nhooks = Hooks()\n")
        for attribute in ("Hooks", "hooks"):
            self.assertTrue(IHooks.providedBy(load_hooks(f"{name}.{attribute}")))

    def test_what_is_not_there(self) -> None:
        name = self.module("")
        self.refused(f"{name}.Hooks", f"AttributeError: module '{name}' has no attribute 'Hooks'")
        self.refused(f"{name}_x.Hooks", f"ObjectNotFound: '{name}_x.Hooks' does not name an object")

    def test_a_module_that_fails(self) -> None:
        name = self.module("raise RuntimeError('planted,\\nin two lines')")
        self.refused(f"{name}.Hooks", "RuntimeError: planted, in two lines")

    def test_a_class_that_fails(self) -> None:
        name = self.module("class Hooks:\n    def __init__(self): raise RuntimeError('planted')")
        self.refused(f"{name}.Hooks", "RuntimeError: planted")

    def test_what_promises_nothing(self) -> None:
        name = self.module(f"class Hooks:{METHODS}\nnumber = 3")
        for attribute in ("Hooks", "number"):
            self.refused(f"{name}.{attribute}", "it does not provide txregistry.interfaces.IHooks")

    def test_what_does_not_keep_its_promise(self) -> None:
        for methods, reason in (
            (METHODS.replace("tag_deleted", "tag_removed"), "tag_deleted"),
            (METHODS.replace("self, image_json", "self"), "before_put_image_json"),
        ):
            name = self.module(f"@implementer(IHooks)\nclass Hooks:{methods}\n")
            error = self.assertRaises(StartFailed, load_hooks, f"{name}.Hooks")
            self.assertIn(f"hooks: {name}.Hooks cannot be used: The object ", str(error))
            self.assertIn(reason, str(error))
            self.assertNotIn("\n", str(error))


class ConfiguredTests(Case):
    def test_the_key(self) -> None:
        self.assertIsNone(self.settings().hooks)
        self.assertEqual(self.settings("{hooks: acme.registry.Hooks}").hooks, "acme.registry.Hooks")
        for value in ("acme", "3", "a..b", "a.b()", "'a b.c'", "{a: b.c}"):
            error = self.assertRaises(config.ConfigError, self.settings, f"{{hooks: {value}}}")
            self.assertIn("allowed is a dotted name such as package.module.name", str(error))

    def test_the_server_calls_it(self) -> None:
        name = self.module(f"@implementer(IHooks)\nclass Hooks:{METHODS}\n")
        made = RegistryService(self.settings(f"{{hooks: {name}.Hooks}}"), reactor)
        self.assertTrue(made.registry.v1.hooks.listening)
        self.assertFalse(RegistryService(self.settings(), reactor).registry.v1.hooks.listening)

    def test_a_start_that_fails(self) -> None:
        name = self.module("")
        error = self.assertRaises(SystemExit, make, self.settings(f"{{hooks: {name}.Hooks}}"), reactor)
        self.assertEqual(
            str(error),
            f"txregistry: hooks: {name}.Hooks cannot be used: AttributeError: module '{name}' has no attribute 'Hooks'",
        )
