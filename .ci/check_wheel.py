"""Checks that a wheel carries every file of the package's folder, the SQL statements and the typing marker among them.

Usage: python .ci/check_wheel.py WHEEL
"""

import sys
from pathlib import Path
from zipfile import ZipFile


def main(wheel: Path) -> int:
    """Compares the wheel with ``src`` and returns the exit code."""
    source = Path("src")
    package = source / "faststream_outbox"
    expected = {
        path.relative_to(source).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing, extra = expected - shipped, shipped - expected
    for name in sorted(missing):
        print(f"not in the wheel: {name}")
    for name in sorted(extra):
        print(f"only in the wheel: {name}")
    statements = sum(name.endswith(".sql") for name in shipped)
    typed = "faststream_outbox/py.typed" in shipped
    print(f"{wheel.name}: {len(shipped)} files, {statements} SQL statements, py.typed: {typed}")
    return 1 if missing or extra or not typed or not statements else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
