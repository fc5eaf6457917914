"""The copy of a whole store, in an order in which no reader of the target finds a name before what it names.

Blobs, V1 images, state, and then one repository after another: links to layers, revisions, tags. The source may be in
use: the tags of a repository are listed before its revisions, and those before its layers, so that what a listed tag
names is on the other lists. What came later goes with the next run, and so does what a dead run left undone.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txregistry.core.copying.extras import EMPTY, EMPTY_JSON, Extras
from txregistry.core.copying.layers import carry_layer
from txregistry.core.copying.objects import Copied, CopyWatcher, Objects, each
from txregistry.core.copying.trees import Trees
from txregistry.core.links import is_revision, remove_if_there
from txregistry.core.repositories import Repositories
from txregistry.core.v1.files import DOCUMENT_LIMIT, TEXT_LIMIT
from txregistry.errors import DigestInvalid, ManifestInvalid, V1NotFound
from txregistry.interfaces import IStorageDriver
from txregistry.model.digest import Digest
from txregistry.model.manifest import media_type_of, parse_manifest
from txregistry.model.names import RepositoryName
from txregistry.model.v1.image import parse_ancestry
from txregistry.model.v1.repository import decode_tag
from txregistry.storage import layout

#: Largest manifest that is looked through, in bytes; whatever a registry takes is smaller.
_MANIFEST_LIMIT = 64 * 1024 * 1024
_TAG = "tag_"


class Copy:
    """One run over two stores, with so many `jobs` at a time.

    `verify` reads again what the target has; `delete` removes from it what the source has not. What only servers make
    again (`_txregistry/index`), uploads under way and temporary objects are not copied.
    """

    def __init__(
        self,
        source: IStorageDriver,
        target: IStorageDriver,
        watcher: CopyWatcher,
        clock: IReactorTime,
        *,
        jobs: int = 4,
        verify: bool = False,
        delete: bool = False,
    ) -> None:
        self._objects = Objects(source, target, watcher, clock, verify=verify)
        self._source, self._target, self._watcher = source, target, watcher
        self._jobs = jobs
        self._trees = Trees(self._objects, source, jobs)
        self._extras = Extras(self._objects, self._trees, Trees(self._objects, target, jobs), jobs, delete=delete)

    @property
    def found(self) -> Copied:
        """What was done so far."""
        return self._objects.found

    async def run(self) -> Copied:
        """Copy all; StorageError when an engine is out, after which a second run goes on."""
        shards = await self._trees.shards()
        for shard in shards:
            self._watcher.expect(len(await self._trees.blobs(shard)))
        images = await self._trees.directories(layout.V1_IMAGES)
        repositories = [RepositoryName(name) for name in await Repositories(self._source).names()]
        v1_repositories = await self._trees.v1_repositories()
        self._watcher.expect(len(images) + len(repositories) + len(v1_repositories))

        for shard in shards:
            await each(await self._trees.blobs(shard), self._blob, self._jobs)
        await each(images, self._step_image, self._jobs)
        for group in await self._trees.state():
            await each(group, self._state, self._jobs)
        for name in repositories:
            await self._repository(name)
            self._watcher.step()
        for directory in v1_repositories:
            await self._v1_repository(directory)
            self._watcher.step()
        await self._extras.run()
        return self.found

    # -- V2 -------------------------------------------------------------------------------------------------------

    async def _blob(self, digest: Digest) -> None:
        await self._objects.blob(digest)
        self._watcher.step()

    async def _has_blob(self, digest: Digest) -> bool:
        """Whether the target has a blob, after it was carried if it came in late."""
        path = layout.blob_data(digest)
        if await self._objects.size(self._target, path) is not None:
            return True
        return path not in self._objects.failed and await self._objects.blob(digest)

    async def _repository(self, name: RepositoryName) -> None:
        tags, layers = layout.tags(name), layout.layers(name)
        tagged: dict[str, list[str]] = {}
        for path in await self._trees.below(tags):
            tagged.setdefault("/".join(path.split("/")[: tags.count("/") + 2]), []).append(path)
        below = await self._trees.below(layout.manifests(name))
        await each(await self._trees.links(layers), self._link, self._jobs)
        revisions = [path for path in below if not path.startswith(f"{tags}/")]
        if revisions and not await self._objects.children(self._target, layers):
            await self._objects.put(layout.blob_data(EMPTY), EMPTY_JSON)
            await self._objects.put(layout.layer_link(name, EMPTY), str(EMPTY).encode("ascii"))
        await each(revisions, self._revision, self._jobs)
        await each(tagged.items(), lambda item: self._tag(name, *item), self._jobs)

    async def _link(self, path: str) -> bool:
        """Carry a link, unless it names what is not there, as distribution's collector leaves many."""
        digest = await self._objects.link(path)
        if digest is None:
            return False
        if not await self._has_blob(digest):
            self.found.dangling += 1
            return False
        return await self._objects.other(path)

    async def _revision(self, path: str) -> None:
        digest = await self._objects.link(path) if path.endswith("/link") else None
        if digest is not None and await self._lacks(digest):
            self._objects.fail(path, f"not copied, as {digest} names what could not be copied")
        elif digest is not None:
            await self._link(path)
        elif not path.endswith("/link"):
            await self._objects.other(path)

    async def _lacks(self, digest: Digest) -> bool:
        """Whether a manifest names something that could not be carried."""
        if not self._objects.failed:
            return False
        data = await self._objects.small(self._source, layout.blob_data(digest), _MANIFEST_LIMIT)
        try:
            manifest = parse_manifest(data or b"", media_type_of(data or b""), unknown_types=True)
        except ManifestInvalid:
            return False
        named = [*manifest.layers, *manifest.manifests, *([manifest.config] if manifest.config else [])]
        return any(layout.blob_data(one.digest) in self._objects.failed for one in named)

    async def _tag(self, name: RepositoryName, directory: str, paths: list[str]) -> None:
        """Carry a tag, its history first, unless it names no manifest of the repository."""
        current = f"{directory}/current/link"
        digest = await self._objects.link(current)
        if digest is None or not await is_revision(self._target, name, digest):
            self._hold(current, f"not copied, as {digest or 'nothing'} is no manifest of the repository there")
            return
        for path in paths:
            if path.endswith("/link") and path != current:
                await self._link(path)
            elif path != current:
                await self._objects.other(path)
        await self._objects.other(current)

    def _hold(self, path: str, reason: str) -> None:
        self.found.held += 1
        self._watcher.tell(f"{path}: {reason}")

    async def _state(self, path: str) -> None:
        """Carry an object of the state; one that makes a manifest part of a repository after its bytes."""
        parts = path.split("/")
        if parts[-3] == "_revisions":
            try:
                digest = Digest.parse(f"{parts[-2]}:{parts[-1]}")
            except DigestInvalid:
                return
            if not await self._has_blob(digest):
                self.found.dangling += 1
                return
        await self._objects.other(path)

    # -- V1 -------------------------------------------------------------------------------------------------------

    async def _step_image(self, image: str) -> None:
        await self._image(image)
        self._watcher.step()

    async def _image(self, image: str) -> bool:
        """Carry a finished image, its JSON last, without which nothing of it is there; whether the target has it."""
        files = await self._trees.files(f"{layout.V1_IMAGES}/{image}")
        if "_inprogress" in files:
            self.found.unfinished += 1
            return False
        known = await self._is_known(image)
        if "layer" in files and not await carry_layer(self._objects, image, known=known):
            return False
        for part in sorted(set(files) - {"layer"}, key=lambda part: (part == "json", part)):
            if not await self._objects.other(layout.v1_image(image, part)) and part != "json":
                return False
        mark = layout.v1_image(image, "_inprogress")
        if await self._objects.size(self._target, mark) is not None:
            await remove_if_there(self._target, mark)
        return "json" in files

    async def _is_known(self, image: str) -> bool:
        """Whether the target has the image with the same JSON and checksum."""
        same = [
            await self._objects.small(self._source, path, DOCUMENT_LIMIT)
            == await self._objects.small(self._target, path, DOCUMENT_LIMIT)
            for path in (layout.v1_image(image, part) for part in ("json", "_checksum"))
        ]
        return all(same)

    async def _v1_repository(self, directory: str) -> None:
        for path in sorted(await self._trees.below(directory), key=lambda path: path.startswith(f"{directory}/{_TAG}")):
            name = path.rpartition("/")[2]
            if name.startswith(_TAG) and not await self._has_image(path):
                continue
            await self._objects.other(path)

    async def _has_image(self, path: str) -> bool:
        """Whether the target has the image that a tag names; one that came in late is carried with its ancestors."""
        data = await self._objects.small(self._source, path, TEXT_LIMIT)
        if data is None:
            return False
        try:
            image = decode_tag(data).text
        except V1NotFound:
            self._hold(path, "not copied, as it names no image")
            return False
        if await self._there(image):
            return True
        ancestry = await self._objects.small(self._source, layout.v1_image(image, "ancestry"), DOCUMENT_LIMIT)
        for one in reversed(parse_ancestry(ancestry or b"") or (image,)):
            if not await self._there(one):
                await self._image(one)
        if await self._there(image):
            return True
        self._hold(path, f"not copied, as image {image} is not there")
        return False

    async def _there(self, image: str) -> bool:
        return await self._objects.size(self._target, layout.v1_image(image, "json")) is not None
