"""Runs a test's child program and ends with the process that started it, `kill -9` of that one included; a script.

    python runner.py -c SOURCE [ARGUMENT...]
    python runner.py -m MODULE [ARGUMENT...]

The arguments mean what they mean to `python`.
"""

import os
import runpy
import sys
import threading
from pathlib import Path
from types import ModuleType


def _exit_with_the_parent() -> None:
    # The parent holds the other end of standard input; the kernel closes it when the parent dies.
    # Not sys.stdin: its lock, held by a blocked thread, would abort the interpreter's exit.
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    kind, program, *arguments = sys.argv[1:]
    threading.Thread(target=_exit_with_the_parent, name="exit-with-the-parent", daemon=True).start()
    # What `python -c` and `python -m` do: the current folder comes first, and not this script's.
    sys.path[0] = str(Path.cwd())
    if kind == "-m":
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        module = ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(program, "<child>", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
