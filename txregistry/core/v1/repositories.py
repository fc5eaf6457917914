"""V1 repositories: directories of tags, each a file with the id of an image, and of what else is known."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from txregistry.concurrency import Shields
from txregistry.core.links import cached, entries
from txregistry.core.policy import Policy
from txregistry.core.proofs import Proof, proving
from txregistry.core.v1.files import DOCUMENT_LIMIT, TEXT_LIMIT, exists, load, read, remove
from txregistry.core.v1.hooks import Hooks
from txregistry.errors import LostRace, Unavailable, Unsupported, V1Error, V1NotFound
from txregistry.interfaces import IStorageDriver
from txregistry.model.v1.image import parse_ancestry
from txregistry.model.v1.index import listed_ids, merge_images
from txregistry.model.v1.names import NAME_LIMIT, ImageId, V1Repository, V1Tag
from txregistry.model.v1.repository import UNKNOWN_CLIENT, decode_tag, describe_client
from txregistry.storage import layout

_TAG = "tag_"
#: The tag whose client speaks for the whole repository.
_LATEST = "latest"
_SWAPS = 20


class V1Repositories:
    """The repositories of a store."""

    def __init__(
        self, driver: IStorageDriver, policy: Policy, shields: Shields, clock: IReactorTime, hooks: Hooks
    ) -> None:
        self._driver = driver
        self._cached = cached(driver)
        self._policy = policy
        self._shields = shields
        self._clock = clock
        self._hooks = hooks

    # -- tags ---------------------------------------------------------------------------------------------------

    async def tags(self, repository: V1Repository) -> dict[str, str]:
        """The ids of the images that are tagged, by tag; V1NotFound. What is no id is left out."""
        return await self._tags(self._cached, repository)

    async def _tags(self, driver: IStorageDriver, repository: V1Repository) -> dict[str, str]:
        found = {}
        names = await self._files(repository)
        for name in names:
            if name.startswith(_TAG) and name != _TAG:
                data = await read(driver, _path(repository, name), TEXT_LIMIT)
                try:
                    if data is not None:
                        found[name.removeprefix(_TAG)] = decode_tag(data).text
                except V1NotFound:
                    continue
        return found

    async def tag(self, repository: V1Repository, tag: V1Tag) -> ImageId:
        """The image that a tag names; V1NotFound."""
        data = await read(self._cached, _path(repository, f"{_TAG}{tag}"), TEXT_LIMIT)
        if data is None:
            raise V1NotFound(message="Tag not found")
        return decode_tag(data)

    def proof(self, repository: V1Repository, tag: V1Tag, image: ImageId) -> Proof | None:
        """That a tag names this image still; None if the driver cannot tell."""
        driver = proving(self._driver)
        if driver is None:
            return None
        return Proof(driver, ((_path(repository, f"{_TAG}{tag}"), image.text.encode("utf-8")),))

    async def set_tag(self, repository: V1Repository, tag: V1Tag, image: ImageId, user_agent: str) -> None:
        """Let a tag name an image, which may still be in progress; V1NotFound without one."""
        if not await exists(self._driver, layout.v1_image(image.text, "json")):
            raise V1NotFound(message="Image not found")
        await self._shields.shield(self._write_tag(repository, tag, image, user_agent))

    async def _write_tag(self, repository: V1Repository, tag: V1Tag, image: ImageId, user_agent: str) -> None:
        await self._driver.put(_path(repository, f"{_TAG}{tag}"), image.text.encode("utf-8"))
        await self._hooks.tag_created(repository, tag.text, image.text)
        client = describe_client(user_agent, self._clock.seconds())
        described = _tag_json(repository, tag)
        if described is not None:
            await self._driver.put(described, client)
        if tag.text == _LATEST:
            await self._driver.put(_path(repository, "json"), client)

    async def delete_tag(self, repository: V1Repository, tag: V1Tag) -> None:
        """Remove a tag, which need not be there."""
        self._require_delete()
        await self._shields.shield(self._remove_tag(repository, tag))

    async def _remove_tag(self, repository: V1Repository, tag: V1Tag) -> None:
        path = _path(repository, f"{_TAG}{tag}")
        data = await read(self._driver, path, TEXT_LIMIT) if self._hooks.listening else None
        await remove(self._driver, path)
        if data is not None:
            await self._hooks.tags_deleted(repository, {tag.text: _named(data)})
        described = _tag_json(repository, tag)
        if described is not None:
            await remove(self._driver, described)
        if tag.text == _LATEST:
            await remove(self._driver, _path(repository, "json"))

    # -- the repository -----------------------------------------------------------------------------------------

    async def delete(self, repository: V1Repository) -> None:
        """Remove a repository with all its tags, but none of its images; V1NotFound."""
        self._require_delete()
        await self._files(repository)
        await self._shields.shield(self._remove(repository))

    async def _remove(self, repository: V1Repository) -> None:
        tags = await self._tags(self._driver, repository) if self._hooks.listening else {}
        await remove(self._driver, layout.v1_repository(repository.namespace, repository.name))
        await self._hooks.tags_deleted(repository, tags)

    async def client(self, repository: V1Repository, tag: V1Tag | None = None) -> Mapping[str, object]:
        """What is known of the client that set `latest`, or that set a tag; also of what does not exist."""
        path = _path(repository, "json") if tag is None else _tag_json(repository, tag)
        data = None if path is None else await read(self._cached, path)
        try:
            document = json.loads(data or b"null")
        except (ValueError, RecursionError):
            document = None
        return document if isinstance(document, dict) else UNKNOWN_CLIENT

    async def is_private(self, repository: V1Repository) -> bool:
        """Whether a repository was made private; one that does not exist was not."""
        return await exists(self._driver, _path(repository, "_private"))

    def is_public_now(self, repository: V1Repository) -> bool:
        """Whether it can be told at once that a repository was not made private. False says nothing."""
        driver = proving(self._driver)
        return driver is not None and not driver.exists_now(_path(repository, "_private"))

    async def set_private(self, repository: V1Repository, private: bool) -> None:
        """Make a repository private, or public."""
        path = _path(repository, "_private")
        if not private:
            await self._shields.shield(remove(self._driver, path))
        elif not await self.is_private(repository):
            await self._driver.put(path, b"")

    # -- the list of images -------------------------------------------------------------------------------------

    async def images(self, repository: V1Repository) -> bytes:
        """The list of a repository's images as it is stored, JSON; V1NotFound before it was ever pushed."""
        data = await read(self._driver, _path(repository, "_index_images"))
        if data is None:
            raise V1NotFound(message="images not found")
        return data

    async def push_images(self, repository: V1Repository, data: bytes) -> None:
        """Add to the list of a repository's images; V1Error for what is no such list."""
        await self._shields.shield(self._merge_images(repository, data))

    async def _merge_images(self, repository: V1Repository, data: bytes) -> None:
        path = _path(repository, "_index_images")
        for _ in range(_SWAPS):
            stored = await load(self._driver, path, DOCUMENT_LIMIT)
            merged = merge_images(None if stored is None else stored[0], data)
            if len(merged) > DOCUMENT_LIMIT:
                raise V1Error({"reason": "the list would grow too long"}, message="Invalid data")
            try:
                if stored is None:
                    await self._driver.put(path, merged, if_absent=True)
                else:
                    await self._driver.put(path, merged, if_match=stored[1])
            except LostRace:
                continue
            return
        raise Unavailable(path, "changed by somebody else, again and again")

    async def holds(self, repository: V1Repository, image: ImageId) -> bool:
        """Whether an image belongs to a repository: it is in its list, or an ancestor of what is tagged."""
        listed = await read(self._driver, _path(repository, "_index_images"))
        if listed is not None and image.text in listed_ids(listed):
            return True
        try:
            tagged = set((await self._tags(self._driver, repository)).values())
        except V1NotFound:
            return False
        for top in tagged:
            ancestry = await read(self._driver, layout.v1_image(top, "ancestry"))
            if image.text == top or (ancestry is not None and image.text in (parse_ancestry(ancestry) or ())):
                return True
        return False

    # -- all repositories ---------------------------------------------------------------------------------------

    async def names(self) -> list[V1Repository]:
        """All repositories, in the order of their directories' names."""
        found = []
        for namespace, is_directory in await entries(self._driver, layout.V1_REPOSITORIES):
            if is_directory:
                children = await entries(self._driver, f"{layout.V1_REPOSITORIES}/{namespace}")
                found += [V1Repository(namespace, name) for name, is_directory in children if is_directory]
        return sorted(found)

    async def _files(self, repository: V1Repository) -> list[str]:
        """What a repository's directory holds; V1NotFound where there is none, or an empty one."""
        found = await entries(self._driver, layout.v1_repository(repository.namespace, repository.name))
        if not found:
            raise V1NotFound(message="Repository not found")
        return [name for name, is_directory in found if not is_directory]

    def _require_delete(self) -> None:
        if not self._policy.delete:
            raise Unsupported("deletion is switched off; the operator can allow it with `delete: true`")


def _path(repository: V1Repository, part: str) -> str:
    return layout.v1_repository_part(repository.namespace, repository.name, part)


def _named(data: bytes) -> str | None:
    """The id of the image in the file of a tag; None for what is no id."""
    try:
        return decode_tag(data).text
    except V1NotFound:
        return None


def _tag_json(repository: V1Repository, tag: V1Tag) -> str | None:
    """Where the client of a tag is described.

    None for a tag that begins with `_`, whose description old servers would list as a tag, and for a very long one.
    """
    if tag.text.startswith("_") or len(f"tag{tag}_json".encode()) > NAME_LIMIT:
        return None
    return layout.v1_tag_json(repository.namespace, repository.name, tag.text)
