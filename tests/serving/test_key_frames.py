import pytest

from serving.key_frames import FixedInterval
from serving.results import StepResult
from tests.serving.conftest import step_result


def result(age: int) -> StepResult:
    return step_result(key_frame_age=age)


@pytest.mark.parametrize(
    ("interval", "due"),
    [
        (1, [False, True, True, True, True]),
        (2, [False, False, True, True, True]),
        (4, [False, False, False, False, True]),
    ],
)
def test_a_refresh_is_due_once_the_key_frame_is_as_old_as_the_interval(interval: int, due: list[bool]) -> None:
    assert [FixedInterval(interval).is_due(result(age)) for age in range(5)] == due


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_one_is_refused(interval: int) -> None:
    with pytest.raises(ValueError, match=f"the key-frame interval is {interval}: it must be 1 or more frames"):
        FixedInterval(interval)


@pytest.mark.parametrize(("age", "refreshes_key", "is_key"), [(0, False, True), (3, True, True), (3, False, False)])
def test_a_key_frame_is_one_that_leaves_its_own_key_state(age: int, refreshes_key: bool, is_key: bool) -> None:
    answered = StepResult(**(vars(result(age)) | {"refreshes_key": refreshes_key}))
    assert answered.is_key == is_key
