from typing import Any

import pytest
from sqlalchemy import MetaData

from faststream_outbox import Inbox, make_inbox_table


@pytest.fixture
def make_inbox() -> Any:
    return lambda consumer="billing", **options: Inbox(make_inbox_table(MetaData()), consumer=consumer, **options)


@pytest.fixture
def inbox(make_inbox: Any) -> Inbox:
    return make_inbox()
