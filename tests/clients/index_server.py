"""A V1 index, as the original had it at another place: accounts, lists of images, tokens, and their verification.

A process of its own, so that it can be killed. The password of each user is `password_of` it; a repository belongs to
whoever pushes it first. Each answer about a user sets a cookie with the user's name, and each verification is noted
with the cookie that came with it. Its state is in its folder and outlives it. What is not the index's it hands on to
the registry, for clients that show their token to the host of the index alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

START_SECONDS = 30
_PATH = re.compile(r"/v1/repositories/([^/]+/[^/]+?)(/images|/)?\Z")
_SIGNATURE = re.compile(r"signature=([a-z0-9-]+)")


def password_of(user: str) -> str:
    return f"pw-{user}"


def _sign(user: str, number: str, repository: str, access: str) -> str:
    text = f"the index\0{user}\0{number}\0{repository}\0{access}".encode()
    return f"{user}-{number}-{hashlib.sha256(text).hexdigest()[:32]}"


def make_token(user: str, repository: str, access: str) -> str:
    """A token, each time another one."""
    signature = _sign(user, str(time.time_ns()), repository, access)
    return f'Token signature={signature},repository="{repository}",access={access}'


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def version_string(self) -> str:
        return "an index"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = _PATH.match(unquote(self.path))
        if self.path == "/v1/_ping":
            self.answer(200, True)
        elif found is None:
            self.hand_on()
        elif (self.command, found[2]) == ("GET", "/images"):
            self.images(found[1])
        elif (self.command, found[2]) == ("PUT", "/images"):
            self.as_owner(found[1], 204, None)
        elif self.command == "PUT":
            ids = [entry["id"] for entry in json.loads(self.body)]
            self.as_owner(found[1], 200, "write", ids)
        elif self.command == "DELETE":
            self.as_owner(found[1], 202, "delete")
        else:
            self.answer(405, {"error": "method"})

    def hand_on(self) -> None:
        connection = http.client.HTTPConnection(self.server.registry, timeout=60)
        try:
            connection.request(self.command, self.path, self.body, dict(self.headers.items()))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        self.send_response(response.status)
        for name, text in response.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_POST = handle_any

    def images(self, repository: str) -> None:
        authorization = self.headers.get("Authorization", "")
        if not authorization.startswith("Token "):
            self.as_owner(repository, 200, "read")
            return
        found = _SIGNATURE.search(authorization)
        user, number, _ = found[1].split("-") if found else ("", "", "")
        good = [_sign(user, number, repository, access) for access in ("read", "write", "delete")]
        owner = self.server.load().get(repository, {}).get("owner")
        valid = found is not None and found[1] in good and user == owner
        self.server.note({"user": user, "repository": repository, "cookie": self.headers.get("Cookie")})
        if valid:
            self.answer(200, self.server.listed(repository), self.cookie(user))
        else:
            self.answer(401, {"error": "no"}, self.cookie(user))

    def as_owner(self, repository: str, code: int, access: str | None, ids: list[str] | None = None) -> None:
        """Answer the owner of a repository, with a token, and the ids added to it."""
        _, _, encoded = self.headers.get("Authorization", "").partition("Basic ")
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        if not user or password != password_of(user):
            self.answer(401, {"error": "who?"})
        elif not self.server.claim(repository, user, ids):
            self.answer(403, {"error": "not yours"}, self.cookie(user))
        else:
            headers = self.cookie(user)
            if access is not None:
                headers |= {"X-Docker-Endpoints": self.server.endpoint}
                headers |= {"X-Docker-Token": make_token(user, repository, access)}
            self.answer(code, self.server.listed(repository), headers)

    @staticmethod
    def cookie(user: str) -> dict[str, str]:
        return {"Set-Cookie": f"member={user}; Path=/"} if user else {}

    def answer(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if code == 204 else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """The index, with its state in `folder`; `endpoint` is the HOST:PORT that it sends clients to."""

    daemon_threads = True

    def __init__(self, port: int, folder: str, registry: str, endpoint: str) -> None:
        self.folder = Path(folder)
        self.registry, self.endpoint = registry, endpoint
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def load(self) -> dict[str, Any]:
        """Repository -> its owner and ids."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "repositories.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def listed(self, repository: str) -> list[dict[str, str]]:
        return [{"id": one} for one in self.load().get(repository, {"ids": []})["ids"]]

    def claim(self, repository: str, user: str, ids: list[str] | None) -> bool:
        """Whether a repository is that user's, which it becomes by its first push."""
        with self.lock:
            state = self.load()
            if ids is None:
                return bool(state.get(repository, {}).get("owner") == user)
            entry = state.setdefault(repository, {"owner": user, "ids": []})
            if entry["owner"] != user:
                return False
            entry["ids"] += [one for one in ids if one not in entry["ids"]]
            part = self.folder / "repositories.part"
            part.write_text(json.dumps(state))
            part.rename(self.folder / "repositories.json")
            return True

    def note(self, verification: dict[str, Any]) -> None:
        with self.lock, (self.folder / "verifications").open("a") as file:
            file.write(json.dumps(verification) + "\n")


class Index:
    """An index as a process; what the tests see of it."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder)
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, registry: str, is_front: bool = False) -> None:
        """Start it, for the registry at this HOST:PORT, which clients may be sent to or not know of."""
        endpoint = self.host if is_front else registry
        command = [sys.executable, os.path.abspath(__file__), str(self.port), self.folder, registry, endpoint]
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(Path(self.folder, "log").read_text()[-4000:])
            time.sleep(0.05)

    def claim(self, repository: str, user: str, ids: list[str]) -> None:
        """Give a repository that is nobody else's to a user, and list images in it; only while it does not run."""
        with Server(0, self.folder, "", "") as server:
            if not server.claim(repository, user, ids):
                raise AssertionError(f"{repository} is another's")

    def kill(self) -> None:
        """Kill it; nothing if it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def verifications(self) -> list[dict[str, Any]]:
        """The tokens that it was shown: `user`, `repository`, and the `cookie` that came along."""
        try:
            lines = Path(self.folder, "verifications").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    Server(int(sys.argv[1]), *sys.argv[2:]).serve_forever()
