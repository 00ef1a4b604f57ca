import pytest

# Its asserts are to explain themselves like those of a test file.
pytest.register_assert_rewrite("tests.store.suite", "tests.store.machine")
