from pathlib import Path

import pytest

from serving.admin import AdminService
from serving.generate import REPOSITORY, generate
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.service import SegmentationService


def files(root: Path) -> dict[str, bytes]:
    stubs = (root / "serving" / "generated").rglob("*_pb2*")
    return {str(path.relative_to(root)): path.read_bytes() for path in stubs if "__pycache__" not in path.parts}


def test_the_stubs_are_what_the_schema_gives(tmp_path: Path) -> None:
    generate(tmp_path)
    assert len(files(tmp_path)) == 3
    assert files(REPOSITORY) == files(tmp_path), "run 'make proto'"


@pytest.mark.parametrize(("service", "num_rpcs"), [(SegmentationService, 5), (AdminService, 5)])
def test_the_service_answers_every_rpc_of_the_schema(service: type, num_rpcs: int) -> None:
    """An RPC that nobody wrote would be answered by the generated base class, with UNIMPLEMENTED."""
    rpcs = {rpc.name for rpc in pb.DESCRIPTOR.services_by_name[service.__name__].methods}
    assert len(rpcs) == num_rpcs
    assert rpcs <= vars(service).keys()
