"""Reads checkpoint files that others wrote, of old and new formats of torch, without running code from them."""

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch

# Figures beside the weights are often numpy's: numbers, which torch refuses unless it is told that they are harmless.
_NUMPY_SCALAR = cast("Callable[..., object]", np.float64(0).__reduce__()[0])  # its module is private and has moved
_NUMBERS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(number)) for number in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)),
]


def read_checkpoint_file(path: Path) -> object:
    """What `torch.save` put there, on the CPU.

    Raises:
        ValueError: in one sentence, if the file cannot be read or would run code.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a checkpoint file") from error
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: whether the file could be read is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file can fail anywhere in the unpickler: KeyError, EOFError, OSError, struct.error, MemoryError.
    except Exception as error:
        python_object = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if python_object is not None:
            raise ValueError(
                f"{path} holds Python objects ({python_object[1]}) and would run code, so it is not opened: where you"
                " trust it, load it with the code that wrote it and save the module's state_dict()"
            ) from error
        if "TorchScript" in str(error):
            raise ValueError(f"{path} is a TorchScript program, not weights: save the module's state_dict()") from error
        raise ValueError(
            f"{path} is no checkpoint, or is damaged ({type(error).__name__}): fetch it again and compare its size"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
