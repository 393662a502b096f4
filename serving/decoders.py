"""Which decoder a stream's frames need."""

from serving.frames import Encoding, FrameDecoder, ImageDecoder, Size


def open_decoder(encoding: Encoding, size: Size | None, *, max_pixels: int) -> FrameDecoder:
    """A decoder for the frames of one stream.

    Args:
        encoding: of all frames.
        size: of all frames; None takes that of the first one that decodes. Raw frames need it.
        max_pixels: above which a frame is refused.
    """
    if not encoding.is_video:
        return ImageDecoder(encoding, size, max_pixels=max_pixels)
    from serving.video_chunks import VideoDecoder  # a tenth of a second that servers of images do not spend

    return VideoDecoder("h264" if encoding is Encoding.H264 else "hevc", size, max_pixels=max_pixels)
