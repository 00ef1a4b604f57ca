from integration.broker.conftest import inbox, leaks, make_broker, observer_engine, session, table

__all__ = ("inbox", "leaks", "make_broker", "observer_engine", "session", "table")
