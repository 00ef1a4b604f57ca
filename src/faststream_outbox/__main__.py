"""The command ``faststream-outbox``, which is also ``python -m faststream_outbox``."""

import sys
from importlib.util import find_spec

NEEDED = ("typer", "rich")
USAGE = 2


def main() -> None:
    """Run the command line; without the extra that brings what it needs, name that and exit with 2."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"faststream-outbox: {' and '.join(missing)} not installed; the command line needs the extra 'cli':\n"
            "    pip install '.[cli]'    # in a checkout of its repository; or the wheel's file name with [cli]\n"
        )
        sys.exit(USAGE)
    # Not before: what it needs may be missing.
    from faststream_outbox.cli.app import app  # noqa: PLC0415

    app(prog_name="faststream-outbox")


if __name__ == "__main__":
    main()
