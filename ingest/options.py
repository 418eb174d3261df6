"""What one collector is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path

from ingest.session import Address
from ingest.spool import Spool
from ingest.writer import WriterOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorOptions:
    """What one collector does."""

    name: str
    address: Address
    topics: tuple[str, ...]
    shared_group: str = ""
    receive_maximum: int = 10_000
    version: str = "auto"
    keep_alive_s: int = 30
    writer: WriterOptions = field(default_factory=WriterOptions)
    spool_folder: Path | None = None  # None: hold
    spool_max_bytes: int = 4 << 30

    def open_spool(self) -> Spool:
        assert self.spool_folder is not None
        return Spool(self.spool_folder, max_bytes=self.spool_max_bytes)

    def filters(self) -> list[str]:
        if not self.shared_group:
            return list(self.topics)
        return [f"$share/{self.shared_group}/{topic}" for topic in self.topics]
