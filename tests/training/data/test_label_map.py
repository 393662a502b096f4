from pathlib import Path

import numpy as np
import pytest

from training.data.label_map import LabelMap
from training.label_spaces import IGNORE, VIPER_TO_CITYSCAPES


def written(folder: Path, text: str) -> LabelMap:
    (folder / "map.json").write_text(text, encoding="utf-8")
    return LabelMap(folder / "map.json", VIPER_TO_CITYSCAPES)


def test_ids_become_the_train_ids_of_the_classes_they_are_mapped_to(tmp_path: Path) -> None:
    label_map = written(tmp_path, '{"1": "sky", "2": "road", "3": null, "4": "road", "255": "ignore"}')
    ids = np.array([[1, 2, 3], [4, 255, 1]], np.uint8)
    assert label_map.to_train_ids(ids).tolist() == [[8, 0, IGNORE], [0, IGNORE, 8]]
    assert sorted(label_map.known_ids) == [1, 2, 3, 4, 255]


def test_an_id_that_the_map_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'labels hold the id 9, which .*map\.json does not name: add "9"'):
        written(tmp_path, '{"1": "sky"}').to_train_ids(np.array([[1, 9]], np.uint8))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"1": "sidewolk"}', "maps 1 to 'sidewolk', which viper-to-cityscapes does not have: write one of road, side"),
        ('{"1": ["road"]}', r"maps 1 to \['road'\]"),
        ('{"road": "1"}', "maps 'road', which is no id: its keys must be numbers from 0 to 255"),
        ('{"256": "road"}', "maps '256', which is no id"),
        ('{"1": "road", "01": "sky"}', "maps the id 1 twice"),
        ('{"1": null}', "maps no id to a class"),
        ("{}", "maps no id to a class"),
        ('["road"]', "is no JSON object"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_maps_that_cannot_be_used_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        written(tmp_path, text)
