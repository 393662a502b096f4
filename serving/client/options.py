"""What a client asks of a server, in values that are easy to write down, and the schema's messages behind them."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from serving.frames import Encoding, Size, check_raw_size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb

EncodingName: TypeAlias = Literal["jpeg", "png", "rgb", "nv12"]
ENCODINGS = {
    "jpeg": pb.FRAME_ENCODING_JPEG,
    "png": pb.FRAME_ENCODING_PNG,
    "rgb": pb.FRAME_ENCODING_RAW_RGB,
    "nv12": pb.FRAME_ENCODING_RAW_NV12,
}
RAW_ENCODINGS = {"rgb": Encoding.RAW_RGB, "nv12": Encoding.RAW_NV12}  # whose frames do not tell their size
DELIVERIES = {
    "block": pb.DELIVERY_POLICY_BLOCK,
    "drop-oldest": pb.DELIVERY_POLICY_DROP_OLDEST,
    "latest-only": pb.DELIVERY_POLICY_LATEST_ONLY,
}
LABEL_SIZES = {
    "native": pb.LABEL_MAP_SIZE_NATIVE,
    "model": pb.LABEL_MAP_SIZE_MODEL,
    "none": pb.LABEL_MAP_SIZE_NONE,
}
LABEL_ENCODINGS = {
    "png": pb.PIXEL_MAP_ENCODING_PNG,
    "raw": pb.PIXEL_MAP_ENCODING_RAW,
    "rle": pb.PIXEL_MAP_ENCODING_RLE,
    "delta-rle": pb.PIXEL_MAP_ENCODING_DELTA_RLE,
}
OVERLAYS = {
    "none": pb.OVERLAY_ENCODING_UNSPECIFIED,
    "jpeg": pb.OVERLAY_ENCODING_JPEG,
    "png": pb.OVERLAY_ENCODING_PNG,
}


@dataclass(frozen=True, kw_only=True)
class FixedKeyFrames:
    """A key frame at a fixed distance."""

    interval: int = 0  # frames from one key frame to the next; 0 is the server's choice

    def message(self) -> pb.KeyFrames:
        """In the schema's words."""
        return pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=self.interval)) if self.interval else pb.KeyFrames()


@dataclass(frozen=True, kw_only=True)
class AdaptiveKeyFrames:
    """A key frame when the predictions have grown stale."""

    min_interval: int = 0  # frames between key frames, at least; 0 is the server's choice
    max_interval: int = 0  # frames between key frames, at most; 0 is the server's choice
    staleness: float = 0.0  # that is too much: larger is faster and less accurate; 0 is the server's choice

    def message(self) -> pb.KeyFrames:
        """In the schema's words."""
        return pb.KeyFrames(
            adaptive=pb.AdaptiveKeyFrames(
                min_interval=self.min_interval, max_interval=self.max_interval, staleness=self.staleness
            )
        )


@dataclass(frozen=True)
class ManualKeyFrames:
    """A key frame only where the client forces one."""

    def message(self) -> pb.KeyFrames:
        """In the schema's words."""
        return pb.KeyFrames(manual=pb.ManualKeyFrames())


KeyFrames: TypeAlias = FixedKeyFrames | AdaptiveKeyFrames | ManualKeyFrames


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How fast answers should come, and what may be given up for it beside the distance of key frames."""

    target_ms: int = 0  # from reading a frame to having its answer; 0 is no objective
    max_key_frame_interval: int = 0  # to which distances may grow, in frames; 0 is four times as long
    may_skip_steps: bool = False  # frames may have the labels of the frame before
    may_drop_frames: bool = False  # frames that wait longer than the target may be dropped


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What answers hold."""

    labels: Literal["native", "model", "none"] = "native"  # size of the label maps
    label_encoding: Literal["png", "raw", "rle", "delta-rle"] = "png"  # on the wire; all are lossless
    confidence: bool = False  # also the confidence map
    overlay: Literal["none", "jpeg", "png"] = "none"  # also the frame with its labels over it, drawn by the server

    def message(self) -> pb.Outputs:
        """In the schema's words."""
        return pb.Outputs(
            labels=LABEL_SIZES[self.labels],
            label_encoding=LABEL_ENCODINGS[self.label_encoding],
            confidence=self.confidence,
            overlay=OVERLAYS[self.overlay],
        )


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What a client asks of a server for one stream."""

    model: str = ""  # NAME or NAME@VERSION; empty is the server's only one
    encoding: EncodingName = "jpeg"  # how frames are sent; png and rgb lose nothing
    size: Size | None = None  # of the frames; raw ones (rgb, nv12) need it, others tell it themselves
    key_frames: KeyFrames = FixedKeyFrames()
    delivery: Literal["block", "drop-oldest", "latest-only"] = "block"  # what happens to frames that come too fast
    max_in_flight: int = 8  # frames without an answer at a time; the server has a bound of its own for latest-only
    max_age_ms: int = 0  # after which a frame that waits is dropped; 0 is never
    latency: Latency = Latency()
    outputs: Outputs = field(default_factory=Outputs)

    def check(self) -> None:
        """Refuses what no server would take; ValueError says why. The rest is for the server to judge."""
        least = 2 if self.delivery == "drop-oldest" else 1
        if self.max_in_flight < least:
            raise ValueError(f"max_in_flight must be {least} or more, it is {self.max_in_flight}")
        frame_format(self.encoding, self.size)

    def message(self) -> pb.StreamConfig:
        """In the schema's words, without a resume token."""
        has_bound = self.delivery != "latest-only"
        config = pb.StreamConfig(
            model=self.model,
            format=frame_format(self.encoding, self.size),
            key_frames=self.key_frames.message(),
            delivery=pb.Delivery(
                policy=DELIVERIES[self.delivery],
                max_in_flight=self.max_in_flight if has_bound else 0,
                max_age_ms=self.max_age_ms,
            ),
            outputs=self.outputs.message(),
        )
        if self.latency.target_ms:
            config.latency.target_ms = self.latency.target_ms
            config.latency.max_key_frame_interval = self.latency.max_key_frame_interval
            config.latency.may_skip_steps = self.latency.may_skip_steps
            config.latency.may_drop_frames = self.latency.may_drop_frames
        return config


DEFAULT_OUTPUTS = Outputs()
DEFAULT_OPTIONS = StreamOptions()


def frame_format(encoding: EncodingName, size: Size | None) -> pb.FrameFormat:
    """In the schema's words.

    Raises:
        ValueError: if frames of this encoding need a size, or another one.
    """
    message = pb.FrameFormat(encoding=ENCODINGS[encoding])
    if size is not None:
        message.width, message.height = size
    if encoding in RAW_ENCODINGS:
        if size is None:
            raise ValueError(f"{encoding} frames do not tell their size: give it")
        check_raw_size(RAW_ENCODINGS[encoding], size)
    return message
