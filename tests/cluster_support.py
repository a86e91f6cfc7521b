"""A Ray cluster of several nodes on this machine: each has its own address, temporary folder and cache."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

MARK = "KAGGLE_NERVE_TEST_NODE"
"""Variable that all processes of a node inherit, so that a test can kill them all."""

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass
class Nodes:
    """The nodes of a cluster by name; each is at its own address of the loopback network."""

    folder: Path
    address: str = ""
    client: str = ""
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    def start(self, name: str, *options: str, python: str | None = None, **variables: str) -> str:
        """Start the head (the first one) or another node; return its address."""
        number = len(self.environments)
        ip, folder = f"127.0.0.{number + 2}", self.folder / name
        folder.mkdir()
        self.environments[name] = {
            **os.environ,
            MARK: str(folder),
            "TMPDIR": str(folder),
            "KAGGLE_NERVE_CACHE": str(folder / "cache"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            **variables,
        }
        command = [python, *RAY[1:]] if python else RAY
        if number:
            place = [f"--address={self.address}"]
        else:
            self.address = f"{ip}:{_free_port()}"
            port = self.address.rpartition(":")[2]
            self.client = f"ray://{ip}:{_free_port()}"
            client_port = f"--ray-client-server-port={self.client.rpartition(':')[2]}"
            place = ["--head", f"--port={port}", client_port, "--include-dashboard=false"]
        done = subprocess.run(
            [*command, "start", *place, f"--node-ip-address={ip}", f"--temp-dir={folder / 'ray'}", *options],
            env=self.environments[name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return ip

    def kill(self, name: str) -> None:
        """End all processes of a node at once, as a power failure would."""
        mark = f"{MARK}={self.environments[name][MARK]}".encode()
        for _ in range(3):  # a process may start another one meanwhile
            for folder in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        os.kill(int(folder.name), signal.SIGKILL)


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Yield nodes to start; kill them in the end."""
    # Paths of sockets are short, those of a test's folders too long.
    with tempfile.TemporaryDirectory(prefix="nerve-", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(Path(folder))
        try:
            yield nodes
        finally:
            for name in reversed(nodes.environments):
                nodes.kill(name)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
