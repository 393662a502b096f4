"""Malformed inputs, each of which its number makes again: what a fuzzing found can be looked at later.

Bytes are made from valid ones by what goes wrong on disks and wires (bits, cuts, blocks in the wrong place) and by what
an attacker tries (extreme numbers, lengths). JSON is also taken apart and put together wrongly, since damaged bytes
hardly ever get past its parser; messages of the schema likewise, field by field.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
Mutate: TypeAlias = Callable[[random.Random, Sequence[bytes]], bytes]  # from valid inputs to another one
MAX_CHANGES = 6  # of one input
MAX_BYTES = 1 << 20  # of one input
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
STRANGE: tuple[Any, ...] = (  # Any: whatever JSON can say
    None, True, False, 0, -1, 1, 255, 256, 10**9, -(2**63), 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf"), "",
    "x", "0", "..", "../../etc/passwd", "/", "\0", "é" * 70, "9" * 5000, "\ud800", [], [[]], {}, {"": None}, [0, 0],
)  # fmt: skip
MESSAGE_INTEGERS = (0, 1, 2, 7, 64, 255, 65536, 100_000, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
MESSAGE_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), float("-inf"))


def choose(number: int, seed: int, target: str) -> random.Random:
    """The source of chance of one input of a target."""
    return random.Random(f"{seed} {target} {number}")  # nosec B311  # to be repeated, not to be secret


def mutate_bytes(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the valid inputs with a few changes."""
    changed = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, MAX_CHANGES)):
        place = chance.randrange(len(changed) + 1)
        length = min(chance.choice((1, 2, 4, 16, 256)), len(changed) - place)
        match chance.randrange(9):
            case 0 if length:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place : place + length] = chance.randbytes(length)
            case 2:
                changed[place : place + 4] = _extreme(chance)
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length] * chance.choice((1, 2, 64))
            case 5:
                del changed[place:]
            case 6:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                changed[place:] = other[start:]
            case 7:
                changed[place:place] = chance.randbytes(chance.choice((1, 8, 300)))
            case _:
                changed[place:place] = bytes([chance.choice((0, 0x20, 0xFF))]) * chance.choice((1, 64, 4096))
    return bytes(changed[:MAX_BYTES])


def _extreme(chance: random.Random) -> bytes:
    return struct.pack(chance.choice("<>") + "I", chance.choice(EXTREMES))[: chance.choice((2, 4))]


def mutate_json(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A valid document with values, keys or items exchanged; one in four is damaged as bytes instead."""
    if chance.randrange(4) == 0:
        return mutate_bytes(chance, seeds)
    document = json.loads(chance.choice(seeds))
    for _ in range(chance.randint(1, MAX_CHANGES)):
        document = _changed(chance, document)
    text = json.dumps(document)
    match chance.randrange(40):
        case 0:
            text = "[" * 100_000 + text
        case 1:
            text = text.replace("{", '{"a":' * chance.choice((1, 1000, 50_000)) + "0" * chance.randrange(2) + "{", 1)
        case 2:
            text = text.replace(":", ": 1, " + '"format":', 1)
    return text.encode()


def _changed(chance: random.Random, node: Any) -> Any:
    """A copy of a node of a document with one change in it or below."""
    if not node or not isinstance(node, dict | list) or chance.randrange(5) == 0:
        return chance.choice(STRANGE)
    if isinstance(node, list):
        place = chance.randrange(len(node))
        changes = (_changed(chance, node[place]), node[place], node[place]) if chance.randrange(4) == 0 else None
        return [*node[:place], *(changes or (_changed(chance, node[place]),)), *node[place + 1 :]]
    key = chance.choice(list(node))
    match chance.randrange(8):
        case 0:
            return {other: value for other, value in node.items() if other != key}
        case 1:
            return node | {str(chance.choice(STRANGE)): chance.choice(STRANGE)}
        case 2:
            return node | {key: node[chance.choice(list(node))]}
        case _:
            return node | {key: _changed(chance, node[key])}


def random_message(chance: random.Random, kind: type[M], payloads: Sequence[bytes], depth: int = 4) -> M:
    """A message that the schema allows and nobody would send.

    Args:
        chance: of what is in it.
        kind: of the message.
        payloads: what fields of bytes may hold.
        depth: of messages in messages, at most.
    """
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.4 or (field.message_type is not None and depth == 0):
            continue
        count = chance.randrange(4) if field.is_repeated else 1
        for _ in range(count):
            _set(chance, message, field, payloads, depth)  # type: ignore[arg-type]  # of either implementation
    return message


def _set(
    chance: random.Random, message: Message, field: FieldDescriptor, payloads: Sequence[bytes], depth: int
) -> None:
    if field.message_type is not None:
        part = random_message(chance, type(_part(message, field)), payloads, depth - 1)
        if field.is_repeated:
            getattr(message, field.name).append(part)
        else:
            getattr(message, field.name).CopyFrom(part)
        return
    value = _value(chance, field, payloads)
    try:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    except (ValueError, TypeError):  # a number that its field cannot hold
        message.ClearField(field.name)


def _part(message: Message, field: FieldDescriptor) -> Message:
    """An empty message of a field."""
    value = getattr(type(message)(), field.name)
    part: Message = value.add() if field.is_repeated else value
    return part


def _value(chance: random.Random, field: FieldDescriptor, payloads: Sequence[bytes]) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(payloads) if field.type == FieldDescriptor.TYPE_BYTES else chance.choice(_TEXTS)
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice(MESSAGE_FLOATS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 99, -1))
    return chance.choice(MESSAGE_INTEGERS)


_TEXTS = ("", "x", "é" * 70, "../..", "a@b", "x" * 10_000, "\0")
