import resource
import signal
import stat
from pathlib import Path

import pytest

from serving.clip_files import ClipFolder, FullError, RecordingError, RecordingFolder


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_clip_has_no_name_before_it_is_whole(tmp_path: Path) -> None:
    clip = ClipFolder(RecordingFolder(tmp_path / "drifted", 1000), "street@1", "stream-1")
    clip.add(b"first")
    clip.add(b"second")
    assert not clip.path.exists()
    clip.finish({"frames": 2})
    assert files(tmp_path / "drifted") == {
        f"street@1/stream-1/{name}" for name in ("000000.jpg", "000001.jpg", "clip.json")
    }
    assert (clip.path / "000001.jpg").read_bytes() == b"second"


def test_what_is_recorded_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    clip = ClipFolder(RecordingFolder(tmp_path / "drifted", 1000), "street@1", "stream-1")
    clip.add(b"first")
    clip.finish({})
    for path in [tmp_path / "drifted", *(tmp_path / "drifted").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_folder_never_holds_more_than_its_bound(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path, 100)
    clip = ClipFolder(folder, "street@1", "stream-1")
    clip.add(bytes(60))
    with pytest.raises(FullError):
        clip.add(bytes(41))
    clip.add(bytes(40))
    assert (folder.num_bytes, folder.num_bytes_left, clip.num_frames) == (100, 0, 2)
    clip.discard()
    assert (folder.num_bytes, files(tmp_path)) == (0, set())


def test_what_lay_there_before_counts_whoever_put_it_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ride.mp4").write_bytes(bytes(70))
    folder = RecordingFolder(tmp_path, 100)
    assert folder.num_bytes_left == 30
    folder.close()
    assert RecordingFolder(tmp_path, 50).num_bytes_left == 0


def test_what_a_killed_server_left_half_written_is_removed(tmp_path: Path) -> None:
    killed = RecordingFolder(tmp_path, 100)
    ClipFolder(killed, "street@1", "stream-1").add(bytes(60))
    killed.close()
    assert RecordingFolder(tmp_path, 100).num_bytes == 0
    assert files(tmp_path) == set()


def test_a_folder_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    first = RecordingFolder(tmp_path, 100)
    with pytest.raises(RecordingError, match=r"^another server records into .*: give each a folder of its own$"):
        RecordingFolder(tmp_path, 100)
    first.close()
    RecordingFolder(tmp_path, 100).close()


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        RecordingError, match=r"file/drifted cannot be recorded into \(Not a directory\): choose another"
    ):
        RecordingFolder(tmp_path / "file" / "drifted", 100)


def test_a_frame_that_the_disk_takes_half_of_is_not_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the system writes what it can, then refuses."""
    clip = ClipFolder(RecordingFolder(tmp_path, 1_000_000), "street@1", "stream-1")
    clip.add(bytes(100))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match="File too large"):
            clip.add(bytes(100_000))
    finally:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    clip.finish({})
    assert files(tmp_path) == {"street@1/stream-1/000000.jpg", "street@1/stream-1/clip.json"}
