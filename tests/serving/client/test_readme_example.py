"""The README's example of the library, as a reader would run it."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from tests.serving.conftest import REPOSITORY, SIZE, ServerProcess


def test_the_example_of_the_client_segments_a_video(toy_server: ServerProcess, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(from serving.client .*?)```", readme, re.DOTALL)
    video = tmp_path / "my_street.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (SIZE, SIZE))
    for value in (40, 60, 80):
        writer.write(np.full((SIZE, SIZE, 3), value, np.uint8))
    writer.release()
    assert example.count("127.0.0.1:50051") == example.count("my_street.mp4") == 1
    example = example.replace("127.0.0.1:50051", toy_server.address).replace("my_street.mp4", str(video))
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *frames, totals = done.stdout.splitlines()
    assert [line.startswith(f"{index} (64, 64) class ") for index, line in enumerate(frames)] == [True] * 3
    assert totals.startswith("Totals(frames=3, results=3, ")
