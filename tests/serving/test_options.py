import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from serving.options import ServerOptions

DEFAULTS = ServerOptions(bundles=(Path("bundle"),))


def parse(*arguments: str) -> ServerOptions:
    return tyro.cli(ServerOptions, args=arguments)


def test_a_bundle_is_all_it_takes() -> None:
    assert parse("bundle") == DEFAULTS
    DEFAULTS.check()


def test_several_bundles_are_named_one_after_the_other() -> None:
    assert parse("first", "second").bundles == (Path("first"), Path("second"))


def test_options_have_the_names_of_their_fields() -> None:
    options = parse("bundle", "--port", "0", "--size", "512x1024", "--max-frame-megapixels", "2.5", "--json")
    assert (options.port, options.max_frame_megapixels, options.json) == (0, 2.5, True)
    assert options.height_and_width() == (512, 1024)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bundles", (), "name at least one bundle to serve"),
        ("max_streams", 0, "--max-streams must be 1 or more, not 0"),
        ("max_open_streams", 0, "--max-open-streams must be 1 or more, not 0"),
        (
            "max_streams",
            257,
            "--max-streams 257 is more than the 256 streams of all models together: give a higher --max-open-streams",
        ),
        ("max_batch", -1, "--max-batch must be 1 or more, not -1"),
        ("max_in_flight", 0, "--max-in-flight must be 1 or more, not 0"),
        ("max_consecutive_errors", 0, "--max-consecutive-errors must be 1 or more, not 0"),
        ("codec_threads", 0, "--codec-threads must be 1 or more, not 0"),
        ("max_frame_mb", 0.0, "--max-frame-mb must be more than 0 and finite, not 0.0"),
        ("max_frame_mb", math.inf, "--max-frame-mb must be more than 0 and finite, not inf"),
        ("max_frame_megapixels", -1.0, "--max-frame-megapixels must be more than 0 and finite, not -1.0"),
        ("max_frame_megapixels", math.nan, "--max-frame-megapixels must be more than 0 and finite, not nan"),
        ("idle_timeout_s", 0.0, "--idle-timeout-s must be more than 0 and finite, not 0.0"),
        ("key_frame_interval", 0, "--key-frame-interval must be within 1..100000, not 0"),
        ("key_frame_interval", 100_001, "--key-frame-interval must be within 1..100000, not 100001"),
        ("trace_every", 0, "--trace-every must be 1 or more, not 0"),
        ("trace_every", 5, "--trace-every does nothing without --trace DESTINATION: give both"),
        ("metrics_streams", -1, "--metrics-streams must be 0 or more and finite, not -1"),
        ("port", -1, "--port must be within 0..65535, not -1"),
        ("http_port", 65536, "--http-port must be within 0..65535, not 65536"),
        ("admin_port", 65536, "--admin-port must be within 0..65535, not 65536"),
        ("threads", -1, "--threads must be 0 or more and finite, not -1"),
        ("grace_s", -0.5, "--grace-s must be 0 or more and finite, not -0.5"),
        ("resume_s", math.nan, "--resume-s must be 0 or more and finite, not nan"),
        ("record_drift_mb", 0.0, "--record-drift-mb must be more than 0 and finite, not 0.0"),
        ("drift_threshold", math.nan, "--drift-threshold must be more than 0 and finite, not nan"),
        ("record_drift_frames", 10, "--record-drift-frames must be 11 or more, not 10"),
        ("record_drift_mb", 9.0, "--record-drift-mb does nothing without --record-drift DIR: give both"),
        ("record_drift_frames", 60, "--record-drift-frames does nothing without --record-drift DIR: give both"),
        ("drift_threshold", 4.0, "--drift-threshold does nothing without --record-drift DIR: give both"),
        ("device", "cpu,cuda:1", "--device cpu,cuda:1 mixes cpu and cuda: run a server for each kind"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_the_name_of_its_option(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        replace(DEFAULTS, **{field: value}).check()


def test_recording_takes_effect_with_a_folder(tmp_path: Path) -> None:
    replace(DEFAULTS, record_drift=tmp_path, record_drift_mb=9.0, record_drift_frames=60, drift_threshold=4.0).check()


def test_clients_are_held_to_the_options() -> None:
    limits = replace(DEFAULTS, max_frame_mb=1.5, max_frame_megapixels=0.25, max_streams=3, idle_timeout_s=9).limits()
    assert (limits.max_frame_bytes, limits.max_frame_pixels) == (1_500_000, 250_000)
    assert (limits.max_streams, limits.idle_timeout_s, limits.default_key_frame_interval) == (3, 9, 5)


@pytest.mark.parametrize(("max_in_flight", "default"), [(64, 8), (3, 3)])
def test_the_default_in_flight_is_no_more_than_the_limit(max_in_flight: int, default: int) -> None:
    assert replace(DEFAULTS, max_in_flight=max_in_flight).limits().default_in_flight == default
