"""The bare runtime loop that a server is measured against; a process of its own (`throughput_turns.py`).

One thread, one stream, frame after frame: decode and scale the frame; run the step graph; scale the labels to the
frame's size and encode them as PNG; where a key frame is due, run the key graph on the frame before the next one is
begun. These are the server's own functions and graphs, on the same runtime with as many threads. There is no gRPC, no
engine, no other thread, and no class statistics. A frame's latency is the time from the answer before it to its own, as
a client in lockstep has it: with the key graph where one was due.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.throughput_turns import Answer, Tally, Turn, back_and_forth, read_frames, take_turns
from serving.bundle import NEXT, Precision, read_bundle
from serving.frames import Encoding, ImageDecoder, Size, fit
from serving.graphs import pick_variant
from serving.label_maps import encode_png, scale_labels
from serving.runtimes.choice import RuntimeChoice, open_runtime
from serving.runtimes.runtime import Value


@dataclass(frozen=True)
class Options:
    """Options of the bare loop."""

    bundle: Path  # folder
    frames: Path  # folder of encoded frames
    encoding: str = "jpeg"  # jpeg or raw
    width: int = 0  # of raw frames, in pixels
    height: int = 0  # of raw frames, in pixels
    precision: Precision = "fp32"  # of the graphs
    runtime: RuntimeChoice = "auto"  # that runs them
    threads: int = 1  # of one run


class BareLoop:
    """Loaded graphs, and what one stream carries from frame to frame."""

    def __init__(self, options: Options) -> None:
        """Loads the graphs."""
        bundle = read_bundle(options.bundle)
        self._runtime = open_runtime(options.runtime, "cpu", options.threads, bundle, options.precision)
        self._variant = pick_variant(bundle, self._runtime.name, options.precision, None)
        self._step = self._runtime.load(bundle.path(self._variant.step))
        self._key = self._runtime.load(bundle.path(self._variant.key)) if self._variant.state else None
        is_raw = options.encoding == "raw"
        encoding, size = (Encoding.RAW_RGB, Size(options.width, options.height)) if is_raw else (Encoding.JPEG, None)
        self._decoder = ImageDecoder(encoding, size, max_pixels=1 << 30)
        self._frames = read_frames(options.frames)
        self._previous: Value = None
        self._key_frame: Value = None
        self._state: dict[str, Value] = {}

    async def run(self, turn: Turn, tally: Tally) -> None:
        """Loops over a new stream until the turn is over."""
        self._previous, self._state = None, {}
        number, answered_at = 0, time.perf_counter()
        while not tally.is_over():
            labels = self.answer(back_and_forth(self._frames, number))
            tally.count(number, answered_at, Answer(labels))
            answered_at = time.perf_counter()
            if number and number % int(turn.key_frames) == 0:
                self.refresh()
            number += 1

    def answer(self, encoded: bytes) -> bytes:
        """The label map of the stream's next frame as PNG."""
        native = self._decoder.decode(encoded)
        frame = self._runtime.to_device(fit(native, Size(self._variant.width, self._variant.height))[None])
        is_first = self._previous is None
        if is_first:
            self._previous = frame
            self.refresh()
        values = {"frame": frame, "previous_frame": self._previous, "key_frame": self._key_frame, **self._state}
        outputs = self._step.run([{name: values[name] for name in self._step.inputs}])[0]
        labels = self._runtime.to_host(outputs["labels"])[0]
        png = encode_png(scale_labels(labels, Size(native.shape[1], native.shape[0])))
        if not is_first:  # the state of a key frame is what the key graph gave
            self._state = {name: outputs.get(NEXT + name, value) for name, value in self._state.items()}
        self._previous = frame
        return png

    def refresh(self) -> None:
        """Renews the key state from the frame that was answered last."""
        self._key_frame = self._previous
        self._state = {} if self._key is None else self._key.run([{"frame": self._previous}])[0]


def main() -> None:
    """Takes turns."""
    options = tyro.cli(Options, prog="python -m benchmarks.throughput_bare", description=__doc__)
    loop = BareLoop(options)
    asyncio.run(take_turns(loop.run, loop.answer(read_frames(options.frames)[0])))


if __name__ == "__main__":
    main()
