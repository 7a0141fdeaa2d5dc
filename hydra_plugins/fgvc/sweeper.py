"""hydra/sweeper=exact: start the jobs that fgvc expanded, instead of a cross of the arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from fgvc.launch.hydra_app import Jobs


class ExactSweeper(Sweeper):
    """The jobs are the overrides in the `jobs` of the task function (fgvc.launch.hydra_app).

    Every job has been composed and checked before, so they are not composed again here.
    """

    def __init__(self, max_batch_size: int | None, params: object) -> None:
        """max_batch_size: jobs that the launcher gets at once. params: always null."""
        self.max_batch_size = max_batch_size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        task = cast("Jobs", task_function)
        self.jobs, self.config, self.hydra_context = task.jobs, config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context,
            task_function=dataclasses.replace(task, jobs=()),  # a worker runs one of them
            config=config,
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Write multirun.yaml and run all jobs.

        Raises:
            OSError: the disk refuses a write; with the path and the bytes needed.
            Exception: of the first job that raised one.
        """
        from fgvc.store import atomic

        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir).expanduser()
        atomic.write_text(folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        results: list[JobReturn] = []
        size = self.max_batch_size or len(self.jobs)
        assert size > 0, size
        for start in range(0, len(self.jobs), size):
            results += self.launcher.launch(self.jobs[start : start + size], start)
            for result in results[start:]:
                _ = result.return_value  # raises the exception of the job
        return results
