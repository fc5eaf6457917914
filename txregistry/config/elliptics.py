"""The shapes of the Elliptics keys: every way in which nodes, groups and the log level were ever written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from txregistry.config.keys import Key
from txregistry.config.kinds import PATH, TEXT, FromEnvironment, Kind, ListOf, Scalar, Where, choice, whole

_VERBOSITY = ("data", "error", "info", "notice", "debug")
_FAMILIES = (2, 10)


class Nodes(Kind):
    """Hosts and ports, read as a tuple of (host, port, family); family 2 is IPv4, 10 is IPv6.

    A mapping of host to port, a list of `host:port` or `host:port:family`, or those in one text between spaces.
    """

    allowed = (
        "a mapping of host to port, or a list of host:port or host:port:family (2 for IPv4, 10 for IPv6)"
    )

    def read(self, value: object, where: Where) -> tuple[tuple[str, int, int], ...]:
        """The nodes in the order written."""
        content = value.parsed if isinstance(value, FromEnvironment) else value
        if isinstance(content, Mapping):
            nodes = [self._node(host, port, 2, where) for host, port in content.items()]
        else:
            text = value.text if isinstance(value, FromEnvironment) else content
            parts = content if isinstance(content, list) else text.split() if isinstance(text, str) else None
            if parts is None:
                raise where.refuse(value, self.allowed)
            nodes = [self._split(part, where.item(index)) for index, part in enumerate(parts)]
        if not nodes:
            raise where.error(f"found no node; allowed is {self.allowed}")
        return tuple(nodes)

    def _split(self, part: object, where: Where) -> tuple[str, int, int]:
        text = part.text if isinstance(part, FromEnvironment) else part
        match = re.fullmatch(r"(.+?):([0-9]{1,5})(?::([0-9]{1,2}))?", text) if isinstance(text, str) else None
        if not match:
            raise where.refuse(part, self.allowed)
        return self._node(match[1], int(match[2]), int(match[3] or 2), where)

    def _node(self, host: object, port: object, family: int, where: Where) -> tuple[str, int, int]:
        if isinstance(port, FromEnvironment):
            port = port.parsed
        if isinstance(port, str) and re.fullmatch(r"[0-9]{1,5}", port):
            port = int(port)
        sound = isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535
        if (
            not isinstance(host, str)
            or not host
            or not isinstance(port, int)
            or not sound
            or family not in _FAMILIES
        ):
            shown = host if isinstance(host, str) else "a host that is no text"
            raise where.refuse(f"{shown}:{port}", self.allowed)
        return host, port, family


class Groups(Kind):
    """Numbers of groups, read as a tuple; a list, or a text such as `[1, 2]` or `1 2`."""

    allowed = "a list of group numbers from 1 up"

    def read(self, value: object, where: Where) -> tuple[int, ...]:
        """The groups in order."""
        content = value.parsed if isinstance(value, FromEnvironment) else value
        if isinstance(content, str):
            content = re.split(r"[\s,]+", content.strip().strip("[]").strip())
        elif not isinstance(content, list):
            content = [content]
        number = whole(1, 2**31 - 1)
        number.allowed = self.allowed
        groups: list[int] = []
        for index, item in enumerate(content):
            group = number.read(item, where.item(index))
            assert isinstance(group, int)
            groups.append(group)
        if not groups:
            raise where.error(f"found no group; allowed is {self.allowed}")
        return tuple(groups)


def _verbosity(value: object) -> int:
    if isinstance(value, str) and value.lower() in _VERBOSITY:
        return _VERBOSITY.index(value.lower())
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_VERBOSITY):
        return value
    raise ValueError


def _key(written: str, kind: Kind, default: object, meaning: str, *, needed: bool = False) -> Key:
    """A key as the original spelled it; its name is `elliptics_...` with underscores, the rest are aliases."""
    name = "elliptics_" + written.replace("-", "_")
    bare = written.replace("-", "_")
    others = (
        bare,
        bare.replace("_", "-"),
        name.replace("_", "-"),
        "elliptics_" + bare.replace("_", "-"),
        written,
    )
    aliases = tuple(dict.fromkeys(spelling for spelling in others if spelling != name))
    needed_by = ("elliptics",) if needed else ()
    return Key(name, kind, default, meaning, aliases, ("elliptics",), needed_by)


_NODE_FLAGS = choice("mix_stats", "no_csum", "randomize_states", "no_route_list")
_VERSIONS = choice("2.24", "2.25", "2.25.6", "2.26", "3.0")
_NO_THREADS = " No effect: the threads are the registry's own."


def _later(name: str, kind: Kind, default: object, meaning: str) -> Key:
    """A key that docker-registry 0.6.5 did not have, in one spelling."""
    return Key(name, kind, default, meaning, engines=("elliptics",))


ELLIPTICS_KEYS = (
    _key("nodes", Nodes(), None, "The servers, host: port.", needed=True),
    _key("groups", Groups(), None, "The groups; each object is written to all of them.", needed=True),
    _key("wait-timeout", whole(1, 86400), 60, "Seconds until an operation has failed."),
    _key("check_timeout", whole(1, 86400), 60, "Seconds for which an idle connection is trusted."),
    _key("io-thread-num", whole(1, 1000), 2, "Threads that handle answers." + _NO_THREADS),
    _key("net-thread-num", whole(1, 1000), 2, "Threads that handle the network." + _NO_THREADS),
    _key(
        "nonblocking_io_thread_num",
        whole(1, 1000),
        2,
        "Threads for commands that take no lock." + _NO_THREADS,
    ),
    _key(
        "verbosity",
        Scalar(
            "a number from 0 to 4, or one of data, error, info, notice, debug", _verbosity, names=_VERBOSITY
        ),
        0,
        "How much the client logs: damaged records only, or with error servers that were lost, too.",
    ),
    _key("logfile", PATH, "/dev/stderr", "Where the client logs."),
    _later("elliptics_namespace", TEXT, "DOCKER", "The namespace of the keys."),
    _later(
        "elliptics_node_flags",
        ListOf(_NODE_FLAGS),
        None,
        "Switches of the client: no_csum does without the servers' checksums, no_route_list asks no server for others; "
        "the rest have no effect.",
    ),
    _later("elliptics_addr_family", whole(2, 10), None, "2 for IPv4, 10 for IPv6, of nodes that name none."),
    _later("elliptics_version", _VERSIONS, None, "The servers' version; absent, it is found out."),
    _later(
        "elliptics_write_quorum",
        whole(1, 1000),
        None,
        "How many groups have to take a write; absent, most of them, but of two one.",
    ),
)
