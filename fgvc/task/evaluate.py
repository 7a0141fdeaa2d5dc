"""task=eval: a checkpoint -> its own config -> the same evaluation again, in a new run folder.

The config comes from the checkpoint; the command may only say where things lie and how to run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import conf_dir, config_hash, resolved, typed
from fgvc.config.overrides import given_places
from fgvc.model import head as heads
from fgvc.record import checkpoint, console
from fgvc.task import Job, writeup
from fgvc.task.experiment import (
    Experiment,
    Outcome,
    already_complete,
    opened,
    predictions,
    weight_store,
)
from fgvc.task.probe import score
from fgvc.types import Predictions, UserError


def run(job: Job) -> None:
    """Evaluate a checkpoint on its dataset's test images.

    Raises:
        UserError: the checkpoint is damaged, or its label map, weights or preprocessing are not
            those found here.
    """
    assert job.conf.checkpoint is not None
    file = checkpoint.locate(Path(job.conf.checkpoint).expanduser())
    tensors, facts, _ = checkpoint.read(file)
    cfg = _config_of(facts, file, job)
    conf, plain = typed(cfg), resolved(cfg)
    _check_hash(facts, plain, file)
    with opened("eval", conf, plain, job.command) as experiment:
        if already_complete(experiment) is not None:
            return
        _check(experiment, facts, file)
        state = {name.removeprefix("head."): value for name, value in tensors.items()}
        head = heads.stored(facts["head"], state, experiment.classes)
        writeup.finish(
            experiment, Outcome({"test": _test(experiment, head)}, file, {"selection": None})
        )


def _check_hash(facts: dict[str, Any], plain: dict[str, Any], file: Path) -> None:
    """The config that is composed here must be the one the checkpoint was made with."""
    found = config_hash(plain)
    if found != facts["config_hash"]:
        raise UserError(
            f"{file} was made with config {facts['config_hash'][:16]}, composed here it is "
            f"{found[:16]}: its weights are elsewhere (backbone.weights=PATH) or this version of "
            "fgvc reads configs differently"
        )


def _config_of(facts: dict[str, Any], file: Path, job: Job) -> DictConfig:
    """The checkpoint's config with this command's runtime and places."""
    cfg = OmegaConf.create(dict(facts["config"]))
    cfg.runtime = job.cfg.runtime
    for name in ("checkpoint", "run", "against", "image"):
        cfg[name] = job.cfg[name]
    places = {**_places_beside(file), **given_places(job.overrides)}
    usual = OmegaConf.load(conf_dir() / "dataset" / f"{cfg.dataset.reader}.yaml")
    for name in ("root", "table"):
        default = OmegaConf.to_container(usual, resolve=False).get(name)  # type: ignore[union-attr]
        cfg.dataset[name] = places.get(f"dataset.{name}", default)
    cfg.backbone.weights = _weights(facts, places.get("backbone.weights"), job)
    return cfg


def _weights(facts: dict[str, Any], place: str | None, job: Job) -> str | None:
    """The backbone's file: where it was, or the copy that the run kept by digest."""
    sha256 = facts["backbone"]["weights"]["sha256"]
    if facts["backbone"]["weights"]["kind"] != "file":
        return None
    if place is not None and Path(place).expanduser().is_file():
        return place
    try:
        return str(weight_store(job.conf).path(sha256))
    except UserError:
        return place  # nothing kept here: composing the config says what is missing


def _places_beside(file: Path) -> dict[str, str]:
    """Where the run that wrote the checkpoint found its data and weights, if its folder says so."""
    saved = file.parent / "config.yaml"
    if not saved.is_file():
        return {}
    try:
        conf = OmegaConf.load(saved)
    except (yaml.YAMLError, OSError) as error:
        raise UserError(f"{saved}: damaged ({' '.join(str(error).split())[:80]})") from error
    kept = ("dataset.root", "dataset.table", "backbone.weights")
    found = {key: OmegaConf.select(conf, key) for key in kept}
    return {key: value for key, value in found.items() if value is not None}


def _check(job: Experiment, facts: dict[str, Any], file: Path) -> None:
    recorded, here = facts["labelmap"], job.dataset.labelmap
    if recorded["ids"] != list(here.ids) or recorded["names"] != list(here.names):
        raise UserError(
            f"{file} was made for {len(recorded['ids'])} classes ({recorded['names'][0]} …), "
            f"{job.conf.dataset.root} has {len(here)} ({here.names[0]} …): another label map"
        )
    made, found = facts["backbone"]["weights"]["sha256"], job.extractor.source.sha256
    if made != found:
        raise UserError(
            f"{file} belongs to weights with sha256 {made}, found {found}: "
            "give backbone.weights=PATH to the file it was made with"
        )
    if facts["preprocess"] != job.extractor.preprocess.identity:
        raise UserError(f"{file} was made with another preprocessing than this version's")
    if facts["answer"]["manifest_digest"] != job.dataset.manifest.digest:
        console.say("note: the images here are not the ones the checkpoint was evaluated on")


def _test(job: Experiment, head: torch.nn.Module) -> Predictions:
    features = job.extractor.features("test", job.dataset.split.test_N)
    return predictions(features, job.dataset, score(head, features.x_ND, job.classes))
