"""What a user installs: the wheel has the plugin, the commands and the sample, and works far from the source tree."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.running import ROOT, environment

SECONDS = 300


@cache
def installed() -> "tuple[Path, Path]":
    """One wheel for all tests, and an environment with it, whose dependencies are those of this interpreter."""
    if not (ROOT / "setup.py").exists():
        raise SkipTest("these tests are run from a source tree")
    folder = Path("test_package.temp").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("txregistry", "twisted"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    wheel = build(source, folder)
    environment = folder / "environment"
    venv.create(environment, symlinks=True, with_pip=False)
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Nothing is downloaded: what the wheel depends on is looked for where this interpreter has it. That path comes
    # after the wheel's own, so that a txregistry that is installed there is not what is tested.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return wheel, environment


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree into a folder."""
    script = f"import setuptools.build_meta as build; print(build.build_wheel({str(folder)!r}))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if "No module named 'setuptools'" in result.stderr:
        raise SkipTest("setuptools is not installed here")
    assert result.returncode == 0, result.stderr
    return folder / result.stdout.split()[-1]


class ToxTests(SynchronousTestCase):
    def test_it_runs_all_but_what_takes_long(self):
        text = (ROOT / "tox.ini").read_text()
        names = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
        names |= {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
        names -= {"clients", "engines", "fronts", "long"}
        missing = [name for name in sorted(names) if f"tests.{name}" not in text]
        self.assertEqual(missing, [])


class WheelTests(SynchronousTestCase):
    def setUp(self):
        self.wheel, self.installed = installed()

    def run_installed(self, code: str, *arguments: str) -> str:
        """The output of some code in the environment, in an empty working directory."""
        elsewhere = Path(self.mktemp())
        elsewhere.mkdir()
        child = environment(elsewhere.absolute())
        del child["PYTHONPATH"]
        result = subprocess.run(
            [str(self.installed / "bin" / "python"), "-c", code, *arguments],
            cwd=elsewhere,
            env=child,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(os.listdir(elsewhere), [])
        return result.stdout

    def names(self) -> "list[str]":
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def test_twistd_knows_the_registry(self):
        out = self.run_installed("from twisted.scripts.twistd import run; run()", "--help")
        self.assertRegex(out, r"registry +A container registry")
        out = self.run_installed("from twisted.scripts.twistd import run; run()", "registry", "--help")
        self.assertIn("--storage-path", out)

    def test_the_command_and_the_sample(self):
        out = self.run_installed("from txregistry.cli.main import main; main()", "config", "sample")
        self.assertEqual(out, (ROOT / "conf" / "config_sample.yml").read_text())

    def test_it_is_the_wheel_that_runs(self):
        out = self.run_installed("import txregistry; print(txregistry.__file__)")
        self.assertTrue(out.startswith(str(self.installed)), out)

    def test_contents(self):
        names = self.names()
        self.assertIn("twisted/plugins/txregistry_plugin.py", names)
        self.assertIn("txregistry/py.typed", names)
        for unwanted in ("twisted/__init__.py", "twisted/plugins/__init__.py"):
            self.assertNotIn(unwanted, names)
        self.assertEqual([name for name in names if name.startswith(("tests/", "conf/", "docs/"))], [])

    def test_every_module_is_packaged(self):
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "txregistry").rglob("*.py")}
        self.assertEqual(modules - set(self.names()), set())

    def test_metadata(self):
        with zipfile.ZipFile(self.wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = archive.read(name).decode()
            entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
        self.assertIn("txregistry = txregistry.cli.main:main", entry_points)
        self.assertIn("Requires-Python: >=3.11", metadata)
        for extra in ("s3", "all"):
            self.assertIn(f"Provides-Extra: {extra}", metadata)
