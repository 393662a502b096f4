"""The classes of the two benchmarks: names, colours, and the ids that stand for them in each data set's label files."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = -1  # label of pixels nobody labelled, or whose class is not trained
MAX_ID = 65535  # SYNTHIA's label files have 16 bits

Color = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True)
class ClassInfo:
    """One class of a benchmark. Its train id is its place in the label space."""

    name: str
    color: Color
    ids: tuple[tuple[str, tuple[int, ...]], ...]  # (data set, ids read as this class); the first one is written
    is_evaluated: bool = True  # whether mIoU counts it


@dataclass(frozen=True)
class LabelSpace:
    """The classes that a network tells apart."""

    name: str
    classes: tuple[ClassInfo, ...]

    @property
    def num_classes(self) -> int:
        """C, including classes that are trained but not evaluated."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of train ids."""
        return tuple(entry.name for entry in self.classes)

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Train ids that mIoU is the mean of."""
        return tuple(train_id for train_id, entry in enumerate(self.classes) if entry.is_evaluated)

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """(C, 3) colours, RGB."""
        return np.array([entry.color for entry in self.classes], np.uint8)

    def to_train_ids(self, ids: NDArray[Any], dataset: str) -> NDArray[np.int64]:
        """Train ids of the ids in a label file of `dataset`, `IGNORE` where the benchmark does not use them."""
        return np.asarray(_train_id_table(self, dataset)[ids])

    def to_dataset_ids(self, labels: NDArray[Any], dataset: str) -> NDArray[np.int64]:
        """The ids that `dataset` writes for train ids; 0, which no benchmark trains, for `IGNORE`."""
        table = np.zeros(self.num_classes + 1, np.int64)  # the last entry is read by index -1
        for train_id, entry in enumerate(self.classes):
            table[train_id] = dict(entry.ids)[dataset][0]
        return np.asarray(table[labels])

    def color_labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W, 3) RGB picture of a label map (H, W); `IGNORE` is black."""
        return np.asarray(np.vstack([self.palette, np.zeros((1, 3), np.uint8)])[labels])


@lru_cache
def _train_id_table(space: LabelSpace, dataset: str) -> NDArray[np.int64]:
    table = np.full(MAX_ID + 1, IGNORE, np.int64)
    for train_id, entry in enumerate(space.classes):
        table[list(dict(entry.ids)[dataset])] = train_id
    return table


def _viper_class(name: str, color: Color, viper: tuple[int, ...], cityscapes: tuple[int, ...]) -> ClassInfo:
    return ClassInfo(name, color, (("viper", viper), ("cityscapes", cityscapes)))


def _synthia_class(name: str, color: Color, synthia: int, cityscapes: int, is_evaluated: bool = True) -> ClassInfo:
    return ClassInfo(name, color, (("synthia", (synthia,)), ("cityscapes", (cityscapes,))), is_evaluated)


VIPER_TO_CITYSCAPES = LabelSpace(
    "viper-to-cityscapes",
    (
        _viper_class("road", (128, 64, 128), (3,), (7,)),
        _viper_class("sidewalk", (244, 35, 232), (4,), (8,)),
        _viper_class("building", (70, 70, 70), (9,), (11,)),
        _viper_class("fence", (190, 153, 153), (11,), (13,)),
        _viper_class("light", (250, 170, 30), (13,), (19,)),
        _viper_class("sign", (220, 220, 0), (14,), (20,)),
        _viper_class("vegetation", (107, 142, 35), (8, 7), (21,)),  # VIPER tells trees (7) from other vegetation
        _viper_class("terrain", (152, 251, 152), (6,), (22,)),
        _viper_class("sky", (70, 130, 180), (2,), (23,)),
        _viper_class("person", (220, 20, 60), (20,), (24, 25)),  # Cityscapes tells riders (25) from pedestrians
        _viper_class("car", (0, 0, 142), (24,), (26,)),
        _viper_class("truck", (0, 0, 70), (27,), (27,)),
        _viper_class("bus", (0, 60, 100), (26,), (28,)),
        _viper_class("motorcycle", (0, 0, 230), (23,), (32,)),
        _viper_class("bicycle", (119, 11, 32), (22,), (33,)),
    ),
)

SYNTHIA_TO_CITYSCAPES = LabelSpace(
    "synthia-to-cityscapes",
    (
        _synthia_class("road", (128, 64, 128), 3, 7),
        _synthia_class("sidewalk", (244, 35, 232), 4, 8),
        _synthia_class("building", (70, 70, 70), 2, 11),
        # DA-VSN trains the fence and leaves it out of the mean: its predictions still count as misses of other classes
        _synthia_class("fence", (190, 153, 153), 5, 13, is_evaluated=False),
        _synthia_class("pole", (153, 153, 153), 7, 17),
        _synthia_class("light", (250, 170, 30), 15, 19),
        _synthia_class("sign", (220, 220, 0), 9, 20),
        _synthia_class("vegetation", (107, 142, 35), 6, 21),
        _synthia_class("sky", (70, 130, 180), 1, 23),
        _synthia_class("person", (220, 20, 60), 10, 24),
        _synthia_class("rider", (255, 0, 0), 11, 25),
        _synthia_class("car", (0, 0, 142), 8, 26),
    ),
)

LABEL_SPACES: dict[str, LabelSpace] = {"viper": VIPER_TO_CITYSCAPES, "synthia": SYNTHIA_TO_CITYSCAPES}
