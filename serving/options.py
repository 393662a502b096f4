"""The options of `python -m serving.server`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from serving.bundle import Precision, parse_size
from serving.clip_writer import MIN_CLIP_FRAMES
from serving.logs import LogFormat
from serving.messages import MAX_INTERVAL, Limits
from serving.observability import MAX_STREAMS
from serving.runtimes.choice import RuntimeChoice

READY_BUNDLE = Path(__file__).parent / "ready_bundle"  # its model card lies in it


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Serves bundles to video streams over gRPC, and its status over HTTP."""

    # folders written by export/to_onnx.py; default is the small bundle that comes with flowseg
    bundles: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[BUNDLE ...]")] = (READY_BUNDLE,)
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 for all
    port: int = 50051  # for gRPC; 0 takes a free one
    http_port: int = 8080  # for /healthz, /readyz, /metrics and /v1/models; 0 takes a free one
    admin_port: int | None = None  # for AdminService: models that come and go; 0 takes a free one, None is nowhere
    admin_host: str = "127.0.0.1"  # address of AdminService: whoever reaches it may load and end what they like
    certificate: Path | None = None  # PEM file, the server's with its chain: TLS on every port; None is no TLS
    key: Path | None = None  # PEM file, the key of --certificate; both are read again when they have changed
    client_ca: Path | None = None  # PEM file that signs the certificates gRPC clients must have; None asks for none
    # file with the clients, made by serving.tokens, read again on SIGHUP; None asks nobody for a token
    tokens: Path | None = None
    insecure: bool = False  # listen on an address that others reach without TLS, or without tokens
    # folders below which AdminService.LoadModel finds bundles, beside those named above
    bundle_root: tuple[Path, ...] = ()
    precision: Precision | Literal["auto"] = "auto"  # of the graphs to run; "auto" is the highest there is
    # HEIGHTxWIDTH of the graphs to run, in pixels, like 512x1024; needed for a bundle of several sizes
    size: str | None = None
    device: str = "cpu"  # where graphs run: cpu, cuda or cuda:N; several of one kind with commas: cuda:0,cuda:1
    # that runs the graphs; "auto" is the fastest that is there: OpenVINO on a CPU, TensorRT or else torch on a GPU (if
    # its engines or programs were built), or else ONNX Runtime
    runtime: RuntimeChoice = "auto"
    threads: int = 0  # of one graph on the CPU; 0 takes every core
    codec_threads: int = 2  # that decode frames and encode results
    max_streams: int = 64  # open at a time, of each model
    max_open_streams: int = 256  # open at a time, of all models together, with those that have not said what they want
    max_batch: int = 4  # frames of different streams in one run
    max_in_flight: int = 64  # frames of one stream that a client may have unanswered
    max_frame_mb: float = 32.0  # of one frame as it is sent, in megabytes (10^6 bytes)
    max_frame_megapixels: float = 34.0  # of one frame, by its header
    max_consecutive_errors: int = 32  # frame errors in a row that end a stream
    key_frame_interval: int = 5  # frames, for clients that do not choose
    idle_timeout_s: float = 300.0  # seconds without a frame, or without taking an answer, that end a stream
    resume_s: float = 30.0  # seconds that the state of a stream is kept after its connection broke; 0 keeps none
    grace_s: float = 10.0  # seconds that streams have to end on SIGTERM
    # folder for clips of streams that drift, as a target for training: video of people, readable by you alone; None
    # records nothing
    record_drift: Path | None = None
    record_drift_mb: float = 500.0  # that the folder may hold, in megabytes (10^6 bytes), with what lies in it already
    record_drift_frames: int = 30  # of a clip
    drift_threshold: float = 2.5  # above which a stream is recorded, in standard deviations of the model's baseline
    # streams that have series of their own in /metrics while they are open; the others of a model are counted together
    metrics_streams: int = MAX_STREAMS
    # traces of streams (OpenTelemetry, extra "tracing"): http(s)://HOST:PORT of an OTLP collector, otlp for the one of
    # OTEL_EXPORTER_OTLP_ENDPOINT, console for stderr, or a file; None traces nothing
    trace: str | None = None
    trace_every: int = 30  # frames, of which one is traced; 1 traces all
    log_format: LogFormat = "text"  # of the log on stderr: lines for people, or one object of JSON a line
    json: bool = False  # write one line of JSON to stdout once frames are welcome: the ports and models

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        if not self.bundles:
            raise ValueError("name at least one bundle to serve")
        counts = ("max_streams", "max_open_streams", "max_batch", "max_in_flight", "max_consecutive_errors")
        for name in (*counts, "codec_threads", "trace_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(self, name)}")
        if self.max_streams > self.max_open_streams:
            raise ValueError(
                f"--max-streams {self.max_streams} is more than the {self.max_open_streams} streams of all models"
                " together: give a higher --max-open-streams"
            )
        for name in ("max_frame_mb", "max_frame_megapixels", "idle_timeout_s", "record_drift_mb", "drift_threshold"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be more than 0 and finite, not {getattr(self, name)}"
                )
        if not 1 <= self.key_frame_interval <= MAX_INTERVAL:
            raise ValueError(f"--key-frame-interval must be within 1..{MAX_INTERVAL}, not {self.key_frame_interval}")
        for name in ("port", "http_port", "admin_port"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 65536:
                raise ValueError(f"--{name.replace('_', '-')} must be within 0..65535, not {getattr(self, name)}")
        self.height_and_width()
        for name in ("threads", "grace_s", "resume_s", "metrics_streams"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more and finite, not {getattr(self, name)}")
        self._check_recording()
        if self.trace is None and self.trace_every != ServerOptions.trace_every:
            raise ValueError("--trace-every does nothing without --trace DESTINATION: give both")
        kinds = {device.partition(":")[0] for device in self.devices()}
        if len(kinds) > 1:
            raise ValueError(f"--device {self.device} mixes {' and '.join(sorted(kinds))}: run a server for each kind")

    def _check_recording(self) -> None:
        if self.record_drift_frames < MIN_CLIP_FRAMES:
            raise ValueError(f"--record-drift-frames must be {MIN_CLIP_FRAMES} or more, not {self.record_drift_frames}")
        for name in ("record_drift_mb", "record_drift_frames", "drift_threshold"):
            if self.record_drift is None and getattr(self, name) != getattr(ServerOptions, name):
                raise ValueError(f"--{name.replace('_', '-')} does nothing without --record-drift DIR: give both")

    def devices(self) -> tuple[str, ...]:
        """Each of them."""
        return tuple(self.device.split(","))

    def height_and_width(self) -> tuple[int, int] | None:
        """Of `size`, if it is given.

        Raises:
            ValueError: if it cannot be read.
        """
        return None if self.size is None else parse_size(self.size)

    def limits(self) -> Limits:
        """What clients must keep to."""
        return Limits(
            max_streams=self.max_streams,
            max_frame_bytes=int(self.max_frame_mb * 1e6),
            max_frame_pixels=int(self.max_frame_megapixels * 1e6),
            max_in_flight=self.max_in_flight,
            default_in_flight=min(8, self.max_in_flight),
            default_key_frame_interval=self.key_frame_interval,
            max_consecutive_errors=self.max_consecutive_errors,
            idle_timeout_s=self.idle_timeout_s,
            resume_s=self.resume_s,
        )
