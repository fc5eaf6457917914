"""Every error has its answer in both dialects."""

from __future__ import annotations

import inspect

from klein import Klein
from twisted.internet.defer import CancelledError, fail
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyChannel

from txregistry import errors
from txregistry.testing.agent import Agent
from txregistry.web.problems import PROBLEMS, handle_errors, problem_of
from txregistry.web.request import RegistryRequest

SPECIAL: dict[type[BaseException], tuple[object, ...]] = {
    errors.BodyTooLarge: (10,),
    errors.ManifestBlobUnknown: (["sha256:x"],),
    errors.TooManyRequests: (7,),
    errors.UploadBusy: (7,),
    errors.ChunkOutOfOrder: (10,),
    errors.WrongOffset: ("secret/path", 10),
}


def example(kind: type[BaseException]) -> BaseException:
    arguments = SPECIAL.get(kind, ("secret/path",) if issubclass(kind, errors.StorageError) else ("why",))
    return kind(*arguments)


class Table(SynchronousTestCase):
    def setUp(self) -> None:
        self.error: BaseException = Exception()
        app = Klein()
        for prefix in ("/v1", "/v2"):
            app.route(f"{prefix}/x", methods=["GET"])(lambda _: fail(self.error))
        handle_errors(app)
        self.agent = Agent(app.resource())

    def test_every_error_of_the_package_is_in_it(self) -> None:
        kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
        self.assertTrue(len(kinds) > 30)
        for kind in kinds:
            if not issubclass(kind, CancelledError):
                self.assertNotEqual(problem_of(example(kind)).status, 500, kind)

    def test_rows_in_both_dialects(self) -> None:
        for kind in [*PROBLEMS, errors.ChunkOutOfOrder]:
            self.error = example(kind)
            status = problem_of(self.error).status
            v2 = self.successResultOf(self.agent.request("GET", "/v2/x"))
            self.assertEqual((v2.code, v2.header("Content-Type")), (status, "application/json"))
            entry = v2.json()["errors"][0]
            self.assertEqual(set(entry) - {"detail"}, {"code", "message"})
            self.assertRegex(entry["code"], r"\A[A-Z1_]+\Z")
            v1 = self.successResultOf(self.agent.request("GET", "/v1/x"))
            self.assertEqual((v1.code, list(v1.json())), (status, ["error"]))
            self.assertNotIn(b"secret", v1.body + v2.body)
            if status in {429, 503}:
                self.assertTrue(v2.header("Retry-After"))

    def test_every_status_has_its_phrase(self) -> None:
        for status in {431, *(problem.status for problem in PROBLEMS.values())}:
            request = RegistryRequest(DummyChannel(), False)
            request.setResponseCode(status)
            self.assertNotEqual(request.code_message, b"Unknown Status", status)

    def test_what_nobody_foresaw(self) -> None:
        self.error = ZeroDivisionError("secret")
        response = self.successResultOf(self.agent.request("GET", "/v2/x"))
        self.assertEqual(response.code, 500)
        self.assertNotIn(b"secret", response.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
