"""task=zero_shot: images against the text of the class names; nothing is fitted or chosen.

The class names know nothing of the training images, which are not read: validation and test are.
"""

from __future__ import annotations

import numpy as np

from fgvc.config.compose import resolved
from fgvc.model import head as heads
from fgvc.pipeline import write_run
from fgvc.pipeline.experiment import (
    Experiment,
    Results,
    describe_fit,
    find_complete_run,
    open_experiment,
)
from fgvc.pipeline.inference import predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.text_features import class_text_features


def run(job: Job) -> Skipped | None:
    """Classify by class names into a run folder.

    Raises:
        UserError: data, weights, tokenizer, device or folder are not what the command says.
    """
    with open_experiment("zero_shot", job.conf, resolved(job.cfg), job.command) as experiment:
        if skipped := find_complete_run(experiment):
            return skipped
        write_run.write_run(experiment, _zero_shot(experiment))
    return None


def _zero_shot(job: Experiment) -> Results:
    text = class_text_features(job)
    head = heads.TextHead(text.weight_CD, text.scale)
    test = job.extractor.extract("test", job.dataset.split.test_N)
    numbers: dict[str, object] = {
        "selection": None,
        "prompts": {"templates": list(job.conf.dataset.prompts), "scale": text.scale},
        "fitted_on": 0,
    }
    return Results(
        {"test": predict_features(head, test, job.dataset)},
        head.state_dict(),
        numbers,
        describe_fit(job, np.empty(0, np.int64), np.empty(0, np.int64)),
        features=test,
        attention_maps=job.extractor.attention_maps,
        unreadable=test.bad,
    )
