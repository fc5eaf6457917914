"""The V1 image record: the checks of its JSON, its ancestry, and the states that a push takes it through.

Texts of refusals are compared by clients and must stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from txregistry.errors import V1Conflict, V1Error, V1NotFound
from txregistry.model.v1.checksums import parse_checksum
from txregistry.model.v1.names import ImageId

#: What `_inprogress` holds; only its existence matters.
MARK = b"true"


@dataclass(frozen=True, slots=True)
class ImageJson:
    """The JSON of an image that is pushed: `data` as it came, `announced` the checksum beside it, if there was one."""

    data: bytes
    image_id: ImageId
    parent: ImageId | None
    announced: str | None


def parse_image(data: bytes, image_id: ImageId, checksum: str | None) -> ImageJson:
    """Check the body and the `X-Docker-Checksum` of `PUT images/<id>/json`; V1Error about the first thing wrong.

    These are the checks that need no storage; `check_listed`, `check_parent` and `step` follow in this order.
    """
    document = _load(data)
    if "id" not in document:
        raise V1Error(message="Missing key `id' in JSON")
    announced = parse_checksum(checksum) if checksum else None
    if document["id"] != image_id.text:
        raise V1Error(message="JSON data contains invalid id")
    return ImageJson(data, image_id, _parent(document, image_id), announced)


def check_listed(image_id: ImageId, listed: Collection[str] | None) -> None:
    """Whether a session that is bound to a repository may push this image: its list, None if it cannot be read."""
    if listed is None or image_id.text not in listed:
        raise V1Error(message="This image does not belong to the repository")


def check_parent(image: ImageJson, is_there: bool) -> None:
    """Whether the parent, if there is to be one, has a JSON in the store; it may still be in progress."""
    if image.parent is not None and not is_there:
        raise _no_parent()


def parse_parent(data: bytes) -> ImageId | None:
    """The parent of a stored image; None for a base image and for what cannot be read."""
    try:
        document = _load(data)
        return _parent(document, None)
    except V1Error:
        return None


def build_ancestry(image: ImageJson, of_parent: Sequence[str]) -> bytes:
    """The ancestry of an image: itself first, then that of its parent; V1Error if it would be its own ancestor."""
    if image.image_id.text in of_parent:
        raise _no_parent()
    return json.dumps([image.image_id.text, *of_parent]).encode("ascii")


def parse_ancestry(data: bytes) -> tuple[str, ...] | None:
    """Read a stored ancestry; None for what is no list of ids."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list) or not all(isinstance(entry, str) for entry in document):
        return None
    return tuple(document)


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not document:
        raise V1Error(message="Invalid JSON")
    return document


def _parent(document: Mapping[str, Any], image_id: ImageId | None) -> ImageId | None:
    parent = document.get("parent")
    if not parent:
        return None
    if not isinstance(parent, str) or (image_id is not None and parent == image_id.text):
        raise _no_parent()
    try:
        return ImageId.parse(parent)
    except V1NotFound:
        raise _no_parent() from None


def _no_parent() -> V1Error:
    return V1Error(message="Image depends on a non existing parent")


class State(Enum):
    """How far a push of an image has come, told by its files."""

    NOTHING = "no json"
    JSON = "json, not finished, no layer"
    LAYER = "json and layer, not finished"
    DONE = "finished"


