from pathlib import Path

import grpc
import pytest

from serving.bundle import Bundle
from serving.bundle_roots import BundleRoots
from serving.errors import ModelLoadError
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import open_admin_stub, serve_here, served_model, write_toy_bundle
from tests.serving.conversations import in_asyncio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a bundle in it, and one beside it."""
    (tmp_path / "root").mkdir()
    write_toy_bundle(tmp_path / "root" / "inside", version="2")
    write_toy_bundle(tmp_path / "outside", version="3")
    return tmp_path / "root"


def test_a_bundle_below_a_root_is_found_by_its_path_or_from_the_root(root: Path) -> None:
    roots = BundleRoots((root.parent / "nothing", root), ())
    for name in (str(root / "inside"), "inside", "./inside/../inside", f"{root}/../root/inside"):
        assert roots.find(name) == root / "inside"


def test_a_bundle_of_the_command_line_may_be_loaded_again_and_nothing_beside_it(root: Path) -> None:
    roots = BundleRoots((), (root / "inside",))
    assert roots.find(str(root / "inside")) == root / "inside"
    for name in (root, root.parent / "outside", root / "inside" / "key.onnx"):
        with pytest.raises(ModelLoadError, match="is in no folder that this server loads bundles from"):
            roots.find(str(name))


@pytest.mark.parametrize(
    "name",
    [
        "/etc",
        "/",
        "../outside",
        "inside/../../outside",
        "link-out",
        "link-out/key.onnx",
        "loop/inside",
        "nul\0",
        "x" * 5000,
        "..",
        "../root-of-the-same-beginning",
    ],
)
def test_nothing_leads_out_of_a_root(root: Path, name: str) -> None:
    (root / "link-out").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to(root / "loop")
    (root.parent / "root-of-the-same-beginning").mkdir()
    with pytest.raises(ModelLoadError) as refused:
        BundleRoots((root,), ()).find(name)
    assert str(root.parent) not in str(refused.value)  # no path of the server is told


def test_a_link_within_a_root_is_followed_and_a_file_that_leads_out_is_not(root: Path) -> None:
    (root / "current").symlink_to(root / "inside")
    roots = BundleRoots((root,), ())
    assert roots.find("current") == root / "inside"
    (root / "inside" / "step.onnx").unlink()
    (root / "inside" / "step.onnx").symlink_to(root.parent / "outside" / "step.onnx")
    with pytest.raises(ModelLoadError, match=r"step\.onnx leads out of the folders"):
        roots.find("current")


@in_asyncio
async def test_an_administrator_loads_from_the_roots_alone(toy_bundle: Bundle, root: Path) -> None:
    """What lies elsewhere and what does not exist are answered alike."""
    async with (
        serve_here(served_model(toy_bundle), roots=BundleRoots((root,), ())) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub, sentences = open_admin_stub(channel), set()
        for path in (root.parent / "outside", root.parent / "nothing", Path("/etc")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.LoadModel(pb.LoadModelRequest(bundle=str(path)))
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            sentences.add((refused.value.details() or "").replace(str(path), "PATH"))
        assert len(sentences) == 1
        loaded = await stub.LoadModel(pb.LoadModelRequest(bundle="inside"))
        assert loaded.model.version == "2"
