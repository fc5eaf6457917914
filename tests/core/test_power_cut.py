"""The power is cut at any moment of pushes, mounts, tag moves and deletes: what was acknowledged is whole.

A disk that takes notes shows which trees may be left when the power goes: whatever was not fsynced is lost, whole or
in part. On each such tree a new registry starts, and what the old one had acknowledged is looked for. By default a
sample of the moments is tried; TXREGISTRY_LONG=1 in the environment asks for all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from tests.core.local_store import LONG, Ask, Store, asking, foreign_blobs, memory_folder
from tests.web.v2.base import OCI_INDEX, OCI_MANIFEST, image, index, sha256
from txregistry.concurrency import start
from txregistry.core.registry import Registry
from txregistry.errors import RegistryError
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, parse_reference
from txregistry.testing.faults import SYNCS, CrashState, RecordingDisk, _states_at
from txregistry.testing.pools import result_of

CONFIG, FIRST, SECOND, GOING = b"{}", b"first layer" * 100, b"second layer" * 200, b"a layer that goes"
OLD = image(CONFIG, [FIRST])
NEW = image(CONFIG, [FIRST, SECOND])
SIGNATURE = image(CONFIG, [], subject={"mediaType": OCI_MANIFEST, "size": len(OLD), "digest": sha256(OLD)})
INDEX = index([OLD])

#: What can be asked for: ("blob", repository, digest), ("manifest", repository, tag or digest), or
#: ("referrers", repository, digest of the subject).
Key = tuple[str, str, str]
#: The bytes; of referrers their digests. None when there is nothing.
Value = bytes | tuple[str, ...] | None


@dataclass(frozen=True)
class Step:
    """Something a client does, which may be done a second time, and what is there once it is acknowledged."""

    run: Callable[[Ask], None]
    then: Mapping[Key, Value]


# -- the scenario -------------------------------------------------------------------------------------------------


def blob(name: str, data: bytes, pieces: int = 0) -> Step:
    """A blob by POST, PATCHes and PUT."""

    def run(ask: Ask) -> None:
        location = ask("POST", f"/v2/{name}/blobs/uploads/").header("Location")
        assert location is not None
        size = len(data) // pieces if pieces else 0
        for number in range(pieces):
            assert ask("PATCH", location, body=data[number * size : number * size + size]).code == 202
        last = ask("PUT", f"{location}?digest={sha256(data)}", body=data[pieces * size :])
        assert last.code == 201, last

    return Step(run, {("blob", name, sha256(data)): data})


def mount(name: str, source: str, data: bytes) -> Step:
    def run(ask: Ask) -> None:
        assert ask("POST", f"/v2/{name}/blobs/uploads/?mount={sha256(data)}&from={source}").code == 201

    return Step(run, {("blob", name, sha256(data)): data})


def manifest(name: str, reference: str, data: bytes, media_type: str = OCI_MANIFEST, **referrers: str) -> Step:
    def run(ask: Ask) -> None:
        response = ask("PUT", f"/v2/{name}/manifests/{reference}", {"Content-Type": media_type}, data)
        assert response.code == 201, response

    then: dict[Key, Value] = {("manifest", name, reference): data, ("manifest", name, sha256(data)): data}
    for subject in referrers.values():
        then["referrers", name, subject] = (sha256(data),)
    return Step(run, then)


def delete(kind: str, name: str, *references: str, **referrers: str) -> Step:
    def run(ask: Ask) -> None:
        assert ask("DELETE", f"/v2/{name}/{kind}s/{references[0]}").code in {202, 404}

    then: dict[Key, Value] = {(kind, name, reference): None for reference in references}
    for subject in referrers.values():
        then["referrers", name, subject] = ()
    return Step(run, then)


SCENARIO = (
    blob("a", CONFIG),
    blob("a", FIRST),
    manifest("a", "latest", OLD),
    mount("b/c", "a", CONFIG),
    mount("b/c", "a", FIRST),
    manifest("b/c", "one", OLD),
    blob("a", SECOND, pieces=2),
    manifest("a", "latest", NEW),
    manifest("a", "latest", OLD),
    manifest("a", sha256(SIGNATURE), SIGNATURE, subject=sha256(OLD)),
    manifest("b/c", "all", INDEX, OCI_INDEX),
    manifest("a", "going", NEW),
    delete("manifest", "a", "going"),
    manifest("a", "going", NEW),
    delete("manifest", "a", sha256(NEW), "going"),
    blob("a", GOING),
    delete("blob", "a", sha256(GOING)),
    delete("manifest", "a", sha256(SIGNATURE), subject=sha256(OLD)),
    blob("a", GOING),
    manifest("a", "again", NEW),
)


# -- what is found ------------------------------------------------------------------------------------------------


async def _look(registry: Registry, key: Key) -> Value:
    kind, name, reference = key
    repository = RepositoryName.parse(name)
    if kind == "manifest":
        return (await registry.manifests.get(repository, parse_reference(reference))).data
    digest = Digest.parse(reference)
    if kind == "referrers":
        found, _ = await registry.referrers.page(repository, digest, 1 << 20)
        return tuple(str(one["digest"]) for one in found)
    reader = await registry.blobs.open(repository, digest)
    try:
        return b"".join([chunk async for chunk in reader.chunks(0, reader.size)])
    finally:
        reader.close()


def look(registry: Registry, key: Key) -> Value:
    """What the registry has for this key, which may be an exception that says more than that it is not there."""
    try:
        return result_of(start(_look(registry, key)))
    except RegistryError:
        return None
    except Exception as error:  # damage shows itself in many ways, and each is a finding
        return repr(error).encode()


class PowerCutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = memory_folder(self)
        self.found = f"{self.folder}/found"
        self.prefixes = 0

    def record(self, without: str | None = None) -> RecordingDisk:
        """Run the scenario on a disk that takes notes."""
        root = f"{self.folder}/store-{without}"
        disk = RecordingDisk(root, without)
        ask = asking(Store("recorded", root, disk=disk))
        for number, step in enumerate(SCENARIO):
            disk.mark(("begun", number))
            step.run(ask)
            disk.mark(("acknowledged", number))
        shutil.rmtree(root)
        return disk

    def states(self, disk: RecordingDisk, every: int, window: int) -> Iterator[tuple[int, CrashState]]:
        """What a power cut may leave at each `every`th moment, and at each at which something was acknowledged."""
        seen: set[object] = set()
        for length in range(len(disk.log) + 1):
            last = disk.log[length - 1] if length else None
            if length % every and not (isinstance(last, tuple) and last[0] == "mark"):
                continue
            self.prefixes += 1
            for state in _states_at(disk, length, window):
                key = state.key()
                if key not in seen:
                    seen.add(key)
                    yield length, state

    def lost(self, state: CrashState, retry: bool) -> list[str]:
        """What is wrong with a state; with `retry` also after the step that was under way is tried again."""
        state.materialise(self.found)
        allowed, under_way = self.expected(state.acknowledged)
        store = Store("found", self.found)
        wrong = [f"foreign bytes in {digest}" for digest in foreign_blobs(self.found)]
        for key, values in allowed.items():
            found = look(store.registry, key)
            if found not in values:
                wrong.append(f"{key}: {_short(found)}, not {' or '.join(map(_short, values))}")
        if retry and under_way is not None and not wrong:
            under_way.run(asking(store))
            wrong += [
                f"after a retry {key}" for key, value in under_way.then.items() if look(store.registry, key) != value
            ]
            wrong += [f"foreign bytes in {digest} after a retry" for digest in foreign_blobs(self.found)]
        return wrong

    def expected(self, marks: tuple[object, ...]) -> tuple[dict[Key, list[Value]], Step | None]:
        """What each key may have: what was acknowledged last, or what the step under way makes of it."""
        allowed: dict[Key, list[Value]] = {}
        under_way = None
        for mark in marks:
            assert isinstance(mark, tuple)
            step = SCENARIO[mark[1]]
            under_way = step if mark[0] == "begun" else None
            if mark[0] == "acknowledged":
                allowed.update({key: [value] for key, value in step.then.items()})
        if under_way is not None:
            for key, value in under_way.then.items():
                allowed[key] = [*allowed.get(key, [_nothing(key)]), value]
        return allowed, under_way

    def test_everything_acknowledged_survives(self) -> None:
        disk = self.record()
        wrong: list[str] = []
        total = retries = 0
        for length, state in self.states(disk, 1 if LONG else 3, 12 if LONG else 4):
            retry = LONG or state.how in {"nothing lost", "all unsynced lost"}
            wrong += [f"after {length} calls, {state.how}: {text}" for text in self.lost(state, retry)]
            retries += retry
            total += 1
        print(
            f"power cut: {self.prefixes} prefixes of {len(disk.log)} calls, {total} states, "
            f"{len(SCENARIO)} steps acknowledged, {retries} retried, {len(wrong)} lost"
        )
        self.assertEqual(wrong, [])
        self.assertGreater(total, 200)

    def test_each_kind_of_fsync_is_needed(self) -> None:
        for without in SYNCS:
            wrong: list[str] = []
            total = 0
            for _, state in self.states(self.record(without), 10**6, 4):
                wrong += self.lost(state, retry=False)
                total += 1
                if len(wrong) >= 10 and not LONG:
                    break
            print(f"power cut without fsync of kind {without}: {total} states, {len(wrong)} lost, first: {wrong[:1]}")
            self.assertNotEqual(wrong, [], without)


def _nothing(key: Key) -> Value:
    return () if key[0] == "referrers" else None


def _short(value: Value) -> str:
    return f"{value[:60]!r}" if isinstance(value, bytes) else repr(value)
