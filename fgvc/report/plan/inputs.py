"""What the answers of a plan draw on, as plain data that a task collects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.untrusted.shell import setting, variable

Plain = Mapping[str, Any]


class Unanswered(Exception):  # noqa: N818 - no error: an answer that is still owed
    """An item that cannot be answered. because: what is missing. do: the way out."""

    def __init__(self, because: str, do: str) -> None:
        super().__init__(f"because {because}; {do}")
        self.because, self.do = because, do


@dataclass(frozen=True)
class PlannedRun:
    """One run that the plan names. command: as typed into a shell, places as variables.
    options: of each axis, the option file. config_hash: of the config that it composes to."""

    command: str
    options: Mapping[str, str]
    config_hash: str


@dataclass(frozen=True)
class PlanInputs:
    """Everything known of an experiment before it runs.

    task: of the experiment. experiment: it; baseline: the linear probe that it is held against.
    asked: the command that wrote the plan; doctor: the one that examines the dataset. roots: what a
    command that reads runs must be told of where they are, with a blank before it.
    conf: the experiment's whole config. row: its backbone's chosen checkpoint. places: variable ->
    the key it stands for. stamp: this environment. stack: the record of its passed check.
    needs_stack: whether the backbone asks for one. examination: of the dataset, by task=doctor.
    smoke: the tiny subset's definition. groups: option folder -> options. rooms: of the program,
    with their modules.
    """

    task: str
    title: str
    experiment: PlannedRun
    baseline: PlannedRun
    asked: str
    doctor: str
    roots: str
    conf: Plain
    row: Plain
    places: Mapping[str, str]
    stamp: Plain
    stack: Plain | None
    needs_stack: bool
    examination: Plain | None
    smoke: Plain
    groups: Mapping[str, list[str]]
    rooms: Mapping[str, list[str]]

    @property
    def dataset(self) -> Plain:
        return self.conf["dataset"]

    @property
    def card(self) -> Plain:
        return self.conf["dataset"]["card"]

    @property
    def backbone(self) -> Plain:
        return self.conf["backbone"]

    def at_folder(self, key: str) -> str:
        """The override `key=` of the run folder to be, as one word of a shell."""
        place = f"/RUN_ID/{self.experiment.config_hash[:16]}/CHECKPOINT_ID"
        if "OUTPUT_ROOT" in self.places:
            return variable(key, "OUTPUT_ROOT", place)
        return setting(key, f"outputs{place}")

    @property
    def folder(self) -> str:
        """The run folder to be, with what is only known then in capitals."""
        root = '"$OUTPUT_ROOT"' if "OUTPUT_ROOT" in self.places else "outputs"
        return f"{root}/RUN_ID/{self.experiment.config_hash[:16]}/CHECKPOINT_ID"
