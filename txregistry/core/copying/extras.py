"""What the target has and the source has not: deleted at the source since an earlier run, or never its own.

Names go before what they name: tags, revisions, links to layers, blobs; tags of V1, and then images. Before anything is
removed the source is asked for it once more, as it may have come in meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

from txregistry.core.copying.objects import Objects, each
from txregistry.core.copying.trees import Trees
from txregistry.core.links import remove_if_there
from txregistry.core.repositories import Repositories
from txregistry.core.v1.files import exists
from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName
from txregistry.storage import layout

#: A blob without meaning, for a repository that has none: distribution's collector passes over one without `_layers`,
#: which on some engines cannot be empty. That the target has it says nothing.
EMPTY_JSON = b"{}"
EMPTY = Digest.of(EMPTY_JSON)


class Extras:
    """A look at the target for what is not in the source, told line by line; with `delete` it is removed."""

    def __init__(self, objects: Objects, source: Trees, target: Trees, jobs: int, *, delete: bool) -> None:
        self._objects = objects
        self._source, self._target = source, target
        self._jobs = jobs
        self._delete = delete

    async def run(self) -> None:
        """Look at everything."""
        here, there = self._source, self._target
        for name in await Repositories(self._objects.target).names():
            await self._repository(RepositoryName(name))
        for shard in await there.shards():
            known = {*map(_blob, await here.blobs(shard)), _blob(EMPTY)}
            await self._look(map(_blob, await there.blobs(shard)), known, "/data")
        for directory in await there.v1_repositories():
            await self._look(await there.below(directory), set(await here.below(directory)))
            if self._delete and not await exists(self._objects.source, directory):
                await remove_if_there(self._objects.target, directory)
        images = layout.V1_IMAGES
        await self._look(_in(images, await there.directories(images)), set(_in(images, await here.directories(images))))
        known = {path for group in await here.state() for path in group}
        await self._look([path for group in await there.state() for path in group], known)

    async def _repository(self, name: RepositoryName) -> None:
        here, there = self._source, self._target
        tags, layers, manifests = layout.tags(name), layout.layers(name), layout.manifests(name)
        known = set(_in(tags, await here.directories(tags)))
        await self._look(_in(tags, await there.directories(tags)), known, "/current/link")
        for path in (f"{manifests}/revisions", layers):
            known = {*map(_directory, await here.links(path)), _directory(layout.layer_link(name, EMPTY))}
            await self._look(map(_directory, await there.links(path)), known, "/link")
        if self._delete and not await Repositories(self._objects.source).exists(name):
            for path in (manifests, layers):
                await remove_if_there(self._objects.target, path)

    async def _look(self, paths: Iterable[str], known: set[str], suffix: str = "") -> None:
        """Look at objects of the target, each `suffix` below a directory that goes with it."""

        async def look(path: str) -> None:
            if not await exists(self._objects.target, path + suffix) or await exists(
                self._objects.source, path + suffix
            ):
                return
            self._objects.found.extra += 1
            if self._delete:
                await remove_if_there(self._objects.target, path)
                self._objects.found.removed += 1
            self._objects.watcher.tell(f"{path}: {'removed, as it was ' if self._delete else ''}only in the target")

        await each([path for path in paths if path not in known], look, self._jobs)


def _in(directory: str, names: Iterable[str]) -> list[str]:
    return [f"{directory}/{name}" for name in names]


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _blob(digest: Digest) -> str:
    return _directory(layout.blob_data(digest))
