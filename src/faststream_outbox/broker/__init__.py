"""The broker and FastStream's own kind of router."""
