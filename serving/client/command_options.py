"""The options of `python -m serving.client`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from serving.client.credentials import Credentials
from serving.client.options import AdaptiveKeyFrames, FixedKeyFrames, KeyFrames, Latency, Outputs, StreamOptions
from serving.client.retries import Retry
from serving.videos import DEFAULT_FPS, MAX_FPS, ImageFolder, Video

MAX_INTERVAL = 100_000  # frames; so far the message of a server is as clear as ours


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Streams a video through a server."""

    # a file, a folder of images, a camera's number, or an RTSP or HTTP address
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    # HOST:PORT; of several servers ADDRESS:PORT,ADDRESS:PORT, or dns:///HOST:PORT for all addresses of a name
    server: str = "127.0.0.1:50051"
    ca: Path | None = None  # PEM file that signs the server's certificate; None: the connection is not encrypted
    certificate: Path | None = None  # PEM file, the client's own, for servers that want one
    key: Path | None = None  # PEM file, the key of --certificate
    token_file: Path | None = None  # file with the token, for servers that want one
    model: str = ""  # NAME or NAME@VERSION; empty is the server's only one
    labels: Path | None = None  # new folder for the label maps, one PNG per frame
    overlay: Path | None = None  # new MP4 file with the labels drawn over the video, at the source's frame rate
    window: bool = False  # show the labels over the video while they come; q or Escape ends it
    fps: float = 0.0  # frames per second of a folder of images, in the overlay; 0 is 25
    key_frame_interval: int = 0  # frames from one key frame to the next; 0 is the server's choice
    adaptive: bool = False  # a key frame when the predictions have grown stale, not at a fixed distance
    min_interval: int = 0  # with --adaptive: frames between key frames, at least; 0 is the server's choice
    max_interval: int = 0  # with --adaptive: frames between key frames, at most; 0 is the server's choice
    staleness: float = 0.0  # with --adaptive: that is too much, larger is faster; 0 is the server's choice
    encoding: Literal["jpeg", "png", "rgb", "nv12"] = "jpeg"  # how frames are sent; png and rgb lose nothing
    # how label maps are sent; all are lossless, delta-rle tells what has changed
    label_encoding: Literal["png", "raw", "rle", "delta-rle"] = "png"
    # what happens to frames that come too fast; auto waits for files and takes the latest of live sources
    delivery: Literal["auto", "block", "drop-oldest", "latest-only"] = "auto"
    max_in_flight: int = 8  # frames without an answer at a time
    max_age_ms: int = 0  # milliseconds that a frame may wait before it is dropped; 0 is for ever
    # milliseconds that an answer may take; the server then lengthens key-frame intervals when it is busy; 0 is no limit
    target_ms: int = 0
    stretch_to: int = 0  # with --target-ms: to how many frames intervals may grow; 0 is four times as long
    may_skip_steps: bool = False  # with --target-ms: frames may have the labels of the frame before
    may_drop_frames: bool = False  # with --target-ms: late frames may be dropped
    connect_s: float = 10.0  # seconds to wait for a server that does not answer at all
    outage_s: float = 60.0  # seconds to wait for a server that was lost; 0 gives up at once
    patience_s: float = 0.0  # seconds to wait for a place on a server that is full
    # traces of the stream (OpenTelemetry, extra "tracing"): http(s)://HOST:PORT of an OTLP collector, otlp for the one
    # of OTEL_EXPORTER_OTLP_ENDPOINT, console for stderr, or a file; None traces nothing
    trace: str | None = None
    trace_every: int = 30  # frames, of which one is traced; give the server the same
    json: bool = False  # write the summary as JSON

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        for name in ("key_frame_interval", "min_interval", "max_interval", "stretch_to"):
            if not 0 <= getattr(self, name) <= MAX_INTERVAL:
                raise ValueError(f"{_flag(name)} must be within 0..{MAX_INTERVAL}, it is {getattr(self, name)}")
        if self.trace_every < 1:
            raise ValueError(f"--trace-every must be 1 or more, it is {self.trace_every}")
        if self.trace is None and self.trace_every != ClientOptions.trace_every:
            raise ValueError("--trace-every has no effect without --trace: give both or none")
        for name in ("max_age_ms", "target_ms"):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{_flag(name)} must be 0 or more milliseconds, it is {getattr(self, name)}")
        for name in ("connect_s", "outage_s", "patience_s", "staleness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{_flag(name)} must be 0 or more and finite, it is {getattr(self, name)}")
        if not 0 <= self.fps <= MAX_FPS:
            raise ValueError(f"--fps must be within 0..{MAX_FPS:g}, it is {self.fps}")
        least = 2 if self.delivery == "drop-oldest" else 1
        if not least <= self.max_in_flight < 2**32:
            raise ValueError(f"--max-in-flight must be {least} or more, it is {self.max_in_flight}")
        if self.adaptive and self.key_frame_interval:
            raise ValueError("--key-frame-interval is a fixed distance, --adaptive is not: give one of them")
        self._check_company("adaptive", "min_interval", "max_interval", "staleness")
        self._check_company("target_ms", "stretch_to", "may_skip_steps", "may_drop_frames")

    def image_fps(self) -> float:
        """Frames per second of a folder of images."""
        return self.fps or DEFAULT_FPS

    def check_video(self, video: Video) -> None:
        """Refuses what does not go with the video; ValueError says what."""
        if self.fps and not isinstance(video, ImageFolder):
            raise ValueError(f"--fps is for a folder of images, {self.source} has a frame rate: {video.fps:g}")

    def stream_options(self, video: Video) -> StreamOptions:
        """What to ask of the server."""
        delivery = self.delivery
        if delivery == "auto":
            delivery = "latest-only" if video.is_live else "block"
        wants_labels = bool(self.labels or self.overlay or self.window)
        key_frames: KeyFrames = FixedKeyFrames(interval=self.key_frame_interval)
        if self.adaptive:
            key_frames = AdaptiveKeyFrames(
                min_interval=self.min_interval, max_interval=self.max_interval, staleness=self.staleness
            )
        return StreamOptions(
            model=self.model,
            encoding=self.encoding,
            size=video.size if self.encoding in ("rgb", "nv12") else None,
            key_frames=key_frames,
            delivery=delivery,
            max_in_flight=self.max_in_flight,
            max_age_ms=self.max_age_ms,
            latency=Latency(
                target_ms=self.target_ms,
                max_key_frame_interval=self.stretch_to,
                may_skip_steps=self.may_skip_steps,
                may_drop_frames=self.may_drop_frames,
            ),
            outputs=Outputs(labels="native" if wants_labels else "none", label_encoding=self.label_encoding),
        )

    def credentials(self) -> Credentials:
        """What the client proves itself with, and the server to it."""
        return Credentials(ca=self.ca, certificate=self.certificate, key=self.key, token_file=self.token_file)

    def retry(self) -> Retry:
        """For how long to try again."""
        return Retry(connect_s=self.connect_s, outage_s=self.outage_s, patience_s=self.patience_s)

    def _check_company(self, leader: str, *followers: str) -> None:
        for name in followers:
            if getattr(self, name) and not getattr(self, leader):
                raise ValueError(f"{_flag(name)} has no effect without {_flag(leader)}: give both or none")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
