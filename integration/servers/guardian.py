"""Runs one server for as long as its owner lives; a script, never imported.

The owner (the pytest process) holds the other end of this script's standard input. When the owner dies, in whatever
way, `kill -9` included, the kernel closes that end: the server is stopped and its folder removed. A parent-death signal
would be shorter, but is tied to the thread that started the server and exists on Linux only.

    python -I guardian.py STOP_SIGNAL FOLDER USER COMMAND...     # USER may be empty: do not change the user

The first line on standard output is the server's process id; the server's own output goes to standard error.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

SECONDS_TO_STOP = 10


def main(stop_signal: int, folder: str, user: str, command: list[str]) -> int:
    server = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        user=user or None,
        extra_groups=[] if user else None,
    )
    print(server.pid, flush=True)
    owner_died = threading.Event()

    def stop_when_the_owner_dies() -> None:
        # Not sys.stdin: its lock, held by a blocked thread, would abort the interpreter's exit.
        os.read(0, 1)
        owner_died.set()
        server.send_signal(signal.SIGCONT)
        server.send_signal(stop_signal)
        try:
            server.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            server.kill()

    threading.Thread(target=stop_when_the_owner_dies, daemon=True).start()
    status = server.wait()
    if owner_died.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