class Event(Enum):
    """What a request asks of an image, or what came out of it.

    A layer is looked at when its request begins and when its bytes are in; "unchecked" means that no checksum was
    announced, and "late" that another client finished the image meanwhile.
    """

    READ = "GET of any part"
    PUT_JSON = "PUT json"
    PUT_LAYER = "PUT layer begins"
    LAYER_UNCHECKED = "layer is in, checksum to come"
    LAYER_MATCHED = "layer is in and has the announced checksum"
    LAYER_MISMATCHED = "layer is in and has another checksum than announced"
    PUT_CHECKSUM = "PUT checksum for which no layer came in"
    CHECKSUM_MATCHED = "PUT checksum that is one of the layer's"
    CHECKSUM_MISMATCHED = "PUT checksum that is none of the layer's"
    CHECKSUM_LATE = "PUT checksum for a layer that came in too late"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the state does not allow, with the text for its client."""

    error: type[V1Error]
    message: str


_UNKNOWN = Refusal(V1NotFound, "Image not found")
_UNFINISHED = Refusal(V1Error, "Image is being uploaded, retry later")
_EXISTS = Refusal(V1Conflict, "Image already exists")
_FINISHED = Refusal(V1Conflict, "Cannot set this image checksum")
_NO_LAYER = Refusal(V1Error, "Checksum not found in Cookie")
_LAYER_MISMATCH = Refusal(V1Error, "Checksum mismatch, ignoring the layer")
_MISMATCH = Refusal(V1Error, "Checksum mismatch")

#: State and event -> the state that follows, or why it is refused.
STEPS: dict[tuple[State, Event], State | Refusal] = {
    (State.NOTHING, Event.READ): _UNKNOWN,
    (State.NOTHING, Event.PUT_JSON): State.JSON,
    (State.NOTHING, Event.PUT_LAYER): _UNKNOWN,
    (State.NOTHING, Event.LAYER_UNCHECKED): _UNKNOWN,  # removed while the layer was on its way
    (State.NOTHING, Event.LAYER_MATCHED): _UNKNOWN,
    (State.NOTHING, Event.LAYER_MISMATCHED): _UNKNOWN,
    (State.NOTHING, Event.PUT_CHECKSUM): _UNKNOWN,
    (State.NOTHING, Event.CHECKSUM_MATCHED): _UNKNOWN,
    (State.NOTHING, Event.CHECKSUM_MISMATCHED): _UNKNOWN,
    (State.NOTHING, Event.CHECKSUM_LATE): _UNKNOWN,
    (State.JSON, Event.READ): _UNFINISHED,
    (State.JSON, Event.PUT_JSON): State.JSON,
    (State.JSON, Event.PUT_LAYER): State.JSON,
    (State.JSON, Event.LAYER_UNCHECKED): State.LAYER,
    (State.JSON, Event.LAYER_MATCHED): State.DONE,
    (State.JSON, Event.LAYER_MISMATCHED): _LAYER_MISMATCH,
    (State.JSON, Event.PUT_CHECKSUM): _NO_LAYER,
    # A layer's attempt holds its bytes aside until its checksum has come, so the files may say JSON here.
    (State.JSON, Event.CHECKSUM_MATCHED): State.DONE,
    (State.JSON, Event.CHECKSUM_MISMATCHED): _MISMATCH,
    (State.JSON, Event.CHECKSUM_LATE): _NO_LAYER,  # the image was removed and is being pushed again
    (State.LAYER, Event.READ): _UNFINISHED,
    (State.LAYER, Event.PUT_JSON): State.LAYER,
    (State.LAYER, Event.PUT_LAYER): State.LAYER,
    (State.LAYER, Event.LAYER_UNCHECKED): State.LAYER,
    (State.LAYER, Event.LAYER_MATCHED): State.DONE,
    (State.LAYER, Event.LAYER_MISMATCHED): _LAYER_MISMATCH,
    (State.LAYER, Event.PUT_CHECKSUM): _NO_LAYER,
    (State.LAYER, Event.CHECKSUM_MATCHED): State.DONE,
    (State.LAYER, Event.CHECKSUM_MISMATCHED): _MISMATCH,
    (State.LAYER, Event.CHECKSUM_LATE): _NO_LAYER,
    (State.DONE, Event.READ): State.DONE,
    (State.DONE, Event.PUT_JSON): _EXISTS,
    (State.DONE, Event.PUT_LAYER): _EXISTS,
    # Another client finished the image while this layer was on its way: its bytes are dropped, and the honest
    # second pusher is told with the text that docker takes for success.
    (State.DONE, Event.LAYER_UNCHECKED): State.DONE,
    (State.DONE, Event.LAYER_MATCHED): State.DONE,
    (State.DONE, Event.LAYER_MISMATCHED): State.DONE,
    (State.DONE, Event.PUT_CHECKSUM): _FINISHED,
    (State.DONE, Event.CHECKSUM_MATCHED): _FINISHED,
    (State.DONE, Event.CHECKSUM_MISMATCHED): _FINISHED,
    (State.DONE, Event.CHECKSUM_LATE): _EXISTS,
}


def state_of(has_json: bool, has_layer: bool, has_mark: bool) -> State:
    """The state that an image's files tell; `has_mark` is that of `_inprogress`.

    A JSON without mark and without layer is what a crash or another image's checksum left: it can be pushed again.
    """
    if not has_json:
        return State.NOTHING
    if not has_layer:
        return State.JSON
    return State.LAYER if has_mark else State.DONE


def step(state: State, event: Event) -> State:
    """The state that follows; V1NotFound, V1Conflict or V1Error, with its exact text, where the state refuses."""
    outcome = STEPS[state, event]
    if isinstance(outcome, Refusal):
        raise outcome.error(message=outcome.message)
    return outcome
