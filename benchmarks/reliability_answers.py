"""Fuzzing of the client by what a server says: the maps and pictures of its answers."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from benchmarks.reliability_codecs import SIZE, framed, label_map, mutate_framed, mutate_png, picture, unframed
from benchmarks.reliability_inputs import mutate_bytes
from benchmarks.reliability_target import Subject, Target
from serving.client.answers import FrameAnswer, LabelDecoder
from serving.client.frames import Frame
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import encode_png, encode_raw
from serving.run_lengths import encode_delta, encode_rle

ENCODINGS = (
    pb.PIXEL_MAP_ENCODING_PNG, pb.PIXEL_MAP_ENCODING_RAW, pb.PIXEL_MAP_ENCODING_RLE, pb.PIXEL_MAP_ENCODING_DELTA_RLE,
)  # fmt: skip


def answers() -> list[bytes]:
    """What a server says in one call, with maps in every encoding."""
    encodings: dict[pb.PixelMapEncoding, Callable[[NDArray[np.uint8]], bytes]] = {
        pb.PIXEL_MAP_ENCODING_PNG: encode_png,
        pb.PIXEL_MAP_ENCODING_RAW: encode_raw,
        pb.PIXEL_MAP_ENCODING_RLE: encode_rle,
        pb.PIXEL_MAP_ENCODING_DELTA_RLE: lambda labels: encode_delta(labels, label_map(0)),
    }
    calls = []
    for encoding, encode in encodings.items():
        first = _result(pb.PIXEL_MAP_ENCODING_RLE, encode_rle(label_map(0)))
        calls.append(framed([first, _result(encoding, encode(label_map(1)))]))
    return calls


def mutate_answers(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages what is in the maps, and what is said of them; one in four is damaged as bytes instead."""
    if chance.randrange(4) == 0:
        return mutate_framed(chance, seeds)
    messages = [pb.SegmentStreamResponse.FromString(each) for each in unframed(chance.choice(seeds), 8)]
    result = chance.choice(messages).result
    part = chance.choice((result.labels, result.labels, result.confidence, result.overlay))
    match chance.randrange(4):
        case 0:
            part.width, part.height = (chance.choice((0, 1, 32, 48, 65535, 1 << 31, (1 << 32) - 1)) for _ in "wh")
        case 1 if part is not result.overlay:
            labels = result.labels
            labels.encoding = chance.choice(ENCODINGS)
        case 2:
            part.data = mutate_png(chance, [encode_png(label_map(0)), encode_png(picture(0))])
        case _:
            part.data = mutate_bytes(chance, [part.data])
    if chance.randrange(8) == 0:  # one run, as large as it may be called
        side = chance.choice((48 * 32, 65535, 65535**2, (1 << 32) - 1))
        width, height = (side, 1) if side < 1 << 32 and chance.randrange(2) else (65535, max(1, side // 65535))
        runs = b"\x01\x07" + _varint(width * height & 0xFFFFFFFF)
        result.labels.CopyFrom(pb.PixelMap(encoding=pb.PIXEL_MAP_ENCODING_RLE, width=width, height=height, data=runs))
    return framed([message.SerializeToString()[:65535] for message in messages])


def _varint(number: int) -> bytes:
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _result(encoding: pb.PixelMapEncoding, data: bytes) -> bytes:
    width, height = SIZE
    result = pb.FrameResult(
        sequence=1,
        labels=pb.PixelMap(encoding=encoding, width=width, height=height, data=data),
        confidence=pb.PixelMap(width=width, height=height, data=encode_png(label_map(2))),
        overlay=pb.Overlay(encoding=pb.OVERLAY_ENCODING_PNG, width=width, height=height, data=encode_png(picture(0))),
    )
    return pb.SegmentStreamResponse(result=result).SerializeToString()


def _open_answers(folder: Path) -> Subject:
    del folder

    def feed(content: bytes) -> None:
        decoder = LabelDecoder()
        for message in unframed(content, 8):
            result = pb.SegmentStreamResponse.FromString(message).result
            labels = decoder.decode(result)
            answer = FrameAnswer(sequence=0, frame=Frame(picture(0)), result=result, labels=labels, latency_ms=0.0)
            del labels
            answer.confidence, answer.overlay  # noqa: B018  # properties that decode

    return Subject(feed)


ANSWERS = (
    Target("answers", "what a server says, in the client", 60, answers, _open_answers, (ValueError, DecodeError),
           mutate_answers),
)  # fmt: skip
