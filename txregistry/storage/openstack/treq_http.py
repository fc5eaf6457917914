"""`Http` by treq: what a server uses, as nothing of it blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from txregistry.concurrency import start
from txregistry.errors import StorageError, Unavailable
from txregistry.storage.openstack.http import CONNECT_SECONDS, IDLE_SECONDS, PIECE, Body, Stream, Upload

#: Connections to a server that are kept, and seconds for which; servers close idle ones after a minute or more.
KEPT, KEPT_SECONDS = 32, 20.0
#: Bytes of an answer that wait in memory until somebody reads on.
AHEAD = PIECE
#: Bytes of a body that are handed to the connection at once.
SENT_AT_ONCE = 128 * 1024


class TreqHttp:
    """Requests by treq; nothing blocks. `cacert` is a PEM file of the authorities to trust instead of the system's."""

    def __init__(self, reactor: Any, cacert: str | None = None, agent: IAgent | None = None) -> None:
        self._reactor, self._cacert = reactor, cacert
        self._agent = agent
        self._pool: HTTPConnectionPool | None = None

    async def open(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None,
        path: str = "",
    ) -> Stream:  # fmt: skip
        """See Http."""
        import treq  # noqa: PLC0415 - only for those whose storage is OpenStack

        watch = _Watch(self._reactor)
        sent = None if body is None else _Body(body, watch.moved)
        # A client for each, as it keeps the cookies that it is sent.
        client = treq.client.HTTPClient(_Plain(self._made_agent()))
        given = Headers({name: [value] for name, value in (headers or {}).items()})
        try:
            request = client.request(
                method, url, headers=given, data=cast(Any, sent), allow_redirects=False, unbuffered=True,
                reactor=self._reactor,
            )  # fmt: skip
            watch.begin(request.cancel)
            response: Any = await request
        except CancelledError:
            if watch.expired:
                raise Unavailable(path, f"{method}: no answer within {IDLE_SECONDS:g} s") from None
            raise
        except StorageError:
            raise
        except Exception as error:
            # Whatever the name, the connection, TLS or HTTP had against it, or whoever gave the body.
            raise _reason(error, method, path) from None
        finally:
            watch.stop()
        return _Stream(response, _Watch(self._reactor), method, path)

    def _made_agent(self) -> IAgent:
        if self._agent is None:
            pool: Any = HTTPConnectionPool(self._reactor)
            pool.maxPersistentPerHost, pool.cachedConnectionTimeout = KEPT, KEPT_SECONDS
            # Its factory would log each connection.
            pool._factory = type("QuietFactory", (pool._factory,), {"noisy": False})
            policy = BrowserLikePolicyForHTTPS(authorities(self._cacert) if self._cacert else None)
            self._pool = pool
            self._agent = Agent(self._reactor, contextFactory=policy, connectTimeout=CONNECT_SECONDS, pool=pool)
        return self._agent

    async def sleep(self, seconds: float) -> None:
        """See Http."""
        await deferLater(self._reactor, seconds)

    def seconds(self) -> float:
        """See Http."""
        now: float = self._reactor.seconds()
        return now

    async def close(self) -> None:
        """See Http."""
        if self._pool is not None:
            await self.sleep(0)  # connections that were let go of a moment ago are kept or lost by then
            await self._pool.closeCachedConnections()


def authorities(path: str) -> Any:
    """The trust root of a PEM file. Unavailable unless there is a certificate in it."""
    try:
        with open(path, "rb") as file:
            found = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.DOTALL)
        certificates = [Certificate.loadPEM(each) for each in found]
    except Exception as error:
        # What reads certificates has errors of its own.
        raise Unavailable("", f"os_cacert: {path} cannot be read: {error}") from error
    if not certificates:
        raise Unavailable("", f"os_cacert: there is no certificate in {path}")
    return trustRootFromCertificates(certificates)


def _reason(error: Exception, method: str, path: str) -> StorageError:
    """What a request failed of, in one line; a body's own error as it is."""
    inner: BaseException = error
    while reasons := getattr(inner, "reasons", None):
        inner = reasons[0].value
    if isinstance(inner, StorageError):
        return inner
    if isinstance(inner, ConnectionDone | ConnectionLost):
        return Unavailable(path, f"{method}: the connection was closed")
    return Unavailable(path, f"{method}: {' '.join(str(inner).split()) or type(inner).__name__}")


class _Watch:
    """Ends what moves no byte for too long."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._call: Any = None
        self.expired = False

    def begin(self, end: Callable[[], object]) -> None:
        def expire() -> None:
            self._call, self.expired = None, True
            end()

        self._call = self._reactor.callLater(IDLE_SECONDS, expire)

    def moved(self) -> None:
        if self._call is not None:
            self._call.reset(IDLE_SECONDS)

    def stop(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()


@implementer(IAgent)
class _Plain:
    """An agent that asks for no compression and takes none: bytes are to come as they lie there."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See IAgent."""
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(self._answered)

    @staticmethod
    def _answered(response: IResponse) -> IResponse:
        response.headers.removeHeader(b"Content-Encoding")
        return response


