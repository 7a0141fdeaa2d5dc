"""Who made these numbers, with what, from which code and data?"""

from __future__ import annotations

import subprocess

import jsonschema

from fgvc.record import env_stamp as stamps
from fgvc.record.checkpoint import FILE
from fgvc.record.verify import DamageError
from fgvc.report.audit import command
from fgvc.report.audit.check import MISSING, PASS, Verdict, agree
from fgvc.report.audit.record import Record
from fgvc.store import hashing


def stamp(record: Record) -> str:
    """Does env_stamp.json satisfy its schema and agree with the config?"""
    wrong = jsonschema.Draft202012Validator(stamps.schema()).iter_errors(record.stamp)
    if messages := [error.message for error in wrong]:
        raise DamageError(f"env_stamp.json: breaks its schema: {messages[0][:200]}")
    config, told = record.config, record.stamp
    for key, value in {
        "config_hash": hashing.sha256_bytes(record.data("config.canonical.json")),
        "seed": config["seed"],
        "precision": config["precision"],
        "fp16": config["precision"] == "fp16",
        "dataset": config["dataset"]["name"],
        "resolution": config["resolution"]["side"],
        "normalization": config["backbone"]["normalization"],
    }.items():
        agree(key, ("the config", value), ("env_stamp.json", told[key]))
    return f"env_stamp.json: {len(told)} fields; seed {told['seed']}, {told['os_version']}"


def environment(record: Record) -> Verdict:
    """Is the environment named by a digest, and are the requirements?"""
    told = record.stamp
    lock = told["requirements_checksum"]
    evidence = f"env_hash {told['env_hash']} ({told['env_hash_method']}), requirements {lock}"
    return Verdict(PASS if lock else MISSING, evidence)


def code(record: Record) -> Verdict:
    """Is the commit recorded, and what the tree had beyond it?"""
    told = record.stamp
    patch = "code.patch" in record.artifacts
    found = hashing.sha256_bytes(record.data("code.patch")) if patch else None
    agree("the digest of code.patch", ("env_stamp.json", told["code_patch_sha256"]), ("it", found))
    if told.get("git_error") is not None:
        return Verdict(MISSING, f"{told['git_commit'] or 'no commit'}: {told['git_error']}")
    if told["git_commit"] is None:
        return Verdict(MISSING, "no commit: it ran outside a checkout")
    tree = "a dirty tree, kept as code.patch" if told["git_dirty"] else "a clean tree"
    return Verdict(PASS, f"{told['git_commit']}, {tree}")


def command_recorded(record: Record) -> str:
    """Are the exact command, the config and the seed recorded?"""
    words = command.words(record)
    run_id = f"runtime.run_id={record.stamp['run_id']}"
    if words[-1:] != [run_id]:
        raise DamageError(f"command.txt: does not end in {run_id}")
    record.data("config.yaml")
    return f"command.txt ({len(words)} arguments), config.yaml, seed {record.config['seed']}"


def checkpoint(record: Record) -> str:
    """Do the tensors match their own digest, and belong to this config, label map and split?"""
    facts, told = record.facts, record.stamp
    agree(
        "config_hash", ("env_stamp.json", told["config_hash"]), ("ckpt.bin", facts["config_hash"])
    )
    inside = (tuple(facts["labelmap"]["ids"]), tuple(facts["labelmap"]["names"]))
    here = (record.labelmap.ids, record.labelmap.names)
    agree("the label map", ("labelmap.json", here), ("ckpt.bin", inside))
    fitted = {**facts["answer"], "split_digest": facts["split_digest"]}
    if told["task"] != "eval":  # an evaluation has code, data and weights of its own
        for key, value in fitted.items():
            agree(key, ("env_stamp.json", told[key]), ("ckpt.bin", value))
        for key, value in facts["backbone"]["weights"].items():
            agree(f"weights {key}", ("env_stamp.json", told["weights"][key]), ("ckpt.bin", value))
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
        return "no git here that could hold it"
    return "git ignores it"


def _git(*arguments: str) -> int:
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode
