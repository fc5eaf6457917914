"""Where everything lies: the one tree, drawn and built only here.

    images/<id>/{json,ancestry,layer,_checksum,_inprogress,_files,_diff}            V1 images, as docker-registry 0.6.5
    repositories/<namespace>/<repository>/{_index_images,_private,json,tag_<tag>}   V1 repositories, likewise
    docker/registry/v2/blobs/<algorithm>/<hh>/<hex>/data                            V2, as CNCF distribution
    docker/registry/v2/repositories/<name>/
        _layers/<algorithm>/<hex>/link
        _manifests/revisions/<algorithm>/<hex>/link
        _manifests/tags/<tag>/{current/link, index/<algorithm>/<hex>/link}
        _uploads/<uuid>/{data,startedat,...}
    _txregistry/index/    derived from the rest: delete it at will, it is made again
    _txregistry/state/    ours alone, not derivable: back it up
    _txregistry/tmp/      partial objects that belong to no repository

Nothing of ours lies under `docker/` beyond what distribution itself writes; its garbage collection and its walks
stumble over foreign files there.
"""

from __future__ import annotations

from txregistry.model.digest import Digest
from txregistry.model.names import RepositoryName, Tag

V2 = "docker/registry/v2"
BLOBS = f"{V2}/blobs"
REPOSITORIES = f"{V2}/repositories"
V1_IMAGES = "images"
V1_REPOSITORIES = "repositories"
INDEX = "_txregistry/index"
STATE = "_txregistry/state"
TMP = "_txregistry/tmp"
V1_ATTEMPTS = f"{STATE}/v1/attempts"

# -- V2 ---------------------------------------------------------------------------------------------------------


def blob_data(digest: Digest) -> str:
    """The bytes of a blob or manifest, whichever repositories link to it."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def repository(name: RepositoryName) -> str:
    """The directory of a repository; those whose names begin with its own lie inside it."""
    return f"{REPOSITORIES}/{name}"


def layers(name: RepositoryName) -> str:
    """The links of all blobs that a repository has."""
    return f"{repository(name)}/_layers"


def layer_link(name: RepositoryName, digest: Digest) -> str:
    """The link that makes a blob part of a repository."""
    return f"{layers(name)}/{digest.algorithm}/{digest.hex}/link"


def manifests(name: RepositoryName) -> str:
    """Revisions and tags of a repository."""
    return f"{repository(name)}/_manifests"


def revisions(name: RepositoryName, algorithm: str) -> str:
    """The links of all manifests of one digest algorithm."""
    return f"{manifests(name)}/revisions/{algorithm}"


def revision_link(name: RepositoryName, digest: Digest) -> str:
    """The link that makes a manifest part of a repository."""
    return f"{revisions(name, digest.algorithm)}/{digest.hex}/link"


def tags(name: RepositoryName) -> str:
    """One directory for each tag, and nothing else."""
    return f"{manifests(name)}/tags"


def tag(name: RepositoryName, tag: Tag) -> str:
    """A tag with its history."""
    return f"{tags(name)}/{tag}"


#: Below a tag, the link to the manifest that it names now.
CURRENT_LINK = "current/link"


def tag_current(name: RepositoryName, tag_: Tag) -> str:
    """The link to the manifest that a tag names now."""
    return f"{tag(name, tag_)}/{CURRENT_LINK}"


def tag_history(name: RepositoryName, tag_: Tag, digest: Digest) -> str:
    """The link to a manifest that a tag names or once named."""
    return f"{tag(name, tag_)}/index/{digest.algorithm}/{digest.hex}/link"


def uploads(name: RepositoryName) -> str:
    """The upload sessions of a repository."""
    return f"{repository(name)}/_uploads"


def upload(name: RepositoryName, uuid: str) -> str:
    """The partial object of an upload session; its directory is where distribution keeps one."""
    return f"{uploads(name)}/{uuid}"


# -- V1 ---------------------------------------------------------------------------------------------------------


def v1_image(image_id: str, part: str) -> str:
    """One file of a V1 image: `json`, `ancestry`, `layer`, `_checksum`, `_inprogress`, `_files` or `_diff`."""
    return f"{V1_IMAGES}/{image_id}/{part}"


def v1_repository(namespace: str, repository: str) -> str:
    """The directory of a V1 repository; `repository` is in its quoted form."""
    return f"{V1_REPOSITORIES}/{namespace}/{repository}"


def v1_repository_part(namespace: str, repository: str, part: str) -> str:
    """One file of a V1 repository: `_index_images`, `_private` or `json`."""
    return f"{v1_repository(namespace, repository)}/{part}"


def v1_tag(namespace: str, repository: str, tag: str) -> str:
    """The file that holds the id of a tagged V1 image."""
    return f"{v1_repository(namespace, repository)}/tag_{tag}"


def v1_tag_json(namespace: str, repository: str, tag: str) -> str:
    """The file that tells with which client a V1 tag was set (since docker-registry 0.6.6)."""
    return f"{v1_repository(namespace, repository)}/tag{tag}_json"


# -- ours -------------------------------------------------------------------------------------------------------


def referrers(name: RepositoryName, subject: Digest) -> str:
    """Derived: one small object for each manifest whose subject is this digest."""
    return f"{INDEX}/referrers/{name}/_subjects/{subject.algorithm}/{subject.hex}"


def referrer(name: RepositoryName, subject: Digest, digest: Digest) -> str:
    """Derived: the descriptor of one referrer, as JSON."""
    return f"{referrers(name, subject)}/{digest.algorithm}-{digest.hex}"


def referrers_record(name: RepositoryName) -> str:
    """Derived: the revisions of which the referrers of a repository were made."""
    return f"{INDEX}/referrers/{name}/_indexed"


def v1_map(image_id: str) -> str:
    """Derived: digest, size and diff id of a V1 layer, as JSON, so that it need not be read again."""
    return f"{INDEX}/v1/{image_id}"


def foreign_revisions(name: RepositoryName, algorithm: str) -> str:
    """State: the manifests of a repository that distribution could not parse, kept out of its sight."""
    return f"{STATE}/revisions/{name}/_revisions/{algorithm}"


def foreign_revision(name: RepositoryName, digest: Digest) -> str:
    """State: what makes such a manifest part of the repository; its text is the media type."""
    return f"{foreign_revisions(name, digest.algorithm)}/{digest.hex}"


def v1_partial(uuid: str) -> str:
    """The partial object of a V1 layer, which knows no repository."""
    return f"{TMP}/{uuid}"


def v1_push(image_id: str) -> str:
    """State: the record of the push of a V1 image, as JSON."""
    return f"{STATE}/v1/pushes/{image_id}"


def v1_attempts(image_id: str) -> str:
    """State: the layers that came in for a V1 image and wait for their checksums."""
    return f"{V1_ATTEMPTS}/{image_id}"


def v1_attempt(image_id: str, attempt: str) -> str:
    """State: one of them."""
    return f"{v1_attempts(image_id)}/{attempt}"


def v1_attempt_layer(image_id: str, attempt: str) -> str:
    """State: its bytes."""
    return f"{v1_attempt(image_id, attempt)}/layer"


def v1_attempt_record(image_id: str, attempt: str) -> str:
    """State: its checksums, as JSON."""
    return f"{v1_attempt(image_id, attempt)}/record"


def probe(uuid: str) -> str:
    """A small object that is written and removed to see whether the store works."""
    return f"{TMP}/probe-{uuid}"
