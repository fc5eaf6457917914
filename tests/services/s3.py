"""Real S3 servers on a free port of the loopback interface, over a folder; stopped by their own pid.

VersityGW is the one that most tests use: it starts in no time, and its objects are files of its folder. MinIO is the
second opinion, over TLS. Both check signatures.
"""

import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.certificates import Authority
from tests.clients.tools import find

SECONDS = 20.0
KEY, SECRET, REGION = "testkey", "testsecret", "us-east-1"


class S3Server:
    """`versitygw`, started; it can be killed and started again on its port and its folder.

    A bucket is a folder below `data`. `large` is for objects beyond some 4 GiB, the list of whose parts does not fit
    into an extended attribute. `ca` is the path of what a client must trust, None without TLS. `secret` is that of the
    next start.
    """

    program = "versitygw"
    health = "/health"
    ca: str | None = None
    secret = SECRET

    def __init__(self, folder: str, large: bool = False) -> None:
        self._program = find(self.program)
        self.folder = Path(folder).absolute()
        self.data = self.folder / "data"
        self.data.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._sidecar = ["--sidecar", str(self.folder / "sidecar")] if large else []
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Make what it needs once."""
        for folder in self._sidecar[1:]:
            Path(folder).mkdir()

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Its arguments, and what its environment has besides ours."""
        options = ["--port", f"127.0.0.1:{self.port}", "--region", REGION, "--health", self.health]
        return [*options, "posix", *self._sidecar, str(self.data)], {
            "ROOT_ACCESS_KEY": KEY,
            "ROOT_SECRET_KEY": self.secret,
        }

    def start(self) -> None:
        """Start it, and return when it answers."""
        arguments, environment = self.command()
        self._process = subprocess.Popen(
            [self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            cwd="/",
        )
        trust = ssl.create_default_context(cafile=self.ca) if self.ca else None
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}{self.health}", timeout=SECONDS, context=trust).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"{self.program} does not start") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> None:
        """Make a bucket without a request."""
        (self.data / name).mkdir()

    def config(self, bucket: str) -> dict[str, object]:
        """What a registry's configuration has to say of one of its buckets."""
        return {
            "storage": "s3",
            "boto_bucket": bucket,
            "s3_endpoint": self.endpoint,
            "s3_region": REGION,
            "s3_access_key": KEY,
            "s3_secret_key": SECRET,
            "s3_path_style": True,
            **({"s3_cacert": self.ca} if self.ca else {}),
        }


class MinioServer(S3Server):
    """`minio`, speaking TLS with a certificate of an authority of its own."""

    program = "minio"
    health = "/minio/health/ready"

    def prepare(self) -> None:
        """Make the certificates, under the names that it looks for."""
        authority = Authority(str(self.folder / "certificates"))
        certificate, key = authority.issue("minio")
        os.rename(certificate, authority.folder / "public.crt")
        os.rename(key, authority.folder / "private.key")
        self.ca = authority.path
        self.endpoint = f"https://127.0.0.1:{self.port}"

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Its arguments, and what its environment has besides ours."""
        options = ["--quiet", "--address", f"127.0.0.1:{self.port}", "--certs-dir", str(self.folder / "certificates")]
        environment = {
            "MINIO_ROOT_USER": KEY,
            "MINIO_ROOT_PASSWORD": self.secret,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
            "HOME": str(self.folder),
        }
        return ["server", *options, str(self.data)], environment
