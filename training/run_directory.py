"""What a run leaves on disk, and reading it back.

    run.json          the recipe with every field, seed, commit, versions: all it takes to repeat the run
    metrics.jsonl     a line per logged step and per validation
    last.pt, best.pt  networks (and in last.pt the optimizers) as state dicts; loaded with weights_only
    tensorboard/      the same figures as curves

Files are written under a temporary name and renamed, so a reader never sees half of one.
"""

import errno
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from cattrs.errors import BaseValidationError
from cattrs.preconf.json import JsonConverter, make_converter
from torch import nn

from training.data import DATASETS, DataConfig
from training.methods import METHODS
from training.methods.method import Method, Networks
from training.methods.optimization import OPTIMIZERS, SCHEDULES, OptimizerSpec, Schedule
from training.methods.stage import STAGES, Stage
from training.models import FLOW_NETS, SEGMENTERS, FlowNetConfig, SegmenterConfig
from training.recipe import Recipe
from training.validation import VALIDATIONS, Validation

RUN_FILE = "run.json"
FORMAT_VERSION = 2


class RunError(ValueError):
    """A run that is missing, damaged, or does not fit. The message is one sentence for the user."""


@dataclass(frozen=True)
class Run:
    """A run directory whose run.json was read."""

    folder: Path
    name: str  # of the recipe
    recipe: Recipe
    provenance: dict[str, Any]  # commit, versions and host of the training

    def checkpoint_path(self) -> Path:
        """The checkpoint that later stages, evaluation and export read."""
        return self.folder / ("best.pt" if self.recipe.keep_best else "last.pt")

    def is_finished(self) -> bool:
        """Whether all steps were done."""
        last = self.folder / "last.pt"
        return last.is_file() and load_checkpoint(last)["step"] >= self.recipe.steps

    def networks(self) -> Networks:
        """The trained networks on the CPU, in evaluation mode."""
        checkpoint = load_checkpoint(self.checkpoint_path())
        networks = self.recipe.method.networks(self.recipe.source.label_space.num_classes)
        for name, network in networks.items():
            if name not in checkpoint["networks"]:
                raise RunError(f"{self.checkpoint_path()} has no network {name!r}: train the run again")
            load_weights(network, checkpoint["networks"][name], f"{self.checkpoint_path()}:{name}")
            network.eval()
        return networks

    def figures(self) -> list[dict[str, float]]:
        """All lines of metrics.jsonl, in the order of training."""
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({type(error).__name__}): train the run again") from error

    def measures(self) -> dict[str, float]:
        """What validation measured at the checkpoint."""
        measures: dict[str, float] = load_checkpoint(self.checkpoint_path())["measures"]
        return measures


def recipe_difference(run: Run, recipe: Recipe) -> str:
    """The first field in which a recipe is not that of a run, with both values; empty if there is none."""
    return _first_difference(_converter().unstructure(run.recipe, Recipe), _converter().unstructure(recipe, Recipe), "")


def _first_difference(old: Any, new: Any, path: str) -> str:
    if old == new:
        return ""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{path} {old} (this call says {new})"
    differences = (
        _first_difference(old.get(key), new.get(key), f"{path}.{key}".lstrip(".")) for key in old.keys() | new.keys()
    )
    return next(filter(None, sorted(differences)))


def write_run_file(folder: Path, name: str, recipe: Recipe, origin: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes run.json: from it alone the run can be repeated. `origin` joins the versions in its provenance."""
    document = {
        "format": "flowseg-run",
        "format_version": FORMAT_VERSION,
        "name": name,
        "recipe": _converter().unstructure(recipe, Recipe),
        "provenance": {"commit": commit(), "versions": versions(), "machine": platform.platform(), **origin},
    }
    text = json.dumps(document, indent=2) + "\n"
    write_aside(folder / RUN_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def read_run(folder: Path) -> Run:
    """Reads a run directory.

    Raises:
        RunError: with one sentence that says what is wrong and what to do.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        raise RunError(f"there is no run at {folder}: train one with 'python -m training.train RECIPE --out {folder}'")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != "flowseg-run" or document["format_version"] != FORMAT_VERSION:
            raise RunError(f"{path} is not of run format {FORMAT_VERSION}: train the run again with this version")
        recipe = _converter().structure(document["recipe"], Recipe)
        name, provenance = document["name"], document["provenance"]
        if not isinstance(name, str) or not isinstance(provenance, dict):
            raise TypeError("its name must be a string, its provenance an object")
        return Run(folder, name, recipe, provenance)
    except RunError:
        raise
    # cattrs passes on whatever a type makes of a value that is not its own
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError,
            BaseValidationError) as error:  # fmt: skip
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}): train the run again") from error


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes {"step", "measures", "networks", ...}; nothing but tensors, numbers, strings, lists and dicts.

    Raises:
        OSError: if it cannot be written; what was there before is still there.
    """

    def save(aside: Path) -> None:
        try:
            torch.save(dict(checkpoint), aside)
        except RuntimeError as error:  # what torch makes of a disk that is full
            raise OSError(errno.EIO, "the checkpoint could not be written: is the disk full?") from error

    write_aside(path, save)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, on the CPU; never unpickles code.

    Raises:
        RunError: with one sentence, if it is missing or is no checkpoint of a run.
    """
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: the run has not finished its first validation")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file can fail anywhere in the unpickler: IndexError, AttributeError, struct.error, MemoryError.
    except Exception as error:
        raise RunError(f"{path} is not a readable checkpoint ({type(error).__name__}): train the run again") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("networks"), dict):
        raise RunError(f"{path} holds no networks: it is not a checkpoint of a run")
    if not isinstance(checkpoint.get("step"), int) or not isinstance(checkpoint.get("measures"), dict):
        raise RunError(f"{path} holds no step or no measures: it is not a checkpoint of a run")
    return checkpoint


