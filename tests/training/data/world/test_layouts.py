import os
from pathlib import Path

import pytest

from training.data.world.layouts import write_layout


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_written_data_set_is_as_private_as_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert list(write_layout(tmp_path / "viper", "viper", [])) == []
    finally:
        os.umask(before)
    assert (tmp_path / "viper").stat().st_mode & 0o777 == 0o777 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["viper"]
