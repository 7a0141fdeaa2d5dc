"""`sweep=NAME` -> the overrides it stands for, as if they had been typed; what was typed wins.

A sweep file is plain Hydra (`hydra.mode: MULTIRUN` and `hydra.sweeper.params`). It is spelt out
here because Hydra itself refuses a key that both the file and the command give.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from fgvc.config.compose import conf_dir
from fgvc.config.errors import ConfigError, nearest

PARAMS = "hydra.sweeper.params"


def expand_sweep(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments with a named sweep's own behind them, and whether there is one.

    The axes of a sweep keep the order of its file, whatever is typed for them.

    Raises:
        ConfigError: no such sweep, two of them, or a file that sweeps nothing.
    """
    names = [argument.partition("=")[2] for argument in arguments if _key(argument) == "sweep"]
    if not names:
        return list(arguments), False
    if len(names) > 1 or "," in names[0]:
        raise ConfigError(f"sweep={','.join(names)}: one named sweep at a time")
    params = _params(names[0])
    typed = {_key(argument): argument for argument in arguments if _key(argument) in params}
    own = [typed.get(key, f"{key}={value}") for key, value in params.items()]
    others = [argument for argument in arguments if _key(argument) not in params]
    return [*others, *own, f"{PARAMS}=null"], True


def _params(name: str) -> dict[str, str]:
    folder = conf_dir() / "sweep"
    legal = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in legal:
        raise ConfigError(
            f"sweep={name}: no such option{nearest(name, legal)} ({', '.join(legal)})"
        )
    file = OmegaConf.load(folder / f"{name}.yaml")
    params = OmegaConf.select(file, PARAMS)
    if OmegaConf.select(file, "hydra.mode") != "MULTIRUN" or not params:
        raise ConfigError(f"conf/sweep/{name}.yaml: needs hydra.mode: MULTIRUN and {PARAMS}")
    return {str(key): str(value) for key, value in params.items()}


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]
