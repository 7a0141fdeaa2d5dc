"""A checkpoint -> its config with the paths of this command, its weights and its classifier.

task=eval, task=predict and task=export take the config from the checkpoint; the command may only
set paths and how to run.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.checkpoint_rows import published_repos
from fgvc.config.compose import check_bounds, conf_dir, config_hash, parse_config, typed
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import key_of
from fgvc.config.overrides import MAX_PIXELS, declared_values
from fgvc.config.schema import Config, architecture, chosen_checkpoint
from fgvc.config.weight_files.hub_name import HUB
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model.backbone import weights
from fgvc.model.backbone.base import feature_dim
from fgvc.model.backbone.load_state import first_difference
from fgvc.model.build_head import load_head
from fgvc.model.classifier import Classifier
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.job import Job
from fgvc.record import checkpoint, class_means, console, fitted_images
from fgvc.record.class_means import ClassMeans
from fgvc.record.fitted_images import FittedImages
from fgvc.report.flatten import flatten
from fgvc.store.content_store import ContentStore
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import escaped

HEAD = "head."  # before the names of the head's tensors
WEIGHTS = "backbone.weights"
PATH_KEYS = ("dataset.root", "dataset.table", WEIGHTS)


@dataclass(frozen=True)
class StoredCheckpoint:
    """A verified checkpoint: its file, id, metadata and tensors.

    tensors: of the head, or of backbone and head. fitted_images: that fitted or chose the head.
    class_means: of the features of known images, or why there are none.
    """

    file: Path
    id: str
    metadata: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    fitted_images: FittedImages
    class_means: ClassMeans | str

    @property
    def whole(self) -> bool:
        return bool(self.metadata.get("whole"))

    @property
    def weights(self) -> dict[str, Any]:
        """The facts of the weights that the run began with."""
        return self.metadata["backbone"]["weights"]

    @property
    def needs_file(self) -> bool:
        """Whether the backbone is read from a local file: not in the checkpoint or on the hub."""
        return self.weights["kind"] == "file" and not self.whole

    @property
    def classes(self) -> list[tuple[str, str]]:
        """The dataset's id and the name of each class, in the order of the logits."""
        labelmap = self.metadata["labelmap"]
        return list(zip(labelmap["ids"], labelmap["names"], strict=True))

    def head(self, conf: Config) -> torch.nn.Module:
        """The head of the checkpoint, in evaluation mode.

        Raises:
            UserError: its tensors do not fit the head and the features of the config.
        """
        width = feature_dim(chosen_checkpoint(conf.backbone), conf.backbone.features)
        means = self.class_means
        if isinstance(means, ClassMeans) and means.mean_MD.shape[1] != width:
            raise UserError(
                f"{self.file}: {class_means.MEANS} has {means.mean_MD.shape[1]} columns for "
                f"features of {width} numbers. Repeat the run that made it"
            )
        state = {
            name.removeprefix(HEAD): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(HEAD) or not self.whole
        }
        try:
            return load_head(conf.head, state, len(self.classes), width)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error

    def classifier(
        self, conf: Config, source: WeightsSource | None, device: torch.device
    ) -> Classifier:
        """Backbone and head together, in evaluation mode.

        source: of the backbone; not needed if the checkpoint holds it.

        Raises:
            UserError: the model cannot be built, or the checkpoint's tensors do not fit it.
        """
        if self.whole:  # random weights, which the tensors of the file replace
            model_name = chosen_checkpoint(conf.backbone).model
            size = sum(tensor.numel() for tensor in self.tensors.values())
            source = WeightsSource("random", model_name, value_count=size)
        assert source is not None
        try:
            backbone, selector = build_model(conf, source)
        except (UserError, ConfigError) as error:
            raise UserError(f"{self.file}: {error}") from error
        model = Classifier(backbone, self.head(conf), selector)
        if self.whole:
            if (difference := first_difference(self.tensors, model.state_dict())) is not None:
                raise UserError(
                    f"{self.file}: the checkpoint's tensors are not those of {source.name}: "
                    f"{difference}"
                )
            model.load_state_dict(self.tensors)
        return model.to(device).eval()

    def check(self, source: WeightsSource, preprocess: Preprocess) -> None:
        """Check that weights and preprocessing are those of the run that wrote the checkpoint.

        Raises:
            UserError: they differ.
        """
        if (recorded := self.weights["sha256"]) != source.sha256:
            raise UserError(
                f"{self.file} belongs to weights with sha256 {recorded}, found {source.sha256}: "
                f"set {WEIGHTS}=PATH to its original file"
            )
        if self.metadata["preprocess"] != preprocess.identity:
            raise UserError(
                f"{self.file} was made with a preprocessing that differs from this version's"
            )


def load_checkpoint(job: Job) -> StoredCheckpoint:
    """The checkpoint that `checkpoint=` names: a file, or its run folder.

    Raises:
        UserError: no such file, not a checkpoint, or a damaged checkpoint.
    """
    assert job.conf.checkpoint is not None
    return read_checkpoint(checkpoint.locate(Path(job.conf.checkpoint).expanduser()))


def read_checkpoint(file: Path, key: str = "") -> StoredCheckpoint:
    """Read and verify a checkpoint file. key: `KEY=` of the key that names it, for messages.

    Raises:
        UserError: it is damaged, or an older version of fgvc wrote it.
    """
    tensors, metadata, checkpoint_id = checkpoint.read(file)
    try:
        fitted = fitted_images.from_checkpoint(metadata, tensors)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{key}{file}: does not record which images fitted and chose its head ({error}). "
            "Repeat the run that made it"
        ) from error
    try:
        means = class_means.from_checkpoint(metadata, tensors)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{key}{file}: its class means are damaged ({error}). Repeat the run that made it"
        ) from error
    others = (*fitted_images.TENSORS, class_means.MEANS)
    tensors = {name: value for name, value in tensors.items() if name not in others}
    return StoredCheckpoint(file, checkpoint_id, metadata, tensors, fitted, means)


