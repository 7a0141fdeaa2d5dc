"""Texts on language, libraries, machine, environment, and the TensorBoard and FiftyOne stack."""

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


def language(inputs: PlanInputs) -> str:
    return f"Python {inputs.stamp['python_version']}; 3.11 to 3.13 are supported."


def dependencies(inputs: PlanInputs) -> str:
    versions = [f"{name} {inputs.stamp[f'{name}_version'] or '(absent)'}" for name in LIBRARIES]
    return f"{', '.join(versions)}; these and their dependencies are pinned in `requirements.txt`."


def storage(inputs: PlanInputs) -> str:
    return (
        "Files alone: run folders below `runtime.output_root`, features and pretrained weights by "
        "digest below `runtime.cache_root`. FiftyOne runs its own database for `task=view`."
    )


def testing(inputs: PlanInputs) -> str:
    return (
        "pytest: `make test` (all), `python -m pytest -m smoke` (end to end on a tiny subset), "
        "`-m real` (photographs and published weights below FGVC_REAL_DATA), `-m 'not slow'`; "
        "`make check` for ruff and pyright."
    )


def platform(inputs: PlanInputs) -> str:
    return (
        f"{inputs.stamp['os_version'].split('-')[0]} {inputs.stamp['machine']} here; macOS arm64 "
        "(MacBook Air M2, CPU and MPS) and Linux x86-64 (CPU, CUDA) take the same commands."
    )


def project_type(inputs: PlanInputs) -> str:
    return "One Python package with a command line; no service, no web or mobile part."


def performance(inputs: PlanInputs) -> str:
    return (
        "Ratios measured side by side (`make bench`, dated in `LOG.md`), because seconds depend on "
        "the machine: feature extraction at 0.95 or more of the bare forward pass of a base model, "
        "a second probe on cached features without any forward pass, a training step within 1.03 "
        "of a bare loop."
    )


def constraints(inputs: PlanInputs) -> str:
    return (
        "Offline once weights and data are downloaded; two CPU cores suffice; CUDA is not "
        "required; every file is whole or absent if the process dies; "
        f"{inputs.conf['precision']} forward, solvers in float64."
    )


def scale(inputs: PlanInputs) -> str:
    classes = inputs.dataset["official"]["classes"]
    if inputs.examination is not None:
        classes = inputs.examination["counts"]["classes"]["found"]
    size = f"{classes:,} classes" if classes else "all classes of the data"
    return (
        f"One experiment and its baseline on {size}; the index of 675,000 images of iNaturalist "
        "2017 is the largest index that is read."
    )


def stack(inputs: PlanInputs) -> str:
    record, name = inputs.stack, markdown(inputs.backbone["name"])
    if record is None:
        if inputs.needs_stack:
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
        "published checks are in `specs/stack.json` and in the table of README.\n\n"
        f"| step | result | details |\n|---|---|---|\n{steps}"
    )


def environment(inputs: PlanInputs) -> str:
    if inputs.stamp["requirements_checksum"] is None:
        raise Unanswered("the program has no requirements.txt beside it", "run from a checkout")
    return (
        "Miniconda: `conda env create -f environment.yml`, `conda run -n fgvc uv pip install "
        "--no-deps -r requirements.txt`, `conda run -n fgvc uv pip install --no-deps "
        "--no-build-isolation -e .`; without conda, `make` does the same in `.venv`. Runs are "
        "started by the Python of that environment (`conda run -n fgvc python -m fgvc.run …`). "
        f"requirements.txt has sha256 `{inputs.stamp['requirements_checksum']}`; env_hash "
        f"`{inputs.stamp['env_hash']}`, by {inputs.stamp['env_hash_method']} (the list of "
        "packages and, in a conda environment, `conda env export --from-history`)."
    )
