"""On what it runs: language, libraries, machine, environment, and the stack behind the records."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.untrusted.escape import markdown

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "open_clip",
    "hydra",
    "tensorboard",
    "fiftyone",
)
CHECK = "python -m fgvc.run task=check"


def language(about: PlanInputs) -> str:
    return f"Python {about.stamp['python_version']}; 3.11 to 3.13 are supported."


def dependencies(about: PlanInputs) -> str:
    told = [f"{name} {about.stamp[f'{name}_version'] or '(absent)'}" for name in LIBRARIES]
    return f"{', '.join(told)}; all of them, and all they need, are pinned in `requirements.txt`."


def storage(about: PlanInputs) -> str:
    return (
        "Files alone: run folders below `runtime.output_root`, features and pretrained weights by "
        "digest below `runtime.cache_root`. FiftyOne brings its own database for `task=view`."
    )


def testing(about: PlanInputs) -> str:
    return (
        "pytest: `make test` (all), `python -m pytest -m smoke` (end to end on a tiny subset), "
        "`-m real` (photographs and published weights named by FGVC_REAL_DATA), `-m 'not slow'`; "
        "`make check` for ruff and pyright."
    )


def platform(about: PlanInputs) -> str:
    return (
        f"{about.stamp['os_version'].split('-')[0]} {about.stamp['machine']} here; macOS arm64 "
        "(MacBook Air M2, CPU and MPS) and Linux x86-64 (CPU, CUDA) take the same commands."
    )


def project_type(about: PlanInputs) -> str:
    return "One Python package with a command line; no service, no web or mobile part."


def performance(about: PlanInputs) -> str:
    return (
        "Ratios measured side by side (`make bench`, dated in `LOG.md`), as seconds depend on the "
        "machine: feature extraction at 0.95 or more of the bare forward of a base model, a second "
        "probe on cached features without one forward, a training step within 1.03 of a bare loop."
    )


def constraints(about: PlanInputs) -> str:
    return (
        "Offline once weights and data are there; two CPU cores suffice; no CUDA assumed; every "
        "file whole or absent whenever the process dies; "
        f"{about.conf['precision']} forward, solvers in float64."
    )


def scale(about: PlanInputs) -> str:
    classes = about.dataset["official"]["classes"]
    if about.examination is not None:
        classes = about.examination["counts"]["classes"]["found"]
    size = f"{classes:,} classes" if classes else "as many classes as the data holds"
    return (
        f"One experiment and its baseline on {size}; the index of 675,000 images of iNaturalist "
        "2017 is the largest that is read."
    )


def stack(about: PlanInputs) -> str:
    record, name = about.stack, markdown(about.backbone["name"])
    if record is None:
        if about.needs_stack:
            raise Unanswered(
                f"backbone={name} needs a validated stack, and this environment "
                "has not passed the check",
                f"run {CHECK} (about a minute)",
            )
        return (
            f"backbone={name} needs none; `{CHECK}` would validate TensorBoard and FiftyOne here."
        )
    steps = "\n".join(
        f"| {step} | {markdown(outcome['result'])} | {markdown(outcome['says'])} |"
        for step, outcome in record["steps"].items()
    )
    return (
        f"`{CHECK}` passed on {markdown(record['platform'])}, "
        f"Python {record['python_version']}, torch "
        f"{record['torch_version']} ({record['checked']}, env_hash `{record['env_hash'][:16]}`); "
        "published checks stand in `specs/stack.json` and in README's table.\n\n"
        f"| step | result | what it saw |\n|---|---|---|\n{steps}"
    )


def environment(about: PlanInputs) -> str:
    if about.stamp["requirements_checksum"] is None:
        raise Unanswered("no requirements.txt lies beside the program", "run from a checkout")
    return (
        "Miniconda: `conda env create -f environment.yml`, `conda run -n fgvc uv pip install "
        "--no-deps -r requirements.txt`, `conda run -n fgvc uv pip install --no-deps "
        "--no-build-isolation -e .`; without conda `make` does the same in `.venv`. Runs are then "
        "started by that environment's Python (`conda run -n fgvc python -m fgvc.run …`). "
        f"requirements.txt has sha256 `{about.stamp['requirements_checksum']}`; env_hash "
        f"`{about.stamp['env_hash']}`, by {about.stamp['env_hash_method']} (where conda made the "
        "environment, `conda env export --from-history` is in it, and always the list of packages)."
    )
