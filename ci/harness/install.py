"""Brings in what the client suites need, each into its own folder under target/, once per version.

It knows package managers and no test. A stamp beside each folder holds the hash of what asked for it.
"""

import hashlib
import os
import shutil
import sys
import threading

import shell
from paths import CLIENTS, HARNESS, INSTALLED, LOGS
from report import IN_CI

MAVEN_REPOSITORY = INSTALLED / "m2"
REFERENCE_LIBS = INSTALLED / "reference" / "libs"
TOOLS_LIBS = INSTALLED / "reference-tools" / "libs"
JAVA_LIBS = INSTALLED / "java" / "libs"
JAVA_CLASSES = INSTALLED / "java" / "classes"
STREAMS_LIBS = INSTALLED / "streams" / "libs"
STREAMS_CLASSES = INSTALLED / "streams" / "classes"
CONNECT_LIBS = INSTALLED / "connect" / "libs"
NODE = INSTALLED / "node"
VENV = INSTALLED / "venv"

DEBIAN_PACKAGES = {
    "java": ["openjdk-17-jdk-headless"],
    "javac": ["openjdk-17-jdk-headless"],
    "mvn": ["maven"],
    "node": ["nodejs", "npm"],
    "npm": ["npm"],
    "git": ["git"],
    "make": ["make"],
    "gcc": ["gcc", "g++", "libc6-dev"],
    "g++": ["g++"],
    "go": ["golang-go"],
    "losetup": ["mount"],
    "mount": ["mount"],
    "umount": ["mount"],
    "mkfs.ext4": ["e2fsprogs"],
    "e2fsck": ["e2fsprogs"],
    "mkfs.xfs": ["xfsprogs"],
    "filefrag": ["e2fsprogs"],
    "unshare": ["util-linux"],
    "valgrind": ["valgrind"],
    "setpriv": ["util-linux"],
}


# Steps that run beside each other may want the same thing; package managers want to be alone anyway.
ONE_AT_A_TIME = threading.RLock()


class Missing(Exception):
    """A tool that is not on this machine: the tests that need it are skipped, or fail in CI."""


def log(name):
    return LOGS / f"install-{name}.log"


def need(*tools):
    """Demands programs; as root in CI it installs them."""
    with ONE_AT_A_TIME:
        absent = [tool for tool in tools if shutil.which(tool) is None]
        if absent and IN_CI and os.geteuid() == 0:
            apt_install(sorted({package for tool in absent for package in DEBIAN_PACKAGES[tool]}))
            absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        raise Missing(f"needs {', '.join(absent)}, not installed here")


def apt_install(packages):
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    shell.must_run(["apt-get", "update", "-q"], log("apt"), 300, env=environment)
    shell.must_run(["apt-get", "install", "-y", "-q", *packages], log("apt"), 600, env=environment)


def _once(folder, sources, make):
    """Makes `folder` unless it was made from the same sources before."""
    with ONE_AT_A_TIME:
        _make_once(folder, sources, make)


def _make_once(folder, sources, make):
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = folder.parent / f"{folder.name}.stamp"
    if folder.exists() and stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    make()
    stamp.write_text(digest)


def python():
    requirements = CLIENTS / "python" / "requirements.txt"

    def make():
        if shell.run([sys.executable, "-m", "venv", VENV], log("venv"), 120) != 0 and os.geteuid() == 0:
            # Debian splits venv from Python.
            apt_install(["python3-venv"])
            shell.must_run([sys.executable, "-m", "venv", VENV], log("venv"), 120)
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        shell.must_run([*pip, "-r", requirements], log("venv"), 600)

    _once(VENV, [requirements], make)


def node():
    need("node", "npm")
    package = CLIENTS / "node" / "package.json"

    def make():
        NODE.mkdir(parents=True)
        shutil.copy(package, NODE)
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        shell.must_run(["npm", "install", *options], log("node"), 300, cwd=NODE)

    _once(NODE, [package], make)


def _maven(pom, libs):
    command = ["mvn", "-q", "-B", "-f", pom, f"-Dmaven.repo.local={MAVEN_REPOSITORY}"]
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
    # A registry that hiccups is asked once more.
    if shell.run(command + goal, log("maven"), 600) != 0:
        shell.must_run(command + goal, log("maven"), 600)


def java():
    need("java", "javac", "mvn")
    pom = CLIENTS / "java" / "pom.xml"
    _once(JAVA_LIBS, [pom], lambda: _maven(pom, JAVA_LIBS))
    sources = sorted((CLIENTS / "java").glob("*.java"))
    _once(JAVA_CLASSES, sources, lambda: _javac(sources, JAVA_LIBS, JAVA_CLASSES))


def _javac(sources, libs, classes):
    # Annotations of libraries' own classes, and those that no processor asks for, are not ours.
    command = ["javac", "-Xlint:all,-processing,-classfile", "-Werror", "-cp", f"{libs}/*", "-d", classes]
    shell.must_run([*command, *sources], log("javac"), 300)


def rdkafka():
    need("gcc", "make")
    manifest = CLIENTS / "rdkafka" / "Cargo.toml"
    command = ["cargo", "build", "--quiet", "--locked", "--manifest-path", manifest]
    shell.must_run(command, log("rdkafka"), 900, env={"CARGO_TARGET_DIR": str(INSTALLED / "rdkafka")})
    return INSTALLED / "rdkafka" / "debug" / "rdkafka-suite"


def loop_devices(tools):
    if os.geteuid() != 0:
        raise Missing("needs root, for file systems on loop devices")
    need(*tools)
    if not os.path.exists("/dev/loop-control"):
        raise Missing("needs loop devices, which this kernel or container has not")


def reference_broker():
    need("java", "mvn")
    pom = HARNESS / "reference-broker.pom.xml"
    _once(REFERENCE_LIBS, [pom], lambda: _maven(pom, REFERENCE_LIBS))


def reference_tools():
    # The compiler, as what runs the tools is compiled where it runs.
    need("java", "javac", "mvn")
    pom = HARNESS / "reference-tools.pom.xml"
    _once(TOOLS_LIBS, [pom], lambda: _maven(pom, TOOLS_LIBS))


def streams():
    """Kafka Streams, and the application of ours that runs on it."""
    need("java", "javac", "mvn")
    pom = CLIENTS / "streams" / "pom.xml"
    _once(STREAMS_LIBS, [pom], lambda: _maven(pom, STREAMS_LIBS))
    sources = sorted((CLIENTS / "streams").glob("*.java"))
    _once(STREAMS_CLASSES, [*sources, pom], lambda: _javac(sources, STREAMS_LIBS, STREAMS_CLASSES))


def connect():
    need("java", "mvn")
    pom = HARNESS / "connect.pom.xml"
    _once(CONNECT_LIBS, [pom], lambda: _maven(pom, CONNECT_LIBS))
