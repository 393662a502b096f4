"""What a server says is not believed further than the client has memory for."""

import cv2
import numpy as np
import pytest

from serving.client.answers import LabelDecoder, decode_overlay
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import MAX_MAP_PIXELS, decode_png, encode_png
from serving.overlay import make_palette, render_overlay
from tests.serving.conversations import jpeg, png_header

LARGEST_RUN = b"\x01\x07\xff\xff\xff\xff\x0f"  # RLE: one run of 2^32 - 1 pixels of label 7


def test_a_map_that_claims_four_gigabytes_is_refused_before_they_are_taken() -> None:
    claimed = pb.PixelMap(encoding=pb.PIXEL_MAP_ENCODING_RLE, width=(1 << 32) - 1, height=1, data=LARGEST_RUN)
    with pytest.raises(ValueError, match=f"4294967295x1, at most {MAX_MAP_PIXELS} pixels are decoded"):
        LabelDecoder().decode(pb.FrameResult(labels=claimed))


def test_a_png_map_that_claims_gigabytes_is_refused_by_its_header() -> None:
    with pytest.raises(ValueError, match="does not decode as PNG"):
        decode_png(png_header(30_000, 30_000))


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tiff", ".webp"])
def test_a_map_is_no_other_kind_of_image_that_opencv_knows(suffix: str) -> None:
    is_encoded, encoded = cv2.imencode(suffix, np.zeros((8, 8), np.uint8))
    assert is_encoded
    with pytest.raises(ValueError, match="does not decode as PNG"):
        decode_png(encoded.tobytes())


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_overlay_decodes_in_both_encodings(encoding: str) -> None:
    frame, labels = np.full((16, 24, 3), 90, np.uint8), np.zeros((16, 24), np.uint8)
    data = render_overlay(frame, labels, make_palette([("road", (9, 9, 9))]), "jpeg" if encoding == "jpeg" else "png")
    kind = pb.OVERLAY_ENCODING_JPEG if encoding == "jpeg" else pb.OVERLAY_ENCODING_PNG
    assert decode_overlay(pb.Overlay(encoding=kind, width=24, height=16, data=data)).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", pb.OVERLAY_ENCODING_PNG),
        (png_header(30_000, 30_000), pb.OVERLAY_ENCODING_PNG),
        (jpeg(np.zeros((8, 8, 3), np.uint8)), pb.OVERLAY_ENCODING_JPEG),
        (encode_png(np.zeros((16, 24, 3), np.uint8)), pb.OVERLAY_ENCODING_JPEG),
    ],
    ids=["empty", "a claim of gigabytes", "another size than said", "another encoding than said"],
)
def test_an_overlay_that_is_not_what_is_said_is_refused(data: bytes, encoding: pb.OverlayEncoding) -> None:
    with pytest.raises(ValueError, match="the overlay does not decode"):
        decode_overlay(pb.Overlay(encoding=encoding, width=24, height=16, data=data))
