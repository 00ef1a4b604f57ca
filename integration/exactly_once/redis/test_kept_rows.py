"""A row that is delivered, and that the database refuses to delete, is not sent again by the next process."""

import pytest

from integration.exactly_once.test_kept_rows import WAYS, let_processes_follow

from .shop import RedisShop


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_row_that_the_table_keeps_is_sent_once(redis_shop: RedisShop, way: str) -> None:
    await let_processes_follow(redis_shop, way)
