import numpy as np
import pytest

from training.label_spaces import IGNORE, LABEL_SPACES, SYNTHIA_TO_CITYSCAPES, VIPER_TO_CITYSCAPES, LabelSpace


def test_the_viper_benchmark_has_fifteen_classes_and_evaluates_all() -> None:
    assert VIPER_TO_CITYSCAPES.num_classes == 15
    assert VIPER_TO_CITYSCAPES.evaluated == tuple(range(15))


def test_the_synthia_benchmark_trains_the_fence_but_does_not_evaluate_it() -> None:
    assert SYNTHIA_TO_CITYSCAPES.num_classes == 12
    assert SYNTHIA_TO_CITYSCAPES.names[3] == "fence"
    assert SYNTHIA_TO_CITYSCAPES.evaluated == (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)


def test_viper_ids_become_the_published_train_ids() -> None:
    published = {
        2: 8,
        3: 0,
        4: 1,
        6: 7,
        7: 6,
        8: 6,
        9: 2,
        11: 3,
        13: 4,
        14: 5,
        20: 9,
        22: 14,
        23: 13,
        24: 10,
        26: 12,
        27: 11,
    }
    expected = [published.get(number, IGNORE) for number in range(32)]
    assert VIPER_TO_CITYSCAPES.to_train_ids(np.arange(32), "viper").tolist() == expected


def test_riders_of_cityscapes_are_persons_for_viper_and_riders_for_synthia() -> None:
    ids = np.array([[24, 25]], np.uint8)
    assert VIPER_TO_CITYSCAPES.to_train_ids(ids, "cityscapes").tolist() == [[9, 9]]
    assert SYNTHIA_TO_CITYSCAPES.to_train_ids(ids, "cityscapes").tolist() == [[9, 10]]


def test_lane_marking_of_synthia_is_ignored() -> None:
    assert SYNTHIA_TO_CITYSCAPES.to_train_ids(np.array([3, 12], np.uint16), "synthia").tolist() == [0, IGNORE]


@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=LABEL_SPACES)
def test_written_ids_are_read_back_as_the_same_train_ids(space: LabelSpace) -> None:
    labels = np.array([IGNORE, *range(space.num_classes)])
    for dataset in dict(space.classes[0].ids):
        assert np.array_equal(space.to_train_ids(space.to_dataset_ids(labels, dataset), dataset), labels)


def test_label_maps_are_coloured_and_ignored_pixels_are_black() -> None:
    colors = VIPER_TO_CITYSCAPES.color_labels(np.array([[0, IGNORE, 14]]))
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[128, 64, 128], [0, 0, 0], [119, 11, 32]]]
