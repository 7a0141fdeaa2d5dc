"""task=zero_shot: test images and the text of class names -> predictions, without any fitting.

Training images are not read.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fgvc.config.config_hash import hashed
from fgvc.model import head_layers
from fgvc.pipeline import certify, write_run
from fgvc.pipeline.experiment import Experiment, Results, open_experiment
from fgvc.pipeline.inference import predict_features
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.reference import ReferenceExtractor
from fgvc.pipeline.text_features import class_text_features


def run(job: Job) -> Skipped | None:
    """Classify test images by class names, and write the run folder.

    Raises:
        UserError: data, weights, tokenizer, device or folder do not match the command.
    """
    with open_experiment("zero_shot", job, job.conf, hashed(job.conf)) as experiment:
        if skipped := experiment.find_complete_run():
            return skipped
        write_run.write_run(experiment, _zero_shot(experiment))
    return None


def _zero_shot(experiment: Experiment) -> Results:
    weight_CD, scale = class_text_features(experiment)
    head = head_layers.TextHead(weight_CD, scale)
    test = experiment.extractor.extract("test", experiment.dataset.split.test_N)
    fast = predict_features(head, test, experiment.dataset)
    reference = ReferenceExtractor(experiment.extractor)
    predictions, checks = certify.check_predictions(
        experiment, fast, partial(reference.predict, head), experiment.conf.task.certify
    )
    reference.end()
    numbers: dict[str, object] = {
        "selection": None,
        "prompts": {"templates": list(experiment.conf.dataset.prompts), "scale": scale},
        "fitted_on": 0,
        **checks,
    }
    return Results(
        {"test": predictions},
        head.state_dict(),
        numbers,
        experiment.digest_fitted_images(np.empty(0, np.int64), np.empty(0, np.int64)),
        features=test,
        attention_maps=experiment.extractor.attention_maps,
        unreadable=test.bad,
        class_means="task=zero_shot reads no training images",
    )
