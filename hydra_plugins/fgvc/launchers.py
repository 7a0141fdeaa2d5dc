"""hydra/launcher=joblib, submitit_local, submitit_slurm: several jobs of a sweep at once.

In the process of the sweep, `fgvc.launch.launchers` starts the workers and waits for them. In a
worker, the launcher is called for one job. The results of a job are on disk.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

Overrides = Sequence[str]


class WorkerLauncher:
    """What the launchers share whose jobs run in other processes, maybe on other machines.

    Attributes:
        params: the keys of the launcher's file in conf/hydra/launcher.
        folder: the sweep's folder, absolute: a worker may have another working directory.
        function: of fgvc.launch.launchers; starts the workers and waits for them.
    """

    function: str

    def __init__(self, **params: Any) -> None:
        self.params: dict[str, Any] = params
        for name, value in params.items():
            if OmegaConf.is_config(value):
                self.params[name] = OmegaConf.to_container(value, resolve=True)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from fgvc.launch.launcher_job import LauncherJob

        self.hydra_context, self.config = hydra_context, config
        self.folder = Path(str(config.hydra.sweep.dir)).expanduser().absolute()
        start_method = multiprocessing.get_start_method()
        self.job = LauncherJob(task_function, self.folder, start_method, self.devices())

    def devices(self) -> str | None:
        """CUDA_VISIBLE_DEVICES of the workers; None leaves theirs."""
        return None

    def __call__(self, overrides: Overrides, index: int, singletons: Any) -> JobReturn:
        """Run one job, in a worker.

        Args:
            singletons: those of Hydra in the process of the sweep.
        """
        Singleton.set_state(singletons)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config.hydra.job):
            config.hydra.job.id = config.hydra.job.num = index
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.job,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues again when it stops a job: the same job, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)

    def launch(
        self, job_overrides: Sequence[Overrides], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from fgvc.launch import launchers

        return getattr(launchers, self.function)(self, job_overrides, initial_job_idx)


class JoblibLauncher(WorkerLauncher, Launcher):
    """`n_jobs` workers; each runs one job after another."""

    function = "launch_joblib"


class LocalLauncher(WorkerLauncher, Launcher):
    """submitit jobs on this machine, `n_jobs` at a time."""

    function = "launch_local"

    def devices(self) -> str | None:
        if self.params["gpus_per_node"] is not None:  # submitit chooses them
            return None
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")


class SlurmLauncher(WorkerLauncher, Launcher):
    """An array of SLURM jobs; a preempted or timed-out job resumes when SLURM requeues it."""

    function = "launch_slurm"
