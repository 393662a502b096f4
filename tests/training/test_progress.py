import pytest

from training.progress import PATIENCE_S, with_progress


def test_what_is_quick_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress(range(3), "counting")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert not captured.out
    assert not captured.err


def test_what_lasts_shows_a_bar_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(i * PATIENCE_S for i in range(1000))
    monkeypatch.setattr("training.progress.time.monotonic", lambda: next(now))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert list(with_progress(["a", "b", "c"], "counting")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "counting" in captured.err
    assert not captured.out
