"""A recorded command and its hashed config -> the command of the linear probe to compare with.

A table compares a finetune with the linear probe of the same weights, settings and images of the
fit. By default they are not comparable: a finetune is fitted on train, because validation chooses
its epoch, and a probe on train and validation. The pages and the table of all runs therefore print
the command that fits the probe on the images of the finetune.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgvc.record import command_file, privacy
from fgvc.untrusted import shell

# the options whose choice and keys a probe shares with its finetune, as they were typed
SHARED = ("dataset", "backbone", "resolution")
PLACES = ("output_root", "cache_root", "data_root", "weights_root", "device", "threads")
SETTINGS = ("seed", "precision", "matmul_precision", "preprocess")
OVERLAYS = ("experiment", "recipe", "sweep")  # may set any key
OF_OVERLAYS = (  # keys of SHARED that an overlay may set
    *("dataset.val_fraction", "dataset.split_seed", "dataset.subset", "dataset.test_fraction"),
    *("dataset.box_crop", "dataset.max_pixels", "dataset.on_bad_image"),
    *("backbone.size", "backbone.features", "backbone.pretrained", "backbone.position_resize"),
    "backbone.native",
)
# for a reader who knows the settings of the run
GENERAL = shell.fgvc("sweep=finetune") + " …  # with the other settings of the run: fits both"
USER_READERS = ("folder", "table")
Plain = Mapping[str, Any]


def advice(config: Plain, command: str, task: str) -> tuple[str, str] | None:
    """What a page of a run prints: a sentence, and the command of a comparable linear probe.

    Args:
        config: config.canonical.json. command: command.txt. task: of the stamp.

    Returns:
        The command is GENERAL where none can be derived. None for a run that is neither a finetune
        nor a linear probe on train and validation.
    """
    if config["task"].get("debug") is not None:
        return None
    if task == "train":
        line = probe_command(config, command)
        text = (
            "The table of all runs compares this finetune with the linear probe that was fitted on "
            f"the same images (final_fit={config['final_fit']}):"
        )
    elif (task, config["head"]["name"]) == ("probe", "linear"):
        has_validation = config["dataset"].get("val_fraction") != 0
        if config["final_fit"] == "train" or not has_validation:
            return None
        line = probe_command(config, command, final_fit="train")
        text = (
            "This probe was fitted on train and validation, a finetune by default on train only, "
            "so no table compares them. The same probe fitted on train stands beside a finetune:"
        )
    else:
        return None
    return text, GENERAL if line is None else privacy.portable_command(line)


def probe_command(
    config: Plain, command: str, final_fit: str | None = None, seeds: Sequence[int] = ()
) -> str | None:
    """The command of the linear probe with the weights, data and settings of a run.

    Args:
        config, command: of the run; a command of a sweep stands for the job with this config.
        final_fit: of the probe; None: of the run.
        seeds: of several runs whose weights depend on the seed; one job is started per seed.

    Returns:
        None where it does not follow from config and command.
    """
    try:
        typed, is_sweep = _typed(command)
        shared = _shared_choices(typed, is_sweep, config)
    except (KeyError, ValueError):
        return None
    overlay = _has_overlay(typed)
    settings = [
        shell.override(key, config[key])
        for key in SETTINGS
        if (key in typed or overlay) and not (key == "seed" and len(seeds) > 1)
    ]
    parts = [] if _has_new_block(config) else _part_choices(config["part_attention"])
    places = [
        f"runtime.{name}={typed[f'runtime.{name}']}"
        for name in PLACES
        if f"runtime.{name}" in typed
    ]
    fit = shell.override("final_fit", final_fit or config["final_fit"])
    several = len(seeds) > 1
    words = ["task=probe", "head=linear", *shared, *parts, *settings, fit, *places]
    words += [f"seed={','.join(map(str, seeds))}"] * several
    return shell.fgvc(*["-m"] * several, *words)


def _typed(command: str) -> tuple[dict[str, str], bool]:
    """Key and value of each override of a command, and whether it is a sweep.

    Raises:
        ValueError: not a command that fgvc wrote, or with overrides that delete or force a key.
    """
    line, _ = command_file.split(command)
    words = [] if shell.UNSEEN.search(line) else shell.split(line)
    size = len(shell.PROGRAM)
    if tuple(words[:size]) != shell.PROGRAM:
        raise ValueError("not a command of fgvc")
    flags = [word for word in words[size:] if word.startswith("-")]
    pairs = [word.partition("=") for word in words[size:] if not word.startswith("-")]
    if any(not equals or not key[:1].isalpha() for key, equals, _ in pairs):
        raise ValueError("an override that is no assignment")
    typed = {key: value for key, _, value in pairs}
    return typed, bool({"-m", "--multirun"} & set(flags)) or "sweep" in typed


def _shared_choices(typed: Mapping[str, str], is_sweep: bool, config: Plain) -> list[str]:
    """The overrides of SHARED as typed; a swept value, and those of an overlay, from the config.

    Raises:
        KeyError: the config does not hold a value.
    """
    chosen = {}
    for key, value in typed.items():
        if key.partition(".")[0] in SHARED:
            swept = is_sweep and _is_swept(value)
            chosen[key] = _own_value(key, value, config) if swept else value
    if _has_overlay(typed):
        if "dataset" not in chosen and config["dataset"]["reader"] in USER_READERS:
            raise KeyError("dataset")
        if config["backbone"]["checkpoint"].get("architecture"):
            raise KeyError("architecture")  # the overlay may have changed it
        for group in ("dataset", "backbone"):
            chosen.setdefault(group, shell.override("", config[group]["name"])[1:])
        if "resolution" not in chosen:  # an overlay may use a side that is no option
            for name in ("name", "side"):
                chosen.setdefault(
                    f"resolution.{name}", _own_value(f"resolution.{name}", "", config)
                )
        generator = config["dataset"].get("generator") or {}
        for key in (*OF_OVERLAYS, *(f"dataset.generator.{name}" for name in generator)):
            try:
                chosen.setdefault(key, _own_value(key, "", config))
            except KeyError:
                continue  # without effect in this config
    # an option before the keys that change it
    keys = sorted(chosen, key=lambda key: (SHARED.index(key.partition(".")[0]), "." in key))
    return [f"{key}={chosen[key]}" for key in keys]


def _has_overlay(typed: Mapping[str, str]) -> bool:
    return any(typed.get(key, "null") != "null" for key in OVERLAYS)


def _is_swept(value: str) -> bool:
    one_list = value.startswith("[") and "]," not in value
    return not one_list and any(mark in value for mark in ",(*")


def _own_value(key: str, swept: str, config: Plain) -> str:
    """The value of one job, for Hydra."""
    group, _, path = key.partition(".")
    if path:
        node: Any = config[group]
        if key == "backbone.size":
            node = node["checkpoint"]
        for name in path.split("."):
            node = node[name]
        return shell.override("", node)[1:]
    name = config[group]["name"]
    full = f"{name}_{config[group]['checkpoint']['size']}" if group == "backbone" else name
    options = swept.split(",")
    if full not in options and name not in options:
        raise KeyError(key)
    return full if full in options else name


def _has_new_block(config: Plain) -> bool:
    """Whether the last block is trained anew: a probe has none, so it uses no part attention."""
    return config["part_attention"].get("last_block") == "random"


def _part_choices(part_attention: Plain) -> list[str]:
    """The part attention of the run: the patches change the features, and their size may change how
    positions are resized."""
    if part_attention["name"] == "off":
        return []
    keys = [key for key in ("tokens", "stride") if part_attention.get(key) is not None]
    given = [shell.override(f"part_attention.{key}", part_attention[key]) for key in keys]
    return [shell.override("part_attention", part_attention["name"]), *given]
