"""What all commands do at their border: log to stderr, name a device, turn a user's mistake into one sentence."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.logging import RichHandler


def logging_to_stderr() -> None:
    """Shows what a user waits for, and warnings."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


@dataclass(frozen=True)
class Machine:
    """What to train on. The order of the data and, but for rounding, the results do not depend on it."""

    device: str = "auto"  # "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU when there is one
    workers: int = 0  # processes that read each domain's data ahead; 0 reads in between the steps
    precision: Literal["fp32", "bf16"] = "fp32"  # of the backbones' features in training; all else is fp32
    compile: bool = False  # let torch compile the backbones' features: minutes at first, then faster steps

    def __post_init__(self) -> None:
        """Refuses a number of processes that cannot be."""
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, it is {self.workers}")


def choose_device(name: str) -> torch.device:
    """The device a user names; "auto" is a GPU when there is one.

    Raises:
        ValueError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"no GPU answers, so {name!r} cannot be used: use --device cpu")
    try:
        torch.zeros(1, device=name).cpu()  # torch knows names of devices that this machine does not have
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"there is no device {name!r}: use cpu, cuda, cuda:1, ...") from error
    return torch.device(name)


@contextlib.contextmanager
def logging_to_file(path: Path, mode: Literal["a", "w"]) -> Iterator[None]:
    """Also keeps what a user sees go by, behind what the file holds ("a") or in place of it ("w").

    Raises:
        ValueError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def user_errors_exit_with_2(*errors: type[Exception], is_told: bool = True) -> Iterator[None]:
    """Prints the message of these errors as one line on stderr, if it is to be told, and exits with status 2."""
    try:
        yield
    except errors as error:
        if is_told:
            sys.stderr.write(f"error: {' '.join(str(error).splitlines())}\n")
        raise SystemExit(2) from None
