"""The servers of one run: started when a measure first needs them, filled with the same content, stopped at the end."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from bench.content import Content
from bench.peers import NGINX, OURS, PEERS, Ground, Server


@dataclass(frozen=True)
class Options:
    """What a run may be told."""

    rounds: int = 2
    seconds: float = 2.0
    large_mib: int = 256
    images: int = 200
    idle: int = 9500
    slow: int = 10_000
    readers: int = 1000


class Field:
    """The servers of a run, by name; each is there in clear and, if a measure needs it, over TLS."""

    def __init__(self, folder: str, options: Options) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.options = options
        self.content = Content(folder, options.large_mib)
        #: What the table cannot show.
        self.notes: list[str] = []
        self._ground = Ground(folder)
        self._running: dict[tuple[str, bool], Server] = {}
        self._lags = os.path.join(folder, "lags")
        self._took: list[tuple[float, float, str]] = []
        self._filled = 0.0
        #: Lasts while a server that is there for one measure is measured; a profile takes its place.
        self.watch: Callable[[Server], AbstractContextManager[object]] = lambda _server: nullcontext()

    def server(self, name: str, *, tls: bool = False) -> Server:
        """The server of this name, with the content; the one over TLS is another process on the same store."""
        found = self._running.get((name, tls))
        if found is not None:
            return found
        if tls:
            server = self._ground.start(PEERS[name], store=self.server(name).store, tls=True, lags=self._lags_of(name))
        else:
            server = self._ground.start(PEERS[name], lags=self._lags_of(name))
            if name == NGINX:
                self.content.lay_out(server.store)
                self.content.check(server)
            else:
                self.content.push(server)
        self._running[name, tls] = server
        self._filled = time.time()
        return server

    def _lags_of(self, name: str) -> str | None:
        return self._lags if name == OURS else None

    @contextmanager
    def fresh(
        self, name: str, *, store: str | None = None, path: str = "/v2/", probe: bool = False
    ) -> Iterator[Server]:
        """A server of its own for one measure, in clear."""
        server = self._ground.start(PEERS[name], store=store, path=path, lags=self._lags_of(name) if probe else None)
        try:
            with self.watch(server):
                yield server
        finally:
            server.stop()

    @contextmanager
    def during(self, measure: str, name: str) -> Iterator[None]:
        """Remember when a measure was taken from ours."""
        began = time.time()
        try:
            yield
        finally:
            if name == OURS:
                self._took.append((max(began, self._filled), time.time(), measure))

    def lags(self) -> dict[str, float]:
        """The longest turn of our reactor, in seconds, by measure."""
        longest: dict[str, float] = {}
        if not os.path.exists(self._lags):
            return longest
        with open(self._lags) as file:
            for line in file:
                when, busy = map(float, line.split())
                measures = (each for began, ended, each in self._took if began <= when <= ended)
                measure = next(measures, "start and content")
                longest[measure] = max(busy, longest.get(measure, 0.0))
        return longest

    def peaks(self) -> dict[str, float]:
        """The most memory that each server in clear had so far, in MiB."""
        return {name: server.program.memory("VmHWM") for (name, tls), server in self._running.items() if not tls}

    def stop(self) -> None:
        """Stop all servers."""
        for server in self._running.values():
            server.stop()
        self._running.clear()
