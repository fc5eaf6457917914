"""The operator's hooks: when they are called, with what, and what their failures do."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.web.v1.base import A, B, V1TestCase, archive, image_json
from txregistry.core.policy import Policy
from txregistry.core.v1.hooks import PATIENCE, Hooks
from txregistry.interfaces import IHooks
from txregistry.testing.registry import MemoryRegistry

REFUSED_BY_FAILURE = "a server that has to be asked does not answer; try again later"


@implementer(IHooks)
class Recorder:
    """Notes each call, and answers it with `answer`, called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer: Any = lambda: None

    def tag_created(self, namespace: str, repository: str, tag: str, image_id: str) -> object:
        return self._note("created", namespace, repository, tag, image_id)

    def tag_deleted(self, namespace: str, repository: str, tag: str, image_id: str | None) -> object:
        return self._note("deleted", namespace, repository, tag, image_id)

    def before_put_image_json(self, image_json: dict[str, object]) -> object:
        return self._note("before", image_json)

    def _note(self, *call: Any) -> object:
        self.calls.append(call)
        return self.answer()


class HooksTestCase(V1TestCase):
    def setUp(self) -> None:
        self.hooks = Recorder()
        self.memory = MemoryRegistry(self.policy, self.options, hooks=self.hooks)

    def due(self, method: str, target: str, body: bytes = b"") -> Deferred[Any]:
        return self.memory.agent.request(method, target, body=body)

    def calls(self) -> list[tuple[Any, ...]]:
        """Those since the last look."""
        found, self.hooks.calls = self.hooks.calls, []
        return found


