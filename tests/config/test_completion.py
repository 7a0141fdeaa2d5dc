"""`fgvc` completes keys and options in bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
eval "$(fgvc -sc install=bash)"
COMP_CWORD=$1; shift
COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path):
    """complete("fgvc back") -> the completions of bash."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(line: str) -> list[str]:
        words = line.split(" ")
        process = subprocess.run(
            ["bash", "-c", SCRIPT, "bash", str(len(words) - 1), *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stderr == ""
        return process.stdout.split()

    return run


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fgvc back", {"backbone=", "backbone."}),
        ("fgvc sweep=grid backbone=", {"backbone=dinov2", "backbone=vit_tiny"}),
        ("fgvc backbone=vit runtime.dry", {"runtime.dry_run="}),
        ("fgvc --config-dir {own} dataset=", {"dataset=cub", "dataset=pond"}),
        ("fgvc --config-dir {own} dataset=pond dataset.val", {"dataset.val_fraction="}),
        ("fgvc hydra.searchpath=[{own}] dataset=p", {"dataset=pond"}),
        ("fgvc --config-dir {own}/none dataset=", {"dataset=cub"}),
    ],
)
def test_bash_completes_keys_and_options(complete, line, offered, tmp_path, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    (own / "dataset").mkdir()
    (own / "dataset" / "pond.yaml").write_text("defaults: [cub, _self_]\nname: pond\n")
    line = line.format(own=own)
    words = complete(line)
    assert offered <= set(words)
    assert all(word.startswith(line.split(" ")[-1]) for word in words)
    assert list(tmp_path.iterdir()) == []
