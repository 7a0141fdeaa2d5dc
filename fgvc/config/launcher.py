"""`hydra/launcher=` and `hydra.launcher.*` of a command -> checked before Hydra sees them.

Hydra accepts a launcher for a single job and ignores it. It fails on a missing `sbatch`, or on a
word instead of a number, with a traceback and after the sweep's folder was made.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config.compose import check_bounds, conf_dir, one_line
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.schema.launcher import LAUNCHERS

GROUP, NODE = "hydra/launcher", "hydra.launcher"
DEFAULT, SLURM = "serial", "submitit_slurm"


def check_launcher(overrides: Sequence[Override], multirun: bool) -> None:
    """Refuse a launcher that does not exist, cannot work here, or does not have a key.

    Raises:
        ConfigError: one line, with the nearest legal name or the way out.
    """
    choices = [o for o in overrides if o.key_or_group == GROUP]
    settings = [o for o in overrides if f"{o.key_or_group}.".startswith(f"{NODE}.")]
    for override in (*choices, *settings):
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: one launcher for all jobs of a sweep")
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: a launcher can be chosen, not deleted")
    name = str(choices[-1].value()) if choices else DEFAULT
    if name not in LAUNCHERS:
        close = nearest(name, LAUNCHERS)
        raise ConfigError(f"{GROUP}={name}: no such option{close} ({', '.join(sorted(LAUNCHERS))})")
    _check_keys(name, settings)
    if name != DEFAULT and not multirun:
        raise ConfigError(f"{GROUP}={name}: launchers start the jobs of a sweep; add -m")
    if name == SLURM and shutil.which("sbatch") is None:
        raise ConfigError(
            f"{GROUP}={name}: no sbatch on this machine; run it on the login node of the cluster, "
            f"or try {GROUP}=submitit_local"
        )


def _check_keys(name: str, overrides: Sequence[Override]) -> None:
    """Check each key against the dataclass of the launcher: name, type, bounds."""
    names = _field_names(LAUNCHERS[name])
    file = OmegaConf.load(conf_dir() / "hydra" / "launcher" / f"{name}.yaml")
    assert isinstance(file, DictConfig)
    node = OmegaConf.merge(OmegaConf.structured(LAUNCHERS[name]), {key: file[key] for key in names})
    for override in overrides:
        key = override.key_or_group.removeprefix(NODE).removeprefix(".")
        if key.partition(".")[0] not in names:
            owners = [other for other, cls in LAUNCHERS.items() if key in _field_names(cls)]
            if name == DEFAULT and owners:
                raise ConfigError(f"{NODE}.{key}: needs {GROUP}={' or '.join(owners)}")
            raise ConfigError(
                f"unknown config key {NODE}.{key}{nearest(key, names)} ({GROUP}={name} takes "
                f"{', '.join(names) or 'none'})"
            )
        try:
            OmegaConf.update(node, key, override.value(), force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override.input_line}: {one_line(error)}") from error
    check_bounds(OmegaConf.to_object(node), f"{NODE}.")


def _field_names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]
