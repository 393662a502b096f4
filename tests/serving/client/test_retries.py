"""When a call is made again, by a clock that the tests hold."""

import grpc
import pytest

from serving.client.failures import CallError, Failure
from serving.client.retries import Attempts, Retry

GONE = Failure(code=grpc.StatusCode.UNAVAILABLE, message="connection refused")
STARTING = Failure(
    code=grpc.StatusCode.UNAVAILABLE, message="it starts", reason="UNAVAILABLE", retry_after_s=1.0, asks_to_retry=True
)
FULL = Failure(
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="all places are taken",
    reason="STREAM_LIMIT",
    retry_after_s=1.0,
    asks_to_retry=True,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(clock: Clock, jitter: float = 0.0, **fields: float) -> Attempts:
    return Attempts(Retry(**fields), "here:1", clock=clock, jitter=lambda: jitter)  # type: ignore[arg-type]  # by name


def test_pauses_double_up_to_the_longest_and_an_answer_sets_them_back() -> None:
    tries = attempts(Clock(), first_delay_s=0.5, max_delay_s=3.0)
    assert [tries.fail(GONE, was_accepted=True) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    tries.succeed()
    assert tries.fail(GONE, was_accepted=True) == 0.5


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    assert attempts(Clock(), jitter=1.0, first_delay_s=0.5).fail(GONE, was_accepted=True) == 0.25


def test_no_attempt_comes_sooner_than_the_server_says() -> None:
    assert attempts(Clock(), first_delay_s=0.1).fail(STARTING, was_accepted=False) == 1.0


def test_attempts_end_by_number() -> None:
    tries = attempts(Clock(), max_attempts=2)
    tries.fail(GONE, was_accepted=True)
    tries.fail(GONE, was_accepted=False)
    with pytest.raises(CallError, match=r"with UNAVAILABLE and did not serve in 2 more attempts \(0\.0 s\): conn"):
        tries.fail(GONE, was_accepted=False)


def test_attempts_end_by_time_and_the_last_pause_ends_with_it() -> None:
    clock = Clock()
    tries = attempts(clock, outage_s=10.0, first_delay_s=4.0, max_delay_s=8.0)
    assert tries.fail(GONE, was_accepted=True) == 4.0
    clock.now += 4
    assert tries.fail(GONE, was_accepted=False) == 6.0
    clock.now += 6
    with pytest.raises(CallError, match=r"did not serve in 2 more attempts \(10\.0 s\)"):
        tries.fail(GONE, was_accepted=False)


def test_a_server_that_was_never_heard_of_is_waited_for_less_than_one_that_was() -> None:
    clock = Clock()
    unknown, known = (attempts(clock, connect_s=1.0, outage_s=50.0) for _ in range(2))
    unknown.fail(GONE, was_accepted=False)
    known.fail(STARTING, was_accepted=False)
    clock.now += 2
    with pytest.raises(CallError, match=r"^no server answers at here:1: "):
        unknown.fail(GONE, was_accepted=False)
    known.fail(GONE, was_accepted=False)


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED])
def test_what_flowseg_itself_ends_stays_ended(code: grpc.StatusCode) -> None:
    attempts(Clock()).fail(Failure(code=code, message="RST_STREAM"), was_accepted=True)
    with pytest.raises(CallError, match=f"^the server ended the call with {code.name}: it meant it$"):
        attempts(Clock()).fail(Failure(code=code, message="it meant it", reason="X"), was_accepted=True)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
def test_what_another_attempt_would_not_mend_is_not_tried_again(code: grpc.StatusCode) -> None:
    with pytest.raises(CallError, match="no"):
        attempts(Clock()).fail(Failure(code=code, message="no"), was_accepted=True)


def test_a_place_is_waited_for_only_by_those_who_are_patient_and_never_in_the_middle() -> None:
    with pytest.raises(CallError, match="all places are taken"):
        attempts(Clock()).fail(FULL, was_accepted=False)
    assert attempts(Clock(), patience_s=5.0).fail(FULL, was_accepted=False) == 1.0
    with pytest.raises(CallError, match="all places are taken"):
        attempts(Clock(), patience_s=5.0).fail(FULL, was_accepted=True)
    too_large = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="larger than max")
    with pytest.raises(CallError, match="larger than max"):
        attempts(Clock(), patience_s=5.0).fail(too_large, was_accepted=False)


@pytest.mark.parametrize(
    "field", ["connect_s", "outage_s", "max_attempts", "first_delay_s", "max_delay_s", "patience_s"]
)
def test_bounds_that_are_none_are_refused(field: str) -> None:
    for value in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"^{field} must be 0 or more and finite, it is "):
            Retry(**{field: value}).check()  # type: ignore[arg-type]  # by name
