"""Damaged files of every format, read in child processes: a Song or a SeqvaeError each, no crash, no hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", ["midi", "abc", "musicxml", "mxl", "kern"])
def test_no_bytes_break_reading(kind: str) -> None:
    command: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "fuzz.py", kind, "--count", "500"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stdout + done.stderr
    # Some must get through, or the damage is so great that it tests nothing but the first check.
    assert "'song': " in done.stdout and "'refused': " in done.stdout and "failed" not in done.stdout
