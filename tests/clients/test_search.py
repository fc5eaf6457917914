"""`docker search` and `podman search` list what was pushed, by either dialect."""

from collections.abc import Callable

from tests.clients.docker_daemon import DockerCase
from tests.clients.server import Registry
from tests.clients.storage_tools import StoreCase
from tests.clients.v1_lab import V1Case


class SearchCase(V1Case):
    """Repositories of each dialect, and one of both."""

    def check_search(self, registry: Registry, search: Callable[[str], list[str]]) -> None:
        """`search` gives the names, without the host, that a client lists."""
        for name in ("team/old-app", "team/both-app"):
            self.docker_code("push", registry.host, name)
        for name in ("team/new-app", "team/both-app", "team/tool", "lonely"):
            self.push(registry, name, "1", self.images.app)
        apps = ["team/both-app", "team/new-app", "team/old-app"]
        for term, expected in (("app", apps), ("APP", apps), ("team/t", ["team/tool"]), ("lon", ["lonely"]), ("x", [])):
            self.assertEqual(search(f"{registry.host}/{term}"), expected, term)
        # More than a page.
        for number in range(40):
            registry.request("PUT", f"/v1/repositories/many/r{number:02}/", b"[]")
        self.assertEqual(search(f"{registry.host}/many"), [f"many/r{number:02}" for number in range(25)])


class DockerSearchTests(SearchCase, DockerCase):
    needs = ("v1docker", *DockerCase.needs)

    def test_search(self) -> None:
        registry = self.start_registry()
        self.start_dockerd()
        self.check_search(registry, lambda term: self.docker("search", "--format", "{{.Name}}", term).split())


class PodmanSearchTests(SearchCase, StoreCase):
    needs = ("v1docker", "podman")
    tool = "podman"
    options = ("--cgroup-manager", "cgroupfs")

    def test_search(self) -> None:
        def search(term: str) -> list[str]:
            names = self.verb("search", "--tls-verify=false", "--format", "{{.Name}}", term).split()
            return [name.removeprefix(f"{self.registry.host}/") for name in names]

        self.check_search(self.registry, search)
