"""A record -> its command composed again and its page rendered again, by the current code."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from fgvc.record import checkpoint, env_stamp, run_page
from fgvc.record.run_dir import read_json
from fgvc.record.run_page.gallery import RecordedAlbum
from fgvc.record.tensorboard.events import scalars
from fgvc.report.audit.record import CannotComposeError, Recompute
from fgvc.report.run_rows import run_name
from fgvc.store import hashing
from fgvc.untrusted.shell import escaped

MAX_JOBS = 1000  # of a sweep to compose again


def current_code() -> Recompute:
    """The current code, for an audit to compare with a record."""
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
