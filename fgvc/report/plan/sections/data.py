"""Texts on the data: source, licence, approval, filtering, counts, and the smoke subset."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.store import hashing
from fgvc.untrusted.escape import code, fenced, markdown

UNKNOWN = (
    "",
    "unknown",
    "none recorded",
    "not recorded",
)  # values of a card field that is not filled in


def source(inputs: PlanInputs) -> str:
    return f"{_card_text(inputs, 'source')}. Cite: {markdown(inputs.card['citation'])}."


def licence(inputs: PlanInputs) -> str:
    return f"{_card_text(inputs, 'license')}. To be confirmed by the licence reviewer below."


def approval(inputs: PlanInputs) -> str:
    return f"{_card_text(inputs, 'approval')}. To be confirmed by the data approver below."


def filtering(inputs: PlanInputs) -> str:
    skipped = (
        "an unreadable image ends the run"
        if inputs.dataset["on_bad_image"] == "error"
        else "an unreadable image is left out of training and counts as wrong in the test"
    )
    cropped = "; images are cropped to their boxes" if inputs.dataset["box_crop"] else ""
    return (
        f"{_card_text(inputs, 'filtering')}; {skipped}{cropped}. Label noise: "
        f"{markdown(inputs.card['label_noise'])}. Contamination of the test images: "
        f"{markdown(inputs.card['contamination'])}."
    )


def counts(inputs: PlanInputs) -> str:
    """The official numbers, those of the generator, or the counts of task=doctor."""
    dataset, examination = inputs.dataset, inputs.examination
    if examination is not None and examination["verdict"] == "wrong":
        raise Unanswered(
            "task=doctor finds this copy wrong", "fix what it reports, then run it again"
        )
    if examination is not None:
        counted = [
            f"{count['found']:,}"
            + (f" of {count['official']:,}" if count["official"] else "")
            + f" {key}"
            for key, count in sorted(examination["counts"].items(), key=_count_order)
        ]
        return f"{', '.join(counted)}, counted by task=doctor; verdict: {examination['verdict']}."
    if (generator := dataset["generator"]) is not None:
        train, test = (
            generator["classes"] * generator[f"{part}_per_class"] for part in ("train", "test")
        )
        return (
            f"{generator['classes']} classes, {train:,} train and {test:,} test images, generated."
        )
    if dataset["partial"] or not dataset["official"]["classes"]:
        reason = "a partial copy" if dataset["partial"] else "no published dataset"
        raise Unanswered(
            f"dataset={markdown(dataset['name'])} is {reason} and was not counted",
            f"run {code(inputs.doctor)} first",
        )
    official = dataset["official"]
    return (
        f"{official['classes']:,} classes, {official['train']:,} train and {official['test']:,} "
        "test images, the official numbers; a copy that differs is refused."
    )


def smoke(inputs: PlanInputs) -> str:
    tiny = inputs.smoke
    checksum = hashing.sha256_bytes(hashing.canonical_json(tiny["definition"]))
    commands = (
        f"{inputs.experiment.command} dataset.subset=tiny\n"
        "python -m pytest -m smoke   # the same, offline, on synthetic birds\n"
        "make smoke                  # and in bf16, and on two processes"
    )
    return (
        f"`dataset.subset=tiny` of dataset={markdown(inputs.dataset['name'])}: "
        f"at most {tiny['train']} train, "
        f"{tiny['val']} validation and {tiny['test']} test images, that is at most 2 batches of "
        f"8 per split, of {tiny['classes']} classes, each in every split; checksum "
        f"of its definition `{checksum}`; about {tiny['expected_seconds']} s on two CPU cores. It "
        "is part of the dataset itself: `splits/train.txt` and `splits/test.txt` of the smoke run "
        "list its training and inference images, and the stamp names those lists "
        "(`tiny_train_subset_path`, `tiny_infer_subset_path`), with counts, coverage and the "
        "checksum of the images.\n\n"
        f"{fenced(commands)}\n\n"
        "On a device that supports fp16, fp16 is tested too."
    )


def _count_order(entry: tuple[str, object]) -> int:
    """Sort key: classes, train and test first, then other counts."""
    usual = ("classes", "train", "test")
    return usual.index(entry[0]) if entry[0] in usual else len(usual)


def _card_text(inputs: PlanInputs, field: str) -> str:
    value = str(inputs.card[field]).strip()
    if value.split(":")[0].strip() in UNKNOWN:
        raise Unanswered(
            f"the card of dataset={markdown(inputs.dataset['name'])} leaves {field} open",
            f"set dataset.card.{field}=… once it is known",
        )
    return markdown(value)
