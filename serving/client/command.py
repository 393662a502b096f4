"""Streams a video through a server: `python -m serving.client SOURCE --overlay out.mp4 --labels DIR`.

Ctrl-C ends the video: answers under way are waited for. What was written of a camera or a network stream is then
complete and has its name; of a file it is kept as labels.partial and out.partial.mp4. A second Ctrl-C keeps nothing.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import cv2
import tyro
from rich.console import Console

from serving.client.answers import FrameAnswer
from serving.client.blocking import SegmentationClient
from serving.client.command_options import ClientOptions
from serving.client.events import StreamEvent, ignore_event
from serving.client.failures import CallError
from serving.client.interruption import Interruption, on_interrupt
from serving.client.summary import Meter, Summary, progress_bar, show_summary
from serving.client.window import Window
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import encode_png
from serving.overlay import Palette, draw_note, draw_overlay, make_palette
from serving.recordings import LabelFolder, Recording, VideoFile
from serving.spans import open_tracing
from serving.videos import Video, VideoError, open_video

INTERRUPTED = 130  # exit status, as shells have it


class Writer:
    """The label folder, the overlay and the window, of which any may be absent."""

    def __init__(self, options: ClientOptions, stack: contextlib.ExitStack) -> None:
        """Starts the label folder, so that nothing is waited for in vain; `stack` cleans up.

        Raises:
            VideoError: if it exists or cannot be made.
            NoDisplayError: if a window is wanted and there is no display.
        """
        self._options = options
        self._stack = stack
        self._window = stack.enter_context(Window()) if options.window else None
        self._labels = None if options.labels is None else stack.enter_context(LabelFolder(options.labels))
        self._overlay: VideoFile | None = None

    def start_overlay(self, video: Video) -> None:
        """Starts the overlay, now that size and frame rate are known.

        Raises:
            VideoError: if it exists or cannot be made.
        """
        if self._options.overlay is not None:
            self._overlay = self._stack.enter_context(VideoFile(self._options.overlay, video.size, video.fps))

    def write(self, answer: FrameAnswer, palette: Palette) -> bool:
        """Adds an answer. Returns whether the user wants more.

        The overlay also shows frames without labels, so it is as long as the video.
        """
        if self._labels is not None and answer.result is not None and answer.labels is not None:
            is_png = answer.result.labels.encoding == pb.PIXEL_MAP_ENCODING_PNG
            png = answer.result.labels.data if is_png else encode_png(answer.labels)
            self._labels.write(answer.sequence, png)
        if self._overlay is None and self._window is None:
            return True
        if answer.labels is not None:
            image = draw_overlay(answer.frame.image, answer.labels, palette)
        else:
            image = draw_note(answer.frame.image, "dropped" if answer.error is None else answer.error.message)
        if self._overlay is not None:
            self._overlay.write(image)
        return self._window is None or self._window.show(image)

    def recordings(self) -> list[Recording]:
        """What leaves something on the disk."""
        return [recording for recording in (self._labels, self._overlay) if recording is not None]


class Outcome(NamedTuple):
    """What a run came to."""

    summary: Summary
    is_partial: bool  # it was interrupted in the middle of a video that has an end
    parts: list[str]  # what is kept of it then, in sentences


def run(options: ClientOptions, *, tell: Callable[[StreamEvent], None] = ignore_event) -> Summary:
    """Streams the video to its end and writes what is wanted.

    Args:
        options: what to do.
        tell: is told of what happens beside answers.

    Raises:
        VideoError: if the video cannot be read or an output not be written.
        CallError: if the server is not there, or ends the stream.
        ValueError: if the options do not go with each other or the video.
    """
    return stream_video(options, Interruption(), Console(stderr=True), tell).summary


def stream_video(
    options: ClientOptions, interruption: Interruption, console: Console, tell: Callable[[StreamEvent], None]
) -> Outcome:
    """As `run` does, to the end or until it is interrupted, with a progress bar on a console."""
    options.check()
    with contextlib.ExitStack() as stack:
        writer = Writer(options, stack)
        video = open_video(options.source, options.image_fps())
        options.check_video(video)
        writer.start_overlay(video)
        tracing = open_tracing(options.trace, every=options.trace_every, service="flowseg-client")
        stack.callback(tracing.close)
        client = stack.enter_context(
            SegmentationClient(
                options.server, retry=options.retry(), credentials=options.credentials(), tracing=tracing
            )
        )
        stream = stack.enter_context(client.stream(options.stream_options(video), tell))
        palette = make_palette([(info.name, (info.red, info.green, info.blue)) for info in stream.model.classes])
        progress = stack.enter_context(progress_bar(console))
        task = progress.add_task("frames", total=video.num_frames or None, speed="")
        meter = Meter()
        for answer in stream.segment(interruption.watch(video.frames())):
            meter.observe(answer)
            if not writer.write(answer, palette):
                interruption.is_wanted = True
            progress.update(task, advance=1, speed=meter.speed())
        summary = meter.summarize(stream.totals, stream.model)
        is_partial = interruption.has_cut and not video.is_live
        parts = []
        for recording in writer.recordings():
            if not is_partial:
                recording.finish()
            else:
                parts.append(_keep_part(recording))
    return Outcome(summary, is_partial, parts)


def main() -> int:
    """Runs the command."""
    options = tyro.cli(ClientOptions, prog="python -m serving.client", description=__doc__)
    _silence_opencv()
    console, interruption = Console(stderr=True), Interruption()

    def say(sentence: object) -> None:
        console.print(str(sentence), markup=False, highlight=False, soft_wrap=True)

    def say_stopping() -> None:
        sentence = "stopping once the frames under way are answered; Ctrl-C again keeps nothing\n"
        # from a signal handler, so without buffers that another signal could leave half written
        os.write(sys.stderr.fileno(), f"{chr(10) * console.is_terminal}{sentence}".encode())

    try:
        with on_interrupt(interruption, say_stopping):
            outcome = stream_video(options, interruption, console, say)
    except (CallError, ValueError) as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        say("interrupted: nothing is kept")
        return INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(asdict(outcome.summary)) + "\n")
    else:
        show_summary(outcome.summary)
    if not outcome.is_partial:
        return 0
    say("; ".join(["interrupted", *outcome.parts]))
    return INTERRUPTED


def _keep_part(recording: Recording) -> str:
    try:
        return f"{recording.keep_part()} holds what was done"
    except VideoError as error:  # the other recordings may still be kept
        return str(error)


def _silence_opencv() -> None:
    """Its complaints come as our sentences, unless the user wants to see them."""
    if "OPENCV_LOG_LEVEL" not in os.environ:  # which OpenCV has read by now
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
