import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.checkpoint_file import read_checkpoint_file
from training.models.deeplab import DeepLab

Save = Callable[..., Path]


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_weights_and_figures_beside_them_are_read(is_zip: bool, save: Save) -> None:
    weight = torch.rand(3)
    document = {"weight": weight, "best": np.float64(0.5), "count": np.int64(3), "name": "x"}
    found = read_checkpoint_file(save(document, is_zip))
    assert isinstance(found, dict)
    assert torch.equal(found["weight"], weight)
    assert (found["best"], found["count"], found["name"]) == (0.5, 3, "x")


def test_names_written_by_python_2_are_read(save: Save) -> None:
    # Python 2 wrote names as byte strings; Python 3 cannot, so the pickle of a file is changed by hand.
    path = save({"weight": torch.ones(2)}, is_zip=False)
    content = path.read_bytes()
    assert content.count(b"X\x06\x00\x00\x00weight") == 1
    path.write_bytes(content.replace(b"X\x06\x00\x00\x00weight", b"U\x06weight"))
    found = read_checkpoint_file(path)
    assert isinstance(found, dict)
    assert found["weight"].tolist() == [1.0, 1.0]


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_what_would_run_code_is_not_opened(is_zip: bool, save: Save, tmp_path: Path) -> None:
    module = DeepLab("resnet10_slim", 15, auxiliary=True)
    trap = tmp_path / "exploded"
    for document, name in ((module, "training.models.deeplab.DeepLab"), ({"a": Bomb(trap)}, "[a-z.]*getattr|Path")):
        with pytest.raises(ValueError, match=rf"official.pth holds Python objects \(.*({name}).* save the module's"):
            read_checkpoint_file(save(document, is_zip))
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"a": Bomb(trap)}, protocol=2))
    with pytest.raises(ValueError, match="holds Python objects"):
        read_checkpoint_file(plain)
    plain.write_bytes(pickle.dumps({"a": Bomb(trap)}))
    with pytest.raises(ValueError, match="is no checkpoint"):
        read_checkpoint_file(plain)
    assert not trap.exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_said_to_be_damaged(share: float, is_zip: bool, save: Save) -> None:
    path = save({"weight": torch.rand(64, 64)}, is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"official.pth is no checkpoint, or is damaged \(\w+\): fetch it again"):
        read_checkpoint_file(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK\3\4" + bytes(99)]
)
def test_files_of_other_kinds_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "download.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint, or is damaged"):
        read_checkpoint_file(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch has better now, but people have the files
def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "program.pth"
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), path)
    with pytest.raises(ValueError, match="is a TorchScript program, not weights"):
        read_checkpoint_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.pth", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=rf"cannot be read \({reason}"):
            read_checkpoint_file(path)
