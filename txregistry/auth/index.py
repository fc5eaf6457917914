"""The index: a server elsewhere that hands out tokens, and says whether one that it gets to see is good.

A token is shown to it by `GET /v1/repositories/<repository>/images`. Its answer, the images of the repository, means
that the token is good for it.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Any, cast
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from txregistry.auth.image_lists import LIST_LIMIT, Images
from txregistry.concurrency import start
from txregistry.errors import UpstreamUnavailable
from txregistry.model.v1.names import V1Repository

#: Seconds that a verification may take, all in all.
TIMEOUT = 10.0
#: Seconds for which a good answer holds.
LIFE = 30.0
#: Verifications at the same time; others wait, within their time.
_AT_ONCE = 32
#: Good answers that are kept, and ids in all of them together.
_MOST_ANSWERS, _MOST_IDS = 1000, 200_000
#: Seconds between two lines in the log about an index that does not answer.
_COMPLAIN_EVERY = 60.0
#: What proxies answer when the server behind them is down.
_DOWN = {502, 503, 504}

_log = Logger()


def make_agent(reactor: Any) -> tuple[IAgent, HTTPConnectionPool]:
    """An agent for the index, which verifies its certificate, and the connections that it keeps."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _AT_ONCE
    # Its factory would log each connection.
    pool._factory = cast(Any, type("QuietFactory", (pool._factory,), {"noisy": False}))
    return Agent(reactor, connectTimeout=TIMEOUT, pool=pool), pool


class Index:
    """The index at `endpoint`, a URL without a slash at its end."""

    def __init__(self, endpoint: str, agent: IAgent, reactor: Any, pool: HTTPConnectionPool | None = None) -> None:
        self._endpoint = endpoint.strip("/")
        self._agent = _PlainAgent(agent)
        self._reactor = reactor
        self._pool = pool
        self._good: OrderedDict[bytes, tuple[float, Images]] = OrderedDict()
        self._ids = 0
        self._asking: dict[bytes, list[Deferred[Images | None]]] = {}
        self._slots = DeferredSemaphore(_AT_ONCE)
        self._complained = -_COMPLAIN_EVERY

    async def verify(
        self, authorization: str, method_class: str, repository: V1Repository
    ) -> tuple[Images, bool] | None:
        """The ids of the images of a repository, and whether they are new, if the index takes this header for it.

        None if it does not; UpstreamUnavailable if it cannot be asked. One that is asked about the same already is
        not asked again: old ones take each token but once.
        """
        text = "\0".join((authorization, method_class, str(repository)))
        key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._recall(key)
        if known is not None:
            return known, False
        waiter: Deferred[Images | None] = Deferred()
        if key in self._asking:
            self._asking[key].append(waiter)
        else:
            self._asking[key] = [waiter]
            # Whoever asked first may leave, without an end to it for the others.
            asked = start(self._ask(authorization, repository))
            asked.addTimeout(TIMEOUT, self._reactor)
            asked.addBoth(self._asked, key)
        images = await waiter
        return None if images is None else (images, True)

    async def close(self) -> None:
        """Close the connections that are kept."""
        if self._pool is not None:
            await self._pool.closeCachedConnections()

    # -- what is known ----------------------------------------------------------------------------------------------

    def _recall(self, key: bytes) -> Images | None:
        until, images = self._good.get(key, (0.0, ()))
        return images if self._reactor.seconds() < until else None

    def _keep(self, key: bytes, images: Images) -> None:
        self._drop(key)
        self._good[key] = (self._reactor.seconds() + LIFE, images)
        self._ids += len(images)
        while self._good and (len(self._good) > _MOST_ANSWERS or self._ids > _MOST_IDS):
            self._drop(next(iter(self._good)))

    def _drop(self, key: bytes) -> None:
        _, images = self._good.pop(key, (0.0, ()))
        self._ids -= len(images)

    def _asked(self, result: Images | Failure | None, key: bytes) -> None:
        """Tell all who wait."""
        if isinstance(result, Failure):
            if result.check(DeferredTimeout):
                result = Failure(_unavailable(f"no answer within {TIMEOUT:g} s"))
            elif not result.check(UpstreamUnavailable):
                _log.failure("verifying a token failed", result)
                result = Failure(_unavailable("it could not be asked"))
            self._complain(result.value)
        elif result is not None:
            self._keep(key, result)
        for waiter in self._asking.pop(key):
            waiter.callback(cast("Images | None", result))  # a Failure is delivered as one

    def _complain(self, error: BaseException | None) -> None:
        """Tell the operator, but not with each request."""
        now = self._reactor.seconds()
        if now >= self._complained + _COMPLAIN_EVERY:
            self._complained = now
            _log.error("{error}", error=error)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _ask(self, authorization: str, repository: V1Repository) -> Images | None:
        import treq  # noqa: PLC0415  # only for those who have an index

        # The name is quoted already.
        url = f"{self._endpoint}/v1/repositories/{quote(repository.namespace, safe='')}/{repository.name}/images"
        headers = Headers({"Authorization": [authorization]})
        await self._slots.acquire()
        try:
            # A client for each, as it keeps the cookies that it is sent.
            client = treq.client.HTTPClient(self._agent)
            response = await client.request(
                "GET", url, headers=headers, allow_redirects=False, unbuffered=True, reactor=self._reactor
            )
            body = await _body(response)
        except CancelledError:
            raise
        except UpstreamUnavailable:
            raise
        except Exception as error:
            # Whatever the name, the connection, TLS or HTTP had against it.
            raise _unavailable(_reason(error)) from None
        finally:
            self._slots.release()
        if response.code in _DOWN:
            raise _unavailable(f"it answered {response.code}")
        if response.code != 200:
            if 300 <= response.code < 400:
                _log.warn("the index redirects, which is not followed: index_endpoint has to be where it leads")
            return None
        return _images(body)


