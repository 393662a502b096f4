"""Which folders bundles may be loaded from while the server runs: those that its operator has named."""

from collections.abc import Sequence
from pathlib import Path

from serving.errors import ModelLoadError

MAX_FILES = 1000  # of a bundle's folder


class BundleRoots:
    """Folders below which bundles may lie, and single bundles."""

    def __init__(self, roots: Sequence[Path], bundles: Sequence[Path]) -> None:
        """Takes the roots, and the bundles of the command line, which may be loaded again."""
        self._roots, self._bundles = roots, bundles

    def find(self, name: str) -> Path:
        """The folder of a bundle, with all links followed: a path, or one that starts below a root.

        What is not below a root and what does not exist there are told apart only below a root.

        Raises:
            ModelLoadError: if it is not in a folder that was named.
        """
        try:
            candidates = [Path(name)] if Path(name).is_absolute() else [root / name for root in self._roots]
            resolved = [candidate.resolve() for candidate in candidates]
            named = {bundle.resolve() for bundle in self._bundles}
            below = [path for path in resolved if path in named or self._contains(path)]
            found = next((path for path in below if path.is_dir()), None) or next(iter(below), None)
            if found is None:
                raise ModelLoadError(
                    f"{name[:200]!r} is in no folder that this server loads bundles from:"
                    " its operator names them with --bundle-root"
                )
            if found not in named:
                self._check_files(found)
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, a name too long, a loop of links
            raise ModelLoadError(f"{name[:200]!r} is no path of a bundle") from error
        return found

    def _contains(self, path: Path) -> bool:
        return any(path.is_relative_to(root.resolve()) for root in self._roots)

    def _check_files(self, folder: Path) -> None:
        """Refuses a bundle whose files are links to elsewhere."""
        if not folder.is_dir():
            return  # whoever reads it says so
        for index, path in enumerate(folder.iterdir()):
            if index == MAX_FILES:
                raise ModelLoadError(f"{folder} has more than {MAX_FILES} files: it is no bundle")
            if not self._contains(path.resolve()):
                raise ModelLoadError(f"{path} leads out of the folders that this server loads bundles from")
