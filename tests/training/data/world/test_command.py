import sys
from pathlib import Path

import pytest
from PIL import Image

from training.data.world.__main__ import main

SMALL = ["--size", "16x32", "--clips", "1"]


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["world", *options])
    main()


def test_the_preview_shows_the_looks_labels_and_flow_of_each_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, "--preview", str(tmp_path / "world.png"), "--size", "16x32", "--clips", "2")
    with Image.open(tmp_path / "world.png") as picture:
        assert picture.size == (8 * 256 + 7 * 4, 2 * 128 + 4)  # three looks at home, one abroad
    assert [path.name for path in tmp_path.iterdir()] == ["world.png"]


def test_both_splits_are_written_side_by_side_with_their_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "viper"
    run(monkeypatch, "--out", str(out), "--layout", "viper", "--split", "train", "val", *SMALL)
    assert (out / "viper_list" / "val.txt").read_text(encoding="utf-8") == "001/001_00010.jpg\n001/001_00020.jpg\n"
    first = [(out / split / "img/001/001_00001.jpg").read_bytes() for split in ("train", "val")]
    assert first[0] != first[1]
    assert [path.name for path in tmp_path.iterdir()] == ["viper"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give either --preview PICTURE or --out FOLDER"),
        (["--out", "{}/full"], "is not empty: choose another --out"),
        (["--out", "{}/full/file/deeper"], "cannot be written"),
        (["--preview", "{}/full/file/world.png"], "cannot be written"),
        (["--preview", "{}/world.gif"], "neither .png nor .jpg"),
        (["--out", "{}/new", "--size", "64"], "does not read HEIGHTxWIDTH"),
        (["--out", "{}/new", "--size", "30x64"], "multiples of 4"),
        (["--out", "{}/new", "--clips", "0"], "--clips must be at least 1"),
        (["--out", "{}/new", "--layout", "synthia", "--split", "train", "val"], "SYNTHIA has no splits"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    sentence: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    defaults = [option for pair in (("--size", "16x32"), ("--clips", "1")) if pair[0] not in options for option in pair]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *(option.format(tmp_path) for option in options), *defaults)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip()
    assert sentence in message
    assert message.count("\n") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_an_interrupted_writer_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.world.layouts._write_list", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--out", str(tmp_path / "viper"), *SMALL)
    assert list(tmp_path.iterdir()) == []
