"""The window, on a screen that is played: where tests run there is none."""

import cv2
import numpy as np
import pytest

from serving.client import window
from serving.client.window import TITLE, NoDisplayError, Window, check_display


class Screen:
    """What OpenCV would show, and which key is pressed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[np.ndarray] = []
        self.is_open = False
        self.key = -1
        monkeypatch.setattr(window, "check_display", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", self.open)
        monkeypatch.setattr(cv2, "destroyWindow", self.close)
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: self.key)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda title, which: float(self.is_open))

    def open(self, title: str, flags: int) -> None:
        assert title == TITLE
        self.is_open = True

    def close(self, title: str) -> None:
        assert title == TITLE
        self.is_open = False


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


def test_frames_are_shown_in_their_colours_until_a_key_ends_it(screen: Screen) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    with Window() as shown:
        assert screen.is_open
        assert shown.show(red)
        screen.key = ord("x")
        assert shown.show(red)
        screen.key = ord("q")
        assert not shown.show(red)
        screen.key = 27
        assert not shown.show(red)
    assert not screen.is_open
    assert screen.shown[0][0, 0].tolist() == [0, 0, 200]  # OpenCV shows BGR


def test_a_window_that_the_user_closes_ends_it(screen: Screen) -> None:
    with Window() as shown:
        screen.is_open = False
        assert not shown.show(np.zeros((2, 2, 3), np.uint8))


def test_a_machine_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")  # where nothing is
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(NoDisplayError, match=r"^--window needs a display and an OpenCV with windows, and"):
        check_display()
