"""A place to put a table and ask about it."""

import pytest

from tests.eval.data.tables import Desk


@pytest.fixture
def desk(tmp_path, capsys) -> Desk:
    """An empty one."""
    return Desk(tmp_path, capsys)
