"""The command line, for people who run an outbox. It needs the extra ``cli`` and no code of the application."""
