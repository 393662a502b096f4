import math

import pytest

from serving.errors import QuotaError
from serving.quotas import Account, Bucket, Quota, unlimited
from tests.serving.conftest import LIMITS


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_gives_a_second_s_worth_at_once_and_then_its_rate(clock: Clock) -> None:
    bucket = Bucket(4, clock)
    for _ in range(4):
        assert bucket.wait_s() == 0
        bucket.take(1)
    assert bucket.wait_s() == pytest.approx(0, abs=0.002)
    assert bucket.wait_s() > 0
    clock.now += 0.25
    assert bucket.wait_s() == 0
    bucket.take(1)
    assert bucket.wait_s() > 0


def test_what_is_larger_than_a_second_s_worth_is_taken_once_and_paid_for(clock: Clock) -> None:
    bucket = Bucket(100, clock)
    bucket.take(1100)
    assert bucket.wait_s() == pytest.approx(10, abs=0.002)
    clock.now += 9.9
    assert bucket.wait_s() > 0
    clock.now += 0.11
    assert bucket.wait_s() == 0


def test_a_long_rest_saves_no_more_than_a_second_s_worth(clock: Clock) -> None:
    bucket = Bucket(2, clock)
    clock.now += 1e6
    bucket.take(2)
    assert bucket.wait_s() > 0


@pytest.mark.parametrize("per_s", [0.5, 3, 1000])
def test_in_the_long_run_a_rate_is_held_however_often_somebody_asks(clock: Clock, per_s: float) -> None:
    bucket, taken = Bucket(per_s, clock), 0
    for _ in range(5000):
        clock.now += 0.01
        if bucket.wait_s() == 0:
            bucket.take(1)
            taken += 1
    most = per_s * 50 + per_s + 1  # what was there, and one that was begun
    assert min(5000, per_s * 50) - 2 <= taken <= most


def test_waiting_as_long_as_it_says_is_enough(clock: Clock) -> None:
    account = Account("camera", Quota(frames_per_s=7, pixels_per_s=999), clock)
    for _ in range(50):
        clock.now += account.wait_s()
        assert account.wait_s() == 0
        account.charge_frame()
        account.charge_pixels(333)


def test_an_image_beyond_the_quota_is_refused_with_the_time_to_wait(clock: Clock) -> None:
    account = Account("camera", Quota(frames_per_s=1), clock)
    account.charge_image()
    clock.now += 0.5
    account.charge_image()
    with pytest.raises(QuotaError, match=r"^the frames per second of camera are used up: wait 0\.5 s$") as refused:
        account.charge_image()
    assert refused.value.retry_after_s == pytest.approx(0.5, abs=0.002)
    pixels = Account("camera", Quota(pixels_per_s=10), clock)
    pixels.charge_pixels(30)
    with pytest.raises(QuotaError, match=r"^the pixels per second of camera are used up: wait 2\.0 s$"):
        pixels.charge_image()


def test_streams_are_counted_in_and_out(clock: Clock) -> None:
    account = Account("camera", Quota(max_streams=2), clock)
    refused = pytest.raises(QuotaError, match=r"^all 2 streams of camera are taken$")
    with account.open_stream(), account.open_stream(), refused, account.open_stream():
        pass
    with account.open_stream():
        pass


def test_where_nobody_is_asked_nothing_is_counted() -> None:
    account = unlimited()
    account.charge_pixels(10**12)
    for _ in range(1000):
        account.charge_image()
    assert account.wait_s() == 0


def test_of_two_limits_the_tighter_one_holds() -> None:
    quota = Quota(max_frame_mb=0.5, max_frame_megapixels=0.25, idle_timeout_s=5, max_streams=100)
    limits = quota.tighten(LIMITS)
    assert (limits.max_frame_bytes, limits.max_frame_pixels, limits.idle_timeout_s) == (500_000, 250_000, 5)
    assert (limits.max_streams, limits.max_in_flight) == (LIMITS.max_streams, LIMITS.max_in_flight)
    assert Quota().tighten(LIMITS) == LIMITS
    assert math.isinf(Quota().frames_per_s)
