"""What is run, with which choices, and what makes its numbers comparable."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs
from fgvc.untrusted.escape import code, fenced, markdown

PLANS = {
    "probe": "the backbone stays frozen, its features are computed once, and a head is fitted to "
    "them and chosen on validation",
    "zero_shot": "nothing is fitted: images are held against the text features of the class names",
    "train": "the network is finetuned by gradient, its best epoch chosen on validation, and held "
    "against a linear probe of the same frozen backbone that is fitted on the same images",
}
METRICS = (
    "top-1 with its 95 % interval, top-5, mean per class, macro-F1, loss, calibration error, "
    "and per class precision, recall and F1"
)


def question(about: PlanInputs) -> str:
    conf = about.conf
    backbone = f"{conf['backbone']['name']} {conf['backbone']['size']}"
    return (
        f"{markdown(about.title)}. The approach: {PLANS[about.task]}. "
        f"{markdown(backbone)} ({code(about.row['model'])}), "
        f"head={conf['head']['name']}, {conf['resolution']['side']} px, "
        f"part_attention={conf['part_attention']['name']}, "
        f"dataset={markdown(conf['dataset']['name'])}"
        f"{', a partial copy' if conf['dataset']['partial'] else ''}. The test images are read "
        "once by each run; a difference counts where an exact paired test says so."
    )


def commands(about: PlanInputs) -> str:
    program = "python -m fgvc.run"
    evaluated, audited = about.at_folder("checkpoint"), about.at_folder("run")
    told = [
        ("the dataset, examined", about.doctor),
        ("the linear-probe baseline", about.baseline.command),
        ("the experiment", about.experiment.command),
        ("its evaluation, repeated", f"{program} task=eval {evaluated}{about.roots}"),
        ("one table of every run", f"{program} task=report{about.roots}"),
        ("the audit of the record", f"{program} task=audit {audited}{about.roots}"),
    ]
    if about.baseline.config_hash == about.experiment.config_hash:
        del told[1]  # the experiment is the baseline
    block = "\n".join(f"# {what}\n{command}" for what, command in told)
    variables = "".join(
        f"\n- `${name}`: `{key}` of the machine that runs it" for name, key in about.places.items()
    )
    later = "RUN_ID and CHECKPOINT_ID are told at the end of a run. Of each machine its own:"
    later = later if variables else later.partition(". ")[0] + "."
    return f"{fenced(block)}\n\n{later}\n{variables}".rstrip()


def configs(about: PlanInputs) -> str:
    chosen = about.experiment.options
    named = [code(f"conf/{group}/{option}.yaml") for group, option in chosen.items()]
    return (
        f"`conf/config.yaml`, {', '.join(named)} and the overrides above. Experiment: config_hash "
        f"`{about.experiment.config_hash}`; baseline: `{about.baseline.config_hash}` (SHA256 of "
        "the resolved config as canonical JSON; `config.yaml` and `config.canonical.json` of the "
        "run folder hold it)."
    )


def seeds(about: PlanInputs) -> str:
    return (
        f"`seed={about.conf['seed']}` for weights, order and augmentation, "
        f"`dataset.split_seed={about.dataset['split_seed']}` for the validation split; seeds are "
        "varied by `-m seed=0,1,2`, which the report folds into one row with its spread."
    )


def outputs(about: PlanInputs) -> str:
    return (
        f"`{about.folder}/` below `runtime.output_root` (by default `outputs`), with `tb/` and "
        "`fiftyone/` in it: names are the first 16 hex digits of config_hash and checkpoint_id. A "
        "folder with that name is complete and is not changed again; until then it is "
        "`in-progress/`, under a lock."
    )


def evaluation(about: PlanInputs) -> str:
    dataset = about.dataset
    return (
        f"Split: {markdown(about.card['split'])} "
        f"(`dataset.val_fraction={dataset['val_fraction']:g}`); "
        f"fitted on {about.conf['final_fit']}; {about.conf['resolution']['side']} px; {METRICS}. "
        "`metrics.json`, `predictions.parquet`, the split lists and the digest of `ckpt.bin` are "
        "sealed together, and `task=eval` repeats the numbers from the checkpoint alone."
    )


def devices(about: PlanInputs) -> str:
    gpus, runtime = about.stamp["GPUs"], about.conf["runtime"]
    launch = (
        f"{runtime['nproc']} processes, started by `runtime.nproc` or torchrun"
        if runtime["nproc"] > 1
        else "one process"
    )
    return (
        f"{gpus} CUDA devices where this was planned, MPS: {about.stamp['MPS']}; "
        f"`runtime.device={runtime['device']}`, {launch}. Nothing needs CUDA: the same commands "
        "run on a CPU and on macOS arm64 (CPU, MPS), and the stamp records device, count and "
        "launch. Every path is a key (`dataset.root`, `backbone.weights`, `runtime.data_root`, "
        "`runtime.output_root`, `runtime.cache_root`, `runtime.weights_root`)."
    )


def axes(about: PlanInputs) -> str:
    legal = "\n".join(
        f"| {group} | {markdown(option)} | {markdown(', '.join(about.groups[group]))} |"
        for group, option in about.experiment.options.items()
        if group != "task"
    )
    return (
        f"| axis | here | options |\n|---|---|---|\n{legal}\n"
        f"| size, patch | {markdown(about.row['size'])}, {about.row['patch']} | "
        "rows of `backbone.checkpoints` |\n\n"
        f"Comparable are runs of one comparability key: images and split of the fit and of the "
        f"test, label map, metric code, `preprocess={about.conf['preprocess']}`, `final_fit`, no "
        "forced resume and no debugging run; mean and standard "
        "deviation come from one registry by the backbone's key. The report ranks within a key "
        "only."
    )


def backbone(about: PlanInputs) -> str:
    if not about.backbone["pretrained"]:
        return f"{code(about.row['model'])} with random weights: no licence, and nothing was seen."
    sha256, row = about.backbone["weights_sha256"], about.row
    revision = about.backbone["revision"] or row["revision"]
    which = (
        f"the local file with sha256 {code(sha256)}"
        if sha256
        else f"{code(row['repo'])} at revision {code(revision)}; what that resolves to is recorded"
    )
    return (
        f"{code(row['model'])}, licence {markdown(row['license'])}: {which}. "
        f"What it has seen: {markdown(' '.join(about.backbone['contamination'].split()))}"
    )


def normalization(about: PlanInputs) -> str:
    return (
        f"{code(about.backbone['normalization'])}, a key of the one registry "
        "(`fgvc/data/normalize.py`). It is logged as `normalization` in `env_stamp.json` and in "
        "the baseline table, with mean and standard deviation under `preprocess` in the stamp and "
        "in `ckpt.bin`."
    )


def baseline(about: PlanInputs) -> str:
    return (
        f"{code(about.baseline.command)}: frozen encoder, linear head, the same normalization "
        f"({code(about.backbone['normalization'])}), resolution and images, config_hash "
        f"`{about.baseline.config_hash[:16]}`. `task=report` joins a finetune to it by "
        "comparability key, model, weights, features, precision and resolution and prints the "
        "paired difference; "
        "`sweep=baselines` makes the same for every backbone."
    )
