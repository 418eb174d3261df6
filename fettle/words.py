"""Sentences in both languages, and the error that names each field of an input that needs attention."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from fettle.errors import FettleError

Language = Literal["en", "zh"]


class Words(NamedTuple):
    """One sentence in both languages; `{names}` are filled from an error's data."""

    en: str
    zh: str

    def say(self, language: Language, data: Mapping[str, object]) -> str:
        return (self.zh if language == "zh" else self.en).format(**data)


class FieldProblem(NamedTuple):
    """What is wrong with one field of a request, and what to do about it."""

    field: str
    code: str
    words: Words


class InvalidFields(FettleError):
    """The request has {count} invalid field(s)."""

    def __init__(self, fields: Sequence[FieldProblem], **data: object) -> None:
        self.fields = tuple(fields)
        super().__init__(count=len(self.fields), **data)
