"""Where things are: the tree, and what the tests install and leave behind, all of it under target/."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HARNESS = ROOT / "ci" / "harness"
CLIENTS = ROOT / "ci" / "clients"
TARGET = ROOT / "target"
INSTALLED = TARGET / "clients"
LOGS = TARGET / "ci-logs"
VENV_PYTHON = INSTALLED / "venv" / "bin" / "python"
MILLRACE = TARGET / "release" / "millrace"