def load_weights(module: nn.Module, state: Any, origin: str) -> None:
    """Loads a state dict, strictly. `origin` names it in errors."""
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise RunError(f"{origin} is no state dict: it must map parameter names to tensors")
    for name, expected in module.state_dict().items():
        if name in state and state[name].shape != expected.shape:
            raise RunError(
                f"{origin} does not fit {type(module).__name__}: {name} has shape {tuple(state[name].shape)} there and"
                f" {tuple(expected.shape)} here: give both networks the same width and kind, or name another run"
            )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        reason = textwrap.shorten(first[0], 200)  # it may list every weight there is
        raise RunError(f"{origin} does not fit {type(module).__name__}: {reason}") from error


def start_weights(networks: Networks, recipe: Recipe, find_run: Callable[[str], Run]) -> None:
    """Loads what `recipe.start_from` names into newly built networks."""
    for part, origin in recipe.start_from.items():
        run_name, origin_part = origin.split(":")
        run = find_run(run_name)
        module = _submodule(networks, part, "this recipe")
        trained = _submodule(run.networks(), origin_part, f"run {run.folder}")
        # The auxiliary head serves training of stage one alone: stage two has no place for it.
        state = {key: value for key, value in trained.state_dict().items() if key in module.state_dict()}
        load_weights(module, state, f"{run.folder}:{origin_part}")


def _submodule(networks: Networks, path: str, owner: str) -> nn.Module:
    name, _, rest = path.partition(".")
    try:
        return networks[name].get_submodule(rest)
    except (KeyError, AttributeError) as error:
        raise RunError(f"{owner} has no network part {path!r}: it has {', '.join(sorted(networks))}") from error


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file under a temporary name beside `path`, then renames it there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def commit() -> str:
    """The commit of this code, with "+changes" if the tree is not clean; "unknown" outside a git checkout."""
    root = Path(__file__).parents[1]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide about figures."""
    libraries = ("torch", "numpy", "opencv-python", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino")
    found = {"python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _converter() -> JsonConverter:
    converter = make_converter()
    tables: dict[type, tuple[type, ...]] = {
        Method: tuple(METHODS.values()),
        DataConfig: tuple(DATASETS.values()),
        Validation: VALIDATIONS,
        SegmenterConfig: tuple(SEGMENTERS.values()),
        FlowNetConfig: tuple(FLOW_NETS.values()),
        OptimizerSpec: OPTIMIZERS,
        Schedule: SCHEDULES,
        Stage: STAGES,
    }
    for base, members in tables.items():
        _tag(converter, base, members)
    return converter


def _tag(converter: JsonConverter, base: type, members: tuple[type, ...]) -> None:
    """Makes fields declared as `base` carry the name of their class, and reads them back by it."""
    by_name = {member.__name__: member for member in members}

    def is_base(declared: Any) -> bool:
        return declared is base or getattr(declared, "__origin__", None) is base

    def unstructure(value: Any) -> dict[str, Any]:
        return {"_type": type(value).__name__, **converter.unstructure(value, type(value))}

    def structure(document: Any, _: type) -> Any:
        fields = dict(document)
        return converter.structure(fields, by_name[fields.pop("_type")])

    converter.register_unstructure_hook_func(is_base, unstructure)
    converter.register_structure_hook_func(is_base, structure)
