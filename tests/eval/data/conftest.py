"""A fixture for writing a table and running commands on it."""

import pytest

from tests.eval.data.tables import Desk


@pytest.fixture
def desk(tmp_path, capsys) -> Desk:
    """A desk without a table."""
    return Desk(tmp_path, capsys)
