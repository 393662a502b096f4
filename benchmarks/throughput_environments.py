"""The peers of the throughput benchmark, each in a Python environment of its own, made when it is first needed."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.throughput_contestants import ROOT, ContestantError, LineProcess, started

logger = logging.getLogger(__name__)
DEBIAN_PYTHON = Path("/usr/bin/python3")  # PyTriton wants the Python of the system it was built for
INSTALL_S = 900.0  # that pip may take
START_S = 150.0  # that a peer may take to answer its first frame


@dataclass(frozen=True)
class Peer:
    """Another server."""

    title: str
    requirements: tuple[str, ...]  # the versions that were tried, but for the runtime's, which is ours


PEERS = {
    "mlserver": Peer("MLServer 1.7.1", ("mlserver==1.7.1", "opencv-python-headless==5.0.0.93")),
    "ray": Peer("Ray Serve 2.60.0", ("ray[serve]==2.60.0", "opencv-python-headless==5.0.0.93")),
    # the newest OpenCV for NumPy 1, which this PyTriton holds on to
    "triton": Peer("Triton by PyTriton 0.7.0", ("nvidia-pytriton==0.7.0", "opencv-python-headless==4.11.0.86")),
}


class SkippedError(RuntimeError):
    """A peer that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class PeerOptions:
    """What a peer is to serve."""

    model: Path  # the graph
    runtime: str  # onnxruntime or openvino
    runtime_version: str
    threads: int  # of one run
    frames: Path  # folder of encoded frames
    encoding: str  # of them
    size: tuple[int, int]  # their height and width in pixels


def default_peers_folder() -> Path:
    """Where environments lie unless the user says otherwise: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flowseg" / "peers"


def environment_python(folder: Path, name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's environment, made now unless it is there whole.

    Raises:
        SkippedError: if it cannot be made.
    """
    base = str(DEBIAN_PYTHON) if DEBIAN_PYTHON.exists() else sys.executable
    digest = hashlib.sha256(json.dumps([base, *requirements]).encode()).hexdigest()[:8]
    path = folder / f"{name}-{digest}"
    python, done = path / "bin" / "python", path / "complete"
    if not done.exists():
        shutil.rmtree(path, ignore_errors=True)
        logger.info("installing %s into %s", ", ".join(requirements), path)
        _run([base, "-m", "venv", str(path)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
        done.touch()
    return python


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise SkippedError(f"'{' '.join(command[1:4])}' took more than {INSTALL_S:g} s") from error
    except OSError as error:
        raise SkippedError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        said = [line.strip() for line in (error.stderr + error.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said or ["no reason given"]
        raise SkippedError(f"'{' '.join(command[1:4])}' failed: {errors[-1][:300]}") from error


@contextlib.contextmanager
def serving_peer(folder: Path, name: str, options: PeerOptions, logs: Path) -> Iterator[tuple[LineProcess, str]]:
    """Starts a peer's server and client; gives the client, ready for turns, and its first answer in base 64.

    Raises:
        SkippedError: if it cannot be installed or does not come up.
    """
    runtime = f"{options.runtime}=={options.runtime_version}"
    python = environment_python(folder, name, (*PEERS[name].requirements, runtime))
    port, *spare_ports = map(str, _free_ports(3))
    height, width = options.size
    environment = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    module = [str(python), "-m", f"benchmarks.throughput_peers.{name}_"]
    command = [*module[:-1], module[-1] + "server", "--model", str(options.model.resolve())]
    command += ["--runtime", options.runtime, "--threads", str(options.threads), "--encoding", options.encoding]
    command += ["--width", str(width), "--height", str(height), "--port", port, "--spare-ports", *spare_ports]
    server = LineProcess(PEERS[name].title, command, logs / f"{name}-server.log", environment=environment)
    try:
        command = [*module[:-1], module[-1] + "client", "--frames", str(options.frames), "--port", port]
        client = LineProcess(f"{name}'s client", command, logs / f"{name}-client.log", environment=environment)
        with contextlib.ExitStack() as stack:
            try:
                ready: dict[str, Any] = stack.enter_context(started(client, START_S))
            except ContestantError as error:
                raise SkippedError(f"{error}{server.last_words()}") from error
            yield client, ready["labels"]
    finally:
        server.close()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
