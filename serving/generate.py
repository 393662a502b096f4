"""Writes `serving/generated` from `proto/`: messages, their types, and stubs. Run by `make proto`.

`proto/` is mapped to where the stubs lie, so they import each other as `serving.generated.flowseg.v1...`.
"""

import logging
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parent.parent
SCHEMA = "serving/generated/flowseg/v1/segmentation.proto"


def generate(root: Path) -> None:
    """Writes the stubs under `root`, as the repository has them under its own.

    Raises:
        ValueError: if the schema does not compile; protoc has said why on stderr.
    """
    well_known_types = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    mappings = [f"-Iserving/generated={REPOSITORY / 'proto'}", f"-I{well_known_types}"]
    if protoc.main(["protoc", *mappings, *outputs, SCHEMA]) != 0:
        raise ValueError(f"{SCHEMA} does not compile")


def main() -> int:
    """Writes the stubs into the repository."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        generate(REPOSITORY)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    logger.info("wrote %s", REPOSITORY / "serving" / "generated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
