"""From chunks of an H.264 or H.265 video to frames."""

from typing import Literal

import av
import numpy as np
from av.codec.context import Flags2
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from serving.errors import FrameRefusedError
from serving.frames import Size, check_size

Codec = Literal["h264", "hevc"]
CODEC_NAMES: dict[Codec, str] = {"h264": "H.264", "hevc": "H.265"}
MAX_PADDING = 63  # pixels that whole blocks take beyond a frame
PIECE_BYTES = 65536  # that are split at once: countless tiny access units are noticed before all are split off
# Damage is an error, and not painted over; MD5 sums of H.265 frames are looked at where an encoder wrote them.
DECODER_OPTIONS = {"err_detect": "crccheck+explode"}


class VideoDecoder:
    """Decodes frames that are access units of a video without B-frames: each chunk is one frame."""

    def __init__(self, codec: Codec, size: Size | None, *, max_pixels: int) -> None:
        """Fixes what the frames must be, as `ChunkDecoder` does."""
        self._chunks = ChunkDecoder(codec, size, max_pixels=max_pixels, max_frames_per_chunk=1)

    def decode(self, encoded: bytes) -> NDArray[np.uint8]:
        """The frame as (H, W, 3) RGB.

        Raises:
            FrameRefusedError: with what was found and what was expected; the next frame must be a key frame then.
        """
        frames = self._chunks.decode(encoded)
        if len(frames) != 1:
            self._chunks.flush()  # of what would come with the next frame, in its place
            raise FrameRefusedError(
                f"chunk gave {len(frames)} frames, it must give the one it holds: encode the video without B-frames,"
                " and go on with a key frame"
            )
        return frames[0]


