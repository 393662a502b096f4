"""How large and how long: a scale turns the recipes of a family into those that are run.

On the embedded world a scale sets the size of frames, the number of clips, the length of trainings and the backbones;
on the data sets of the paper, whose sizes and networks are the paper's, the length alone.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from benchmarks.paper_recipes import Family, recipes_of
from benchmarks.paper_tables import NUM_CLASSES, Classes
from training.data import CityscapesSeq, SynthiaSeq, Viper, World
from training.methods.pixmatch import PixMatch
from training.models.deeplab import BackboneName
from training.pipeline import with_roots
from training.recipe import Recipe

Value = TypeVar("Value")
ScaleName = Literal["smoke", "cpu", "gpu"]
LOOKS = ("mid", "abroad")  # of the world's targets; the tables are made for each
FEWEST_CLIPS = 4  # that a batch of the demo can be filled from
DEMO_BACKBONE: BackboneName = "resnet10_slim"  # in the recipes of the world


@dataclass(frozen=True)
class Scale:
    """How large and how long."""

    size: tuple[int, int]  # height and width of the world's frames in pixels
    clips: float  # number of clips, in those of the demo: 160 of the source, 120 of the target, 40 to validate
    steps: float  # length of trainings on the world, in those of the demo: 1000 steps for a SegNet of the source
    real_steps: float  # length of trainings on the data sets of the paper, in those of the released code
    backbone: BackboneName  # on the world; the paper has ResNet-101
    seeds: int  # that are run unless --seeds says otherwise
    is_telling: bool  # whether figures are meant to be looked at


SCALES: dict[ScaleName, Scale] = {
    "smoke": Scale((64, 128), 0.05, 0.01, 2e-5, DEMO_BACKBONE, seeds=1, is_telling=False),
    "cpu": Scale((64, 128), 1.0, 1.0, 1e-3, DEMO_BACKBONE, seeds=3, is_telling=True),
    "gpu": Scale((256, 512), 4.0, 80.0, 1.0, "resnet18", seeds=3, is_telling=True),
}


class Folders(NamedTuple):
    """Where the data sets of the paper lie."""

    viper: Path | None = None
    synthia: Path | None = None
    cityscapes: Path | None = None


@dataclass(frozen=True)
class Setting:
    """A source, a target and the classes to tell apart."""

    classes: Classes
    target: str  # a look of the world, or "cityscapes"
    folders: Folders = field(default_factory=Folders)  # given for the data sets of the paper

    @property
    def family(self) -> Family:
        """Of recipes."""
        return self.classes if self.is_real else "demo"

    @property
    def is_real(self) -> bool:
        """Whether it is of the paper's data sets."""
        return self.folders != Folders()

    @property
    def title(self) -> str:
        """For readers."""
        source = {"viper": "VIPER", "synthia": "SYNTHIA-Seq"}[self.classes] if self.is_real else "embedded world"
        target = "Cityscapes-Seq" if self.is_real else f"look {self.target!r}"
        return f"{source} to {target}, {NUM_CLASSES[self.classes]} classes"


def settings_of(classes: Iterable[Classes], folders: Folders) -> tuple[Setting, ...]:
    """Where tables with these classes are made: on the folders if there are any, else on the world's looks.

    Raises:
        ValueError: if a folder is missing, or the world has not the classes.
    """
    chosen = tuple(dict.fromkeys(classes))
    if folders == Folders():
        return tuple(Setting(label_set, look) for look in LOOKS for label_set in chosen)
    needed = {label_set: folders.viper if label_set == "viper" else folders.synthia for label_set in chosen}
    given = (*needed.items(), ("cityscapes", folders.cityscapes))
    missing = [f"--{option}" for option, folder in given if not folder]
    if missing:
        raise ValueError(
            f"these tables on real data also need {' and '.join(missing)}: give the folders, choose other --tables, or"
            " give no folder for the world"
        )
    for folder in filter(None, folders):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: mend the path, or leave all folders out for the world")
    return tuple(Setting(label_set, "cityscapes", folders) for label_set in chosen)


def scaled_recipes(setting: Setting, scale: Scale, seed: int) -> dict[str, Recipe]:
    """The recipes that a setting runs, by name."""
    return {name: _scaled(recipe, setting, scale, seed) for name, recipe in recipes_of(setting.family).items()}


def _scaled(recipe: Recipe, setting: Setting, scale: Scale, seed: int) -> Recipe:
    folders = setting.folders
    factor = scale.real_steps if setting.is_real else scale.steps

    def shorter(steps: int) -> int:
        return max(1, round(factor * steps))

    recipe = replace(recipe, seed=seed, steps=shorter(recipe.steps), validate_every=shorter(recipe.validate_every))
    if setting.is_real:
        roots: dict[type, Path | None] = {
            Viper: folders.viper, SynthiaSeq: folders.synthia, CityscapesSeq: folders.cityscapes
        }  # fmt: skip
        return with_roots(recipe, {kind: root for kind, root in roots.items() if root is not None})

    def fit(value: Any) -> Any:  # Any: any field of a recipe
        if isinstance(value, World):
            look = value.look if value.look == "source" else setting.target
            num_clips = max(FEWEST_CLIPS, round(scale.clips * value.num_clips))
            return replace(value, look=look, size=scale.size, num_clips=num_clips, classes=setting.classes)
        if isinstance(value, PixMatch):
            return replace(value, crop_size=scale.size[0])
        return scale.backbone if value == DEMO_BACKBONE else value

    return changed_parts(recipe, fit)


def changed_parts(value: Value, change: Callable[[Any], Any]) -> Value:
    """A value all whose parts, innermost first, are what `change` makes of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {entry.name: changed_parts(getattr(value, entry.name), change) for entry in fields(value)}
        value = replace(value, **parts)
    changed: Value = change(value)
    return changed