class TagTests(HooksTestCase):
    def setUp(self) -> None:
        super().setUp()
        for image in (A, B):
            self.push_image(image)
        self.calls()

    def test_the_recorder_is_one(self) -> None:
        self.assertTrue(verifyObject(IHooks, self.hooks))

    def test_created(self) -> None:
        self.accepted(self.put("/v1/repositories/foo/bar/tags/latest", f'"{A}"'.encode()))
        self.accepted(self.put("/v1/repositories/bar/tags/1", f'"{B}"'.encode()))
        self.accepted(self.put("/v1/repositories/bar/tags/1", f'"{A}"'.encode()))
        self.assertEqual(
            self.calls(),
            [
                ("created", "foo", "bar", "latest", A),
                ("created", "library", "bar", "1", B),
                ("created", "library", "bar", "1", A),
            ],
        )

    def test_it_is_there_when_the_hook_is_told(self) -> None:
        seen = []
        self.hooks.answer = lambda: seen.append(self.stored("repositories/foo/bar/tag_1"))
        self.accepted(self.put("/v1/repositories/foo/bar/tags/1", f'"{A}"'.encode()))
        self.accepted(self.ask("DELETE", "/v1/repositories/foo/bar/tags/1"))
        self.assertEqual(seen, [A.encode(), None])

    def test_names_are_those_of_the_store(self) -> None:
        self.accepted(self.put("/v1/repositories/foo/a%20b/tags/1", f'"{A}"'.encode()))
        self.assertEqual(self.calls(), [("created", "foo", "a+b", "1", A)])

    def test_what_is_refused_is_not_told(self) -> None:
        self.assertEqual(self.put("/v1/repositories/foo/bar/tags/1", f'"{"f" * 64}"'.encode()).code, 404)
        self.assertEqual(self.put("/v1/repositories/foo/bar/tags/1", b"3").code, 400)
        self.assertEqual(self.calls(), [])

    def test_deleted(self) -> None:
        self.store("repositories/foo/bar/tag_1", A.encode())
        self.store("repositories/foo/bar/tag_odd", b"../x")
        for tag in ("1", "odd", "missing"):
            self.accepted(self.ask("DELETE", f"/v1/repositories/foo/bar/tags/{tag}"))
        self.assertEqual(self.calls(), [("deleted", "foo", "bar", "1", A), ("deleted", "foo", "bar", "odd", None)])

    def test_a_repository_deleted(self) -> None:
        for path in ("/v1/repositories/foo/bar", "/v1/repositories/foo/bar/tags"):
            self.store("repositories/foo/bar/tag_1", A.encode())
            self.store("repositories/foo/bar/tag_2", B.encode())
            self.accepted(self.ask("DELETE", path))
            told = self.calls()
            self.assertEqual(sorted(told), [("deleted", "foo", "bar", "1", A), ("deleted", "foo", "bar", "2", B)])
            self.assertEqual(self.ask("DELETE", path).code, 404)
            self.assertEqual(self.calls(), [])

    def test_a_failure_is_logged_and_does_no_harm(self) -> None:
        def fail() -> None:
            raise RuntimeError("planted")

        async def fail_later() -> None:
            raise RuntimeError("planted")

        def cancelled() -> None:
            raise CancelledError

        for answer, kind in ((fail, RuntimeError), (fail_later, RuntimeError), (cancelled, CancelledError)):
            self.hooks.answer = answer
            self.accepted(self.put("/v1/repositories/foo/bar/tags/latest", f'"{A}"'.encode()))
            self.assertIsNotNone(self.stored("repositories/foo/bar/json"))
            self.accepted(self.ask("DELETE", "/v1/repositories/foo/bar/tags/latest"))
            self.assertEqual(len(self.flushLoggedErrors(kind)), 2)
        self.assertEqual(self.paths("repositories/foo"), [])

    def test_it_is_waited_for(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.hooks.answer = lambda: waiting
        due = self.due("PUT", "/v1/repositories/foo/bar/tags/1", f'"{A}"'.encode())
        self.assertNoResult(due)
        waiting.callback(None)
        self.assertEqual(self.successResultOf(due).code, 200)

    def test_but_not_for_ever_all_tags_together(self) -> None:
        for tag in "123":
            self.store(f"repositories/foo/bar/tag_{tag}", A.encode())
        self.hooks.answer = lambda: Deferred(lambda _: None)
        due = self.due("DELETE", "/v1/repositories/foo/bar/tags")
        self.memory.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(due)
        self.memory.clock.advance(0.1)
        self.assertEqual(self.successResultOf(due).code, 200)
        self.assertEqual(len(self.calls()), 3)

    def test_a_client_that_leaves_stops_nothing(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.hooks.answer = lambda: waiting
        exchange = self.memory.agent.start("PUT", "/v1/repositories/foo/bar/tags/latest", length=66)
        exchange.send(f'"{A}"'.encode())
        self.assertEqual(len(self.calls()), 1)
        exchange.connection.lose()
        self.assertFalse(waiting.called)
        self.assertIsNone(self.stored("repositories/foo/bar/json"))
        waiting.callback(None)
        self.assertIsNotNone(self.stored("repositories/foo/bar/json"))


class NoDeleteTests(HooksTestCase):
    policy = Policy(delete=False)

    def test_what_is_forbidden_is_not_told(self) -> None:
        self.store("repositories/foo/bar/tag_1", A.encode())
        for path in ("tags/1", "tags"):
            self.assertEqual(self.ask("DELETE", f"/v1/repositories/foo/bar/{path}").code, 405)
        self.assertEqual(self.calls(), [])


class PushTests(HooksTestCase):
    path = f"/v1/images/{A}/json"

    def test_it_gets_the_json(self) -> None:
        self.push_json(A, comment="x")
        self.assertEqual(self.calls(), [("before", {"id": A, "comment": "x"})])

    def test_it_may_refuse(self) -> None:
        async def later() -> str:
            return "not on a Friday"

        for answer in (lambda: "not on a Friday", lambda: succeed("not on a Friday"), later):
            self.hooks.answer = answer
            self.refused(self.put(self.path, image_json(A)), 400, "not on a Friday")
        self.assertEqual(self.paths(), [])
        self.hooks.answer = lambda: None
        self.push_image(A)

    def test_any_other_result_refuses_too(self) -> None:
        self.hooks.answer = lambda: False
        self.refused(self.put(self.path, image_json(A)), 400, "False")

    def test_it_cannot_change_what_is_stored(self) -> None:
        self.hooks.answer = lambda: self.hooks.calls[-1][1].clear()
        data = self.push_json(A)
        self.assertEqual(self.stored(f"images/{A}/json"), data)

    def test_it_is_asked_last(self) -> None:
        self.hooks.answer = lambda: "refused"
        for data, message in (
            (b"x", "Invalid JSON"),
            (image_json(B), "JSON data contains invalid id"),
            (image_json(A, B), "Image depends on a non existing parent"),
        ):
            self.refused(self.put(self.path, data), 400, message)
        self.hooks.answer = lambda: None
        self.push_image(A)
        self.calls()
        self.hooks.answer = lambda: "refused"
        self.refused(self.put(self.path, image_json(A)), 409, "Image already exists")
        self.assertEqual(self.calls(), [])

    def test_an_unfinished_image_is_asked_about_again(self) -> None:
        self.push_json(A)
        self.push_json(A)
        self.assertEqual(len(self.calls()), 2)

    def test_a_failure_is_logged_and_refuses(self) -> None:
        def fail() -> None:
            raise RuntimeError("planted")

        self.hooks.answer = fail
        response = self.put(self.path, image_json(A))
        self.refused(response, 503, REFUSED_BY_FAILURE)
        self.assertIsNotNone(response.header("Retry-After"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.paths(), [])

    def test_no_answer_refuses(self) -> None:
        self.hooks.answer = Deferred
        due = self.due("PUT", self.path, image_json(A))
        self.memory.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(due).code, 503)
        self.assertEqual(self.paths(), [])

    def test_a_client_that_leaves_ends_the_question(self) -> None:
        cancelled: list[object] = []
        self.hooks.answer = lambda: Deferred(cancelled.append)
        data = image_json(A)
        exchange = self.memory.agent.start("PUT", self.path, length=len(data))
        exchange.send(data)
        exchange.connection.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.paths(), [])

    def test_layers_and_v2_are_not_asked_about(self) -> None:
        self.push_json(A)
        self.calls()
        self.push_layer(A, archive())
        self.assertEqual(self.successResultOf(self.due("POST", "/v2/foo/bar/blobs/uploads/")).code, 202)
        self.assertEqual(self.calls(), [])


class WithoutTests(SynchronousTestCase):
    def test_nobody_listens(self) -> None:
        memory = MemoryRegistry()
        hooks = Hooks(None, memory.clock)
        self.assertFalse(hooks.listening)
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(hooks.before_put_image_json(b"{}"))))