class ChunkDecoder:
    """Decodes the video of one stream, one chunk after the other, and on one thread at a time.

    A chunk is one or more whole access units (all that belongs to one frame) as Annex B bytes: every NAL unit begins
    with 00 00 01 or 00 00 00 01. Encoders hand out just that; what lies in MP4 or comes as RTP must be brought into
    this form, by the filters h264_mp4toannexb and hevc_mp4toannexb or a depacketiser. A key frame has its parameter
    sets in front of it, in the same chunk: at least the first one, and the first after a chunk that was refused.

    A frame comes out of the chunk that it came in if the video has no B frames; a live encoder should write none. With
    them, frames come out in the order in which they are shown, as many chunks late as the encoder reordered, and the
    last ones with `flush`.

    Damage is noticed where the bytes break the rules of the codec. In H.265 they rarely do: let the encoder write an
    MD5 sum of each frame (x265: hash=1) if the way to here may damage any. A video does not say that a chunk is
    missing: leave none out, or go on with a key frame.

    Colours follow the video's own description, BT.601 in limited range where it has none.
    """

    def __init__(self, codec: Codec, size: Size | None, *, max_pixels: int, max_frames_per_chunk: int) -> None:
        """Fixes what the frames must be.

        Args:
            codec: of the video.
            size: of all frames; None takes that of the first one that decodes.
            max_pixels: above which a frame is refused, before it is decoded.
            max_frames_per_chunk: above which a chunk is refused, before any of it is decoded.
        """
        self._codec = codec
        self._size = size
        self._max_pixels = max_pixels
        self._max_frames_per_chunk = max_frames_per_chunk
        self._reformatter = VideoReformatter()
        self._start_again()

    def decode(self, chunk: bytes) -> list[NDArray[np.uint8]]:
        """The frames (H, W, 3) RGB that come out, perhaps none.

        After a chunk was refused, the stream goes on with the next key frame; frames that were still held back are
        lost, and of a chunk with a key frame inside, what comes before it is left out.

        Raises:
            FrameRefusedError: with what was found and what was expected.
        """
        try:
            return [frame for packet in self._split(chunk) for frame in self._decode(packet)]
        except FrameRefusedError:
            self._start_again()
            raise
        except av.FFmpegError as error:
            self._start_again()
            raise self._damaged() from error

    def flush(self) -> list[NDArray[np.uint8]]:
        """The frames that were held back, at the end of the video. Another one may follow.

        Raises:
            FrameRefusedError: if they are damaged.
        """
        if not self._has_key_frame:
            return []
        try:
            return self._decode(None)
        except av.FFmpegError as error:
            raise self._damaged() from error
        finally:
            self._start_again()

    def _split(self, chunk: bytes) -> "list[Packet[Stream]]":
        """The access units to decode, once nothing speaks against them."""
        if not chunk:
            raise FrameRefusedError("chunk is empty")
        packets: list[Packet[Stream]] = []
        # A new one each time: what FFmpeg's parser keeps when it is flushed would spoil the next chunk.
        splitter = _open(self._codec)
        for start in range(0, len(chunk), PIECE_BYTES):
            packets += splitter.parse(chunk[start : start + PIECE_BYTES])
            if len(packets) > self._max_frames_per_chunk:
                break
        else:
            packets += splitter.parse(None)  # else the last one would wait for the beginning of the next
        if len(packets) > self._max_frames_per_chunk:
            raise FrameRefusedError(
                f"chunk holds more than {self._max_frames_per_chunk} frames: send fewer, best one in each chunk"
            )
        starts = [i for i, packet in enumerate(packets) if packet.is_keyframe and self._has_good_size(packet)]
        if self._has_key_frame:
            return packets
        if starts:
            return packets[starts[0] :]
        raise FrameRefusedError(
            f"chunk holds no {CODEC_NAMES[self._codec]} key frame with its parameter sets, and the stream needs one, at"
            " its beginning and after a chunk that was refused: send one"
        )

    def _has_good_size(self, packet: "Packet[Stream]") -> bool:
        """Whether a key frame has parameter sets; refuses it by its size, before the decoder has allocated anything."""
        size = _read_size(_open(self._codec), packet)
        uncropped = _open(self._codec)
        uncropped.flags2 |= Flags2.ignore_crop
        coded_size = _read_size(uncropped, packet)
        if size is None or coded_size is None:
            return False
        self._check_size(size, coded_size)
        return True

    def _decode(self, packet: "Packet[Stream] | None") -> list[NDArray[np.uint8]]:
        decoded = self._decoder.decode(packet)
        self._has_key_frame = True
        return [self._convert(frame) for frame in decoded]

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if frame.is_corrupt:
            raise self._damaged()
        size = Size(frame.width, frame.height)
        self._check_size(size, Size(self._decoder.coded_width, self._decoder.coded_height))
        self._size = size
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(pixels, np.uint8)

    def _check_size(self, size: Size, coded_size: Size) -> None:
        check_size(size, self._size, self._max_pixels)
        if coded_size.width > size.width + MAX_PADDING or coded_size.height > size.height + MAX_PADDING:
            raise FrameRefusedError(f"frame is {size}, cropped from {coded_size}: send it uncropped")

    def _damaged(self) -> FrameRefusedError:
        return FrameRefusedError(
            f"chunk does not decode as {CODEC_NAMES[self._codec]}: it is damaged or holds a part of a frame, send a key"
            " frame next"
        )

    def _start_again(self) -> None:
        # A new decoder: the old one, flushed, may still give away a damaged frame with the next chunk.
        self._decoder = _open(self._codec)
        # Sizes are checked before; this is for parameter sets that only the decoder takes, being less strict.
        self._decoder.options = DECODER_OPTIONS | {"max_pixels": str(2 * self._max_pixels + MAX_PADDING**2)}
        self._has_key_frame = False


def _open(codec: Codec) -> VideoCodecContext:
    context = av.CodecContext.create(codec, "r")
    context.thread_count = 1  # streams are decoded beside each other, and threads hold frames back
    return context


def _read_size(parser: VideoCodecContext, packet: "Packet[Stream]") -> Size | None:
    """The size in the parameter sets in front of a frame, if there are any."""
    parser.parse(bytes(packet))
    parser.parse(None)
    return Size(parser.width, parser.height) if parser.width and parser.height else None
