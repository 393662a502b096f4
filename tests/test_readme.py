"""The README's commands, pictures and example are what they say."""

import re
import shlex
import subprocess
import sys
import textwrap
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *((ROOT / wing / "README.md").read_text(encoding="utf-8") for wing in ("training", "export"))]
SHOWN = re.sub(r"torchrun --nproc_per_node \d", "python", "\n".join(PAGES))  # starts the same programs
COMMANDS = sorted(set(re.findall(r"^    +(python [^#\n]*[^# \n])", SHOWN, re.MULTILINE)))
WITH_SUBCOMMANDS = ("training.train", "training.data.check")


@lru_cache
def help_of(program: tuple[str, ...]) -> str:
    answer = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_and_its_options_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    program = words[:2] if words[0] == "-m" else words[:1]
    if program[-1] in WITH_SUBCOMMANDS and not words[2].startswith("-"):
        program = words[:3]
    text = help_of(tuple(program))
    for option in (word for word in words[len(program) :] if word.startswith("--")):
        assert option in text, option


@pytest.mark.parametrize("page", ["README.md", "training/README.md", "export/README.md", "proto/README.md"])
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([a-z]+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_example_method_trains(tmp_path: Path) -> None:
    """As a reader would: in a file of its own, listed in the table, one step on random clips."""
    (example,) = re.findall(r"```python\n(@dataclass.*?)```", README, re.DOTALL)
    program = f"""
        import math
        from collections.abc import Iterator
        from dataclasses import dataclass

        import torch

        from training.data.clip import Clip, LabelledClip
        from training.methods import METHODS
        from training.methods.method import Networks, Update
        from training.methods.stage import StagedMethod, StageOne
        from training.models.per_frame import PerFrameConfig

        {textwrap.indent(example, " " * 8).strip()}

        METHODS["minimum_entropy"] = MinimumEntropy
        method = METHODS["minimum_entropy"](StageOne(PerFrameConfig("resnet10_slim")))
        networks = method.networks(4)
        method.optimizers(networks)
        source = LabelledClip(
            torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 32, 32, dtype=torch.long), torch.zeros(1, 8, 8).long()
        )
        (update,) = method.updates(networks, source, Clip(torch.rand(1, 2, 3, 32, 32)))
        assert set(update.losses) == {{"source", "entropy"}}
        assert 0 < float(update.losses["entropy"].detach()) <= method.entropy_weight * 1.0001
        sum(update.losses.values()).backward()
        assert networks["segmenter"].segnet.conv1.weight.grad.abs().sum() > 0
    """
    path = tmp_path / "example.py"
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    subprocess.run([sys.executable, str(path)], cwd=ROOT, check=True)
