"""The client of a server: a library for applications, and the command `python -m serving.client`.

    from serving.client import SegmentationClient, StreamOptions

    with SegmentationClient("127.0.0.1:50051") as client, client.stream(StreamOptions(max_in_flight=4)) as stream:
        for answer in stream.segment(frames):  # arrays (H, W, 3) uint8 RGB, or `Frame`s
            if answer.labels is not None:
                print(answer.sequence, answer.labels.shape, answer.result.quality.drift)

`AsyncSegmentationClient` is the same for asyncio, with `async with` and `async for`. Every frame has exactly one
answer, in order, also across reconnections; `stream.events` and `on_event` tell of those and of the server's notices.
"""

from serving.client.answers import FrameAnswer, ImageAnswer
from serving.client.asynchronous import AsyncSegmentationClient, AsyncVideoStream
from serving.client.blocking import SegmentationClient, VideoStream
from serving.client.credentials import Credentials, CredentialsError
from serving.client.events import ConnectionLost, Degraded, Draining, ModelReloaded, Reconnected, StreamEvent
from serving.client.failures import CallError
from serving.client.frames import Frame, FrameLike
from serving.client.ledger import Totals
from serving.client.options import (
    AdaptiveKeyFrames,
    FixedKeyFrames,
    KeyFrames,
    Latency,
    ManualKeyFrames,
    Outputs,
    StreamOptions,
)
from serving.client.retries import Retry
from serving.spans import Tracing, open_tracing

__all__ = [
    "AdaptiveKeyFrames",
    "AsyncSegmentationClient",
    "AsyncVideoStream",
    "CallError",
    "ConnectionLost",
    "Credentials",
    "CredentialsError",
    "Degraded",
    "Draining",
    "FixedKeyFrames",
    "Frame",
    "FrameAnswer",
    "FrameLike",
    "ImageAnswer",
    "KeyFrames",
    "Latency",
    "ManualKeyFrames",
    "ModelReloaded",
    "Outputs",
    "Reconnected",
    "Retry",
    "SegmentationClient",
    "StreamEvent",
    "StreamOptions",
    "Totals",
    "Tracing",
    "VideoStream",
    "open_tracing",
]
