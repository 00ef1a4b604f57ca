"""What says which dead letters are meant is checked before the database is asked."""

from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConfigError, OutboxBroker, make_outbox_table

ENGINE = create_async_engine("postgresql+asyncpg://database.invalid/nowhere")


@pytest.mark.parametrize("method", ["list", "count", "groups", "replay", "discard"])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"queue": 5}, "queue: must be a str, got 5"),
        ({"key": b"k"}, "key: must be a str, got b'k'"),
        ({"reason": ["rejected"]}, "reason: must be a str, got ['rejected']"),
        ({"exception": ValueError}, "exception: must be a str, got <class 'ValueError'>"),
        ({"ids": 7}, "ids: must be several integers, as in ids=[7], got 7"),
        ({"ids": "7"}, "ids: must be several integers, as in ids=[7], got '7'"),
    ],
)
async def test_another_type_is_refused(method: str, option: dict[str, Any], words: str) -> None:
    letters = OutboxBroker(ENGINE, outbox_table=make_outbox_table(MetaData()), logger=None).dead_letters
    with pytest.raises(ConfigError) as refused:
        await getattr(letters, method)(**option)
    assert str(refused.value) == words
