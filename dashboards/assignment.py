"""The reason of an assignment in words: why this engineer and not another."""

from collections.abc import Mapping
from typing import Any

from fettle.words import Language


def explain_assignment(reason: Mapping[str, Any], language: Language) -> list[str]:
    """Return the reason that dispatch recorded as sentences; those it wrote itself come first."""
    written = reason.get(language) or reason.get("words") or reason.get("summary")
    if isinstance(written, Mapping):
        written = written.get(language)
    if isinstance(written, str):
        return [line for line in written.splitlines() if line]
    if isinstance(written, list):
        return [str(sentence) for sentence in written]
    return []
