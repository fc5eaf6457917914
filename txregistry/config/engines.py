"""The keys of the storage engines (those of Elliptics have a module of their own), part of the schema."""

from __future__ import annotations

from txregistry.config.keys import Block, Key, Section
from txregistry.config.kinds import BOOL, PATH, PORT, TEXT, URL, Kind, ListOf, choice, whole

ENGINES = ("local", "s3", "gcs", "swift", "glance", "elliptics")

#: The engines that go through the S3 interface, and those that keep a tree of paths below `storage_path`.
_BUCKETS = ("s3", "gcs")
_ROOTED = ("local", "s3", "gcs", "swift")

STORAGE = Section(
    "Storage",
    (
        Key("storage", choice(*ENGINES, file="local"), "local", "The engine."),
        Key(
            "storage_path",
            TEXT,
            None,
            "Folder of local storage, or prefix of the keys of the other engines.",
            engines=_ROOTED,
            needed_by=("local",),
        ),
        Key(
            "fsync",
            BOOL,
            True,
            "Answer a push when it is on the disk; without, a power cut may lose what was acknowledged just before.",
            engines=("local",),
        ),
        Key(
            "storage_alternate",
            choice(*(name for name in ENGINES if name != "glance"), file="local"),
            "local",
            "Engine that has the say, holds all that is small, and serves when Glance does not answer.",
            engines=("glance",),
        ),
    ),
)


def _s3(name: str, kind: Kind, default: object, meaning: str, *, secret: bool = False) -> Key:
    return Key(name, kind, default, meaning, engines=("s3",), secret=secret)


S3 = Section(
    "Amazon S3 and servers like it",
    (
        Key("boto_bucket", TEXT, None, "The bucket.", engines=_BUCKETS, needed_by=_BUCKETS),
        _s3("s3_bucket", TEXT, None, "The bucket, if `boto_bucket` is absent; it is an error if both differ."),
        _s3(
            "s3_access_key",
            TEXT,
            None,
            "Access key; default: environment, profile or role of the machine.",
            secret=True,
        ),
        _s3("s3_secret_key", TEXT, None, "Secret key.", secret=True),
        _s3("s3_encrypt", BOOL, False, "Ask for encryption at rest."),
        _s3("s3_kms_key", TEXT, None, "Name of the KMS key to encrypt with."),
        _s3("s3_secure", BOOL, True, "Speak TLS with the server."),
        _s3("s3_cacert", PATH, None, "PEM file of the authorities to trust, if the server's is not a public one."),
        _s3("s3_region", TEXT, None, "Region."),
        _s3("s3_endpoint", URL, None, "Address of another server than Amazon's."),
        _s3(
            "s3_path_style",
            BOOL,
            None,
            "Bucket in the path instead of the host; default: as the endpoint needs it.",
        ),
        _s3(
            "s3_checksums",
            choice("when_supported", "when_required"),
            "when_supported",
            "When checksums are sent and checked; `when_required` for servers that refuse them.",
        ),
        _s3("boto_host", TEXT, None, "Host of another server than Amazon's, as later versions wrote it."),
        _s3("boto_port", PORT, None, "Its port."),
        _s3("boto_secure", BOOL, None, "Speak TLS with it; default: `s3_secure`."),
        _s3(
            "boto_calling_format",
            TEXT,
            None,
            "How the bucket is named to it, such as `boto.s3.connection.OrdinaryCallingFormat`.",
        ),
        _s3("boto_proxy", TEXT, None, "Host of an HTTP proxy."),
        _s3("boto_proxy_port", PORT, None, "Its port."),
        _s3("boto_proxy_user", TEXT, None, "User at the proxy."),
        _s3("boto_proxy_pass", TEXT, None, "Password at the proxy.", secret=True),
        _s3(
            "cloudfront",
            Block(
                Key("base", TEXT, None, "Host or URL of the distribution."),
                Key("keyid", TEXT, None, "Name of the signing key.", secret=True),
                Key("keysecret", TEXT, None, "The signing key, or the path of its PEM file.", secret=True),
            ),
            None,
            "Sign redirects for CloudFront.",
        ),
    ),
)

GCS = Section(
    "Google Cloud Storage",
    (
        Key("gs_access_key", TEXT, None, "HMAC access key.", (), ("gcs",), secret=True),
        Key("gs_secret_key", TEXT, None, "HMAC secret key.", (), ("gcs",), secret=True),
        Key("gs_secure", BOOL, True, "Speak TLS with the server.", (), ("gcs",)),
    ),
)


def _swift(name: str, meaning: str, default: str | None = None, *, needed: bool = False, secret: bool = False) -> Key:
    return Key(f"swift_{name}", TEXT, default, meaning, (), ("swift",), ("swift",) if needed else (), secret=secret)


SWIFT = Section(
    "OpenStack Swift",
    (
        Key("swift_authurl", URL, None, "Where to sign in.", (), ("swift",), ("swift",)),
        _swift("container", "The container.", needed=True),
        _swift("user", "User.", needed=True),
        _swift("password", "Password or key.", needed=True, secret=True),
        Key(
            "swift_auth_version",
            whole(1, 3),
            2,
            "How to sign in: 1, or Keystone (2 is spoken as 3).",
            (),
            ("swift",),
        ),
        _swift("tenant_name", "Tenant, today called project."),
        _swift("region_name", "Region."),
        _swift("user_domain_name", "Domain of the user.", "Default"),
        _swift("project_domain_name", "Domain of the project.", "Default"),
    ),
)


def _os(name: str, meaning: str, *aliases: str, secret: bool = False, default: str | None = None) -> Key:
    return Key(f"os_{name}", TEXT, default, meaning, aliases, ("glance",), secret=secret)


GLANCE = Section(
    "OpenStack Glance",
    (
        Key(
            "os_auth_url",
            URL,
            None,
            "Keystone's address.",
            (),
            ("glance",),
        ),
        _os("username", "User."),
        _os("password", "Password.", secret=True),
        _os("project_name", "Project.", "os_tenant_name"),
        _os("region_name", "Region."),
        _os("user_domain_name", "Domain of the user, by name."),
        _os("user_domain_id", "Domain of the user, by id."),
        _os("project_domain_name", "Domain of the project, by name."),
        _os("project_domain_id", "Domain of the project, by id."),
        _os("application_credential_id", "Application credential instead of user and password."),
        _os("application_credential_secret", "Its secret.", secret=True),
        Key("os_cacert", PATH, None, "PEM file of the authorities to trust.", (), ("glance", "swift")),
        Key(
            "os_glance_url",
            URL,
            None,
            "Glance's address; default: from the catalog.",
            (),
            ("glance",),
        ),
        Key(
            "glance_request_endpoints",
            ListOf(URL),
            None,
            "Glance addresses that a request may name together with its own token; none by default.",
            (),
            ("glance",),
        ),
    ),
)
