"""What docs/models.md says a provider can do is what the tests prove, and nothing else."""

from __future__ import annotations

import pytest

from capabilities import PAGE, SERVED, recordings, servings, written
from documented import ASKED, CAPABILITIES, SHOWN, STREAMED, check
from formats import FORMATS, Untold
from shared_data import needs_shared
from tinygen.models import COMPATIBLE, NATIVE


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_each_format_does_what_its_documentation_says(capability: str, form: str) -> None:
    try:
        await check(capability, form)
    except Untold:
        assert capability in (*SHOWN, *ASKED)  # the protocol has no such thing


def test_each_capability_is_told_once() -> None:
    assert sorted([*SHOWN, *ASKED, *STREAMED]) == sorted(CAPABILITIES)


@needs_shared("wire")
def test_the_tables_of_the_page_are_what_the_tests_prove() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert page == written(page), "run scripts/models-table"


def test_the_page_knows_every_provider() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in {*COMPATIBLE, *NATIVE} if f"| `{name}` |" not in page] == []


@needs_shared("wire")
def test_every_capability_is_proven_by_more_than_documentation_somewhere() -> None:
    proven = {each for found in (*recordings().values(), *servings().values()) for each in found}

    assert set(CAPABILITIES) <= proven | {"cancelling"}
    assert all(kind == SERVED for found in servings().values() for kind in found.values())
