"""Who may import whom: reads every module's imports and fails on one that points upward."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txregistry

ROOT = Path(txregistry.__file__).parent
PLUGIN = ROOT.parent / "twisted" / "plugins" / "txregistry_plugin.py"

#: A layer -> the layers below it that it may import besides itself. "top" is where all parts meet.
BELOW = {
    "base": set(),
    "model": {"base"},
    "config": {"base"},
    "storage": {"model", "base"},
    "auth": {"model", "base"},
    "core": {"model", "base"},
    "web": {"core", "auth", "model", "base"},
    "testing": {"web", "core", "auth", "storage", "config", "model", "base"},
    "top": {"web", "core", "auth", "storage", "config", "model", "base"},
}
BASE_MODULES = {"errors", "interfaces", "concurrency", "version"}
TOP_MODULES = {"tap", "service", "listen", "logs", "mail", "smtp", "redact", "cli"} | {
    *("workers", "hangup", "startup", "fronts", "hooks"),
}

#: The paths of the store are drawn in one module, which core and auth need to say what they mean.
EXCEPTIONS = {("core", "txregistry.storage.layout"), ("auth", "txregistry.storage.layout")}

#: Packages below `storage` that are engines: none may import another's, what they share is beside them.
ENGINES = {"s3", "swift", "glance", "elliptics"}

#: Pure decisions: no framework, no input or output, no clock.
BANNED_IN_MODEL = {
    *("twisted", "klein", "werkzeug", "zope"),
    *("os", "socket", "time", "io", "pathlib", "threading", "random"),
}
#: What only some installations have, or few requests need: never imported with a module.
LAZY = {"boto3", "botocore", "treq", "txredisapi", "rsa", "bcrypt", "prometheus_client"}
MOST_LINES = 400


def modules() -> list[tuple[str, Path]]:
    """Dotted name and file of every module of the package."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("txregistry", *path.relative_to(ROOT).with_suffix("").parts)
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def layer(module: str) -> str:
    """The layer of a dotted name; an AssertionError for one that the table does not know."""
    parts = module.split(".")
    second = parts[1] if len(parts) > 1 else ""
    if not second or second in BASE_MODULES:
        return "base"
    if second in TOP_MODULES:
        return "top"
    assert second in BELOW, f"{module} is in no layer: tests/test_layers.py says which there are"
    return second


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each dotted name that a module imports anywhere in it, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def at_import(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The imports that run when the module is imported: those outside functions and `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)
        waiting.extend(ast.iter_child_nodes(node))


def engine(module: str) -> str | None:
    """The engine to whose package a dotted name belongs; None if to none."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["txregistry", "storage"] and parts[2:] and parts[2] in ENGINES else None


def upward(module: str, tree: ast.AST) -> list[str]:
    """The imports of a module that its layer may not have, each as `module:line imports name`."""
    own = layer(module)
    allowed = BELOW[own] | {own}
    wrong = []
    for name, line in imports(tree):
        if name != "txregistry" and not name.startswith("txregistry."):
            continue
        if name == "txregistry" or any(own == who and name.startswith(what) for who, what in EXCEPTIONS):
            continue
        # `from txregistry.storage import layout` names both; the package itself is then judged by its member.
        if any(who == own and what.startswith(name + ".") for who, what in EXCEPTIONS):
            continue
        if layer(name) not in allowed:
            wrong.append(f"{module}:{line} imports {name}")
    return wrong


class LayerTests(SynchronousTestCase):
    def setUp(self):
        self.trees = {name: ast.parse(path.read_text()) for name, path in modules()}

    def test_nothing_points_upward(self):
        wrong = [each for name, tree in self.trees.items() for each in upward(name, tree)]
        self.assertEqual(wrong, [])

    def test_engines_do_not_import_each_other(self):
        wrong = [
            f"{name}:{line} imports {imported}"
            for name, tree in self.trees.items()
            if name != "txregistry.storage.factory"
            for imported, line in imports(tree)
            if engine(imported) not in (None, engine(name))
        ]
        self.assertEqual(wrong, [])
        self.assertEqual({engine(name) for name in self.trees} - {None}, ENGINES)

    def test_model_is_pure(self):
        wrong = [
            f"{name}:{line} imports {imported}"
            for name, tree in self.trees.items()
            if layer(name) == "model"
            for imported, line in imports(tree)
            if imported.split(".")[0] in BANNED_IN_MODEL
        ]
        self.assertEqual(wrong, [])

    def test_model_reads_nothing(self):
        wrong = [
            f"{name}:{node.lineno} calls {node.func.id}"
            for name, tree in self.trees.items()
            if layer(name) == "model"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if node.func.id in {"open", "print", "input"}
        ]
        self.assertEqual(wrong, [])

    def test_heavy_libraries_are_imported_late(self):
        wrong = [
            f"{name}:{line} imports {imported}"
            for name, tree in self.trees.items()
            if layer(name) != "testing"
            for imported, line in at_import(tree)
            if imported.split(".")[0] in LAZY
        ]
        self.assertEqual(wrong, [])

    def test_the_reactor_is_an_argument(self):
        wrong = [
            f"{name}:{line}"
            for name, tree in self.trees.items()
            for imported, line in (at_import if layer(name) == "top" else imports)(tree)
            if imported == "twisted.internet.reactor"
        ]
        self.assertEqual(wrong, [])

    def test_the_plugin_imports_nothing_of_ours(self):
        tree = ast.parse(PLUGIN.read_text())
        self.assertEqual(
            [name for name, _ in imports(tree)],
            ["twisted.application.service", "twisted.application.service.ServiceMaker"],
        )
        self.assertEqual([path.name for path in PLUGIN.parent.parent.rglob("__init__.py")], [])

    def test_modules_are_short_or_say_why(self):
        wrong = [
            f"{name}: {lines} lines"
            for name, path in modules()
            if (lines := len(path.read_text().splitlines())) > MOST_LINES
            and "lines" not in (ast.get_docstring(self.trees[name]) or "")
        ]
        self.assertEqual(wrong, [])


class RuleTests(SynchronousTestCase):
    """The rules themselves: each refuses what it should."""

    def test_upward_imports_are_found(self):
        for module, source in [
            ("txregistry.model.digest", "from txregistry.storage import layout"),
            ("txregistry.core.blobs", "from txregistry.storage.local import LocalDriver"),
            ("txregistry.core.blobs", "from txregistry.storage import local"),
            ("txregistry.storage.pool", "import txregistry.core.uploads"),
            ("txregistry.web.v2.blobs", "from txregistry.storage import layout"),
            ("txregistry.core.tags", "def f():\n    from txregistry.web import app"),
            ("txregistry.errors", "from txregistry.model.digest import Digest"),
            ("txregistry.web.app", "from txregistry.testing import memory"),
            ("txregistry.config.load", "from txregistry.service import make"),
        ]:
            self.assertNotEqual(upward(module, ast.parse(source)), [], (module, source))

    def test_downward_imports_are_not(self):
        for module, source in [
            ("txregistry.core.blobs", "from txregistry.storage import layout"),
            ("txregistry.core.blobs", "from txregistry.storage.layout import blob_path"),
            ("txregistry.service", "from txregistry.storage.local import LocalDriver"),
            ("txregistry.web.v2.blobs", "from txregistry.core.blobs import Blobs"),
            ("txregistry.storage.pool", "from txregistry.concurrency import Patient"),
        ]:
            self.assertEqual(upward(module, ast.parse(source)), [], (module, source))

    def test_imports_inside_functions_are_late(self):
        source = "import a\ndef f():\n    import b\nclass C:\n    import c\ntry:\n    import d\nexcept E:\n    pass"
        tree = ast.parse(source)
        self.assertEqual(sorted(name for name, _ in at_import(tree)), ["a", "c", "d"])
