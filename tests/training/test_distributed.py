"""Two processes on CPUs, started by torchrun as a user would start them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.conftest import no_prerequisites
from training.command_line import Machine
from training.distributed import ALONE, Ranks, Value, launched_ranks
from training.recipe import Recipe
from training.run_directory import load_checkpoint
from training.trainer import train

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
COMMAND = (
    "-m", "training.train", "demo-source-only-one", "--device", "cpu", "--steps", "40", "--source-batch", "2",
    "--checkpoint-every", "5", "--source.num-clips", "6", "--source.size", "32", "64", "--target.num-clips", "2",
    "--target.size", "32", "64", "--target.num-frames", "2", "--augment-source",
    "--validation.data.num-clips", "2", "--validation.data.size", "32", "64",
)  # fmt: skip

Program = Callable[[str], Path]


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


def succeed(*command: object) -> None:
    finished = run(*command)
    assert finished.returncode == 0, finished.stderr[-3000:]


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(folder / "last.pt")["networks"]["segmenter"]
    return state


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Writes a program to a file."""

    def write(text: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def test_two_processes_train_the_weights_that_one_trains(program: Program, tmp_path: Path) -> None:
    """Where nothing but rounding can differ: no statistics of batches, and as many labelled pixels in each half."""
    path = program(
        """
        import sys
        from dataclasses import replace
        from pathlib import Path

        from training.command_line import Machine
        from training.data import World
        from training.distributed import connected, launched_ranks
        from training.methods.optimization import Sgd
        from training.methods.sfc import Sfc
        from training.methods.stage import StageTwo
        from training.models.accel import AccelConfig
        from training.models.flownet_s import FlowNetSConfig
        from training.recipe import Recipe
        from training.trainer import train
        from training.validation import SegmentationValidation

        source = World(look="source", size=(64, 64), num_clips=8, num_frames=2)
        flow_net = FlowNetSConfig(width=0.25)
        segmenter = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=flow_net)
        recipe = Recipe(
            method=Sfc(
                StageTwo(segmenter, optimizer=Sgd(learning_rate=0.2), freeze_bn=True),
                teacher_flow=flow_net, softmax_scale=1.0, flow_weight=1.0,
            ),
            source=source,
            target=replace(source, look="mid", num_frames=3),
            validation=SegmentationValidation(data=replace(source, look="mid", split="val", num_clips=2)),
            steps=int(sys.argv[2]),
            source_batch=4,
            target_batch=2,
        )
        real_updates = Sfc.updates


        def fully_labelled(method, networks, source, target):
            return real_updates(method, networks, source._replace(labels=source.labels.clamp(min=0)), target)


        Sfc.updates = fully_labelled
        with connected(ranks := launched_ranks()):
            train("tiny", recipe, Path(sys.argv[1]), lambda name: 1 / 0, Machine("cpu"), ranks=ranks)
        """
    )
    succeed(sys.executable, path, tmp_path / "none", 1)
    succeed(sys.executable, path, tmp_path / "one", 6)
    succeed(*TORCHRUN, path, tmp_path / "two", 6)
    none, one, two = (weights(tmp_path / name) for name in ("none", "one", "two"))
    moved = {name: float((one[name] - none[name]).abs().max()) for name in one}
    assert {name.split(".")[0] for name in one if moved[name] > 0} == {"merge", "flownet", "net_ref", "net_update"}
    for name in one:
        assert float((one[name] - two[name]).abs().max()) <= 2e-8 + 1e-4 * moved[name], name


def test_what_processes_exchange(program: Program) -> None:
    path = program(
        """
        import torch
        from torch import nn

        from training import distributed
        from training.distributed import connected, launched_ranks

        distributed.BUCKET_BYTES = 64  # several buckets


        def refuse_in_the_second(ranks):
            if not ranks.is_first:
                raise ValueError("the second")


        def is_raised(action, *arguments):
            try:
                action(*arguments)
            except ValueError as error:
                return str(error) == "the second"


        with connected(ranks := launched_ranks()):
            assert ranks.gather(10 * ranks.rank) == [0, 10]
            assert ranks.first(lambda: ranks.rank) == 0
            assert ranks.together(lambda: ranks.rank) == ranks.rank
            assert is_raised(ranks.together, refuse_in_the_second, ranks)

            network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1), nn.BatchNorm2d(2).eval())
            network.to(memory_format=torch.channels_last)
            first, norm, last, resting = network
            for parameter in first.parameters():
                parameter.grad = torch.full_like(parameter, 2.0 + 4 * ranks.rank)  # 2 and 6
            if ranks.is_first:
                norm.weight.grad = torch.ones_like(norm.weight)  # one process has no gradient of it
            ranks.average_gradients(network, 2)
            assert all(bool((parameter.grad == 4).all()) for parameter in first.parameters())
            assert bool((norm.weight.grad == 0.5).all())
            assert all(parameter.grad is None for parameter in last.parameters())

            for each in (norm, resting):
                each.running_var.fill_(1.0 + 2 * ranks.rank)  # 1 and 3
            ranks.average_statistics([network])
            assert bool((norm.running_var == 2).all())
            assert bool((resting.running_var == 1 + 2 * ranks.rank).all())

            torch.manual_seed(ranks.rank)
            nn.init.normal_(first.weight)
            ranks.equalize([network])
            sums = ranks.gather([tensor.sum().item() for tensor in network.state_dict().values()])
            assert sums[0] == sums[1]
        """
    )
    succeed(*TORCHRUN, path)


def test_an_error_in_one_process_stops_both_with_one_sentence(program: Program, tmp_path: Path) -> None:
    path = program(
        """
        import os
        import sys

        from training.methods.method import Update
        from training.methods.supervised import Supervised
        from training.train import main

        real_updates = Supervised.updates


        def diverging(method, networks, source, target):
            for update in real_updates(method, networks, source, target):
                factor = float("nan") if os.environ["RANK"] == "1" else 1.0
                yield Update(update.network, {name: factor * loss for name, loss in update.losses.items()})


        Supervised.updates = diverging
        main()
        """
    )
    finished = run(*TORCHRUN, path, *COMMAND[2:], "--out", tmp_path / "run")
    assert finished.returncode == 1  # torchrun's own
    assert "exitcode  : 2" in finished.stderr  # torchrun may end the other by SIGTERM, once the first has told
    assert "Traceback (most recent call last)" not in finished.stderr.partition("torch/distributed")[0]
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert "loss 'source' of 'segmenter' is nan at step 0" in error
    assert [each.name for each in tmp_path.iterdir()] == ["program.py"]


def test_a_mistake_is_told_once_and_leaves_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    finished = run(*TORCHRUN, *COMMAND, "--out", tmp_path / "run")
    assert "exitcode  : 2" in finished.stderr  # torchrun may end the other by SIGTERM, once the first has told
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert error.endswith("run exists: choose another --out, or go on with it by --resume")
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["precious"]


def test_killed_processes_go_on_to_the_same_bits_and_in_another_number_too(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [*TORCHRUN, *COMMAND, "--out", str(killed)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as launcher:  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not (killed / "last.pt").is_file():
            assert time.monotonic() < deadline
            assert launcher.poll() is None, "finished before it could be killed"
            time.sleep(0.002)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(children[-1]), signal.SIGKILL)  # torchrun ends the other
    assert launcher.returncode == 1
    assert 5 <= load_checkpoint(killed / "last.pt")["step"] < 40
    alone = tmp_path / "alone"
    succeed("cp", "-r", killed, alone)
    succeed(*TORCHRUN, *COMMAND, "--out", tmp_path / "whole")
    succeed(*TORCHRUN, *COMMAND, "--out", killed, "--resume")
    whole, resumed = weights(tmp_path / "whole"), weights(killed)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    succeed(sys.executable, *COMMAND, "--out", alone, "--resume")
    assert load_checkpoint(alone / "last.pt")["step"] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "killed", "whole"]
    for folder in (alone, killed, tmp_path / "whole"):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["step"] for line in lines] == [20, 40, 40]  # losses, losses, validation: written by one process
        assert len(list(folder.glob("tensorboard/*"))) == (1 if folder.name == "whole" else 2)


