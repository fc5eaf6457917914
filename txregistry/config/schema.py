"""Every key that a configuration can have: the one table behind reading, checking and the documentation."""

from __future__ import annotations

from txregistry.config.elliptics import ELLIPTICS_KEYS
from txregistry.config.engines import GCS, GLANCE, S3, STORAGE, SWIFT
from txregistry.config.keys import Block, Key, MailSecurity, Section
from txregistry.config.kinds import (
    ACCESS_LOG,
    BOOL,
    DOTTED_NAME,
    ENDPOINT,
    LOGLEVEL,
    MAIL_ADDRESS,
    NETWORK,
    PATH,
    PORT,
    TEXT,
    URI_PREFIX,
    URL,
    ListOf,
    choice,
    duration,
    size,
    whole,
)

_CORS_WITHOUT_EFFECT = ("send_wildcard", "always_send", "automatic_options", "vary_header", "resources")

SERVING = Section(
    "Serving",
    (
        Key(
            "listen",
            ListOf(ENDPOINT),
            None,
            "Where to listen: Twisted endpoint strings, and `https:PORT` which uses"
            " the certificate below. Default `tcp:5000`; without a file `tcp:5000:interface=127.0.0.1`.",
        ),
        Key(
            "tls_certificate",
            PATH,
            None,
            "PEM file with the certificate and its chain for `https:` endpoints.",
        ),
        Key("tls_key", PATH, None, "PEM file with the private key; default: the certificate's file."),
        Key(
            "tls_client_ca",
            PATH,
            None,
            "PEM file of authorities; if set, clients must show a certificate of theirs.",
        ),
        Key(
            "external_url", URL, None, "The registry's address as clients see it; makes `Location` absolute."
        ),
        Key(
            "access_log",
            ACCESS_LOG,
            "-",
            'Log of requests in combined format: `"-"` for the standard output, a path, or `off`.',
        ),
        Key("loglevel", LOGLEVEL, "info", "Least level that is logged."),
        Key("threads", whole(1, 1024), 8, "Threads for blocking work: disk, engines, hashing."),
        Key(
            "workers",
            whole(0, 1024, also="auto"),
            0,
            "Processes that serve; 0 is one process without a parent.",
        ),
        Key(
            "trusted_proxies",
            ListOf(NETWORK, commas=True),
            None,
            "Front ends whose `X-Forwarded-*` headers count.",
        ),
        Key(
            "registry_endpoints",
            ListOf(TEXT, commas=True),
            None,
            "Hosts named in `X-Docker-Endpoints`, separated by commas; default: the request's host.",
        ),
        Key(
            "nginx_x_accel_redirect",
            URI_PREFIX,
            None,
            "Path of an internal location by which an nginx in front sends layers and blobs of local storage.",
        ),
        Key(
            "storage_redirect",
            BOOL,
            False,
            "Send clients to the engine's signed URLs for layers and blobs.",
        ),
        Key(
            "cors",
            Block(
                Key("origins", ListOf(TEXT), None, "Origins that may ask; off without."),
                Key(
                    "methods",
                    ListOf(TEXT),
                    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                    "Methods that they may use.",
                ),
                Key("headers", ListOf(TEXT), "Content-Type", "Headers that they may send."),
                Key("expose_headers", ListOf(TEXT), None, "Headers that they may see."),
                Key("supports_credentials", BOOL, False, "Whether they may send credentials."),
                Key("max_age", duration(0, 10**9), None, "How long browsers may remember the answer."),
                ignored=dict.fromkeys(_CORS_WITHOUT_EFFECT, "it is always decided from origins"),
            ),
            None,
            "Access from web pages of other origins.",
        ),
    ),
)

REGISTRY = Section(
    "What the registry accepts",
    (
        Key("delete", BOOL, True, "Whether tags, manifests and blobs can be deleted (405 when off)."),
        Key("max_manifest_size", size(1024, 64 * 1024**2), "4M", "Largest manifest in bytes."),
        Key("upload_purge_age", duration(60, 10**9), "7d", "Age at which an unfinished upload is removed."),
        Key(
            "accept_unknown_media_types",
            BOOL,
            False,
            "Take manifests of media types that a CNCF registry on the same store could not show.",
        ),
        Key("accept_missing_blobs", BOOL, False, "Take manifests whose blobs are not there (sparse images)."),
        Key("hooks", DOTTED_NAME, None, "Python code that is told of V1 tags, and asked about V1 images."),
    ),
)

