"""What tests leave to `./scripts/test.sh --full`."""

from typing import Any

import pytest


def in_full(*values: Any) -> list[Any]:
    """Parameters with which a test is left to `./scripts/test.sh --full`.

    They are further instances of what the others test at each change.
    """
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.full)
        for value in values
    ]
