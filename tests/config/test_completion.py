"""`fgvc` completes its own words in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASKED = """
eval "$(fgvc -sc install=bash)"
COMP_CWORD=$1; shift
COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(tmp_path):
    """completed("fgvc back") -> what bash offers after TAB."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def asked(line: str) -> list[str]:
        words = line.split(" ")
        done = subprocess.run(
            ["bash", "-c", ASKED, "bash", str(len(words) - 1), *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return asked


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fgvc back", {"backbone=", "backbone."}),
        ("fgvc sweep=grid backbone=", {"backbone=dinov2", "backbone=vit_tiny"}),
        ("fgvc backbone=vit runtime.dry", {"runtime.dry_run="}),
    ],
)
def test_bash_offers_what_may_follow(completed, line, offered, tmp_path):
    found = completed(line)
    assert offered <= set(found)
    assert all(word.startswith(line.split(" ")[-1]) for word in found)
    assert list(tmp_path.iterdir()) == []
