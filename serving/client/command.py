"""Streams a video through a server: `python -m serving.client VIDEO --overlay out.mp4 --labels DIR`."""

import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png
from serving.overlay import Palette, draw_note, draw_overlay, make_palette
from serving.video_stream import FrameAnswer, StreamError, StreamOptions, VideoStream
from serving.videos import LabelFolder, Video, VideoFile, open_video

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Streams a video through a server."""

    video: Annotated[str, tyro.conf.Positional]  # a file, a camera's number or an RTSP address
    server: str = "127.0.0.1:50051"  # HOST:PORT
    model: str = ""  # NAME or NAME@VERSION; empty is the server's only one
    labels: Path | None = None  # new folder for the label maps, one PNG per frame
    overlay: Path | None = None  # new MP4 file with the labels drawn over the video
    key_frame_interval: int = 0  # frames from one key frame to the next; 0 is the server's choice
    encoding: Literal["jpeg", "png"] = "jpeg"  # how frames are sent; png loses nothing and is slower
    # what happens to frames that come too fast; auto waits for files and takes the latest of live sources
    delivery: Literal["auto", "block", "drop-oldest", "latest-only"] = "auto"
    max_in_flight: int = 8  # frames without an answer at a time
    json: bool = False  # write the summary as JSON

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        if self.key_frame_interval < 0:
            raise ValueError(f"--key-frame-interval must not be negative, it is {self.key_frame_interval}")
        least = 2 if self.delivery == "drop-oldest" else 1
        if self.max_in_flight < least:
            raise ValueError(f"--max-in-flight must be {least} or more, it is {self.max_in_flight}")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a video."""

    frames: int  # that the video had
    answered: int  # with labels
    dropped: int
    errors: int
    key_frames: int
    seconds: float
    fps: float  # answered frames per second
    p50_ms: float  # latency of answered frames, from sending to having the labels
    p99_ms: float
    model: str  # name@version


class Outputs:
    """The label folder and the overlay, of which any may be absent."""

    def __init__(self, labels: LabelFolder | None, overlay: VideoFile | None) -> None:
        """Takes what is wanted."""
        self._labels = labels
        self._overlay = overlay

    def write(self, answer: FrameAnswer, palette: Palette) -> None:
        """Adds an answer. The overlay also shows frames without labels, so it is as long as the video."""
        if self._labels is not None and answer.result is not None:
            self._labels.write(answer.sequence, answer.result.labels.data)
        if self._overlay is not None:
            if answer.result is not None:
                image = draw_overlay(answer.frame, decode_png(answer.result.labels.data), palette)
            else:
                image = draw_note(answer.frame, "dropped" if answer.error is None else answer.error.message)
            self._overlay.write(image)

    def finish(self) -> None:
        """Gives everything its name."""
        for output in (self._labels, self._overlay):
            if output is not None:
                output.finish()


def stream_options(options: ClientOptions, video: Video) -> StreamOptions:
    """What to ask of the server."""
    delivery = options.delivery
    if delivery == "auto":
        delivery = "latest-only" if video.is_live else "block"
    return StreamOptions(
        server=options.server,
        model=options.model,
        key_frame_interval=options.key_frame_interval,
        encoding=options.encoding,
        delivery=delivery,
        max_in_flight=options.max_in_flight,
        labels="native" if options.labels or options.overlay else "none",
    )


def run(options: ClientOptions) -> Summary:
    """Streams the video and writes what is wanted.

    Raises:
        VideoError: if the video cannot be read or an output not be written.
        StreamError: if the server is not there, or ends the stream.
    """
    with contextlib.ExitStack() as stack:
        labels = None if options.labels is None else stack.enter_context(LabelFolder(options.labels))
        video = open_video(options.video)
        overlay = None
        if options.overlay is not None:
            overlay = stack.enter_context(VideoFile(options.overlay, video.size, video.fps))
        outputs = Outputs(labels, overlay)
        stream = stack.enter_context(VideoStream(stream_options(options, video)))
        palette = make_palette([(info.name, (info.red, info.green, info.blue)) for info in stream.model.classes])
        progress = stack.enter_context(_progress())
        task = progress.add_task("frames", total=video.num_frames or None)
        latencies_ms = []
        started_at = time.perf_counter()
        for answer in stream.segment(video.frames()):
            if answer.result is not None:
                latencies_ms.append(answer.latency_ms)
            outputs.write(answer, palette)
            progress.advance(task)
        seconds = time.perf_counter() - started_at
        outputs.finish()
    return summarize(stream.summary, stream.model, latencies_ms, seconds)


def summarize(totals: pb.StreamSummary, model: pb.Model, latencies_ms: list[float], seconds: float) -> Summary:
    """The figures of a stream."""
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (0.0, 0.0)
    return Summary(
        frames=totals.num_frames,
        answered=totals.num_results,
        dropped=totals.num_dropped,
        errors=totals.num_errors,
        key_frames=totals.num_key_frames,
        seconds=round(seconds, 3),
        fps=round(totals.num_results / seconds, 2),
        p50_ms=round(float(p50_ms), 2),
        p99_ms=round(float(p99_ms), 2),
        model=f"{model.name}@{model.version}",
    )


def show(summary: Summary) -> None:
    """Writes the summary for people."""
    table = Table(show_header=False)
    for name, value in asdict(summary).items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def main() -> int:
    """Runs the command."""
    options = tyro.cli(ClientOptions, prog="python -m serving.client", description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # its complaints come as our sentences
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        options.check()
        summary = run(options)
    except (StreamError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
    else:
        show(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
