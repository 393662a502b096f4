"""The demo's last part: the bundle in a server of its own process, and a video streamed through it."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from serving.bundle import read_bundle
from serving.client.command import run
from serving.client.command_options import ClientOptions
from serving.client.summary import Summary
from serving.frames import Size, fit
from serving.label_maps import decode_png, scale_labels
from serving.recordings import VideoFile
from serving.videos import open_video
from training.data.world.render import render_frames
from training.models.video_segmenter import VideoSegmenter
from training.streaming import stream

KEY_FRAME_INTERVAL = 5  # frames
STREET_FRAMES = 100  # of the rendered video
STREET_SIZE = (192, 384)  # height and width of the rendered video in pixels
STREET_FPS = 10.0
STREET_SEED = 777_000_005  # a lively drive that no training or validation has
SHUTDOWN_S = 30.0  # that the server may take to end


class ServerError(RuntimeError):
    """A server that does not start or does not end well. The message is one sentence."""


@dataclass(frozen=True)
class Streamed:
    """What the client and the comparison with torch found."""

    summary: Summary
    label_agreement_with_torch: float  # share of equal pixels


def write_street(path: Path, look: str) -> None:
    """Renders a drive through a street nobody was trained on, as an MP4 file."""
    height, width = STREET_SIZE
    frames = render_frames(STREET_SEED, look, STREET_SIZE, STREET_FRAMES)
    with (
        VideoFile(path, Size(width, height), STREET_FPS) as video,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        for rendered in progress.track(frames, STREET_FRAMES, description="rendering a street"):
            video.write(rendered.frame)
        video.finish()


def stream_through_server(bundle: Path, video: Path, folder: Path, segmenter: VideoSegmenter) -> Streamed:
    """Serves a bundle, streams a video through it, and compares every label with the network the bundle is of.

    Frames are sent without loss, so that both see the same ones. Leaves `labels/`, `overlay.mp4` and `logs/server.log`
    in `folder`, replacing those of an earlier call.

    Raises:
        ServerError: if the server does not start, or does not end with status 0.
        VideoError: if the video cannot be read.
        CallError: if the stream breaks.
    """
    labels, overlay = folder / "labels", folder / "overlay.mp4"
    shutil.rmtree(labels, ignore_errors=True)
    overlay.unlink(missing_ok=True)
    with served(bundle, folder / "logs" / "server.log") as address:
        summary = run(
            ClientOptions(
                source=str(video),
                server=address,
                labels=labels,
                overlay=overlay,
                key_frame_interval=KEY_FRAME_INTERVAL,
                encoding="png",
            )
        )
    variant = read_bundle(bundle).manifest.variants[0]  # all have one size
    size = Size(variant.width, variant.height)
    return Streamed(summary, agreement_with_torch(segmenter, size, video, labels))


@contextlib.contextmanager
def served(bundle: Path, log: Path) -> Iterator[str]:
    """A server of the bundle on a free port, as HOST:PORT; it is asked to end afterwards.

    Raises:
        ServerError: if it does not start, or does not end with status 0.
    """
    command = [sys.executable, "-m", "serving.server", str(bundle), "--port", "0", "--http-port", "0", "--json"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            announcement = server.stdout.readline()
            if not announcement:
                raise ServerError(f"the server did not start: {log} says why")
            ports = json.loads(announcement)
            yield f"{ports['host']}:{ports['port']}"
            server.send_signal(signal.SIGTERM)
            if server.wait(SHUTDOWN_S) != 0:
                raise ServerError(f"the server ended with status {server.returncode}: {log} says why")
        finally:
            server.kill()


def agreement_with_torch(segmenter: VideoSegmenter, size: Size, video: Path, labels: Path) -> float:
    """Share of pixels whose served label is that of the torch network on the same stream, 0..1.

    Args:
        segmenter: what the bundle was made from, in evaluation mode on the CPU.
        size: of the frames it works on.
        video: what was streamed.
        labels: folder of one label map per frame.
    """
    native = open_video(str(video)).size
    inputs = (
        torch.from_numpy(fit(frame, size)).permute(2, 0, 1)[None].float() / 255
        for frame in open_video(str(video)).frames()
    )
    paths = sorted(labels.glob("*.png"))
    equal = []
    for path, answer in zip(paths, stream(segmenter, inputs, KEY_FRAME_INTERVAL), strict=True):
        expected = scale_labels(answer.logits.argmax(1)[0].byte().numpy(), native)
        equal.append(np.mean(decode_png(path.read_bytes()) == expected))
    return float(np.mean(equal))
