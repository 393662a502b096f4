"""A window that shows frames as they come."""

import subprocess
import sys
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

TITLE = "flowseg"
KEYS_TO_END = (27, ord("q"))  # Escape
DISPLAY_S = 30.0  # that opening a window may take
PROBE = f"import cv2; cv2.namedWindow({TITLE!r})"


class NoDisplayError(ValueError):
    """There is nowhere to show a window."""


def check_display() -> None:
    """Opens a window in another process: where there is no display, OpenCV ends the process.

    Raises:
        NoDisplayError: if that does not work.
    """
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=DISPLAY_S, check=False)
        has_display = probe.returncode == 0
    except subprocess.TimeoutExpired:
        has_display = False
    if not has_display:
        raise NoDisplayError(
            "--window needs a display and an OpenCV with windows, and there is none here: leave it away,"
            " --overlay writes the same into a file"
        )


class Window:
    """The window. For the main thread."""

    def __init__(self) -> None:
        """Opens it.

        Raises:
            NoDisplayError: if there is no display.
        """
        check_display()
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, frame: NDArray[np.uint8]) -> bool:
        """Shows a frame (H, W, 3) RGB. Returns whether the user still wants to see more."""
        cv2.imshow(TITLE, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        wants_end = cv2.waitKey(1) & 0xFF in KEYS_TO_END
        return not wants_end and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def __enter__(self) -> Self:
        """The window."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        cv2.destroyWindow(TITLE)
