"""A checkpoint -> its config with the paths of this command, its weights and its classifier.

task=eval, task=predict and task=export take the config from the checkpoint; the command may only
set paths and how to run.
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
from fgvc.config.checkpoint_rows import published_repos
from fgvc.config.compose import (
    check_bounds,
    conf_dir,
    config_hash,
    parse_config,
    typed,
)
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import MAX_PIXELS, declared_values
from fgvc.config.schema import Config, architecture, chosen_checkpoint
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

WEIGHTS = "backbone.weights"
PATH_KEYS = ("dataset.root", "dataset.table", WEIGHTS)


@dataclass(frozen=True)
class StoredCheckpoint:
    """A verified checkpoint: its file, id, metadata and tensors.

    tensors: of the head, or of backbone and head. fit: the images that fitted or chose the head.
    """

    file: Path
    id: str
    metadata: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    fit: Fit

    @property
    def embedded_weights(self) -> WeightsSource | None:
        """The source of a finetuned backbone, which lies in the checkpoint; otherwise None.

        The digest is that of the weights that the training began with.
        """
        if not self.metadata.get("whole"):
            return None
        initial = self.metadata["backbone"]["weights"]
        return WeightsSource(
            "checkpoint",
            self.file.name,
            None,
            initial["sha256"],
            initial["revision"],
            initial.get("made_by"),
        )

    @property
    def classes(self) -> list[tuple[str, str]]:
        """The dataset's id and the name of each class, in the order of the logits."""
        labelmap = self.metadata["labelmap"]
        return list(zip(labelmap["ids"], labelmap["names"], strict=True))

    def head(self, conf: Config) -> torch.nn.Module:
        """The head of a checkpoint that does not hold its backbone.

        Raises:
            UserError: its tensors do not fit the head and the features of the config.
        """
        width = feature_dim(chosen_checkpoint(conf.backbone), conf.backbone.features)
        state = {name.removeprefix(HEAD): tensor for name, tensor in self.tensors.items()}
        try:
            return heads.load_head(self.metadata["head"], state, len(self.classes), width)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error

    def classifier(self, conf: Config, source: WeightsSource, device: torch.device) -> Classifier:
        """Backbone and head together, in evaluation mode.

        Raises:
            UserError: the model cannot be built, or the checkpoint's tensors do not fit it.
        """
        try:
            if self.metadata.get("whole"):
                return load_classifier(conf, self.metadata, self.tensors, device)
            backbone, selector = build_model(conf, source)
        except (UserError, ConfigError) as error:
            raise UserError(f"{self.file}: {error}") from error
        return Classifier(backbone, self.head(conf), selector).to(device).eval()

    def check(self, source: WeightsSource, preprocess: Preprocess) -> None:
        """Check that weights and preprocessing are those of the run that wrote the checkpoint.

        Raises:
            UserError: they differ.
        """
        recorded = self.metadata["backbone"]["weights"]["sha256"]
        if recorded != source.sha256:
            raise UserError(
                f"{self.file} belongs to weights with sha256 {recorded}, found {source.sha256}: "
                f"give {WEIGHTS}=PATH to the file it was made with"
            )
        if self.metadata["preprocess"] != preprocess.identity:
            raise UserError(f"{self.file} was made with another preprocessing than this version's")


# --- read a checkpoint ---


def load_checkpoint(job: Job) -> StoredCheckpoint:
    """The checkpoint that `checkpoint=` names: a file, or its run folder.

    Raises:
        UserError: no such file, not a checkpoint, or a damaged checkpoint.
    """
    assert job.conf.checkpoint is not None
    return read_checkpoint(checkpoint.locate(Path(job.conf.checkpoint).expanduser()))


def read_checkpoint(file: Path) -> StoredCheckpoint:
    """Read and verify a checkpoint file.

    Raises:
        UserError: it is damaged, or an older version of fgvc wrote it.
    """
    tensors, metadata, checkpoint_id = checkpoint.read(file)
    try:
        fit = fitted_images.from_checkpoint(metadata, tensors)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{file}: does not record which images fitted and chose its head ({error}). Repeat the "
            "run."
        ) from error
    tensors = {name: value for name, value in tensors.items() if name not in fitted_images.TENSORS}
    return StoredCheckpoint(file, checkpoint_id, metadata, tensors, fit)


# --- its config ---


def load_config_and_weights(stored: StoredCheckpoint, job: Job) -> tuple[Config, WeightsSource]:
    """The checkpoint's config with this command's paths, and the weights of its backbone.

    Raises:
        UserError: the weights are missing, or have another digest.
    """
    cfg = merge_config(stored, job)
    weights_path = declared_values(job.overrides).get(WEIGHTS)
    if weights_path is not None and stored.embedded_weights is None:
        # a file may replace weights that the run took from the hub
        cfg.backbone.weights = escaped(weights_path)
    conf = set_norm_eps(stored, typed(cfg))
    check_weights_found(stored, conf)
    source = find_weights(stored, conf, weights_path)
    stored.check(source, evaluation_transform(conf))
    return conf, source


def merge_config(stored: StoredCheckpoint, job: Job) -> DictConfig:
    """The checkpoint's config with this command's runtime and paths.

    Raises:
        UserError: the config is damaged or out of bounds.
    """
    try:
        cfg = _set_paths(stored, job)
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


