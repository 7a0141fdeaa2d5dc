"""task=audit: a run folder -> a checklist on the terminal and as JSON, and a pull-request block.

It prints what it proves and what it does not prove, and exits with 1 if a check fails. A check "not
checked" is no failure: it needs the code or environment of the record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.compose import config_hash, typed
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.flags import move_flags_first, parse_flags
from fgvc.config.override_grammar import count_values, parse_override
from fgvc.config.overrides import RUN_ID_KEY, JobConfig, expand_jobs
from fgvc.config.schema_keys import place_keys
from fgvc.config.search_space import parse_search
from fgvc.config.sweep_expansion import expand_sweep
from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import checkpoint, console, env_stamp, privacy, run_page
from fgvc.record.find_run import find_run
from fgvc.record.run_dir import IN_PROGRESS, read_json
from fgvc.record.run_page.gallery import RecordedAlbum
from fgvc.record.tensorboard.events import scalars
from fgvc.record.verify import CKPT, DamageError, OtherVersionError
from fgvc.report.audit import run_audit
from fgvc.report.audit.check import FAIL, UNCHECKED, outcome
from fgvc.report.audit.pull_request_block import (
    AGAIN,
    NOT_PROVEN,
    PROVES,
    eval_command,
    render_block,
)
from fgvc.report.audit.record import CannotComposeError, Recompute
from fgvc.report.run_rows import read_run, run_name, run_path
from fgvc.store import atomic, hashing
from fgvc.types import UserError
from fgvc.untrusted.escape import visible
from fgvc.untrusted.shell import escaped

MAX_JOBS = 1000  # of a sweep to compose again


def run(job: Job) -> int:
    """Check every promise of a run folder; returns the exit code.

    Raises:
        UserError: run= is no folder of a complete run, or task.output= cannot be written.
    """
    assert job.conf.run is not None
    folder = find_run(Path(job.conf.run), "run")
    if folder.resolve().name == IN_PROGRESS:
        raise UserError(f"run={folder}: not complete; resume it with its command and its run_id")
    if not (folder / "artifacts.json").exists() and not (folder / "status.json").exists():
        raise UserError(f"run={folder}: no complete run; give RUN/CONFIG/CHECKPOINT below outputs/")
    name = run_path(folder.resolve()).replace("/", "_")
    target = job.json_file("audit", f"{name}.json")
    try:
        read_run(folder)
    except OtherVersionError as error:
        raise UserError(f"run={folder}: {error}") from error
    except DamageError:
        pass  # the checks report the damage
    record, results = run_audit(folder, current_code())
    results = [
        replace(result, evidence=privacy.without_user_paths(result.evidence)) for result in results
    ]
    block = privacy.without_user_paths(render_block(record, results))
    failed = [result for result in results if result.state == FAIL]
    rows = [[result.id, result.state, result.evidence] for result in results]
    title = f"audit of {visible(record.place)}"
    console.table(title, ["check", "", "evidence"], rows, numbers=False)
    for line in block.split("\n"):
        console.say(line)
    report = {
        "run": record.place,
        "outcome": outcome(results),
        "proves": PROVES,
        "not_proven": list(NOT_PROVEN),
        "measure_again": eval_command(f"OUTPUTS/{record.place}/{CKPT}"),
        "pull_request": block,
        "checks": [asdict(result) for result in results],
    }
    atomic.write_json(target, report)
    unchecked = [result for result in results if result.state == UNCHECKED]
    console.say(AGAIN)
    console.say(visible(f"  {eval_command(str(record.path / CKPT))}"))
    console.say(
        f"{outcome(results)}: {len(failed)} of {len(results)} checks failed, {len(unchecked)} "
        f"could not be made; as JSON: {target}"
    )
    return FAILED if failed else DONE


def current_code() -> Recompute:
    return Recompute(env_stamp.git_state(), place_keys(), compose_command, render_page)


def compose_command(words: Sequence[str], run_id: str) -> dict[str, dict[str, Any]]:
    """config_hash and config of each job of a recorded command, the config as in config.yaml.

    Raises:
        CannotComposeError: it cannot be composed, or is the command of a search.
    """
    jobs: dict[str, dict[str, Any]] = {}
    try:
        for job in _jobs(words):
            cfg = job.compose()
            cfg.runtime.run_id = run_id
            text = OmegaConf.to_yaml(OmegaConf.structured(typed(cfg)))
            shown: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
            jobs[config_hash(job.plain)] = {str(key): value for key, value in shown.items()}
        return jobs
    except (ConfigError, OmegaConfBaseException, OSError) as error:
        raise CannotComposeError(str(error)) from error


def _jobs(words: Sequence[str]) -> list[JobConfig]:
    """The jobs of a command, parsed in the same way as by the entry point."""
    flags = parse_flags(move_flags_first(expand_experiment(words)))
    overrides, named = expand_sweep(flags.overrides)
    overrides = [item for item in overrides if not item.startswith(RUN_ID_KEY)]
    if parse_search(overrides) is not None:
        raise ConfigError("the command of a search, whose trials its sampler proposes")
    if math.prod(map(count_values, map(parse_override, overrides))) > MAX_JOBS:
        raise ConfigError(f"a sweep of more than {MAX_JOBS} jobs")
    return expand_jobs(overrides, flags.multirun or named, named)[0]


def render_page(folder: Path, shown: dict[str, Any]) -> str:
    """Render report.html of a sealed run folder, with the images of its existing page.

    Raises:
        CannotComposeError: config.yaml is not a config of this code.
    """
    try:
        cfg = OmegaConf.create(escaped(shown))
        assert isinstance(cfg, DictConfig)
        conf = typed(cfg)
    except (ConfigError, OmegaConfBaseException, OSError) as error:
        raise CannotComposeError(str(error)) from error
    metadata = checkpoint.read(folder)[1]
    env, plain = (read_json(folder, name) for name in ("env_stamp.json", "config.canonical.json"))
    made_by, side = env["weights"].get("made_by"), conf.resolution.side
    name = run_name(plain, env["task"], side, metadata["fit"]["forced"], made_by)
    checkpoint_id = hashing.sha256_file(folder / checkpoint.FILE)
    history = [(tag, *point) for tag, points in scalars(folder).items() for point in points]
    album = RecordedAlbum(untrusted.read_text(folder / run_page.FILE))
    return run_page.derive(folder, conf, name, checkpoint_id, history, album)
