"""Find the public data beside the repository, and say which library versions a figure was measured with."""

from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class DataMissing(SystemExit):
    """Stop with exit status 3 and a line that names the missing folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(3)
        self.message = f"{folder}: no such folder; pass the data set's folder with --data DIR (nothing is downloaded)"


def default_folder(name: str) -> Path:
    """Return where a data set lies if somebody put it beside the repository: ../shared/data/<name>."""
    return REPOSITORY.parent / "shared" / "data" / name


def data_folder(name: str, given: Path | None) -> Path:
    """Return the folder to measure on.

    Raises:
        DataMissing: it does not exist; the process ends with status 3, so that a caller can tell it from a failure.
    """
    folder = given or default_folder(name)
    if not folder.is_dir():
        missing = DataMissing(folder)
        print(missing.message)
        raise missing
    return folder


def versions(*packages: str) -> str:
    """Return the installed versions, for the head of a report."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
