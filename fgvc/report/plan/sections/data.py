"""What the data is, who allows it, how much of it there is, and the corner it is first tried on."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.store import hashing
from fgvc.untrusted.escape import code, fenced, markdown

OPEN = ("", "unknown", "none recorded", "not recorded")  # how a card says that nobody filled it in


def source(about: PlanInputs) -> str:
    return f"{_told(about, 'source')}. Cite: {markdown(about.card['citation'])}."


def licence(about: PlanInputs) -> str:
    return f"{_told(about, 'license')}. To be confirmed by the licence reviewer below."


def approval(about: PlanInputs) -> str:
    return f"{_told(about, 'approval')}. To be confirmed by the data approver below."


def filtering(about: PlanInputs) -> str:
    skipped = (
        "an unreadable image ends the run"
        if about.dataset["on_bad_image"] == "error"
        else "an unreadable image is left out of training and counts as wrong in the test"
    )
    cropped = "; pictures are cut to their boxes" if about.dataset["box_crop"] else ""
    return (
        f"{_told(about, 'filtering')}; {skipped}{cropped}. Label noise: "
        f"{markdown(about.card['label_noise'])}. Who may have seen the test images: "
        f"{markdown(about.card['contamination'])}."
    )


def counts(about: PlanInputs) -> str:
    """The official numbers, those of the generator, or what task=doctor counted."""
    dataset, found = about.dataset, about.examination
    if found is not None and found["verdict"] == "wrong":
        raise Unanswered("task=doctor finds this copy wrong", "mend what it names, examine again")
    if found is not None:
        told = [
            f"{one['found']:,}"
            + (f" of {one['official']:,}" if one["official"] else "")
            + f" {key}"
            for key, one in sorted(found["counts"].items(), key=_place)
        ]
        return f"{', '.join(told)}, counted by task=doctor; verdict: {found['verdict']}."
    if (made := dataset["generator"]) is not None:
        train, test = (made["classes"] * made[f"{part}_per_class"] for part in ("train", "test"))
        return f"{made['classes']} classes, {train:,} train and {test:,} test images, generated."
    if dataset["partial"] or not dataset["official"]["classes"]:
        why = "a partial copy" if dataset["partial"] else "no published dataset"
        raise Unanswered(
            f"dataset={markdown(dataset['name'])} is {why} and was not counted",
            f"run {code(about.doctor)} first",
        )
    official = dataset["official"]
    return (
        f"{official['classes']:,} classes, {official['train']:,} train and {official['test']:,} "
        "test images, the official numbers; a copy that differs is refused."
    )


def smoke(about: PlanInputs) -> str:
    tiny = about.smoke
    checksum = hashing.sha256_bytes(hashing.canonical_json(tiny["definition"]))
    commands = (
        f"{about.experiment.command} dataset.subset=tiny\n"
        "python -m pytest -m smoke   # the same, offline, on synthetic birds\n"
        "make smoke                  # and in bf16, and on two processes"
    )
    return (
        f"`dataset.subset=tiny` of dataset={markdown(about.dataset['name'])}: "
        f"at most {tiny['train']} train, "
        f"{tiny['val']} validation and {tiny['test']} test pictures, that is at most 2 batches of "
        f"8 a split, of {tiny['classes']} classes, each of which occurs in every split; checksum "
        f"of its definition `{checksum}`; about {tiny['expected_seconds']} s on two CPU cores. It "
        "lies in the dataset itself: `splits/train.txt` and `splits/test.txt` of the smoke run "
        "list its training and inference images, and the stamp names those lists "
        "(`tiny_train_subset_path`, `tiny_infer_subset_path`), with counts, coverage and the "
        "checksum of the images.\n\n"
        f"{fenced(commands)}\n\n"
        "fp16 is part of it on a device that has it."
    )


def _place(entry: tuple[str, object]) -> int:
    """Of a count in the usual order; the others after them."""
    usual = ("classes", "train", "test")
    return usual.index(entry[0]) if entry[0] in usual else len(usual)


def _told(about: PlanInputs, field: str) -> str:
    value = str(about.card[field]).strip()
    if value.split(":")[0].strip() in OPEN:
        raise Unanswered(
            f"the card of dataset={markdown(about.dataset['name'])} leaves {field} open",
            f"set dataset.card.{field}=… once it is known",
        )
    return markdown(value)
