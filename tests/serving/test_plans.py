import os
from pathlib import Path

import pytest

from serving.plans import write_whole


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_plan_is_as_private_as_the_umask_says_and_nothing_lies_beside_it(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "key.plan", b"old")
        write_whole(tmp_path / "key.plan", b"new")
        write_whole(tmp_path / "made" / "key.plan", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "key.plan").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700  # loading a plan runs its code
    assert (tmp_path / "key.plan").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["key.plan", "key.plan", "made"]
