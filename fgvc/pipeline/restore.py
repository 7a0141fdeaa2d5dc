"""A checkpoint -> its own config with this command's places, its weights here, and its classifier.

What task=eval, task=predict and task=export share: the config comes from the checkpoint; the
command may only say where things lie and how to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.compose import (
    check_bounds,
    conf_dir,
    config_hash,
    parse_config,
    published_repos,
    typed,
)
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import MAX_PIXELS, declared_values
from fgvc.config.schema import Config, architecture, chosen_checkpoint
from fgvc.config.sweep_expansion import key_of
from fgvc.config.weight_files.hub_name import HUB
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model import head as heads
from fgvc.model.backbone import weights
from fgvc.model.backbone.base import feature_dim
from fgvc.model.classifier import Classifier
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.experiment import weight_store
from fgvc.pipeline.inference import HEAD, load_classifier
from fgvc.pipeline.job import Job
from fgvc.record import checkpoint, fitted_images
from fgvc.record.fitted_images import Fit
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import escaped


@dataclass(frozen=True)
class Stored:
    """A verified checkpoint: its file and id, what it says of itself, and its tensors.

    tensors: of the head, or of backbone and head. fit: the images that fitted or chose the head.
    """

    file: Path
    id: str
    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    fit: Fit

    @property
    def inside(self) -> WeightsSource | None:
        """A finetuned backbone lies in the checkpoint; the digest is of what it began with."""
        if not self.facts.get("whole"):
            return None
        began = self.facts["backbone"]["weights"]
        return WeightsSource(
            "checkpoint",
            self.file.name,
            None,
            began["sha256"],
            began["revision"],
            began.get("made_by"),
        )

    @property
    def classes(self) -> list[tuple[str, str]]:
        """The dataset's own id and the name of each class, in the order of the logits."""
        return list(
            zip(self.facts["labelmap"]["ids"], self.facts["labelmap"]["names"], strict=True)
        )

    def head(self, conf: Config) -> torch.nn.Module:
        """The head of a checkpoint that does not hold its backbone.

        Raises:
            UserError: its tensors are not those of the head and the features of the config.
        """
        width = feature_dim(chosen_checkpoint(conf.backbone), conf.backbone.features)
        state = {name.removeprefix(HEAD): value for name, value in self.tensors.items()}
        try:
            return heads.load_head(self.facts["head"], state, len(self.classes), width)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error

    def classifier(self, conf: Config, source: WeightsSource, device: torch.device) -> Classifier:
        """Backbone and head together, ready to classify.

        Raises:
            UserError: the model cannot be built, or its tensors are not those of the checkpoint.
        """
        try:
            if self.facts.get("whole"):
                return load_classifier(conf, self.facts, self.tensors, device)
            backbone, selector = build_model(conf, source)
        except (UserError, ConfigError) as error:
            raise UserError(f"{self.file}: {error}") from error
        return Classifier(backbone, self.head(conf), selector).to(device).eval()

    def check(self, source: WeightsSource, preprocess: Preprocess) -> None:
        """UserError unless weights and preprocessing are those it was made with."""
        made = self.facts["backbone"]["weights"]["sha256"]
        if made != source.sha256:
            raise UserError(
                f"{self.file} belongs to weights with sha256 {made}, found {source.sha256}: "
                "give backbone.weights=PATH to the file it was made with"
            )
        if self.facts["preprocess"] != preprocess.identity:
            raise UserError(f"{self.file} was made with another preprocessing than this version's")


def read(job: Job) -> Stored:
    """The checkpoint that the command names.

    Raises:
        UserError: no such file, no checkpoint, or a damaged one.
    """
    assert job.conf.checkpoint is not None
    return read_file(checkpoint.locate(Path(job.conf.checkpoint).expanduser()))


def read_file(file: Path) -> Stored:
    """A checkpoint file.

    Raises:
        UserError: it is damaged, or an older version of fgvc wrote it.
    """
    tensors, facts, checkpoint_id = checkpoint.read(file)
    try:
        fitted = fitted_images.from_checkpoint(facts, tensors)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{file}: does not record which images fitted and chose its head ({error}). Repeat the "
            "run."
        ) from error
    tensors = {name: value for name, value in tensors.items() if name not in fitted_images.TENSORS}
    return Stored(file, checkpoint_id, facts, tensors, fitted)


def config_of(stored: Stored, job: Job) -> DictConfig:
    """The checkpoint's config with this command's runtime and places.

    Raises:
        UserError: the config is damaged, or asks for what no config may ask for.
    """
    try:
        cfg = _placed(stored, job)
        conf = parse_config(cfg)
        check_bounds(conf)
        architecture.check_chosen(conf.backbone)
    except (ConfigError, OmegaConfBaseException, TypeError, KeyError, AttributeError) as error:
        reason = one_line((str(error) or type(error).__name__).partition("\n")[0])
        raise UserError(
            f"{stored.file}: its config is damaged, or of another version of fgvc: {reason}. "
            "Restore the file, or repeat the run that made it"
        ) from error
    return cfg


