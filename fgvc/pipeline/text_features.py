"""Class names -> one text feature per class, computed once for every run that can share them.

C classes, T templates, D width of the space that images and text share.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgvc.config.schema import chosen_checkpoint
from fgvc.data import prompts
from fgvc.model import backbone as backbones
from fgvc.model.backbone import hf_config
from fgvc.pipeline.experiment import Experiment
from fgvc.record import console
from fgvc.store.array_cache import cached_arrays

LIBRARIES = {
    "open_clip": ("open_clip_torch", "ftfy", "regex"),
    "transformers": ("transformers", "tokenizers"),
}


@dataclass(frozen=True)
class ClassText:
    """What the text tower says of the classes.

    weight_CD: float32, rows of unit length: the mean of the prompts' unit features, normalised
    (Radford et al., 2021, section 3.1.4). scale: the tower's own factor of cosines.
    """

    weight_CD: Tensor
    scale: float


def class_text(job: Experiment) -> ClassText:
    """The text features of the run's classes, from the cache or computed into it.

    Raises:
        UserError: the tokenizer's files are not where the weights are.
    """
    names = prompts.prompts(job.dataset.labelmap, job.conf.dataset.prompts)
    root = job.extractor.cache_root / "text"
    arrays = cached_arrays(root, _key(job, names), lambda: _computed(job, names), console.say)
    return ClassText(torch.from_numpy(arrays["weight_CD"]), float(arrays["scale"][0]))


def _key(job: Experiment, names: list[list[str]]) -> dict[str, object]:
    """Everything that can change these features."""
    conf, source = job.conf.backbone, job.extractor.source
    row, eps = chosen_checkpoint(conf), hf_config.norm_eps(conf, source)
    return {
        "cleaning": prompts.VERSION,
        "prompts": names,
        "libraries": {name: version(name) for name in ("torch", *LIBRARIES[conf.library])},
        "model": [row.model, row.tag, row.architecture],
        "weights": source.sha256 or f"random seed {job.conf.seed}",
        **({} if eps is None else {"norm_eps": eps}),
        "tokenizer": conf.tokenizer_sha256 or source.revision,
        "device": job.extractor.device.type,
        "matmul_precision": job.conf.matmul_precision,
    }


@torch.inference_mode()
def _computed(job: Experiment, names: list[list[str]]) -> dict[str, np.ndarray]:
    tower = backbones.text_tower(job.conf.backbone, job.extractor.source, job.conf.seed)
    tower = tower.to(job.extractor.device)
    flat = [prompt for of_class in names for prompt in of_class]
    console.say(f"text features: {len(flat)} prompts for {len(names)} classes")
    text_PD = tower.encode(flat).float().cpu()
    unit_CTD = normalize(text_PD, dim=-1).unflatten(0, (len(names), -1))
    weight_CD = normalize(unit_CTD.mean(1), dim=-1)
    job.extractor.counters.prompts += len(flat)
    return {"weight_CD": weight_CD.numpy(), "scale": np.array([tower.scale], np.float64)}
