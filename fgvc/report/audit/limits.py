"""The lines that an audit prints and records on what it proves and what it cannot prove.

The owner of a folder can change every file and recompute every digest. In this case the audit
detects only contradictions between two files, or between a file and the code.
"""

from __future__ import annotations

PROVES = (
    "The files are those that were sealed, they agree with each other, and every number of "
    "metrics.json follows from predictions.parquet."
)
NOT_PROVEN = (
    "that this checkpoint gives these predictions: whoever changes predictions.parquet and "
    "recomputes every number and digest passes",
    "that the predicted files are the images of the dataset: their digests are as the record "
    "states them",
    "what was measured: times, speed, memory, parameters, MACs, images decoded, prompts, solver "
    "steps and gaps, the losses on the path of C, the trials of a head, the curves of trainings",
    "the tree above the classes, except for the numbers that follow from it",
    "the machine and its packages, unless env_hash is that of this machine",
    "what only people read: photographs in report.html, embeddings and maps of FiftyOne, images "
    "and texts of TensorBoard, run.log",
    "who made it: nothing is signed",
)
AGAIN = "To measure the numbers again, from the images and ckpt.bin:"