def _placed(stored: Stored, job: Job) -> DictConfig:
    # its texts are data: none of them reads another key or the environment
    cfg = OmegaConf.create(escaped(dict(stored.facts["config"])))
    assert isinstance(cfg, DictConfig)
    cfg.runtime = job.cfg.runtime
    for name in ("checkpoint", "run", "against", "image"):
        cfg[name] = escaped(getattr(job.conf, name))
    given, beside = declared_values(job.overrides), _places_beside(stored.file)
    usual = OmegaConf.load(conf_dir() / "dataset" / f"{cfg.dataset.reader}.yaml")
    for name in ("root", "table"):
        default = OmegaConf.to_container(usual, resolve=False).get(name)  # type: ignore[union-attr]
        place = {**beside, **given}.get(f"dataset.{name}")
        cfg.dataset[name] = default if place is None else escaped(place)
    if (partial := given.get("dataset.partial")) is not None:
        cfg.dataset.partial = partial
    if any(key_of(override) == MAX_PIXELS for override in job.overrides):
        cfg.dataset.max_pixels = job.conf.dataset.max_pixels
    # accepted once, by the command that asks for it
    cfg.dataset.accept_altered = given.get("dataset.accept_altered", "False")
    if stored.inside is not None:  # its weights are in it: look for no other file
        cfg.runtime.weights_root = str(stored.file)
    key = "backbone.weights"
    cfg.backbone.weights = escaped(_weights(stored, given.get(key), beside.get(key), job))
    return cfg


def with_runtime(stored: Stored, job: Job) -> tuple[Config, WeightsSource]:
    """The checkpoint's config here, and the weights that its head belongs to.

    Raises:
        UserError: they are missing, or have another digest.
    """
    cfg = config_of(stored, job)
    given = declared_values(job.overrides).get("backbone.weights")
    if given is not None and stored.inside is None:
        cfg.backbone.weights = escaped(
            given
        )  # a file may replace weights that the run took from the hub
    conf = with_norm_eps(stored, typed(cfg))
    check_weights_found(stored, conf)
    source = find_weights(stored, conf, given)
    stored.check(source, evaluation_transform(conf))
    return conf, source


def find_weights(stored: Stored, conf: Config, given: str | None) -> WeightsSource:
    """The weights of a checkpoint's backbone; only a repository that a row of conf/backbone names,
    or this command, is asked for what is not cached: a checkpoint may not choose what is contacted.

    Args:
        given: backbone.weights of this command.

    Raises:
        UserError: they are missing, or have another digest.
    """
    if stored.inside is not None:
        return stored.inside
    own_choice = given is not None and given.startswith(HUB)
    may_fetch = None if own_choice else published_repos().__contains__
    return weights.find(conf.backbone, may_fetch)


def with_norm_eps(stored: Stored, conf: Config) -> Config:
    """The config with the epsilon of layer norms that weights of the hub had: a copy of their file
    without its config.json does not state it."""
    eps = stored.facts["backbone"].get("norm_eps", conf.backbone.norm_eps)
    return replace(conf, backbone=replace(conf.backbone, norm_eps=eps, norm_eps_assumed=False))


def check_hash(kept: Stored, plain: dict[str, Any]) -> None:
    """Hold the config that is composed here against the one the checkpoint was made with.

    Raises:
        UserError: names both hashes and the likely causes.
    """
    found, made = config_hash(plain), kept.facts["config_hash"]
    if found != made:
        raise UserError(
            f"{kept.file} was made with config {made[:16]}, composed here it is "
            f"{found[:16]}: its weights are elsewhere (backbone.weights=PATH) or this version of "
            "fgvc reads configs differently"
        )


def check_weights_found(stored: Stored, conf: Config) -> None:
    """Refuse a checkpoint whose backbone came from a file that is nowhere to be found.

    Args:
        conf: as composed here, with what lies in runtime.weights_root.

    Raises:
        UserError: names the digest and both ways out.
    """
    made = stored.facts["backbone"]["weights"]
    if made["kind"] != "file" or stored.inside or conf.backbone.weights is not None:
        return
    raise UserError(
        f"{stored.file} needs the weights with sha256 {made['sha256']}, which are not under "
        f"{weight_store(conf).root}: give the file with backbone.weights=PATH, or the cache of the "
        "run that made it with runtime.cache_root=PATH"
    )


def _weights(stored: Stored, given: str | None, beside: str | None, job: Job) -> str | None:
    """The backbone's file: as the command says, where it was, or the run's copy by digest."""
    made = stored.facts["backbone"]["weights"]
    if made["kind"] != "file" or stored.inside:
        return None
    if given is not None:
        return given
    if beside is not None and Path(beside).expanduser().is_file():
        return beside
    try:
        return str(weight_store(job.conf).path(made["sha256"]))
    except UserError:
        return None


def _places_beside(file: Path) -> dict[str, str]:
    """Where the run that wrote the checkpoint found its data and weights, if its folder says so."""
    saved = file.parent / "config.yaml"
    if not saved.is_file():
        return {}
    try:
        text = untrusted.read_text(saved, untrusted.MIB)
        if any(isinstance(token, yaml.AliasToken | yaml.TagToken) for token in yaml.scan(text)):
            raise ValueError("it holds aliases or tags")  # nested, aliases expand without end
        plain = yaml.load(text, _Plain)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{saved}: damaged ({' '.join(str(error).split())[:80]})") from error
    places = {}
    for key in ("dataset.root", "dataset.table", "backbone.weights"):
        node, _, name = key.partition(".")
        held = plain.get(node) if isinstance(plain, dict) else None
        value = held.get(name) if isinstance(held, dict) else None
        if isinstance(value, str) and "\0" not in value:
            places[key] = value
    return places


class _Plain(yaml.SafeLoader):
    """A loader that reads every scalar as text: no dates, no numbers of a million digits."""


_Plain.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if tag.endswith(":null")]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