def _set_paths(stored: StoredCheckpoint, job: Job) -> DictConfig:
    # escaped: no text of the file can refer to another key or to the environment
    cfg = OmegaConf.create(escaped(dict(stored.metadata["config"])))
    assert isinstance(cfg, DictConfig)
    cfg.runtime = job.cfg.runtime
    for name in ("checkpoint", "run", "against", "image"):
        cfg[name] = escaped(getattr(job.conf, name))
    given, recorded = declared_values(job.overrides), _paths_of_run(stored.file)
    defaults = OmegaConf.load(conf_dir() / "dataset" / f"{cfg.dataset.reader}.yaml")
    for name in ("root", "table"):
        path = {**recorded, **given}.get(f"dataset.{name}")
        if path is None:
            cfg.dataset[name] = OmegaConf.to_container(defaults, resolve=False).get(name)  # type: ignore[union-attr]
        else:
            cfg.dataset[name] = escaped(path)
    if (partial := given.get("dataset.partial")) is not None:
        cfg.dataset.partial = partial
    if any(key_of(override) == MAX_PIXELS for override in job.overrides):
        cfg.dataset.max_pixels = job.conf.dataset.max_pixels
    # an altered dataset is accepted only by the command that sets the key
    cfg.dataset.accept_altered = given.get("dataset.accept_altered", "False")
    if stored.embedded_weights is not None:  # do not look for another file
        cfg.runtime.weights_root = str(stored.file)
    path = _weights_path(stored, given.get(WEIGHTS), recorded.get(WEIGHTS), job)
    cfg.backbone.weights = escaped(path)
    return cfg


def _weights_path(
    stored: StoredCheckpoint, given: str | None, recorded: str | None, job: Job
) -> str | None:
    """The file of the backbone: of this command, of the run, or the run's copy in the store."""
    weights_facts = stored.metadata["backbone"]["weights"]
    if weights_facts["kind"] != "file" or stored.embedded_weights:
        return None
    if given is not None:
        return given
    if recorded is not None and Path(recorded).expanduser().is_file():
        return recorded
    try:
        return str(weight_store(job.conf).path(weights_facts["sha256"]))
    except UserError:
        return None


def _paths_of_run(file: Path) -> dict[str, str]:
    """The paths of data and weights in the config.yaml beside a checkpoint, if there is one."""
    config_file = file.parent / "config.yaml"
    if not config_file.is_file():
        return {}
    try:
        text = untrusted.read_text(config_file, untrusted.MIB)
        if any(isinstance(token, yaml.AliasToken | yaml.TagToken) for token in yaml.scan(text)):
            raise ValueError("it holds aliases or tags")  # nested, aliases expand without end
        plain = yaml.load(text, _TextLoader)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{config_file}: damaged ({' '.join(str(error).split())[:80]})") from error
    paths = {}
    for key in PATH_KEYS:
        node_name, _, name = key.partition(".")
        node = plain.get(node_name) if isinstance(plain, dict) else None
        value = node.get(name) if isinstance(node, dict) else None
        if isinstance(value, str) and "\0" not in value:
            paths[key] = value
    return paths


class _TextLoader(yaml.SafeLoader):
    """Reads every scalar as text: no dates, no numbers of a million digits."""


_TextLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if tag.endswith(":null")]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def set_norm_eps(stored: StoredCheckpoint, conf: Config) -> Config:
    """The config with the layer norm epsilon that the hub's config.json had: a copy of the weights
    file without its config.json does not state it."""
    eps = stored.metadata["backbone"].get("norm_eps", conf.backbone.norm_eps)
    return replace(conf, backbone=replace(conf.backbone, norm_eps=eps, norm_eps_assumed=False))


def check_config_hash(stored: StoredCheckpoint, plain: dict[str, Any]) -> None:
    """Compare the hash of the composed config with that of the checkpoint's run.

    Raises:
        UserError: names both hashes and the likely causes.
    """
    composed, recorded = config_hash(plain), stored.metadata["config_hash"]
    if composed != recorded:
        raise UserError(
            f"{stored.file} was made with config {recorded[:16]}, composed here it is "
            f"{composed[:16]}: its weights are elsewhere ({WEIGHTS}=PATH) or this version of "
            "fgvc reads configs differently"
        )


# --- its weights ---


def check_weights_found(stored: StoredCheckpoint, conf: Config) -> None:
    """Refuse a checkpoint whose backbone came from a file that is not found.

    Args:
        conf: as composed here, with the files of runtime.weights_root.

    Raises:
        UserError: names the digest and both ways out.
    """
    recorded = stored.metadata["backbone"]["weights"]
    if recorded["kind"] != "file" or stored.embedded_weights or conf.backbone.weights is not None:
        return
    raise UserError(
        f"{stored.file} needs the weights with sha256 {recorded['sha256']}, which are not under "
        f"{weight_store(conf).root}: give the file with {WEIGHTS}=PATH, or the cache of the "
        "run that made it with runtime.cache_root=PATH"
    )


def find_weights(stored: StoredCheckpoint, conf: Config, given: str | None) -> WeightsSource:
    """The weights of a checkpoint's backbone.

    Only repositories named by this command or by a published row are downloaded from, so a
    checkpoint cannot choose which server is contacted.

    Args:
        given: backbone.weights of this command.

    Raises:
        UserError: they are missing, or have another digest.
    """
    if stored.embedded_weights is not None:
        return stored.embedded_weights
    is_own_choice = given is not None and given.startswith(HUB)
    may_fetch = None if is_own_choice else published_repos().__contains__
    return weights.find(conf.backbone, may_fetch)
