"""Plans on disk: what they are keyed by, what lies beside them, and which of them fits this machine.

A plan is a graph in the form that one library on one machine loads: TensorRT's, for one GPU and one driver, or a
program of torch. Loading it may run what is in it, so plans do not lie in the bundle, which people copy from each
other, but in a folder of the user's own: a bundle that was downloaded brings no plan with it. Each is two files named
by the hash of its key:

    KEY.plan   what TensorRT serialised, as it is; or KEY.pt2, what torch saved
    KEY.json   the key in words, the plan's SHA-256, and how far it was from the ONNX graph

The JSON file is written last: a plan without one does not exist.
"""

import hashlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.bundle import BundleError, file_sha256

logger = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Part):
    """What a plan works on, and nowhere else."""

    library: ClassVar[str]
    noun: ClassVar[str]  # for one of its plans
    suffix: ClassVar[str]  # of their files
    command: ClassVar[str]  # that makes them of a {bundle}


class TensorRTMachine(Machine):
    """A GPU with a driver and TensorRT."""

    library: ClassVar[str] = "TensorRT"
    noun: ClassVar[str] = "TensorRT plan"
    suffix: ClassVar[str] = ".plan"
    command: ClassVar[str] = "python export/to_trt.py {bundle}"

    tensorrt: str  # version
    gpu: str  # name
    compute_capability: str  # "9.0"
    driver: str  # the CUDA version it is made for, "13.0"

    def __str__(self) -> str:
        """For people."""
        return (
            f"TensorRT {self.tensorrt} on {self.gpu} (compute capability {self.compute_capability}, driver for CUDA"
            f" {self.driver})"
        )


class TorchMachine(Machine):
    """A version of torch on a kind of device: its programs hold operations, not the code of a processor."""

    library: ClassVar[str] = "torch"
    noun: ClassVar[str] = "torch program"
    suffix: ClassVar[str] = ".pt2"
    command: ClassVar[str] = "python export/to_torch.py RUN {bundle}"

    torch: str  # version
    device: Literal["cpu", "cuda"]

    def __str__(self) -> str:
        """For people."""
        return f"torch {self.torch} on {self.device}"


class PlanKey(_Part):
    """What every plan depends on: two plans of equal keys are the same."""

    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Literal["fp32", "fp16", "int8"]  # of the variant
    machine: Machine

    def digest(self) -> str:
        """The name of the plan's files."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def rank(self) -> int:
        """Of several plans of one graph for one machine, that of the highest rank is taken."""
        return 0


class TensorRTKey(PlanKey):
    """What a TensorRT plan depends on besides; its precision is what the types in the ONNX file are."""

    machine: TensorRTMachine
    batches: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)  # ascending; a profile of the plan each
    workspace_bytes: int = Field(gt=0)  # that TensorRT's kernels may use
    flags: tuple[str, ...]  # whatever else the builder was told

    def rank(self) -> int:
        """The largest batch."""
        return self.batches[-1]


class TorchKey(PlanKey):
    """What a torch program depends on; it takes batches of any size."""

    machine: TorchMachine


class Comparison(_Part):
    """How far a plan's answers were from those of the ONNX graphs, on the plan's worst batch size."""

    label_agreement: float  # share of equal pixels
    max_state_difference: float  # relative to the largest absolute value of the tensor
    frames: int  # that were compared


class Sidecar(_Part):
    """What lies beside a plan."""

    format: Literal["flowseg-plan"] = "flowseg-plan"
    format_version: Literal[1] = 1
    graph: str  # name of the ONNX file, for people
    key: TensorRTKey | TorchKey
    plan_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    build_seconds: float
    comparison: Comparison


class Plan(_Part):
    """A plan on disk and what is known about it."""

    path: Path
    sidecar: Sidecar


def default_engines_folder() -> Path:
    """Where plans lie unless the user says otherwise: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flowseg" / "engines"


def build_command(bundle: Path, machine: Machine) -> str:
    """What to type for plans of a bundle."""
    return f"'{machine.command.format(bundle=bundle)}' (with the --precision that is served)"


def read_plan(folder: Path, key: PlanKey) -> Plan | None:
    """The plan of a key, whole; None if there is none or it is damaged."""
    for plan in _plans([folder / f"{key.digest()}.json"]):
        if plan.sidecar.key == key and _is_whole(plan):
            return plan
    return None


def find_plan(folder: Path, onnx: Path, machine: Machine) -> Plan:
    """The plan of an ONNX file for this machine.

    Raises:
        BundleError: if there is none, it is damaged, or others could have put it there.
    """
    sha256 = file_sha256(onnx)
    plans = [
        plan
        for plan in _plans(sorted(folder.glob("*.json")))
        if plan.sidecar.key.onnx_sha256 == sha256 and isinstance(plan.sidecar.key.machine, type(machine))
    ]
    build = f"build it on this machine with {build_command(onnx.parent, machine)}"
    if not plans:
        raise BundleError(f"there is no {machine.noun} of {onnx} in {folder}: {build}")
    check_owner(folder)
    fitting = [plan for plan in plans if plan.sidecar.key.machine == machine]
    if not fitting:
        raise BundleError(
            f"the {machine.noun} of {onnx} in {folder} was built by {plans[0].sidecar.key.machine}, here is {machine}:"
            f" {build}"
        )
    plan = max(fitting, key=lambda plan: plan.sidecar.key.rank())
    if not _is_whole(plan):
        raise BundleError(
            f"{plan.path} (of {onnx.name}) does not match its sidecar's SHA-256: it was changed or damaged, {build}"
        )
    return plan


def write_plan(folder: Path, content: bytes, sidecar: Sidecar) -> Plan:
    """Writes a plan and its sidecar, whole or not at all."""
    path = folder / (sidecar.key.digest() + sidecar.key.machine.suffix)
    write_whole(path, content)
    write_whole(path.with_suffix(".json"), (sidecar.model_dump_json(indent=2) + "\n").encode())
    return Plan(path=path, sidecar=sidecar)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it, so that no other process and no interruption finds half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[:16]}.{secrets.token_hex(8)}")  # no temporary file, which has modes of its own
    try:
        with aside.open("xb") as file:
            file.write(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_owner(folder: Path) -> None:
    """Refuses a folder in which others may put plans: loading one is running their code.

    Raises:
        BundleError: if it belongs to neither this user nor root, or everybody may write to it.
    """
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise BundleError(
            f"other users can put plans into {folder}, and loading a plan runs its code: choose a folder that only you"
            " can write to"
        )


def _plans(sidecars: Iterable[Path]) -> list[Plan]:
    plans = []
    for path in sidecars:
        try:
            sidecar = Sidecar.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValidationError) as error:
            logger.warning("%s is no sidecar of a plan and is ignored: %s", path, str(error).splitlines()[0])
            continue
        plans.append(Plan(path=path.with_suffix(sidecar.key.machine.suffix), sidecar=sidecar))
    return plans


def _is_whole(plan: Plan) -> bool:
    return plan.path.is_file() and file_sha256(plan.path) == plan.sidecar.plan_sha256
