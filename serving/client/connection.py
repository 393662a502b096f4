"""What the blocking and the asynchronous client share: the connection's settings, and the calls of one message."""

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.client.answers import ImageAnswer, LabelDecoder
from serving.client.failures import CallError, failure_of, no_server
from serving.client.frames import check_image, encode_image
from serving.client.options import EncodingName, Outputs, frame_format
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb

DEFAULT_SERVER = "127.0.0.1:50051"
IMAGE_S = 60.0  # that a server may take for one image
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),  # finds a server that fell silent
    ("grpc.keepalive_timeout_ms", 10_000),
    # attempts are ours to space out: gRPC's own pauses would make ours fail without asking the network
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # that connecting may take
    ("grpc.use_local_subchannel_pool", 1),
)


def image_request(
    image: NDArray[np.uint8], *, model: str, encoding: EncodingName, outputs: Outputs
) -> pb.SegmentImageRequest:
    """What to send for one image (H, W, 3) RGB.

    Raises:
        ValueError: if it is none, or cannot be encoded so.
    """
    check_image(image)
    height, width, _ = image.shape
    return pb.SegmentImageRequest(
        model=model,
        format=frame_format(encoding, Size(width, height)),
        outputs=outputs.message(),
        data=encode_image(image, encoding),
    )


def image_answer(response: pb.SegmentImageResponse) -> ImageAnswer:
    """What came back for one image.

    Raises:
        CallError: if it cannot be read.
    """
    try:
        return ImageAnswer(response.result, LabelDecoder().decode(response.result))
    except ValueError as error:
        raise CallError(grpc.StatusCode.DATA_LOSS, f"the image came back broken: {error}") from error


def call_error(error: grpc.RpcError, server: str) -> CallError:
    """Why a call of one message failed."""
    failure = failure_of(error)
    if failure.code == grpc.StatusCode.UNAVAILABLE and not failure.reason:
        return no_server(server, failure)
    return failure.error()
