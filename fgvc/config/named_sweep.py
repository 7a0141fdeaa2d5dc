"""`sweep=NAME` -> the overrides that it stands for; typed overrides take precedence.

A sweep file is plain Hydra (`hydra.mode: MULTIRUN` and `hydra.sweeper.params`). It is expanded
here, because Hydra refuses a key that is both in the file and in the command.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.option_files import option_file, options

PARAMS = "hydra.sweeper.params"


def expand_sweep(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments followed by the overrides of a named sweep, and whether there is one.

    The axes of the sweep keep the order of its file, also where they are typed.

    Raises:
        ConfigError: an unknown sweep, two sweeps, or a file without a sweep.
    """
    names = [argument.partition("=")[2] for argument in arguments if _key(argument) == "sweep"]
    if not names:
        return list(arguments), False
    if len(names) > 1 or "," in names[0]:
        raise ConfigError(f"sweep={','.join(names)}: one named sweep at a time")
    params = _params(names[0], arguments)
    typed = {_key(argument): argument for argument in arguments if _key(argument) in params}
    swept = [typed.get(key, f"{key}={value}") for key, value in params.items()]
    others = [argument for argument in arguments if _key(argument) not in params]
    return [*others, *swept, f"{PARAMS}=null"], True


def _params(name: str, arguments: Sequence[str]) -> dict[str, str]:
    path = option_file("sweep", name, arguments)
    if path is None:
        legal = options("sweep", arguments)
        raise ConfigError(
            f"sweep={name}: no such option{nearest(name, legal)} ({', '.join(legal)})"
        )
    file = OmegaConf.load(path)
    params = OmegaConf.select(file, PARAMS)
    if OmegaConf.select(file, "hydra.mode") != "MULTIRUN" or not params:
        raise ConfigError(f"sweep={name}: {path}: needs hydra.mode: MULTIRUN and {PARAMS}")
    return {str(key): str(value) for key, value in params.items()}


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]
