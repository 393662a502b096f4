"""What the ids in somebody's label files mean: a JSON file that names the class of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.label_spaces import IGNORE, LabelSpace

NOT_TRAINED = (None, "ignore")
MAX_ID = 255  # label files have 8 bits


class LabelMap:
    """Ids of label files as train ids of a label space."""

    def __init__(self, path: Path, space: LabelSpace) -> None:
        """Reads a file such as `{"0": "road", "1": "car", "255": "ignore"}`.

        Raises:
            ValueError: for what is wrong with it, in one sentence.
        """
        self.path = path
        self.known_ids: dict[int, int] = {}  # and their train ids
        choice = f"one of {', '.join(space.names)}, or 'ignore'"
        for text, name in _read(path):
            if not text.isdecimal() or int(text) > MAX_ID:
                raise ValueError(f"{path} maps {text!r}, which is no id: its keys must be numbers from 0 to {MAX_ID}")
            if int(text) in self.known_ids:
                raise ValueError(f"{path} maps the id {int(text)} twice: leave one of the two")
            if name not in (*space.names, *NOT_TRAINED):
                raise ValueError(f"{path} maps {text} to {name!r}, which {space.name} does not have: write {choice}")
            self.known_ids[int(text)] = IGNORE if name in NOT_TRAINED else space.names.index(name)
        if all(train_id == IGNORE for train_id in self.known_ids.values()):
            raise ValueError(f"{path} maps no id to a class: write {choice} for each id")

    def to_train_ids(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Train ids of ids.

        Raises:
            ValueError: for an id that the file does not name.
        """
        unknown = [number for number in np.flatnonzero(np.bincount(ids.ravel())) if number not in self.known_ids]
        if unknown:
            raise ValueError(f'labels hold the id {unknown[0]}, which {self.path} does not name: add "{unknown[0]}"')
        table = np.full(MAX_ID + 1, IGNORE, np.int64)
        table[list(self.known_ids)] = list(self.known_ids.values())
        return np.asarray(table[ids])


def _read(path: Path) -> list[tuple[str, Any]]:
    """The pairs of a JSON object, also those that a dict would merge."""
    try:
        pairs: Any = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"the label map {path} cannot be read ({error}): give another --label-map") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError(f'{path} is no JSON object: write for instance {{"0": "road", "255": "ignore"}}')
    return pairs
