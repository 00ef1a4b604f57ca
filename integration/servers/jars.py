"""Apache Kafka's jars, fetched once with Maven and kept in the user's cache folder.

To fetch them ahead of the tests, so that no test's time limit counts the download:

    python -m integration.servers.jars

It prints the folder. `OUTBOX_KAFKA_VERSION` names another version than today's. Where today's cannot be had, an older
one is fetched, and this is said aloud.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .process import ServerUnavailable

NEWEST = "4.4.0"
OLDER = "4.1.2"
VERSION_ENVIRONMENT = "OUTBOX_KAFKA_VERSION"
TRIES = 3
# The newest that still binds to the slf4j-api 1.7 that Kafka brings.
SLF4J_VERSION = "1.7.36"
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>faststream-outbox</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{slf4j}</version>
    </dependency>
  </dependencies>
</project>
"""


@functools.cache
def kafka_jars() -> Path:
    """The folder with Kafka's jars, named after their version; whichever session comes first downloads 45 MB.

    Raises ServerUnavailable when they are not in the cache and Maven is missing or cannot reach its repository.
    """
    if wanted := os.environ.get(VERSION_ENVIRONMENT):
        return _jars_of(wanted)
    try:
        return _jars_of(NEWEST)
    except ServerUnavailable as unavailable:
        print(f"!!! NOT THE NEWEST: {unavailable}\nApache Kafka {OLDER} is run.", file=sys.stderr)
        return _jars_of(OLDER)


def _jars_of(version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faststream-outbox"
    jars = cache / f"kafka-{version}"
    # The folder appears by a rename, complete or not at all: without it, and only then, there is something to wait for.
    if not jars.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.exists():
                _download(version, jars)
    return jars


def _download(version: str, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailable(f"Apache Kafka {version} is not in the cache and there is no mvn to fetch it")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".download-") as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(POM.format(kafka=version, slf4j=SLF4J_VERSION))
        # Maven remembers for a day what a repository did not have, unless it is told to look again (-U).
        command = [maven, "-B", "-q", "-U", "-f", "pom.xml", COPY_DEPENDENCIES, "-DoutputDirectory=jars"]
        for attempt in range(1, TRIES + 1):
            maven_run = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if maven_run.returncode == 0:
                break
            time.sleep(attempt)
        else:
            output = maven_run.stdout[-2000:]
            raise ServerUnavailable(f"Apache Kafka {version}: mvn could not fetch it\n{output}")
        (folder / "jars").rename(jars)


if __name__ == "__main__":
    print(kafka_jars())
