import re
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2  # type: ignore[import-untyped]  # it ships no py.typed

from serving import errors
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.statuses import STATUSES, status_of

PAGE = (Path(__file__).parents[2] / "proto" / "README.md").read_text(encoding="utf-8")


def test_every_error_that_may_end_a_call_has_a_status() -> None:
    """A dropped frame ends none."""
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ServingError) and kind is not errors.ServingError
    }
    assert {kind for kind in kinds if not any(issubclass(kind, listed) for listed in STATUSES)} == {
        errors.FrameDroppedError
    }


def test_a_kind_of_its_own_comes_before_what_it_is_a_kind_of() -> None:
    assert status_of(errors.DeviceMemoryError("")).code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(errors.StreamClosedError("")).code == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "kind", [kind for kind in STATUSES if not kind.__name__.startswith(("Model", "Last", "StreamNot"))]
)
def test_the_page_for_client_authors_has_the_status_of_every_error_of_a_stream(kind: type[errors.ServingError]) -> None:
    status = STATUSES[kind]
    assert re.search(rf"^\\| {status.code.name} \\| {status.reason} \\|", PAGE, re.MULTILINE)


def test_the_page_names_values_that_the_schema_has() -> None:
    shown = set(re.findall(r"FRAME_KIND_[A-Z]+", PAGE))
    assert shown
    assert shown <= set(pb.FrameKind.keys())
    assert code_pb2.Code.Value("RESOURCE_EXHAUSTED") == 8
