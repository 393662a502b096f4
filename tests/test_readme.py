"""The README's commands, pictures and example are what they say."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING_README, EXPORT_README, SECURITY = (
    (ROOT / page).read_text(encoding="utf-8")
    for page in ("training/README.md", "export/README.md", "serving/SECURITY.md")
)
PAGES = [README, TRAINING_README, EXPORT_README, SECURITY]
EXAMPLE, EXAMPLE_RECIPE = "noise_consistency.py", "demo-noise-one"  # a file that a page shows, run below
SHOWN = re.sub(r"torchrun --nproc_per_node \d", "python", "\n".join(PAGES))  # starts the same programs
COMMANDS = sorted(set(re.findall(r"^    +(python [^#\n]*[^# \n])", SHOWN, re.MULTILINE)))
WITH_SUBCOMMANDS = ("training.train", "training.data.check")


@lru_cache
def help_of(program: tuple[str, ...]) -> str:
    answer = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", [command for command in COMMANDS if EXAMPLE not in command])
def test_a_command_and_its_options_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    program = words[:2] if words[0] == "-m" else words[:1]
    if program[-1] in WITH_SUBCOMMANDS and not words[2].startswith("-"):
        program = words[:3]
    text = help_of(tuple(program))
    for option in (word for word in words[len(program) :] if word.startswith("--")):
        assert option in text, option


def test_recipes_that_a_page_names_exist() -> None:
    named = set(re.findall(r"-m training\.(?:pipeline|train) ([a-z][a-z-]+[a-z])(?![.\w])", SHOWN))
    named |= set(re.findall(r"`((?:demo|viper|synthia|cityscapes)-[a-z-]+)`", SHOWN))
    assert len(named) > 20
    assert named <= set(RECIPES)


@pytest.mark.parametrize(
    "page", ["README.md", "training/README.md", "export/README.md", "proto/README.md", "serving/SECURITY.md"]
)
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
    """As a reader would: in a file of its own, beside a run that it starts from."""
    (example,) = re.findall(r"```python\n(.*?)```", TRAINING_README, re.DOTALL)
    assert len(example.splitlines()) < 60
    program = tmp_path / EXAMPLE
    program.write_text(example, encoding="utf-8")
    tiny = ["--steps", "1", "--device", "cpu"]
    for domain in ("source", "target", "validation.data"):
        tiny += [f"--{domain}.num-clips", "4", f"--{domain}.size", "32", "64"]
    runs = tmp_path / "runs"
    for command, recipe in ((("-m", "training.train"), "demo-source-only-one"), ((str(program),), EXAMPLE_RECIPE)):
        arguments = [*command, recipe, "--out", str(runs / recipe), *tiny]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    run = json.loads((runs / EXAMPLE_RECIPE / "run.json").read_text(encoding="utf-8"))
    assert run["recipe"]["method"]["_type"] == "NoiseConsistency"
