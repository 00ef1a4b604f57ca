"""For how long a database server has been running without losing anything."""

from datetime import datetime
from typing import NamedTuple


class Run(NamedTuple):
    """One run of a server: what was learned in it holds as long as the server says that it is the same.

    Another server has another run, for example a standby that is promoted in place of one that is lost. Both times are
    None where nothing is lost but with this process.
    """

    started: datetime | None
    """When its first process was started."""
    recovered: datetime | None
    """Of its statistics, which it begins anew when it recovers from the crash of one of its processes."""


NO_RUN = Run(None, None)
