"""Streams a video through a Triton server, an example: python export/triton_client.py VIDEO --model NAME --labels DIR.

A stream is a sequence: all its requests carry one id, the first says so, the last too. The client sends frames and when
to refresh the key state; what the network remembers stays in Triton.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from export.triton_graph import REFRESH
from serving.frames import Size, fit
from serving.label_maps import encode_png
from serving.recordings import LabelFolder
from serving.videos import open_video
from training.command_line import logging_to_stderr, user_errors_exit_with_2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of `export/triton_client.py`."""

    video: tyro.conf.Positional[str]  # a file, a camera's number or an RTSP address
    model: str  # its name in Triton's repository
    labels: Path  # new folder for the label maps, one PNG per frame
    server: str = "127.0.0.1:8001"  # HOST:PORT of Triton's gRPC
    key_frame_interval: int = 5  # frames from one key frame to the next

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        if self.key_frame_interval < 1:
            raise ValueError(f"--key-frame-interval must be 1 or more, it is {self.key_frame_interval}")


class TritonModel:
    """A model of a Triton server, as `export/to_triton.py` wrote it."""

    def __init__(self, server: str, name: str) -> None:
        """Asks the server what the model takes.

        Raises:
            ValueError: if tritonclient is missing, the server does not answer, or it has no such model.
        """
        try:
            from tritonclient import grpc
        except (ImportError, RuntimeError) as error:  # tritonclient makes a RuntimeError of its own missing parts
            raise ValueError(f"tritonclient is not installed ({error}): run \"pip install -e '.[triton]'\"") from error
        self._grpc: Any = grpc  # tritonclient has no types
        self._name = name
        self._server = server
        try:
            self._client = self._grpc.InferenceServerClient(server)
            config = self._client.get_model_config(name).config
        except self._grpc.InferenceServerException as error:
            raise self._failure(error) from error
        inputs = {tensor.name: tuple(tensor.dims) for tensor in config.input}
        if "frame" not in inputs:
            raise ValueError(f"{name} takes {', '.join(inputs)}: it is no model of export/to_triton.py")
        height, width, _ = inputs["frame"]
        self.size = Size(width, height)  # of the frames
        self._remembers = REFRESH in inputs

    def segment(self, frames: Iterable[NDArray[np.uint8]], key_frame_interval: int) -> Iterator[NDArray[np.uint8]]:
        """Labels (H, W) of each frame (H, W, 3) RGB of a stream.

        Raises:
            ValueError: if the server fails.
        """
        sequence = secrets.randbits(63) | 1  # never 0, which is no sequence
        for index, (frame, is_last) in enumerate(_with_last(frames)):
            inputs = [self._input("frame", frame[None], "UINT8")]
            place: dict[str, int | bool] = {}
            if self._remembers:
                refresh = np.array([[index % key_frame_interval == 0]])
                inputs.append(self._input(REFRESH, refresh, "BOOL"))
                place = {"sequence_id": sequence, "sequence_start": index == 0, "sequence_end": is_last}
            outputs = [self._grpc.InferRequestedOutput("labels")]
            try:
                answer = self._client.infer(self._name, inputs, outputs=outputs, **place)
            except self._grpc.InferenceServerException as error:
                raise self._failure(error) from error
            yield answer.as_numpy("labels")[0]

    def _input(self, name: str, array: NDArray[Any], kind: str) -> Any:  # Any: see above
        tensor = self._grpc.InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array)
        return tensor

    def _failure(self, error: Exception) -> ValueError:
        return ValueError(f"the Triton server at {self._server} does not run {self._name}: {error}")


def _with_last(frames: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.uint8], bool]]:
    """Each frame, and whether it is the last."""
    iterator = iter(frames)
    frame = next(iterator, None)
    while frame is not None:
        following = next(iterator, None)
        yield frame, following is None
        frame = following


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/triton_client.py", description=__doc__)
    with user_errors_exit_with_2(ValueError):
        options.check()
        video = open_video(options.video)
        model = TritonModel(options.server, options.model)
        frames = (fit(frame, model.size) for frame in video.frames())
        with LabelFolder(options.labels) as labels:
            index = -1
            for index, answer in enumerate(model.segment(frames, options.key_frame_interval)):
                labels.write(index, encode_png(answer))
            labels.finish()
        logger.info("wrote labels of %d frames to %s", index + 1, options.labels)


if __name__ == "__main__":
    main()