@implementer(IAgent)
class _PlainAgent:
    """An agent that asks for no compression, and takes none: a small answer could be made of any size."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See IAgent."""
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(self._plain)

    @staticmethod
    def _plain(response: IResponse) -> IResponse:
        response.headers.removeHeader(b"Content-Encoding")
        return response


class _Collector(Protocol):
    """Collects a body up to a limit."""

    def __init__(self, response: IResponse) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())
        response.deliverBody(self)

    def dataReceived(self, data: bytes) -> None:
        """Take a piece."""
        self._size += len(data)
        if self._size > LIST_LIMIT:
            self._finish(_unavailable(f"its answer is larger than {LIST_LIMIT} bytes"))
            self._stop()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See that all came."""
        if reason.check(ResponseDone, PotentialDataLoss):
            self._finish(b"".join(self._pieces))
        else:
            self._finish(_unavailable("its answer was cut off"))

    def _finish(self, result: bytes | UpstreamUnavailable) -> None:
        if not self.done.called:
            if isinstance(result, bytes):
                self.done.callback(result)
            else:
                self.done.errback(result)

    def _stop(self) -> None:
        self._pieces.clear()
        if self.transport is not None:
            self.transport.loseConnection()


def _body(response: IResponse) -> Deferred[bytes]:
    return _Collector(response).done


def _images(body: bytes) -> Images | None:
    """The ids in a list of the index; None for what is no such list."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    entries = document if isinstance(document, list) else [None]
    found = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    ids = [each for each in found if isinstance(each, str)]
    if len(ids) < len(found):
        _log.warn("the index answered a token with what is no list of images")
        return None
    return tuple(dict.fromkeys(ids))


def _unavailable(reason: str) -> UpstreamUnavailable:
    return UpstreamUnavailable(f"the index cannot be asked about the token: {reason}")


def _reason(error: Exception) -> str:
    reasons = getattr(error, "reasons", None)  # of a response that never came
    inner = reasons[0].value if reasons else error
    if isinstance(inner, ConnectionDone):
        return "it closed the connection"
    return str(inner) or type(inner).__name__