ACCESS = Section(
    "Who may do what",
    (
        Key("standalone", BOOL, True, "No index: every request is allowed, unless accounts say otherwise."),
        Key("index_endpoint", URL, "https://index.docker.io", "The index that verifies tokens."),
        Key(
            "disable_token_auth",
            BOOL,
            False,
            "With `standalone: false`: allow every request all the same.",
        ),
        Key(
            "secret_key",
            TEXT,
            None,
            "Signs sessions; the same on every node. Default: random for each start.",
            secret=True,
        ),
        Key(
            "privileged_key",
            PATH,
            None,
            "PEM file with the RSA public key of privileged requests.",
        ),
        Key(
            "privileged_require_date",
            BOOL,
            False,
            "Refuse privileged requests without a signed date.",
        ),
        Key(
            "accounts",
            choice("closed", "open"),
            "closed",
            "Whether a first push may create an account.",
        ),
        Key("users_file", PATH, None, "File of users and bcrypt passwords, outside the store."),
    ),
)

_REDIS = Block(
    Key("host", TEXT, "localhost", "Host."),
    Key("port", PORT, 6379, "Port."),
    Key("db", whole(0, 2**31 - 1), 0, "Number of the database."),
    Key("password", TEXT, None, "Password.", secret=True),
    true_allowed=True,
)

CACHE = Section(
    "Redis",
    (
        Key("cache", _REDIS, None, "An ordinary Redis, for the queue of `diff`; its list is `diff-worker`."),
        Key("cache_lru", _REDIS, None, "A Redis that evicts, for small objects."),
    ),
)

_MAIL = (
    Key("smtp_host", TEXT, None, "The mail server, `HOST` or `HOST:PORT`; without it no mail is sent."),
    Key("smtp_port", PORT, 25, "Its port."),
    Key("smtp_login", TEXT, None, "User at the server; without it there is no login."),
    Key("smtp_password", TEXT, None, "Password at the server.", secret=True),
    Key(
        "smtp_secure",
        MailSecurity(PATH),
        False,
        "STARTTLS: true, a PEM file with key and certificate, or a mapping of `keyfile` and `certfile`.",
    ),
    Key("from_addr", MAIL_ADDRESS, None, "Sender."),
    Key("to_addr", ListOf(MAIL_ADDRESS, commas=True), None, "Recipients; a list, or with commas between them."),
)

MAIL = Section(
    "Mail on exceptions",
    (
        Key(
            "email_exceptions",
            Block(*_MAIL),
            None,
            "Mail for each unhandled exception; its keys may also stand in the"
            " flavor itself, where the block does not have them.",
        ),
        *_MAIL,
    ),
)

ELLIPTICS = Section("Elliptics", ELLIPTICS_KEYS)

SECTIONS = (SERVING, REGISTRY, ACCESS, STORAGE, S3, GCS, SWIFT, GLANCE, ELLIPTICS, CACHE, MAIL)
KEYS = tuple(key for section in SECTIONS for key in section.keys)

#: Keys of later versions of the original that mean nothing here, each with the reason that its warning gives.
IGNORED = {
    "bugsnag": "errors are logged, and mailed by email_exceptions",
    "newrelic": "nothing is sent to New Relic",
    "search_backend": "search always works on the store itself",
    "sqlalchemy_index_database": "search needs no database",
    "mirroring": "nothing is read through to another registry",
    "issue": "the answer of / is fixed",
    "debug": "loglevel decides what is logged",
    "boto_debug": "loglevel decides what is logged",
    "s3_use_sigv4": "requests are always signed by version 4",
    "oauth2": "Google is reached by gs_access_key and gs_secret_key",
    **dict.fromkeys(
        (
            "azure_storage_account_name",
            "azure_storage_account_key",
            "azure_storage_container",
            "azure_use_https",
        ),
        "there is no Azure engine",
    ),
    **dict.fromkeys(("oss_host", "oss_bucket", "oss_accessid", "oss_accesskey"), "there is no OSS engine"),
}
