"""Every setting and verb is documented: the reference pages are generated, and committed as generated."""

from pathlib import Path

import pytest

from fettle.reference import PAGES
from fettle.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_page_is_as_generated(path):
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path](), (
        f"{path} is behind the code: run python -m fettle.reference"
    )


def test_every_setting_has_a_description():
    assert [name for name, info in Settings.model_fields.items() if not (info.description or "").endswith(".")] == []
