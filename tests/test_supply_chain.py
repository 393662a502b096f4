"""What is installed is what was pinned."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
INSTALLED_EXTRAS = ("training", "cpu", "gpu", "openvino", "dev")  # by `make`; a machine has one of cpu and gpu


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [project["project"]["optional-dependencies"][extra] for extra in INSTALLED_EXTRAS]
    return [
        Requirement(line)
        for line in sum(lists, project["project"]["dependencies"] + project["build-system"]["requires"])
    ]


def installed(requirements: list[Requirement]) -> dict[str, str]:
    """Versions of what the requirements brought in, with all that those need."""
    versions: dict[str, str] = {}
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        versions[canonicalize_name(requirement.name)] = found.version
        for line in found.requires or []:
            needed = Requirement(line)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return versions


def test_every_installed_package_has_the_version_that_is_pinned() -> None:
    pinned = pins()
    found = {name: Version(version).public for name, version in installed(wanted()).items()}  # torch's ends in +cpu
    assert len(found) > 50
    found.pop("pip")  # came with Python
    assert found == {name: pinned.get(name) for name in found}


def test_a_pin_is_of_one_version_and_stands_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert len(pins()) == sum(not line.startswith("#") for line in lines)
    for version in pins().values():
        assert str(Version(version))
