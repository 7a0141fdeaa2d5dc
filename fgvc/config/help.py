"""conf/ -> the page that `--help` prints: tasks, axes with their options, examples."""

from __future__ import annotations

import textwrap
from pathlib import Path

from fgvc.config.option_files import AXES, conf_dir

PAGE = """\
fgvc: what earns accuracy on look-alike classes?

usage: python -m fgvc.run [-m] [axis=option …] [key=value …]

One axis is one choice; everything else stays fixed.
{groups}
Keys (`python -m fgvc.run --cfg job` prints all of them with their values):
  seed=0                    precision=fp32|bf16|fp16 final_fit=train|trainval
  preprocess=shared|native|transfg            runtime.device=auto|cpu|cuda|mps
  dataset.root=PATH         dataset.partial=true    dataset.split_seed=0
  backbone.size=base        backbone.weights=PATH   backbone.pretrained=false
  runtime.output_root=PATH  runtime.run_id=NAME     runtime.dry_run=true
  --config-dir DIR          your own options too, such as DIR/dataset/NAME.yaml
  hydra/launcher=serial|joblib|submitit_local|submitit_slurm  (of a sweep, -m)

Examples:
  python -m fgvc.run backbone=dinov2 dataset=cub
  python -m fgvc.run dataset=folder dataset.root=~/pictures head=knn
  python -m fgvc.run -m backbone=vit_tiny,vit_small resolution=r224,r336
  python -m fgvc.run -m hydra/launcher=joblib hydra.launcher.n_jobs=4 seed=0,1,2
  python -m fgvc.run sweep=baselines dataset=cub
  python -m fgvc.run sweep=grid dataset=cub runtime.dry_run=true
  python -m fgvc.run task=eval checkpoint=outputs/RUN/CONFIG/CHECKPOINT
  python -m fgvc.run task=train backbone=dinov2 dataset=cub runtime.nproc=2
  python -m fgvc.run task=predict checkpoint=outputs/… image=bird.jpg
  python -m fgvc.run task=doctor dataset=cub dataset.download=true

eval "$(fgvc -sc install=bash)" lets bash complete them (zsh, fish alike).
A value with special characters is quoted twice: 'dataset.root="my birds=2024"'
Ends with 0 done, 1 failed, 2 the command was wrong, 75 stopped and resumable."""


def page(width: int = 80) -> str:
    """The help page, from the first comment of every option file."""
    return PAGE.format(groups="".join(_group(conf_dir() / group, width) for group in AXES))


def _group(folder: Path, width: int) -> str:
    files = sorted(folder.glob("*.yaml"))
    if folder.name == "resolution":
        return _wrap(f"\n{folder.name}=", ", ".join(file.stem for file in files), width)
    shorthands = [file.stem for file in files if _description(file) is None]
    lines = [
        _wrap(f"  {file.stem}", _description(file) or "", width)
        for file in files
        if _description(file)
    ]
    if shorthands:
        lines.append(_wrap("  shorthands", ", ".join(shorthands), width))
    return f"\n{folder.name}=\n{''.join(lines)}"


def _description(file: Path) -> str | None:
    """The first comment of an option file, without its name; None for a shorthand."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#")
        if text == line or (comments and text.startswith("   ")):
            break  # the values, or the command, begin
        if not text.strip().startswith("@package"):
            comments.append(text.strip())
    comment = " ".join(comments)
    head, colon, rest = comment.partition(": ")
    if not comment or rest.startswith("short for"):
        return None
    return rest if colon and "=" in head else comment


def _wrap(head: str, text: str, width: int) -> str:
    indent = " " * 18
    first = head.ljust(18) if len(head.strip("\n")) < 18 else f"{head}\n{indent}"
    body = textwrap.wrap(text, width - len(indent)) or [""]
    return first + f"\n{indent}".join(body) + "\n"
