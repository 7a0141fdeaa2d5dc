"""A model card states the source of its numbers and why a report does not rank them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.record import checkpoint
from fgvc.report import model_card
from fgvc.types import UserError

EVALUATION = {"task": "eval"}
MARKS = ("fitted or chose", "by force", "debugging", "other data", "partial", "subset")


def card_of(folder: Path, exported_from: str | None = None) -> str:
    """The card of a checkpoint in one line. exported_from: checkpoint id; None: that of the run."""
    _, facts, checkpoint_id = checkpoint.read(folder)
    text = model_card.render_model_card(
        folder,
        facts,
        ids={"checkpoint": checkpoint_id, "exported_from": exported_from or checkpoint_id},
        weights={"license": "none", "contamination": "nothing"},
        agreement={},
        digests={},
    )
    return " ".join(text.split())


def numbers_in(card: str) -> str:
    """The section of the numbers."""
    return card.split("## Numbers")[1].split("## Intended use")[0]


def test_a_plain_run_has_no_mark(runs):
    card = card_of(runs())
    assert "The numbers are of the run that made the checkpoint (`task=probe`)." in card
    assert [mark for mark in MARKS if mark in card] == []


def test_another_checkpoint_in_the_folder_of_a_run_has_none_of_its_numbers(runs):
    card = card_of(runs(), exported_from="0" * 64)
    assert "None: the checkpoint was exported without the record of its run." in card
    assert "test 30" not in numbers_in(card)


def test_an_evaluation_is_not_called_the_run_that_made_the_checkpoint(forge):
    numbers = numbers_in(card_of(forge("a", stamp=EVALUATION)))
    assert (
        "of an evaluation of the checkpoint (`task=eval`), not of the run that made it" in numbers
    )
    assert "of the run that made the checkpoint" not in numbers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"overlap": {"images": 30}}, "30 of the 30 test images fitted or chose the head"),
        ({"overlap": {"images": 2}}, "2 of the 30 test images fitted or chose the head"),
        ({"overlap": {"images": None}}, "does not state how many test images fitted or chose"),
        ({"comparability": {"forced": True}}, "resumed by force under another config"),
        ({"comparability": {"debug": "overfit"}}, "debugging run, task\\.debug=overfit"),
        ({"comparability": {"fitted_manifest": "f" * 64}}, "fitted on other data (ffffffff)"),
        ({"comparability": {"fitted_split": "e" * 64}}, "fitted on other data (eeeeeeee)"),
        ({"notes": ["3 images are unreadable", "b"]}, "- note: 3 images are unreadable - note: b"),
        ({"test": {"intervals_note": "one image per class"}}, "note: test: one image per class"),
    ],
)
def test_numbers_that_a_report_does_not_rank_are_marked(forge, numbers, text):
    assert text in numbers_in(card_of(forge("a", numbers=numbers)))


def test_a_zero_shot_record_is_not_fitted_on_other_data(forge):
    parts = {"fitted_manifest": None, "fitted_split": None, "final_fit": None, "split": None}
    assert "other data" not in card_of(forge("a", numbers={"comparability": parts}))


def test_a_partial_copy_is_the_one_that_the_record_states(forge):
    declared = {"config": {"dataset": {"partial": True}}}
    card_of_whole = card_of(forge("whole", facts=declared))
    assert "partial" not in card_of_whole
    card = card_of(forge("part", facts=declared, stamp={"partial": True}))
    assert "made with a *partial copy*" in card
    assert "computed on a *partial copy*" in numbers_in(card)


def test_an_evaluation_on_a_partial_copy_does_not_make_the_checkpoint_partial(forge):
    other_manifest = {"comparability": {"fitted_manifest": "f" * 64}}
    card = card_of(forge("a", numbers=other_manifest, stamp={**EVALUATION, "partial": True}))
    assert "computed on a *partial copy*" in numbers_in(card)
    assert "made with a *partial copy*" not in card


def test_an_evaluation_on_a_whole_copy_keeps_the_declaration_of_the_fit(forge):
    other_manifest = {"comparability": {"fitted_manifest": "f" * 64}}
    declared = {"config": {"dataset": {"partial": True}}}
    card = card_of(forge("a", facts=declared, numbers=other_manifest, stamp=EVALUATION))
    assert "declares `dataset.partial=true`" in card
    assert "partial copy" not in numbers_in(card)


def test_a_checkpoint_without_a_record_states_what_its_config_declares(forge, tmp_path):
    data = {"config": {"dataset": {"partial": True, "subset": "tiny"}}}
    alone = tmp_path / "alone"
    alone.mkdir()
    (forge("a", facts=data) / "ckpt.bin").rename(alone / "ckpt.bin")
    card = card_of(alone)
    assert "declares `dataset.partial=true`" in card
    assert "made with `dataset.subset=tiny`" in card
    assert "None: the checkpoint was exported without the record of its run." in card


def test_a_subset_is_stated_of_the_checkpoint_and_of_its_numbers(forge):
    subset = {"config": {"dataset": {"subset": "tiny"}}}
    card = card_of(forge("a", facts=subset, stamp={"subset": {"name": "tiny"}}))
    assert "made with `dataset.subset=tiny`" in card
    assert "computed on `dataset.subset=tiny`" in numbers_in(card)


@pytest.mark.parametrize("source", ["val", "carved"])
def test_where_the_test_comes_from_is_stated(forge, source):
    card = card_of(forge("a", stamp={"test_source": source}))
    mark = {"val": "test = val", "carved": "test carved"}[source]
    assert mark in numbers_in(card)
    assert mark not in card_of(forge("b"))


@pytest.mark.parametrize("file", ["metrics.json", "env_stamp.json"])
def test_a_record_that_changed_since_the_run_is_refused(forge, file):
    folder = forge("a")
    (folder / file).write_text((folder / file).read_text() + "\n")
    with pytest.raises(UserError, match=f"{file}: sha256 mismatch"):
        card_of(folder)


def test_a_record_of_another_version_is_refused_in_one_line(forge):
    with pytest.raises(UserError, match=r"metrics.json, .*by this version.*unknown.*Repeat"):
        card_of(forge("a", numbers={"comparability": {"unknown": 1}}))
