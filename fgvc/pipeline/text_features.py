"""Class names -> one text feature per class, computed once and shared by all runs.

C classes, T templates, P prompts, D width of the space that images and text share.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fgvc.config.schema import chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.data import prompts
from fgvc.model import backbone as backbones
from fgvc.model.backbone import hf_config
from fgvc.pipeline.experiment import Experiment
from fgvc.record import console
from fgvc.store.array_cache import cached_arrays


def class_text_features(experiment: Experiment) -> tuple[Tensor, float]:
    """The text features of the experiment's classes, from the cache or computed into it.

    Returns:
        weight_CD: float32, rows of unit length: the normalised mean of the unit features of a
            class's prompts (Radford et al., 2021, section 3.1.4).
        scale: the text tower's factor of cosines.

    Raises:
        UserError: the tokenizer's files are not beside the weights.
    """
    prompts_CT = prompts.prompts(experiment.dataset.labelmap, experiment.conf.dataset.prompts)
    arrays = cached_arrays(
        experiment.extractor.cache_root / "text",
        _key(experiment, prompts_CT),
        lambda: _compute(experiment, prompts_CT),
        console.say,
    )
    return torch.from_numpy(arrays["weight_CD"]), float(arrays["scale"][0])


def _key(experiment: Experiment, prompts_CT: list[list[str]]) -> dict[str, object]:
    """Everything that can change these features."""
    conf, source = experiment.conf.backbone, experiment.extractor.source
    row, eps = chosen_checkpoint(conf), hf_config.norm_eps(conf, source)
    return {
        "cleaning": prompts.VERSION,
        "prompts": prompts_CT,
        "libraries": {
            name: version(name) for name in ("torch", *LIBRARIES[conf.library].text_packages)
        },
        "model": [row.model, row.tag, row.architecture],
        "weights": source.sha256 or f"random seed {experiment.conf.seed}",
        **({} if eps is None else {"norm_eps": eps}),
        "tokenizer": conf.tokenizer_sha256 or source.revision,
        "device": experiment.extractor.device.type,
        "matmul_precision": experiment.conf.matmul_precision,
    }


@torch.inference_mode()
def _compute(experiment: Experiment, prompts_CT: list[list[str]]) -> dict[str, np.ndarray]:
    extractor, classes, conf = experiment.extractor, len(prompts_CT), experiment.conf
    tower = backbones.text_tower(conf.backbone, extractor.source, conf.seed).to(extractor.device)
    prompt_P = [prompt for prompts_T in prompts_CT for prompt in prompts_T]
    console.say(f"text features: {len(prompt_P)} prompts for {classes} classes")
    text_PD = tower.encode(prompt_P).float().cpu()
    unit_CTD = normalize(text_PD, dim=-1).unflatten(0, (classes, -1))
    weight_CD = normalize(unit_CTD.mean(1), dim=-1)
    extractor.counters.prompts += len(prompt_P)
    return {"weight_CD": weight_CD.numpy(), "scale": np.array([tower.scale], np.float64)}
