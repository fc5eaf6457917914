"""The registry under supervisor and systemd, as the files in conf/ say."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from tests.clients import tools
from tests.clients.base import ClientCase
from tests.clients.server import Registry
from tests.fronts.process import Process, free_port, shipped
from tests.running import wait_until

TWISTD = "/opt/txregistry/bin/twistd"
CONFIG = "/etc/txregistry/config.yml"


def twistd() -> str:
    """The console command, of the environment that runs the tests."""
    beside = os.path.join(os.path.dirname(sys.executable), "twistd")
    return beside if os.path.exists(beside) else tools.find("twistd")


class SupervisorTests(ClientCase):
    needs = ("supervisord",)

    def setUp(self) -> None:
        super().setUp()
        # Asks for what it does not start itself.
        self.registry = Registry(self.path("server"))
        listen = f"tcp:{self.registry.port}:interface=127.0.0.1"
        self.config = self.path("config.yml")
        Path(self.config).write_text(f"prod: {{storage_path: {self.registry.storage}, listen: '{listen}'}}\n")
        os.makedirs(self.path("cwd"))
        self.log = self.path("txregistry.log")

    def start(self) -> Any:
        """Start supervisord; what it can be asked."""
        replaced = {
            TWISTD: twistd(),
            CONFIG: self.config,
            "/var/lib/txregistry": self.path("cwd"),
            "user = txregistry": f"user = {getpass.getuser()}",
            "/var/log/txregistry.log": self.log,
        }
        port = free_port()
        user = "user = root" if os.geteuid() == 0 else ""
        Path(self.path("supervisord.conf")).write_text(
            f"[supervisord]\nnodaemon = true\npidfile = {self.path('pid')}\nlogfile = {self.path('log')}\n{user}\n"
            f"[inet_http_server]\nport = 127.0.0.1:{port}\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            + shipped("supervisor.conf", replaced)
        )
        command = [self.tools["supervisord"], "-c", self.path("supervisord.conf")]
        process = Process(command, port, Path(self.path("output")))
        self.addCleanup(process.stop)
        return xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}/RPC2").supervisor

    def state(self, supervisor: Any) -> str:
        return str(supervisor.getProcessInfo("txregistry")["statename"])

    def test_runs(self) -> None:
        supervisor = self.start()
        wait_until(lambda: self.state(supervisor) == "RUNNING", "a running registry")
        self.assertEqual(self.registry.request("GET", "/v2/").status, 200)
        self.assertIn("flavor prod", Path(self.log).read_text())
        # One that dies is started again.
        pid = supervisor.getProcessInfo("txregistry")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: supervisor.getProcessInfo("txregistry")["pid"] not in (0, pid), "another process")
        wait_until(lambda: self.state(supervisor) == "RUNNING", "a running registry")
        self.assertEqual(self.registry.request("GET", "/v2/").status, 200)
        supervisor.stopProcess("txregistry")
        self.assertEqual(self.state(supervisor), "STOPPED")


class SystemdTests(ClientCase):
    needs = ("systemd-analyze",)

    def verify(self, text: str) -> str:
        """What systemd has to say against a unit."""
        path = Path(self.path("txregistry.service"))
        path.write_text(text)
        done = subprocess.run(
            [self.tools["systemd-analyze"], "verify", "--man=no", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return "\n".join(line for line in done.stderr.splitlines() if "txregistry.service" in line)

    def test_unit(self) -> None:
        unit = shipped("txregistry.service", {TWISTD: twistd()})
        self.assertEqual(self.verify(unit), "")
        self.assertIn("ProtectSystm", self.verify(unit.replace("ProtectSystem", "ProtectSystm")))

    def test_it_runs_what_supervisor_runs(self) -> None:
        command = re.compile(r"(?m)^(?:ExecStart=|command = )(.*)$")
        found = {command.findall(shipped(name, {}))[0] for name in ("txregistry.service", "supervisor.conf")}
        self.assertEqual(len(found), 1, found)
