"""Between the V1 side of a registry and the operator's plug-in, which may fail, or take for ever."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred  # noqa: A004  # Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txregistry.concurrency import within
from txregistry.errors import UpstreamUnavailable, V1Error
from txregistry.interfaces import IHooks
from txregistry.model.v1.names import V1Repository

#: How long a hook may take, in seconds.
PATIENCE = 10.0

_log = Logger()


class Hooks:
    """Calls `plugin`, if there is one, and waits for it, so many seconds at most."""

    def __init__(self, plugin: IHooks | None, clock: IReactorTime) -> None:
        self._plugin = plugin
        self._clock = clock

    @property
    def listening(self) -> bool:
        """Whether anybody is called."""
        return self._plugin is not None

    async def tag_created(self, repository: V1Repository, tag: str, image: str) -> None:
        """Tell that a tag names an image; never fails."""
        if self._plugin is not None:
            await self._tell("tag_created", self._plugin.tag_created, repository, tag, image)

    async def tags_deleted(self, repository: V1Repository, tags: Mapping[str, str | None]) -> None:
        """Tell which tags are gone, with the images that they named; never fails."""
        plugin = self._plugin
        if plugin is not None:
            # All at once: a repository of a thousand tags may not take a thousand times as long.
            told = [self._tell("tag_deleted", plugin.tag_deleted, repository, *each) for each in tags.items()]
            await DeferredList([Deferred.fromCoroutine(each) for each in told])

    async def before_put_image_json(self, data: bytes) -> None:
        """Ask whether the push of an image may begin; `data` is its JSON, an object.

        V1Error with the hook's text if not. UpstreamUnavailable if the hook fails: what it is there to keep out must
        not come in because of that.
        """
        if self._plugin is None:
            return
        try:
            refusal = await self._call(self._plugin.before_put_image_json, json.loads(data))
        except CancelledError:
            raise
        except Exception as error:
            _failed("before_put_image_json", error)
            raise UpstreamUnavailable("the registry's own check of images failed") from None
        if refusal is not None:
            raise V1Error(message=str(refusal))

    async def _tell(
        self, name: str, method: Callable[..., object], repository: V1Repository, tag: str, image: str | None
    ) -> None:
        try:
            await self._call(method, repository.namespace, repository.name, tag, image)
        except Exception as error:
            # The change is made, whatever the hook says; and it runs shielded, so a cancel is the hook's own.
            _failed(name, error)

    def _call(self, method: Callable[..., object], *args: object) -> Deferred[Any]:
        return within(maybeDeferred(method, *args), PATIENCE, self._clock)


def _failed(name: str, error: Exception) -> None:
    if isinstance(error, TimeoutError):
        _log.error("the hook {name} did not end within {seconds:g} s", name=name, seconds=PATIENCE)
    else:
        _log.failure("the hook {name} failed", name=name)
