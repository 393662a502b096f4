"""What runs needs no network, and what it writes is as private as the user wants it."""

import json
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMESPACE = ("unshare", "--net", "--map-root-user")  # a network of its own: not even native code gets out
HOOK = "from tests.loopback import allow_loopback_only; allow_loopback_only();"


def can_isolate() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, exported, served and streamed from with nothing but the loopback, under umask 077."""
    folder = tmp_path_factory.mktemp("offline")
    # Where namespaces are not allowed, as in some containers, Python's own sockets alone are kept in.
    prefix, how = (NAMESPACE, "isolated") if can_isolate() else ((), "watched")
    command = [*prefix, sys.executable, "-m", "tests.offline", str(folder), how, "077"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said").write_text(done.stdout.splitlines()[-1])
    return folder


def test_training_export_serving_and_streaming_need_no_network(finished: Path) -> None:
    assert json.loads((finished / "said").read_text()) == {"model": "offline", "answered": 3}


def test_run_directories_bundles_and_logs_respect_the_umask(finished: Path) -> None:
    (finished / "said").unlink(missing_ok=True)
    paths = list(finished.rglob("*"))
    assert {"run.json", "last.pt", "metrics.jsonl", "manifest.json", "server.log"} <= {path.name for path in paths}
    open_to_others = [path for path in paths if path.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    assert open_to_others == []


def test_the_watch_over_sockets_lets_the_loopback_through_and_nothing_else() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        near = f"import socket; {HOOK} socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5).close()"
        subprocess.run([sys.executable, "-c", near], cwd=ROOT, check=True)
    for attempt in (
        "socket.create_connection(('192.0.2.1', 9), 1)",
        "socket.getaddrinfo('flowseg.invalid', 80)",
        "socket.socket().bind(('0.0.0.0', 0))",
    ):
        far = subprocess.run(
            [sys.executable, "-c", f"import socket; {HOOK} {attempt}"], cwd=ROOT, capture_output=True, text=True
        )  # fmt: skip
        assert "only this machine may be reached" in far.stderr