def test_what_a_recipe_starts_from_is_trained_by_both_processes_first(program: Program, tmp_path: Path) -> None:
    path = program(
        """
        from dataclasses import replace

        from training.recipe import NamedRecipe
        from training.recipes import RECIPES
        from training.train import main

        recipe = replace(RECIPES["demo-source-only-one"].recipe, steps=2)
        small = replace(recipe.source, size=(64, 64), num_clips=4)
        recipe = replace(recipe, source=small, validation=replace(recipe.validation, data=small))
        RECIPES["first"] = NamedRecipe("The first.", recipe)
        RECIPES["second"] = NamedRecipe("The second.", replace(recipe, start_from={"segmenter": "first:segmenter"}))
        main()
        """
    )
    succeed(*TORCHRUN, path, "second", "--out", tmp_path / "runs" / "second", "--device", "cpu")
    assert sorted(each.name for each in (tmp_path / "runs").iterdir()) == ["first", "second"]
    for name in ("first", "second"):
        run_file = json.loads((tmp_path / "runs" / name / "run.json").read_text(encoding="utf-8"))
        assert run_file["provenance"]["processes"] == "2"


def test_a_batch_that_cannot_be_shared_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    sentence = "tiny has source batches of 3, which 2 processes cannot share: choose a multiple of 2 by --source-batch"
    recipe = replace(tiny_recipe, source_batch=3)
    with pytest.raises(ValueError, match=sentence):
        train("tiny", recipe, tmp_path / "run", no_prerequisites, Machine("cpu"), ranks=PretendedRanks(0, 2))


class PretendedRanks(Ranks):
    """One of two, the other of which has nothing to say."""

    def gather(self, value: Value) -> list[Value]:
        return [value, value]


def test_slices_of_a_batch_are_all_of_it_in_order() -> None:
    batch = list(range(6))
    for size in (1, 2, 3, 6):
        assert [item for rank in range(size) for item in batch[Ranks(rank, size).slice_of(6)]] == batch


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched_ranks() == ALONE
    for name, number in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, number)
    assert launched_ranks() == Ranks(rank=5, size=8, local_rank=1)


def test_processes_do_not_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.distributed.choose_device", torch.device)
    with pytest.raises(ValueError, match="2 processes cannot share cuda:1: say --device cuda, and each takes its own"):
        Ranks(0, 2).device("cuda:1")
    assert Ranks(1, 2, 1).device("cpu") == torch.device("cpu")