def load_config_and_weights(stored: StoredCheckpoint, job: Job) -> tuple[Config, WeightsSource]:
    """The checkpoint's config with this command's paths, and the weights of its backbone.

    Raises:
        UserError: the weights are missing, or have another digest.
    """
    cfg = merge_config(stored, job)
    path = declared_values(job.overrides).get(WEIGHTS)
    if path is not None and not stored.whole:  # a file may replace weights from the hub
        cfg.backbone.weights = escaped(path)
    conf = checked_config(stored, cfg)
    source = find_weights(stored, conf, job)
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
    cfg.runtime = escaped(asdict(job.conf.runtime))
    for name in ("checkpoint", "run", "against", "image"):
        cfg[name] = escaped(getattr(job.conf, name))
    given, recorded = declared_values(job.overrides), _paths_of_run(stored.file)
    file = conf_dir() / "dataset" / f"{cfg.dataset.reader}.yaml"
    defaults: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for name in ("root", "table"):
        path = {**recorded, **given}.get(f"dataset.{name}")
        cfg.dataset[name] = defaults.get(name) if path is None else escaped(path)
    if (partial := given.get("dataset.partial")) is not None:
        cfg.dataset.partial = partial
    if any(key_of(override) == MAX_PIXELS for override in job.overrides):
        cfg.dataset.max_pixels = job.conf.dataset.max_pixels
    # an altered dataset is accepted only by the command that sets the key
    cfg.dataset.accept_altered = given.get("dataset.accept_altered", "False")
    if stored.whole:  # do not look for another file
        cfg.runtime.weights_root = str(stored.file)
    path = None
    if stored.needs_file:  # that of this command, that of the run, or the copy in the store
        path = given.get(WEIGHTS)
        if path is None and Path(recorded.get(WEIGHTS, "")).expanduser().is_file():
            path = recorded[WEIGHTS]
        if path is None:
            with contextlib.suppress(UserError):
                path = str(weight_store(job.conf).path(stored.weights["sha256"]))
    cfg.backbone.weights = escaped(path)
    return cfg


def _paths_of_run(file: Path) -> dict[str, str]:
    """The paths of data and weights in the config.yaml beside a checkpoint, if there is one."""
    config_file = file.parent / "config.yaml"
    if not config_file.is_file():
        return {}
    try:
        plain = untrusted.parse_yaml(untrusted.read_text(config_file, untrusted.MIB))
    except (ValueError, OSError) as error:
        raise UserError(f"{config_file}: damaged ({' '.join(str(error).split())[:80]})") from error
    flat = flatten(plain) if isinstance(plain, dict) else {}
    paths = {key: flat[key] for key in PATH_KEYS if isinstance(flat.get(key), str)}
    return {key: path for key, path in paths.items() if "\0" not in path}


def check_config_hash(stored: StoredCheckpoint, plain: dict[str, Any]) -> None:
    """Compare the hash of the composed config with that of the checkpoint's run.

    Raises:
        UserError: names both hashes and the likely causes.
    """
    composed, recorded = config_hash(plain), stored.metadata["config_hash"]
    if composed != recorded:
        raise UserError(
            f"{stored.file} was made with config {recorded[:16]}, composed here it is "
            f"{composed[:16]}: its weights have moved ({WEIGHTS}=PATH) or this version of "
            "fgvc reads configs differently"
        )


def checked_config(stored: StoredCheckpoint, cfg: DictConfig) -> Config:
    """The typed config, with the layer norm epsilon that the hub's config.json had: a copy of the
    weights file without its config.json does not state it.

    cfg: as from `merge_config`; composing it looks for the file in runtime.weights_root too.

    Raises:
        UserError: the backbone came from a file that is not found; names its digest.
    """
    conf = typed(cfg)
    if stored.needs_file and conf.backbone.weights is None:
        raise UserError(
            f"{stored.file} needs the weights with sha256 {stored.weights['sha256']}, which are "
            f"not under {weight_store(conf).root}: give the file with {WEIGHTS}=PATH, or the cache "
            "of the run that made it with runtime.cache_root=PATH"
        )
    eps = stored.metadata["backbone"].get("norm_eps", conf.backbone.norm_eps)
    return replace(conf, backbone=replace(conf.backbone, norm_eps=eps, norm_eps_assumed=False))


def find_weights(stored: StoredCheckpoint, conf: Config, job: Job) -> WeightsSource:
    """The weights of a checkpoint's backbone.

    Only repositories named by this command or by a published row are downloaded from, so a
    checkpoint cannot choose which server is contacted.

    Raises:
        UserError: they are missing, or have another digest.
    """
    if stored.whole:  # with the digest of the weights that the training began with
        facts = [stored.weights.get(name) for name in ("sha256", "revision", "made_by")]
        return WeightsSource("checkpoint", stored.file.name, None, *facts)
    is_own_choice = (declared_values(job.overrides).get(WEIGHTS) or "").startswith(HUB)
    may_fetch = None if is_own_choice else published_repos().__contains__
    return weights.find(conf.backbone, may_fetch)


def weight_store(conf: Config) -> ContentStore:
    """The store of local weights by digest, where a checkpoint finds its weights again."""
    return ContentStore(Path(conf.runtime.cache_root).expanduser() / "weights", console.say)


def store_weights(conf: Config, path: Path) -> None:
    """Put a weights file into the store; for sharded weights every shard and their list."""
    store = weight_store(conf)
    files, shard_list = weights.files_of(path)
    for file in files:
        store.put(file)
    if shard_list is not None:
        store.put_bytes(shard_list)
