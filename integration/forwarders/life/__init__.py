"""A random life of publishers, relays and destinations on a real table, and what must be true all along."""

import pytest

# Their asserts are to explain themselves like those of a test file.
for name in ("machine", "model", "stage"):
    pytest.register_assert_rewrite(f"{__name__}.{name}")
