"""Web pages of other origins: what they may do, on both protocols, and what everybody else sees of it."""

from tests.web.v1.base import V1TestCase
from txregistry.testing.agent import Response
from txregistry.web.app import WebOptions
from txregistry.web.cors import CorsRules

UI = "https://ui.example"
RULES = CorsRules((UI, "https://Other.example/"), ("GET", "PUT"), ("Content-Type",), ("X-Docker-Size",), True, 600)
HEADERS = ("Origin", "Credentials")


class CorsCase(V1TestCase):
    def allowed(self, response: Response) -> "dict[str, str]":
        """The headers of this mechanism, by the ends of their names."""
        prefix = b"Access-Control-"
        return {
            name[len(prefix) :].decode(): values[-1].decode()
            for name, values in response.headers.getAllRawHeaders()
            if name.startswith(prefix)
        }

    def ask_any(self, method: str, target: str, headers: "dict[str, str] | None" = None) -> Response:
        response: Response = self.successResultOf(self.memory.agent.request(method, target, headers or {}))
        return response

    def preflight(self, target: str, origin: str = UI) -> Response:
        return self.ask_any("OPTIONS", target, {"Origin": origin, "Access-Control-Request-Method": "PUT"})


class NamedTests(CorsCase):
    options = WebOptions(flavor="test", cors=RULES)

    def test_answers(self):
        for target, code in [("/v1/_ping", 200), ("/v2/", 200), ("/v1/nothing", 404), ("/v2/a/tags/list", 404)]:
            response = self.ask_any("GET", target, {"Origin": UI})
            self.assertEqual(response.code, code)
            self.assertEqual(
                self.allowed(response),
                {"Allow-Origin": UI, "Allow-Credentials": "true", "Expose-Headers": "X-Docker-Size"},
            )
            self.assertEqual(response.header("Vary"), "Origin")

    def test_spelling(self):
        response = self.ask_any("GET", "/v2/", {"Origin": "https://other.example"})
        self.assertEqual(response.header("Access-Control-Allow-Origin"), "https://other.example")

    def test_other_origins(self):
        for origin in ("https://evil.example", "https://ui.example.evil.example", "http://ui.example", "null", "\xff"):
            for response in (self.ask_any("GET", "/v2/", {"Origin": origin}), self.preflight("/v1/_ping", origin)):
                self.assertEqual(self.allowed(response), {}, origin)
                self.assertEqual(response.header("Vary"), "Origin")

    def test_no_origin(self):
        response = self.ask_any("GET", "/v2/")
        self.assertEqual((self.allowed(response), response.header("Vary")), ({}, "Origin"))

    def test_preflight(self):
        for target in ("/v1/images/" + "a" * 64 + "/json", "/v2/a/manifests/1", "/v2/", "/v2/a/blobs/uploads/"):
            response = self.preflight(target)
            self.assertEqual((response.code, response.body), (200, b""))
            self.assertEqual(
                self.allowed(response),
                {
                    "Allow-Origin": UI,
                    "Allow-Credentials": "true",
                    "Expose-Headers": "X-Docker-Size",
                    "Allow-Methods": "GET, PUT",
                    "Allow-Headers": "Content-Type",
                    "Max-Age": "600",
                },
            )

    def test_options_for_others_are_as_ever(self):
        response = self.ask_any("OPTIONS", "/v1/_ping", {"Origin": UI})
        self.assertEqual(response.header("Allow"), "GET, HEAD, OPTIONS")
        self.assertNotIn("Allow-Methods", self.allowed(response))
        self.assertEqual(self.ask_any("OPTIONS", "/v2/a/manifests/1", {"Origin": UI}).code, 405)


class EverybodyTests(CorsCase):
    options = WebOptions(flavor="test", cors=CorsRules(("*",), ("GET",), supports_credentials=True))

    def test_without_credentials(self):
        for headers in ({"Origin": "https://evil.example"}, {}):
            response = self.ask_any("GET", "/v2/", headers)
            self.assertEqual(self.allowed(response), {"Allow-Origin": "*"})
            self.assertIsNone(response.header("Vary"))

    def test_preflight(self):
        response = self.preflight("/v2/a/manifests/1", "https://any.example")
        self.assertEqual(self.allowed(response), {"Allow-Origin": "*", "Allow-Methods": "GET"})


class OffTests(CorsCase):
    def test_nothing_is_said(self):
        for response in (self.ask_any("GET", "/v2/", {"Origin": UI}), self.preflight("/v1/_ping")):
            self.assertEqual(self.allowed(response), {})
            self.assertIsNone(response.header("Vary"))
