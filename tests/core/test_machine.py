"""A registry of two workers over one store, against a model: what was acknowledged is there, what was deleted is not.

The machine pushes, mounts, tags, deletes, stalls in the middle of a body, takes sessions over, sweeps and crashes, in
any order that Hypothesis thinks of. A crashed worker is one that nobody talks to any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.core.local_store import resource_for
from tests.web.v2.base import OCI_INDEX, OCI_MANIFEST, image, index, sha256
from txregistry.concurrency import Shields, start
from txregistry.core.policy import Policy
from txregistry.core.registry import Registry
from txregistry.model.digest import Digest
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.testing.agent import Agent, Exchange, Response
from txregistry.testing.pools import result_of

MACHINE = settings(deadline=None, derandomize=True, max_examples=100, stateful_step_count=50, print_blob=False)

NAMES = ("a", "a/b")
TAGS = ("latest", "v1", "v1-x")
BLOBS = (b"", b"{}", b"one", b"two" * 1000, bytes(range(256)) * 300)
#: The last is long enough to become several batches.
PIECES = {"none": b"", "one byte": b"x", "small": b"piece", "large": b"large" * 130_000}
EXPIRY = 7 * 24 * 3600.0
WORKERS = 2

names = st.sampled_from(NAMES)
tags = st.sampled_from(TAGS)
blobs = st.sampled_from(BLOBS)
pieces = st.sampled_from(sorted(PIECES))
workers = st.integers(0, WORKERS - 1)
mostly = st.sampled_from([True, True, True, False])
algorithms = st.sampled_from(["sha256", "sha512"])


@dataclass
class Session:
    """An upload session: what it is known to hold, and the request that is in the middle of its body."""

    name: str
    url: str
    data: bytes = b""
    ended: bool = False
    touched: float = 0.0
    busy: Stalled | None = None


@dataclass
class Stalled:
    """A PATCH that has sent a part of its body; `overtaken` once another request was let in."""

    session: Session
    exchange: Exchange
    worker: int
    start: bytes
    sent: bytes
    left: bytes
    began: float
    overtaken: bool = False


@dataclass
class Repository:
    """What a repository has: digests of blobs, manifests by digest, digests by tag, subjects by digest."""

    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)


class Worker:
    """One process of the registry; its clock stands still once it has crashed."""

    def __init__(self, slot: str, contents: Contents, now: float) -> None:
        self.clock = Clock()
        self.clock.advance(now)
        self.driver = MemoryDriver(self.clock, contents=contents)
        self.registry = Registry(self.driver, Policy(upload_expiry=EXPIRY), Shields(), self.clock)
        self.agent = Agent(resource_for(slot, self.registry), self.clock)


class Machine(RuleBasedStateMachine):
    """The registry and its model."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.contents = Contents()
        self.now = 0.0
        self.workers = [Worker(str(number), self.contents, self.now) for number in range(WORKERS)]
        self.crashed: list[object] = []
        self.stored: dict[str, bytes] = {}
        self.repositories = {name: Repository() for name in NAMES}
        self.sessions: list[Session] = []
        self.stalled: list[Stalled] = []

    def ask(self, worker: int, method: str, target: str, headers: Any = None, body: bytes = b"") -> Response:
        Machine.steps += 1
        return result_of(self.workers[worker].agent.request(method, target, headers, body))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.workers:
            worker.clock.advance(seconds)

    @initialize(name=names)
    def begin(self, name: str) -> None:
        """The blobs of an image, so that manifests come early."""
        for data in (b"{}", b"one"):
            self.push_in_two_requests(0, name, data, 1)

    # -- blobs --------------------------------------------------------------------------------------------------

    def has_blob(self, name: str, data: bytes) -> None:
        self.stored[sha256(data)] = data
        self.repositories[name].blobs.add(sha256(data))

    @rule(worker=workers, name=names, data=blobs, good=mostly)
    def push_in_one_request(self, worker: int, name: str, data: bytes, good: bool) -> None:
        digest = sha256(data) if good else sha256(data + b"!")
        response = self.ask(worker, "POST", f"/v2/{name}/blobs/uploads/?digest={digest}", body=data)
        assert response.code == (201 if good else 400), response
        if good:
            self.has_blob(name, data)

    @rule(worker=workers, name=names, data=blobs, other=workers)
    def push_in_two_requests(self, worker: int, name: str, data: bytes, other: int) -> None:
        location = self.ask(worker, "POST", f"/v2/{name}/blobs/uploads/").header("Location")
        response = self.ask(other, "PUT", f"{location}?digest={sha256(data)}", body=data)
        assert response.code == 201, response
        self.has_blob(name, data)

    @rule(worker=workers, name=names, source=st.none() | names, data=blobs)
    def mount(self, worker: int, name: str, source: str | None, data: bytes) -> None:
        origin = f"&from={source}" if source else ""
        response = self.ask(worker, "POST", f"/v2/{name}/blobs/uploads/?mount={sha256(data)}{origin}")
        there = sha256(data) in (self.repositories[source].blobs if source else self.stored)
        if there:
            assert response.code == 201, response
            self.has_blob(name, data)
        else:
            assert response.code == 202, response
            self.sessions.append(Session(name, str(response.header("Location")), touched=self.now))

    @rule(name=names, way=st.lists(st.tuples(workers, pieces), min_size=1, max_size=4), algorithm=algorithms)
    def push_in_chunks(self, name: str, way: list[tuple[int, str]], algorithm: str) -> None:
        """Each chunk at some worker, the last with the closing request."""
        session = Session(name, str(self.ask(way[0][0], "POST", f"/v2/{name}/blobs/uploads/").header("Location")))
        for worker, chosen in way[:-1]:
            assert self.ask(worker, "PATCH", session.url, None, PIECES[chosen]).code == 202
            session.data += PIECES[chosen]
        worker, chosen = way[-1]
        whole = session.data + PIECES[chosen]
        digest = str(Digest.of(whole, algorithm))
        response = self.ask(worker, "PUT", f"{session.url}?digest={digest}", None, PIECES[chosen])
        assert response.code == 201, response
        self.stored[digest] = whole
        self.repositories[name].blobs.add(digest)

    @rule(worker=workers, name=names, choice=st.data())
    def delete_blob(self, worker: int, name: str, choice: st.DataObject) -> None:
        data = choice.draw(self.some_blob(name))
        there = sha256(data) in self.repositories[name].blobs
        response = self.ask(worker, "DELETE", f"/v2/{name}/blobs/{sha256(data)}")
        assert response.code == (202 if there else 404), response
        self.repositories[name].blobs.discard(sha256(data))

    # -- sessions -----------------------------------------------------------------------------------------------

    @rule(worker=workers, name=names)
    def start_session(self, worker: int, name: str) -> None:
        response = self.ask(worker, "POST", f"/v2/{name}/blobs/uploads/")
        assert response.code == 202, response
        self.sessions.append(Session(name, str(response.header("Location")), touched=self.now))

    def was_let_in(self, session: Session, response: Response, code: int) -> bool:
        """Whether a request was taken as the session's next; one that was not has left it as it was."""
        if session.ended:
            assert response.code == 404, response
            return False
        if session.busy is not None and response.code == 409:
            assert int(response.header("Retry-After") or 0) > 0, response
            return False
        assert response.code == code, (response, code)
        session.touched = self.now
        if session.busy is not None:
            session.busy.overtaken = True
            session.busy = None
        return True

    def a_session(self, data: st.DataObject) -> Session:
        """One that goes on, or the last that has ended."""
        alive = [session for session in self.sessions if not session.ended]
        ended = [session for session in self.sessions if session.ended]
        return data.draw(st.sampled_from(alive * 5 + ended[-1:]))

    @precondition(lambda self: self.sessions)
    @rule(worker=workers, data=st.data(), chosen=pieces, place=st.sampled_from(["untold", "right", "gap"]))
    def append(self, worker: int, data: st.DataObject, chosen: str, place: str) -> None:
        self.append_to(self.a_session(data), worker, PIECES[chosen], place)

    def append_to(self, session: Session, worker: int, piece: bytes, place: str) -> None:
        first = len(session.data) + (place == "gap")
        told = place != "untold" and piece != b""
        headers = {"Content-Range": f"{first}-{first + len(piece) - 1}"} if told else {}
        response = self.ask(worker, "PATCH", session.url, headers, piece)
        wrong = told and place == "gap"
        if self.was_let_in(session, response, 416 if wrong else 202) and not wrong:
            session.data += piece
            self.has_offset(session, response)

    def has_offset(self, session: Session, response: Response) -> None:
        assert response.header("Range") == f"0-{max(len(session.data) - 1, 0)}", (response, len(session.data))

    @precondition(lambda self: self.sessions)
    @rule(worker=workers, data=st.data(), chosen=pieces, good=mostly, algorithm=algorithms)
    def finish(self, worker: int, data: st.DataObject, chosen: str, good: bool, algorithm: str) -> None:
        self.finish_one(self.a_session(data), worker, PIECES[chosen], good, algorithm)

    def finish_one(self, session: Session, worker: int, piece: bytes, good: bool, algorithm: str) -> None:
        whole = session.data + piece
        digest = str(Digest.of(whole if good else whole + b"!", algorithm))
        response = self.ask(worker, "PUT", f"{session.url}?digest={digest}", body=piece)
        if self.was_let_in(session, response, 201 if good else 400):
            session.ended = True
            if good:
                self.stored[digest] = whole
                self.repositories[session.name].blobs.add(digest)

    @precondition(lambda self: self.sessions)
    @rule(worker=workers, data=st.data())
    def cancel(self, worker: int, data: st.DataObject) -> None:
        self.cancel_one(self.a_session(data), worker)

    def cancel_one(self, session: Session, worker: int) -> None:
        if self.was_let_in(session, self.ask(worker, "DELETE", session.url), 204):
            session.ended = True

    @precondition(lambda self: self.sessions)
    @rule(worker=workers, data=st.data(), chosen=pieces, cut=st.integers(0, 3))
    def stall(self, worker: int, data: st.DataObject, chosen: str, cut: int) -> None:
        """Begin a PATCH, and send a part of its body."""
        self.stall_in(self.a_session(data), worker, PIECES[chosen], cut)

    def stall_in(self, session: Session, worker: int, piece: bytes, cut: int) -> None:
        if session.ended or session.busy is not None or not piece:
            return
        exchange = self.workers[worker].agent.start("PATCH", session.url, length=len(piece) + 1)
        whole = piece + b"$"
        at = len(piece) * cut // 3
        exchange.send(whole[:at])
        session.busy = Stalled(session, exchange, worker, session.data, whole[:at], whole[at:], self.now)
        session.touched = self.now
        self.stalled.append(session.busy)

    @precondition(lambda self: self.stalled)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        """Let a stalled request send the rest."""
        self.wake_one(data.draw(st.sampled_from(self.stalled)))

    def wake_one(self, one: Stalled) -> None:
        self.stalled.remove(one)
        one.exchange.send(one.left)
        response = result_of(one.exchange.response)
        one.exchange.lose()
        if one.overtaken:
            assert response.code in {404, 409, 416}, response
        else:
            assert response.code == 202, response
            session = one.session
            session.data, session.busy, session.touched = one.start + one.sent + one.left, None, self.now
            self.has_offset(session, response)

    @precondition(lambda self: self.stalled)
    @rule(data=st.data(), worker=workers)
    def leave(self, data: st.DataObject, worker: int) -> None:
        """Lose the connection of a stalled request: what had arrived is kept."""
        self.leave_one(data.draw(st.sampled_from(self.stalled)), worker)

    def leave_one(self, one: Stalled, worker: int) -> None:
        self.drop(one)
        if not one.overtaken:
            self.has_offset(one.session, self.ask(worker, "GET", one.session.url))

    @rule(
        name=names,
        both=st.tuples(workers, workers),
        chosen=st.sampled_from(["small", "large"]),
        cut=st.integers(1, 3),
        seconds=st.sampled_from([0.5, 6.0]),
        other=st.sampled_from(["append", "finish", "cancel", "nothing"]),
        end=st.sampled_from(["wake", "leave", "crash", "nothing"]),
    )
    def contend(
        self, name: str, both: tuple[int, int], chosen: str, cut: int, seconds: float, other: str, end: str
    ) -> None:
        """One request stalls, time passes, another one wants the session, and the first one ends somehow."""
        first, second = both
        self.start_session(first, name)
        session = self.sessions[-1]
        self.append_to(session, second, b"begun", "right")
        self.stall_in(session, first, PIECES[chosen], cut)
        stalled = self.stalled[-1]
        self.wait(seconds)
        if other == "append":
            self.append_to(session, second, b"second", "right")
        elif other == "finish":
            self.finish_one(session, second, b"second", True, "sha256")
        elif other == "cancel":
            self.cancel_one(session, second)
        if end == "wake":
            self.wake_one(stalled)
        elif end == "leave":
            self.leave_one(stalled, second)
        elif end == "crash":
            self.crash(first)
        self.finish_one(session, second, b"end", True, "sha256")

    # -- manifests ------------------------------------------------------------------------------------------------

    @rule(worker=workers, name=names, tag=st.none() | tags, variant=st.integers(0, 1), data=st.data())
    def push_image(self, worker: int, name: str, tag: str | None, variant: int, data: st.DataObject) -> None:
        layers = data.draw(st.lists(self.some_blob(name), max_size=2))
        more: dict[str, Any] = {"annotations": {"variant": str(variant)}}
        subject = data.draw(st.none() | self.some_manifest(name))
        if subject is not None:
            more["subject"] = {"mediaType": OCI_MANIFEST, "size": len(subject), "digest": sha256(subject)}
        manifest = image(b"{}", layers, **more)
        missing = {sha256(blob) for blob in (b"{}", *layers)} - self.repositories[name].blobs
        self.push_manifest(worker, name, tag, manifest, OCI_MANIFEST, missing, subject)

    @rule(worker=workers, name=names, tag=st.none() | tags, data=st.data())
    def push_index(self, worker: int, name: str, tag: str | None, data: st.DataObject) -> None:
        children = data.draw(st.lists(self.some_manifest(name), max_size=2))
        missing = {sha256(child) for child in children} - self.repositories[name].manifests.keys()
        self.push_manifest(worker, name, tag, index(children), OCI_INDEX, missing, None)

    def some_blob(self, name: str) -> st.SearchStrategy[bytes]:
        """One that the repository has, or one that it may lack."""
        there = [blob for blob in BLOBS if sha256(blob) in self.repositories[name].blobs]
        return st.sampled_from([*there * 2, BLOBS[-1]])

    def some_manifest(self, name: str) -> st.SearchStrategy[bytes]:
        there = list(self.repositories[name].manifests.values())
        return st.sampled_from([*there * 4, image(b"{}", [b"never pushed"])])

    def push_manifest(
        self,
        worker: int,
        name: str,
        tag: str | None,
        manifest: bytes,
        media_type: str,
        missing: set[str],
        subject: bytes | None,
    ) -> None:
        digest = sha256(manifest)
        target = f"/v2/{name}/manifests/{tag or digest}"
        response = self.ask(worker, "PUT", target, {"Content-Type": media_type}, manifest)
        if missing:
            assert response.code == 400, response
            assert set(response.json()["errors"][0]["detail"]["missing"]) == missing, response
            return
        assert response.code == 201, response
        assert response.header("OCI-Subject") == (sha256(subject) if subject is not None else None)
        repository = self.repositories[name]
        if not repository.blobs:
            self.has_blob(name, b"{}")  # so that another server's collector does not pass over the repository
        self.stored[digest] = repository.manifests[digest] = manifest
        if subject is not None:
            repository.subjects[digest] = sha256(subject)
        if tag is not None:
            repository.tags[tag] = digest

    @rule(worker=workers, name=names, data=st.data())
    def delete_tag(self, worker: int, name: str, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from([*sorted(self.repositories[name].tags) * 2, TAGS[0]]))
        response = self.ask(worker, "DELETE", f"/v2/{name}/manifests/{tag}")
        assert response.code == (202 if tag in self.repositories[name].tags else 404), response
        self.repositories[name].tags.pop(tag, None)

    @rule(worker=workers, name=names, data=st.data())
    def delete_manifest(self, worker: int, name: str, data: st.DataObject) -> None:
        repository = self.repositories[name]
        digest = sha256(data.draw(self.some_manifest(name)))
        response = self.ask(worker, "DELETE", f"/v2/{name}/manifests/{digest}")
        assert response.code == (202 if digest in repository.manifests else 404), response
        repository.manifests.pop(digest, None)
        repository.subjects.pop(digest, None)
        repository.tags = {tag: named for tag, named in repository.tags.items() if named != digest}

    # -- time, and the end of workers -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def wait(self, seconds: float) -> None:
        for one in [one for one in self.stalled if self.now + seconds - one.began > 50]:
            self.drop(one)  # the server would soon hang up on it
        self.advance(seconds)

    @rule(worker=workers, wait=st.sampled_from([0.0, EXPIRY / 2, EXPIRY * 2]))
    def sweep(self, worker: int, wait: float) -> None:
        """Sessions that nobody touched for long are gone afterwards, and no other."""
        if wait:
            for one in list(self.stalled):
                self.drop(one)
        self.advance(wait)
        result_of(start(self.workers[worker].registry.janitor.sweep()))
        for session in self.sessions:
            idle = self.now - session.touched
            if idle > EXPIRY + 60:
                session.ended = True
            elif idle > EXPIRY - 60 and not session.ended:
                # The last byte of a stalled request came some seconds before the connection was lost.
                session.ended = self.ask(worker, "GET", session.url).code == 404

    def drop(self, one: Stalled) -> None:
        """Lose the connection of a stalled request: what had arrived is kept."""
        self.stalled.remove(one)
        one.exchange.lose()
        if not one.overtaken:
            one.session.busy, one.session.touched = None, self.now
            one.session.data = one.start + one.sent

    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        """A worker dies with all that it had in memory, and its holds end; nobody runs its code any more."""
        dead, self.workers[worker] = self.workers[worker], Worker(str(worker), self.contents, self.now)
        for growing in self.contents.growing.values():
            if growing.holder is not None and getattr(growing.holder, "_driver") is dead.driver:  # noqa: B009  # a test may look into it, mypy may not
                growing.holder = None
        for one in [one for one in self.stalled if one.worker == worker]:
            self.stalled.remove(one)
            self.crashed.append(one)  # kept, as collecting its coroutines would run their cleanup
            if not one.overtaken:
                one.session.busy = None
        self.crashed.append(dead)

    # -- what must hold -------------------------------------------------------------------------------------------

    def check(self, worker: int) -> None:
        there = [name for name, found in self.repositories.items() if found.blobs or found.manifests]
        assert self.ask(worker, "GET", "/v2/_catalog").json() == {"repositories": sorted(there)}
        for name, repository in self.repositories.items():
            self.check_repository(worker, name, repository)
        for session in self.sessions:
            response = self.ask(worker, "GET", session.url)
            assert response.code == (404 if session.ended else 204), response
            if not session.ended and session.busy is None:
                self.has_offset(session, response)

    def check_repository(self, worker: int, name: str, repository: Repository) -> None:
        for digest, data in self.stored.items():
            response = self.ask(worker, "GET", f"/v2/{name}/blobs/{digest}")
            if digest in repository.blobs:
                assert (response.code, response.body) == (200, data), response
            else:
                assert response.code == 404, response
        for reference, digest in (*repository.tags.items(), *((digest, digest) for digest in repository.manifests)):
            response = self.ask(worker, "GET", f"/v2/{name}/manifests/{reference}")
            assert (response.code, response.body) == (200, repository.manifests[digest]), response
            assert response.header("Docker-Content-Digest") == digest
        for digest in {key for key in self.stored if key not in repository.manifests}:
            assert self.ask(worker, "GET", f"/v2/{name}/manifests/{digest}").code == 404, digest
        listing = self.ask(worker, "GET", f"/v2/{name}/tags/list")
        if repository.blobs or repository.manifests:
            assert listing.json() == {"name": name, "tags": sorted(repository.tags)}, listing
        else:
            assert listing.code == 404, listing
        for subject in {*repository.subjects.values(), *repository.manifests}:
            referrers = self.ask(worker, "GET", f"/v2/{name}/referrers/{subject}").json()["manifests"]
            expected = sorted(digest for digest, of in repository.subjects.items() if of == subject)
            assert [entry["digest"] for entry in referrers] == expected, referrers

    def teardown(self) -> None:
        self.check(len(self.sessions) % WORKERS)
        for path, found in self.contents.objects.items():
            if path.endswith("/data"):
                algorithm, hex_ = path.split("/")[-4], path.split("/")[-2]
                assert Digest(algorithm, hex_).matches(found.data), path
        for one in self.stalled:
            one.exchange.lose()


class MachineTests(SynchronousTestCase):
    def test_everything_acknowledged_is_there_and_nothing_deleted(self) -> None:
        Machine.steps = 0
        run_state_machine_as_test(Machine, settings=MACHINE)
        print(f"state machine: {Machine.steps} requests, each as the model says")
