"""Fuzzing that is guided by what code an input reaches, with Atheris: `python -m benchmarks.reliability_guided TARGET`.

    pip install -e '.[fuzz]'    # Atheris has wheels for Linux and some versions of Python

Inputs that reach new code are kept and changed further, so it gets deeper into code in Python than blind changes do;
what native libraries do it does not see. Ends with an exit status other than 0 at the first defect, and leaves the
input in OUT.
"""

import json
import sys
import tempfile
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.reliability import TARGETS

OURS = ("serving.", "training.")  # what is watched


@dataclass(frozen=True, kw_only=True)
class Options:
    """Fuzzes one target with Atheris."""

    target: Annotated[str, tyro.conf.Positional]  # name, as of `benchmarks.reliability fuzz`
    inputs: int = 100_000  # that are tried
    seed: int = 1  # of the inputs; 0 takes another one each time
    hang_s: int = 20  # seconds without an answer to one input that are a hang
    memory_mb: int = 4096  # of the process, above which it ends
    out: Path = Path("runs/reliability/guided")  # folder for an input that shows a defect


def watch_code() -> int:
    """Has Atheris watch all functions of ours that are loaded; how many these are."""
    import atheris

    functions: list[types.FunctionType] = []
    for name, module in list(sys.modules.items()):
        if name.startswith(OURS) and not name.startswith("serving.generated"):
            members = [member for owner in (module, *_classes(module)) for member in vars(owner).values()]
            functions += [member for member in members if isinstance(member, types.FunctionType)]
    ours = {function for function in functions if (function.__module__ or "").startswith(OURS)}
    for function in ours:
        atheris.instrument_func(function)
    return len(ours)


def _classes(module: types.ModuleType) -> list[type]:
    return [
        member for member in vars(module).values() if isinstance(member, type) and member.__module__ == module.__name__
    ]


def main() -> None:
    """Runs the command line; Atheris ends the process itself."""
    options = tyro.cli(Options, prog="python -m benchmarks.reliability_guided", description=__doc__)
    try:
        import atheris
    except ImportError:
        sys.exit("error: Atheris is not installed: pip install -e '.[fuzz]'")
    if options.target not in TARGETS:
        sys.exit(f"error: there is no target {options.target!r}: choose from {', '.join(TARGETS)}")
    target, folder = TARGETS[options.target], Path(tempfile.mkdtemp())
    subject = target.open(folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(content)
    options.out.mkdir(parents=True, exist_ok=True)
    counts = {"watched_functions": watch_code(), "inputs": 0, "refused": 0, "accepted": 0}

    def try_one(content: bytes) -> None:
        counts["inputs"] += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                subject.feed(content)
            counts["accepted"] += 1
        except target.refusals:
            counts["refused"] += 1
        if counts["inputs"] == options.inputs:  # Atheris leaves without a word
            sys.stdout.write(json.dumps({"target": target.name, **counts}) + "\n")
            sys.stdout.flush()

    arguments = (
        f"-runs={options.inputs}", f"-seed={options.seed}", f"-timeout={options.hang_s}",
        f"-rss_limit_mb={options.memory_mb}", f"-artifact_prefix={options.out}/{target.name}-", "-verbosity=0",
        "-max_len=65536", str(corpus),
    )  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
