from pathlib import Path

import pytest

from serving.engine import open_engine
from tests.serving.conftest import toy_frame


@pytest.mark.gpu
def test_state_that_stays_on_a_gpu_gives_the_answers_of_the_cpu(toy_folder: Path) -> None:
    answers = {}
    for device in ("cpu", "cuda"):
        with open_engine(toy_folder, device=device) as engine, engine.open_stream(key_frame_interval=3) as stream:
            futures = [stream.submit(toy_frame(value)) for value in (5, 7, 11, 13, 17)]
            answers[device] = [int(future.result().labels[0, 0]) for future in futures]
    assert answers["cuda"] == answers["cpu"]
