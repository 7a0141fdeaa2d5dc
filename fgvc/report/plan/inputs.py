"""Inputs of the texts of a plan, as plain data that task=plan collects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.untrusted.shell import setting, variable

Plain = Mapping[str, Any]


class Unanswered(Exception):  # noqa: N818 - not an error: an open item
    """An item that cannot be answered. because: what is missing. do: what to do about it."""

    def __init__(self, because: str, do: str) -> None:
        super().__init__(f"because {because}; {do}")
        self.because, self.do = because, do


@dataclass(frozen=True)
class PlannedRun:
    """A run that the plan contains. command: for a shell, with variables for paths. options: option
    file per axis. config_hash: of the composed config."""

    command: str
    options: Mapping[str, str]
    config_hash: str


@dataclass(frozen=True)
class PlanInputs:
    """The facts on an experiment before it runs.

    task: of the experiment. baseline: the linear probe that it is compared with. plan_command: the
    command that writes the plan. doctor: the command that examines the dataset. roots: path
    overrides for commands that read runs, with a leading space. conf: the whole config of the
    experiment. row: the chosen checkpoint of its backbone. places: shell variable -> its config
    key. stamp: of this environment. stack: the record of its passed task=check; needs_stack:
    whether the backbone requires one. examination: of the dataset, by task=doctor. smoke:
    definition of the tiny subset. groups: config group -> options. rooms: packages of fgvc with
    their modules.
    """

    task: str
    title: str
    experiment: PlannedRun
    baseline: PlannedRun
    plan_command: str
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
        """The override `key=` with the future run folder, as one shell word."""
        place = f"/RUN_ID/{self.experiment.config_hash[:16]}/CHECKPOINT_ID"
        if "OUTPUT_ROOT" in self.places:
            return variable(key, "OUTPUT_ROOT", place)
        return setting(key, f"outputs{place}")

    @property
    def folder(self) -> str:
        """The future run folder; capitals stand for its unknown parts."""
        root = '"$OUTPUT_ROOT"' if "OUTPUT_ROOT" in self.places else "outputs"
        return f"{root}/RUN_ID/{self.experiment.config_hash[:16]}/CHECKPOINT_ID"
