"""A record -> whether code, environment, checkpoint and the origin of the data are recorded.

No digest proves a licence or an approval. These checks report the recorded texts, and a named
person signs.
"""

from __future__ import annotations

import subprocess

import jsonschema

from fgvc.record import env_stamp as stamps
from fgvc.record.checkpoint import FILE
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import MISSING, PASS, PERSON, Verdict, agree
from fgvc.report.audit.record import STAMP, Record
from fgvc.store import hashing


def stamp(record: Record) -> str:
    """Does env_stamp.json satisfy its schema and agree with the config?"""
    errors = jsonschema.Draft202012Validator(stamps.schema()).iter_errors(record.stamp)
    if messages := [error.message for error in errors]:
        raise DamageError(f"env_stamp.json: violates its schema: {messages[0][:200]}")
    config, stamped = record.config, record.stamp
    for key, value in {
        "config_hash": hashing.sha256_bytes(record.data("config.canonical.json")),
        "seed": config["seed"],
        "precision": config["precision"],
        "fp16": config["precision"] == "fp16",
        "dataset": config["dataset"]["name"],
        "resolution": config["resolution"]["side"],
        "normalization": config["backbone"]["normalization"],
    }.items():
        agree(key, ("the config", value), (STAMP, stamped[key]))
    return f"env_stamp.json: {len(stamped)} fields; seed {stamped['seed']}, {stamped['os_version']}"


def environment(record: Record) -> Verdict:
    """Are the environment and its requirements recorded by digest?"""
    stamped = record.stamp
    lock = stamped["requirements_checksum"]
    evidence = f"env_hash {stamped['env_hash']} ({stamped['env_hash_method']}), requirements {lock}"
    return Verdict(PASS if lock else MISSING, evidence)


def code(record: Record) -> Verdict:
    """Are the commit and the uncommitted changes recorded?"""
    stamped = record.stamp
    patch = "code.patch" in record.artifacts
    patch_digest = hashing.sha256_bytes(record.data("code.patch")) if patch else None
    stated = (STAMP, stamped["code_patch_sha256"])
    agree("the digest of code.patch", stated, ("code.patch", patch_digest))
    if stamped.get("git_error") is not None:
        return Verdict(MISSING, f"{stamped['git_commit'] or 'no commit'}: {stamped['git_error']}")
    if stamped["git_commit"] is None:
        return Verdict(MISSING, "no commit: the run used code outside a git checkout")
    tree = "a dirty tree, its changes in code.patch" if stamped["git_dirty"] else "a clean tree"
    return Verdict(PASS, f"{stamped['git_commit']}, {tree}")


def command_recorded(record: Record) -> str:
    """Are the exact command, the config and the seed recorded?"""
    words, of_sweep = record.commands()
    run_id = f"runtime.run_id={record.stamp['run_id']}"
    for arguments in [words] if of_sweep is None else [words, of_sweep]:
        if arguments[-1:] != [run_id]:
            raise DamageError(f"command.txt: does not end in {run_id}")
    record.data("config.yaml")
    named = "" if of_sweep is None else ", a job of a sweep"
    count = f"{len(words)} arguments{named}"
    return f"command.txt ({count}), config.yaml, seed {record.config['seed']}"


def checkpoint(record: Record) -> str:
    """Do the tensors match their digest, and belong to this config, label map and split?"""
    facts, stamped = record.facts, record.stamp
    agree("config_hash", (STAMP, stamped["config_hash"]), ("ckpt.bin", facts["config_hash"]))
    checkpoint_classes = (tuple(facts["labelmap"]["ids"]), tuple(facts["labelmap"]["names"]))
    recorded_classes = (record.labelmap.ids, record.labelmap.names)
    agree("the label map", ("labelmap.json", recorded_classes), ("ckpt.bin", checkpoint_classes))
    if stamped["task"] != "eval":  # an evaluation has its own code, data and weights
        for key, value in {**facts["answer"], "split_digest": facts["split_digest"]}.items():
            agree(key, (STAMP, stamped[key]), ("ckpt.bin", value))
        for key, value in facts["backbone"]["weights"].items():
            agree(f"weights {key}", (STAMP, stamped["weights"][key]), ("ckpt.bin", value))
    return f"{FILE}: content digest verified, {len(record.labelmap)} classes"


def checkpoint_ignored(record: Record) -> str:
    """Is ckpt.bin kept out of git?"""
    folder, file = str(record.path), FILE
    try:
        if _git("-C", folder, "rev-parse", "--is-inside-work-tree") != 0:
            return "outside any git work tree"
        if _git("-C", folder, "ls-files", "--error-unmatch", file) == 0:
            raise DamageError(f"{file}: tracked by git; remove it from the index")
        if _git("-C", folder, "check-ignore", "-q", file) != 0:
            raise DamageError(f"{file}: git does not ignore it; add it to .gitignore")
    except FileNotFoundError:
        return "git is not installed"
    return "git ignores it"


def _git(*arguments: str) -> int:
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode


def stack_validated(record: Record) -> str:
    """Did TensorBoard and FiftyOne pass task=check on this stack, if the backbone requires it?"""
    stack = record.stamp["stack_check"]
    if stack == "skipped":
        raise DamageError(f"{STAMP}: stack_check skipped; run task=check, then repeat the run")
    versions = ("python", "torch", "tensorboard", "fiftyone")
    listed = (f"{name} {record.stamp[f'{name}_version']}" for name in versions)
    return f"{stack}: {', '.join(listed)}"


def source(record: Record) -> str:
    """Are the source and the filtering of the images recorded?"""
    card = record.stamp["dataset_card"]
    for key in ("source", "filtering"):
        if not card.get(key):
            raise DamageError(f"env_stamp.json: dataset.card.{key} is not recorded")
    manifest = record.stamp["manifest_digest"]
    return f"{card['source']}; filtering: {card['filtering']}; manifest {manifest}"


def licence(record: Record) -> Verdict:
    """Do the licences permit this use of the images and weights? (a person signs)"""
    weights = record.stamp["weights"]
    images = f"images: {record.stamp['dataset_card'].get('license', 'not recorded')}"
    return Verdict(PERSON, f"{images}; weights: {weights['name']} ({weights['kind']})")


def approval(record: Record) -> Verdict:
    """Is a new or synthetic dataset approved? (a person signs)"""
    return Verdict(PERSON, record.stamp["dataset_card"].get("approval", "not recorded"))
