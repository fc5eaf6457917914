"""The index over real sockets: its connections, and its certificate."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.certificates import Authority, twisted_context
from txregistry.auth import index
from txregistry.auth.index import Index, make_agent
from txregistry.errors import UpstreamUnavailable
from txregistry.model.v1.names import V1Repository

BAR = V1Repository("foo", "bar")
net: Any = reactor


class Answers(Resource):
    """Remembers from which ports it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[int] = []
        self.silent = False
        self.left: Deferred[object] = Deferred()

    def render_GET(self, request):
        self.ports.append(request.getClientAddress().port)
        if self.silent:
            request.notifyFinish().addErrback(lambda _: self.left.callback(None))
            request.write(b"[")
            return NOT_DONE_YET
        return b'[{"id": "a"}]'


class SocketTests(TestCase):
    def setUp(self):
        self.resource = Answers()
        site = Site(self.resource)
        site.noisy = False
        self.port = net.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.stop, self.port)
        self.site = site

    async def stop(self, port: Any) -> None:
        await maybeDeferred(port.stopListening)

    def index(self, scheme: str, port: int) -> Index:
        agent, pool = make_agent(net)
        made = Index(f"{scheme}://localhost:{port}", agent, net, pool)
        self.addCleanup(lambda: Deferred.fromCoroutine(made.close()))
        return made

    async def test_connections_are_kept(self):
        made = self.index("http", self.port.getHost().port)
        for number in range(3):
            self.assertEqual(await made.verify(f"Token {number}", "read", BAR), (("a",), True))
        self.assertEqual(len(self.resource.ports), 3)
        self.assertEqual(len(set(self.resource.ports)), 1)

    async def test_nobody_listens(self):
        number = self.port.getHost().port
        await self.port.stopListening()
        with self.assertRaises(UpstreamUnavailable) as raised:
            await self.index("http", number).verify("Token", "read", BAR)
        self.assertIn("refused", str(raised.exception.detail))

    async def test_a_slow_answer_is_cut(self):
        self.patch(index, "TIMEOUT", 0.2)
        self.resource.silent = True
        with self.assertRaises(UpstreamUnavailable):
            await self.index("http", self.port.getHost().port).verify("Token", "read", BAR)
        # Its connection is closed, not kept.
        await self.resource.left

    async def test_a_certificate_of_nobody(self):
        certificate, key = Authority(self.mktemp()).issue("index")
        secure = net.listenSSL(0, self.site, twisted_context(certificate, key), interface="127.0.0.1")
        self.addCleanup(self.stop, secure)
        with self.assertRaises(UpstreamUnavailable) as raised:
            await self.index("https", secure.getHost().port).verify("Token", "read", BAR)
        self.assertIn("certificate verify failed", str(raised.exception.detail))
        self.assertEqual(self.resource.ports, [])
