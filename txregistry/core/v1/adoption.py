"""The V1 images and repositories that other servers wrote: what is broken, what can be repaired, what there is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from txregistry.core.adoption import TAG_TO_NOWHERE, Fault, Watcher, guarded
from txregistry.core.links import entries
from txregistry.core.v1.files import TEXT_LIMIT, exists, read
from txregistry.errors import LostRace, NotFound, V1Error, V1NotFound
from txregistry.interfaces import IStorageDriver
from txregistry.model.v1.checksums import decode_checksums, encode_checksum, simple_checksum, simple_hasher
from txregistry.model.v1.image import parse_ancestry, parse_image
from txregistry.model.v1.names import ImageId, V1Repository
from txregistry.model.v1.repository import decode_tag
from txregistry.storage import layout

#: Kinds of faults.
UNFINISHED = "unfinished image"
JSON_MISSING = "json missing"
JSON_DAMAGED = "json damaged"
LAYER_MISSING = "layer missing"
ANCESTRY_MISSING = "ancestry missing"
ANCESTRY_DAMAGED = "ancestry damaged"
ANCESTOR_MISSING = "ancestor missing"
CHECKSUM_ODD = "odd checksum"
TAG_UNFINISHED = "tag of an unfinished image"

_TAG = "tag_"


class V1Store:
    """A look at all images and repositories of V1 in a store, as it is and without a cache."""

    def __init__(self, driver: IStorageDriver, watcher: Watcher) -> None:
        self._driver = driver
        self._watcher = watcher
        self._images: set[str] = set()
        self._unfinished: set[str] = set()

    # -- looking for faults ---------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Tell the watcher of every fault."""
        images = await guarded(self._watcher, layout.V1_IMAGES, self._image_names()) or []
        repositories = await guarded(self._watcher, layout.V1_REPOSITORIES, self._repository_names()) or []
        self._images = set(images)
        self._watcher.expect(len(images) + len(repositories))
        for image in images:
            await guarded(self._watcher, f"{layout.V1_IMAGES}/{image}", self._check_image(image))
            self._watcher.saw("images")
            self._watcher.step()
        for repository in repositories:
            path = layout.v1_repository(repository.namespace, repository.name)
            await guarded(self._watcher, path, self._check_tags(repository))
            self._watcher.saw("V1 repositories")
            self._watcher.step()

    async def _check_image(self, image: str) -> None:
        parts = {name for name, _ in await entries(self._driver, f"{layout.V1_IMAGES}/{image}")}
        if "_inprogress" in parts:
            self._unfinished.add(image)
            mark = layout.v1_image(image, "_inprogress")
            began = datetime.fromtimestamp((await self._driver.stat(mark)).modified, UTC)
            self._watcher.fault(Fault(UNFINISHED, mark, f"begun {began:%Y-%m-%d %H:%M} UTC"))
            return
        if "json" in parts:
            await self._parse_json(image)
        else:
            self._watcher.fault(Fault(JSON_MISSING, layout.v1_image(image, "json")))
        if "layer" not in parts:
            self._watcher.fault(Fault(LAYER_MISSING, layout.v1_image(image, "layer")))
        if "ancestry" in parts:
            await self._check_ancestry(image)
        else:
            self._watcher.fault(Fault(ANCESTRY_MISSING, layout.v1_image(image, "ancestry")))
        if "_checksum" in parts:
            path = layout.v1_image(image, "_checksum")
            text = await read(self._driver, path, TEXT_LIMIT)
            if not decode_checksums(text or b""):
                self._watcher.fault(Fault(CHECKSUM_ODD, path, ascii((text or b"")[:80])[1:]))

    async def _check_ancestry(self, image: str) -> None:
        path = layout.v1_image(image, "ancestry")
        ancestry = parse_ancestry(await read(self._driver, path) or b"")
        if not ancestry or ancestry[0] != image or len(set(ancestry)) < len(ancestry):
            self._watcher.fault(Fault(ANCESTRY_DAMAGED, path, "not a list of ids that begins with the image's own"))
            return
        for ancestor in ancestry[1:]:
            if ancestor not in self._images:
                self._watcher.fault(Fault(ANCESTOR_MISSING, path, ancestor))

    async def _check_tags(self, repository: V1Repository) -> None:
        for path, text in await self._tags(repository):
            self._watcher.saw("V1 tags")
            try:
                image = decode_tag(text).text
            except V1NotFound:
                self._watcher.fault(Fault(TAG_TO_NOWHERE, path, f"{ascii(text[:80])[1:]} is no id of an image"))
                continue
            if image in self._unfinished:
                self._watcher.fault(Fault(TAG_UNFINISHED, path, image))
            elif image not in self._images or not await exists(self._driver, layout.v1_image(image, "json")):
                self._watcher.fault(Fault(TAG_TO_NOWHERE, path, f"there is no image {image}"))

    # -- repairing ------------------------------------------------------------------------------------------------

    async def repair(self, *, seriously: bool) -> None:
        """Make the ancestries and checksums that finished images lack; without `seriously` only tell which.

        A fault is what stands in the way.
        """
        images = await self._image_names()
        self._images = set(images)
        self._watcher.expect(len(images))
        for image in images:
            await guarded(self._watcher, f"{layout.V1_IMAGES}/{image}", self._repair_image(image, seriously))
            self._watcher.saw("images")
            self._watcher.step()

    async def _repair_image(self, image: str, seriously: bool) -> None:
        parts = {name for name, _ in await entries(self._driver, f"{layout.V1_IMAGES}/{image}")}
        if "_inprogress" in parts:
            return
        if "json" not in parts:
            self._watcher.fault(Fault(JSON_MISSING, layout.v1_image(image, "json")))
            return
        if "ancestry" not in parts:
            lineage = await self._lineage(image)
            if lineage is not None:
                await self._write(layout.v1_image(image, "ancestry"), json.dumps(lineage).encode("ascii"), seriously)
        if "layer" not in parts:
            self._watcher.fault(Fault(LAYER_MISSING, layout.v1_image(image, "layer")))
        elif "_checksum" not in parts:
            checksum = await self._simple(image) if seriously else ""
            await self._write(layout.v1_image(image, "_checksum"), encode_checksum(checksum), seriously)

    async def _lineage(self, image: str) -> list[str] | None:
        """The ids of an image and its ancestors; None, and a fault, if one is not there or not what it should be."""
        found: list[str] = []
        following: str | None = image
        while following is not None:
            if following in found:
                self._watcher.fault(Fault(ANCESTRY_DAMAGED, layout.v1_image(image, "json"), "its own ancestor"))
                return None
            if following not in self._images:
                self._watcher.fault(Fault(ANCESTOR_MISSING, layout.v1_image(image, "ancestry"), following))
                return None
            found.append(following)
            stored = None
            if following != image:
                stored = parse_ancestry(await read(self._driver, layout.v1_image(following, "ancestry")) or b"")
            if stored and stored[0] == following:
                return [*found, *stored[1:]]
            parsed, parent = await self._parse_json(following)
            if not parsed:
                return None
            following = parent
        return found

    async def _simple(self, image: str) -> str:
        hasher = simple_hasher(await read(self._driver, layout.v1_image(image, "json")) or b"")
        reader = await self._driver.open(layout.v1_image(image, "layer"))
        try:
            async for chunk in reader.chunks(0, reader.size):
                hasher.update(chunk)
        finally:
            reader.close()
        return simple_checksum(hasher)

    async def _write(self, path: str, data: bytes, seriously: bool) -> None:
        if seriously:
            try:
                await self._driver.put(path, data, if_absent=True)
            except LostRace:
                return  # somebody else made it just now
        self._watcher.repaired(path)

    # -- listing --------------------------------------------------------------------------------------------------

    async def dump(self) -> list[dict[str, Any]]:
        """All tagged repositories with the ids of their images, ancestors included, and the checksums of these."""
        found = []
        repositories = await self._repository_names()
        self._watcher.expect(len(repositories))
        for repository in repositories:
            images: dict[str, None] = {}
            tags = await self._tags(repository)
            for _, text in tags:
                try:
                    top = decode_tag(text).text
                except V1NotFound:
                    continue
                ancestry = parse_ancestry(await read(self._driver, layout.v1_image(top, "ancestry")) or b"")
                images.update(dict.fromkeys(ancestry or (top,)))
            if tags:
                listed = [{"id": image, "checksum": await self._checksum(image)} for image in images]
                entry = {"namespace": repository.namespace, "repository": repository.name, "images": listed}
                found.append(entry)
            self._watcher.step()
        return found

    async def _checksum(self, image: str) -> str | None:
        try:
            path = layout.v1_image(ImageId.parse(image).text, "_checksum")
        except V1NotFound:
            return None
        known = decode_checksums(await read(self._driver, path, TEXT_LIMIT) or b"")
        return known[0] if known else None

    # -- what there is --------------------------------------------------------------------------------------------

    async def _parse_json(self, image: str) -> tuple[bool, str | None]:
        """Whether an image's JSON is whole and its own, which is a fault if not; and its parent."""
        path = layout.v1_image(image, "json")
        try:
            parent = parse_image(await read(self._driver, path) or b"", ImageId(image), None).parent
        except V1Error as error:
            self._watcher.fault(Fault(JSON_DAMAGED, path, error.message))
            return False, None
        return True, None if parent is None else parent.text

    async def _image_names(self) -> list[str]:
        return sorted(name for name, is_directory in await entries(self._driver, layout.V1_IMAGES) if is_directory)

    async def _repository_names(self) -> list[V1Repository]:
        found = []
        for namespace, is_namespace in await entries(self._driver, layout.V1_REPOSITORIES):
            if is_namespace:
                children = await entries(self._driver, f"{layout.V1_REPOSITORIES}/{namespace}")
                found += [V1Repository(namespace, name) for name, is_directory in children if is_directory]
        return sorted(found)

    async def _tags(self, repository: V1Repository) -> list[tuple[str, bytes]]:
        """The path and the text of each tag."""
        found = []
        directory = layout.v1_repository(repository.namespace, repository.name)
        for name, is_directory in sorted(await entries(self._driver, directory)):
            if not is_directory and name.startswith(_TAG) and name != _TAG:
                path = f"{directory}/{name}"
                try:
                    text, _ = await self._driver.read(path, TEXT_LIMIT)
                except NotFound:
                    continue  # removed just now
                found.append((path, text))
        return found