@implementer(IBodyProducer)
class _Body:
    """A body on its way, which waits where the server takes nothing."""

    def __init__(self, body: Body, moved: Callable[[], None]) -> None:
        self._body, self._moved = body, moved
        length = body.length if isinstance(body, Upload) else sum(map(len, self._pieces(body)))
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self._paused: Deferred[None] | None = None
        self._stopped = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send all of it."""
        done: Deferred[None] = Deferred()

        def ended(result: Failure | None) -> None:
            if self._stopped:  # nobody wants to hear of it any more
                return
            if isinstance(result, Failure):
                done.errback(result)
            else:
                done.callback(None)

        start(self._produce(consumer)).addBoth(ended)
        return done

    async def _produce(self, consumer: IConsumer) -> None:
        if isinstance(self._body, Upload):
            async for piece in self._body.pieces:
                if not await self._send(consumer, piece):
                    return
        else:
            for piece in self._pieces(self._body):
                if not await self._send(consumer, piece):
                    return

    @staticmethod
    def _pieces(body: bytes | Sequence[bytes]) -> Sequence[bytes]:
        if not isinstance(body, bytes):
            return body
        return [body[begin : begin + SENT_AT_ONCE] for begin in range(0, len(body), SENT_AT_ONCE)]

    async def _send(self, consumer: IConsumer, piece: bytes) -> bool:
        if self._paused is not None:
            await self._paused
        if self._stopped:
            return False
        if piece:  # an empty one would be the end of a body of unknown length
            consumer.write(piece)
        self._moved()
        return True

    def pauseProducing(self) -> None:
        """Wait."""
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        paused, self._paused = self._paused, None
        self._moved()
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        """Give up."""
        self._stopped = True
        self.resumeProducing()


class _Stream(TwistedProtocol):
    """An answer as it comes; no more than `AHEAD` bytes of it are ahead of the reader."""

    def __init__(self, response: Any, watch: _Watch, what: str, path: str) -> None:
        self.status: int = response.code
        self.headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        if isinstance(response.length, int):  # it is no header for Twisted
            self.headers.setdefault("content-length", str(response.length))
        self._watch, self._what, self._path = watch, what, path
        self._pieces: list[bytes] = []
        self._size = 0
        self._end: bytes | Unavailable | None = None
        self._waiting: Deferred[bytes] | None = None
        self._paused = False
        response.deliverBody(self)

    async def read(self) -> bytes:
        """See Stream."""
        return await self._read()

    def _read(self) -> Deferred[bytes]:
        if self._size:
            return succeed(self._taken())
        if self._end is not None:
            return fail(self._end) if isinstance(self._end, Unavailable) else succeed(b"")
        self._waiting = Deferred(self._cancelled)
        self._watch.begin(self._give_up)
        return self._waiting

    def _taken(self) -> bytes:
        data = b"".join(self._pieces)
        piece, rest = data[:PIECE], data[PIECE:]
        self._pieces, self._size = [rest] if rest else [], len(rest)
        if self._paused and self._size < AHEAD:
            self._paused = False
            cast(Any, self.transport).resumeProducing()
        return piece

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece, or hand it to whoever waits."""
        self._pieces.append(data)
        self._size += len(data)
        if self._waiting is not None:
            self._fire(self._taken())
        elif self._size >= AHEAD and not self._paused:
            self._paused = True
            cast(Any, self.transport).pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See that all came: only a body whose end was told counts as whole."""
        if self._end is None:
            whole = reason.check(ResponseDone)
            self._end = b"" if whole else Unavailable(self._path, f"{self._what}: the answer was cut off")
        if self._waiting is not None:
            self._fire(self._end)

    def _fire(self, result: bytes | Unavailable) -> None:
        waiting, self._waiting = self._waiting, None
        self._watch.stop()
        if waiting is None or waiting.called:
            return
        if isinstance(result, bytes):
            waiting.callback(result)
        else:
            waiting.errback(result)

    def _give_up(self) -> None:
        self._end = Unavailable(self._path, f"{self._what}: nothing came within {IDLE_SECONDS:g} s")
        self._let_go()
        self._fire(self._end)

    def _cancelled(self, _waiting: Deferred[bytes]) -> None:
        self._waiting = None
        self.close()

    def close(self) -> None:
        """End it; whoever still waits for a piece gets an error."""
        self._watch.stop()
        self._pieces, self._size = [], 0
        if self._end is None:
            self._end = Unavailable(self._path, f"{self._what}: it was closed")
            self._let_go()
            self._fire(self._end)

    def _let_go(self) -> None:
        # Twisted's proxy has no way to abort, and a connection that only closes may still be kept for another request.
        transport = getattr(self.transport, "_producer", None)
        if transport is not None:
            transport.abortConnection()
