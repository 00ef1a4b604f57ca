"""Apache Kafka's jars, fetched once with Maven and kept in the user's cache folder.

To fetch them ahead of the tests, so that no test's time limit counts the download:

    python -m integration.servers.jars

It prints the folder.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .process import ServerUnavailable

KAFKA_VERSION = "4.1.2"
# The newest that still binds to the slf4j-api 1.7 that Kafka brings.
SLF4J_VERSION = "1.7.36"
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>faststream-outbox</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def kafka_jars() -> Path:
    """The folder with Kafka's jars, downloaded (about 45 MB) by whichever session comes first.

    Raises ServerUnavailable when they are not in the cache and Maven is missing or cannot reach its repository.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faststream-outbox"
    jars = cache / f"kafka-{KAFKA_VERSION}"
    # The folder appears by a rename, complete or not at all: without it, and only then, there is something to wait for.
    if not jars.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.exists():
                _download(jars)
    return jars


def _download(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailable(f"Apache Kafka {KAFKA_VERSION} is not in the cache and there is no mvn to fetch it")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".download-") as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(POM)
        command = [maven, "-B", "-q", "-f", "pom.xml", COPY_DEPENDENCIES, "-DoutputDirectory=jars"]
        maven_run = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if maven_run.returncode != 0:
            output = maven_run.stdout[-2000:]
            raise ServerUnavailable(f"Apache Kafka {KAFKA_VERSION}: mvn could not fetch it\n{output}")
        (folder / "jars").rename(jars)


if __name__ == "__main__":
    print(kafka_jars())
