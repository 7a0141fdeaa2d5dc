"""Texts on the experiment: commands, choices, evaluation, and comparability."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs
from fgvc.untrusted.escape import code, fenced, markdown

PLANS = {
    "probe": "the backbone stays frozen, its features are computed once, and a head is fitted to "
    "them and chosen on validation",
    "zero_shot": "nothing is fitted: images are compared with the text features of the class names",
    "train": "the network is finetuned by gradient, its best epoch chosen on validation, and "
    "compared with a linear probe of the same frozen backbone that is fitted on the same images",
}
METRICS = (
    "top-1 with its 95 % interval, top-5, mean per class, macro-F1, loss, calibration error, "
    "and per class precision, recall and F1"
)


def question(inputs: PlanInputs) -> str:
    conf = inputs.conf
    backbone = f"{conf['backbone']['name']} {conf['backbone']['size']}"
    return (
        f"{markdown(inputs.title)}. The approach: {PLANS[inputs.task]}. "
        f"{markdown(backbone)} ({code(inputs.row['model'])}), "
        f"head={conf['head']['name']}, {conf['resolution']['side']} px, "
        f"part_attention={conf['part_attention']['name']}, "
        f"dataset={markdown(conf['dataset']['name'])}"
        f"{', a partial copy' if conf['dataset']['partial'] else ''}. The test images are read "
        "once per run; a difference is a finding if an exact paired test is significant."
    )


def commands(inputs: PlanInputs) -> str:
    program = "python -m fgvc.run"
    evaluated, audited = inputs.at_folder("checkpoint"), inputs.at_folder("run")
    labelled = [
        ("check of the dataset", inputs.doctor),
        ("the linear-probe baseline", inputs.baseline.command),
        ("the experiment", inputs.experiment.command),
        ("repeated evaluation", f"{program} task=eval {evaluated}{inputs.roots}"),
        ("table of all runs", f"{program} task=report{inputs.roots}"),
        ("audit of the record", f"{program} task=audit {audited}{inputs.roots}"),
    ]
    if inputs.baseline.config_hash == inputs.experiment.config_hash:
        del labelled[1]  # the experiment is the baseline
    block = "\n".join(f"# {what}\n{command}" for what, command in labelled)
    variables = "".join(
        f"\n- `${name}`: `{key}` of the machine that runs it" for name, key in inputs.places.items()
    )
    later = "RUN_ID and CHECKPOINT_ID are printed at the end of a run. Set for each machine:"
    later = later if variables else later.partition(". ")[0] + "."
    return f"{fenced(block)}\n\n{later}\n{variables}".rstrip()


def configs(inputs: PlanInputs) -> str:
    chosen = inputs.experiment.options
    files = [code(f"conf/{group}/{option}.yaml") for group, option in chosen.items()]
    return (
        f"`conf/config.yaml`, {', '.join(files)} and the overrides above. Experiment: config_hash "
        f"`{inputs.experiment.config_hash}`; baseline: `{inputs.baseline.config_hash}` (SHA256 of "
        "the resolved config as canonical JSON; `config.yaml` and `config.canonical.json` of the "
        "run folder hold it)."
    )


def seeds(inputs: PlanInputs) -> str:
    return (
        f"`seed={inputs.conf['seed']}` for weights, order and augmentation, "
        f"`dataset.split_seed={inputs.dataset['split_seed']}` for the validation split; "
        "`-m seed=0,1,2` runs several seeds, "
        "which the report averages in one row with their standard deviation."
    )


def outputs(inputs: PlanInputs) -> str:
    return (
        f"`{inputs.folder}/` below `runtime.output_root` (by default `outputs`), with `tb/` and "
        "`fiftyone/` inside. The names are the first 16 hex digits of config_hash and "
        "checkpoint_id. A folder with that name is complete and is never changed; until then it is "
        "`in-progress/`, under a lock."
    )


def evaluation(inputs: PlanInputs) -> str:
    dataset = inputs.dataset
    return (
        f"Split: {markdown(inputs.card['split'])} "
        f"(`dataset.val_fraction={dataset['val_fraction']:g}`); "
        f"fitted on {inputs.conf['final_fit']}; {inputs.conf['resolution']['side']} px; {METRICS}. "
        "`metrics.json`, `predictions.parquet`, the split lists and the digest of `ckpt.bin` are "
        "digested together, and `task=eval` repeats the numbers from the checkpoint alone."
    )


def devices(inputs: PlanInputs) -> str:
    gpus, runtime = inputs.stamp["GPUs"], inputs.conf["runtime"]
    launch = (
        f"{runtime['nproc']} processes, started by `runtime.nproc` or torchrun"
        if runtime["nproc"] > 1
        else "one process"
    )
    return (
        f"{gpus} CUDA devices on the planning machine, MPS: {inputs.stamp['MPS']}; "
        f"`runtime.device={runtime['device']}`, {launch}. CUDA is not required: the same commands "
        "run on a CPU and on macOS arm64 (CPU, MPS), and the stamp records device, count and "
        "launch. Every path is a config key (`dataset.root`, `backbone.weights`, "
        "`runtime.data_root`, `runtime.output_root`, `runtime.cache_root`, `runtime.weights_root`)."
    )


def axes(inputs: PlanInputs) -> str:
    legal = "\n".join(
        f"| {group} | {markdown(option)} | {markdown(', '.join(inputs.groups[group]))} |"
        for group, option in inputs.experiment.options.items()
        if group != "task"
    )
    return (
        f"| axis | here | options |\n|---|---|---|\n{legal}\n"
        f"| size, patch | {markdown(inputs.row['size'])}, {inputs.row['patch']} | "
        "rows of `backbone.checkpoints` |\n\n"
        f"Runs with the same comparability key are comparable. The key contains images and split "
        f"of the fit and of the test, label map, metric code, "
        f"`preprocess={inputs.conf['preprocess']}`, `final_fit`, no forced resume and no debugging "
        "run; mean and standard deviation come from one registry, by the key of the backbone. The "
        "report ranks runs within a key only."
    )


def backbone(inputs: PlanInputs) -> str:
    if not inputs.backbone["pretrained"]:
        return f"{code(inputs.row['model'])} with random weights: no licence, no training data."
    sha256, row = inputs.backbone["weights_sha256"], inputs.row
    revision = inputs.backbone["revision"] or row["revision"]
    source = (
        f"the local file with sha256 {code(sha256)}"
        if sha256
        else f"{code(row['repo'])} at revision {code(revision)}; the resolved revision is recorded"
    )
    return (
        f"{code(row['model'])}, licence {markdown(row['license'])}: {source}. "
        f"Training data: {markdown(' '.join(inputs.backbone['contamination'].split()))}"
    )


def normalization(inputs: PlanInputs) -> str:
    return (
        f"{code(inputs.backbone['normalization'])}, a key of the only registry "
        "(`fgvc/data/normalize.py`). It is logged as `normalization` in `env_stamp.json` and in "
        "the baseline table, with mean and standard deviation under `preprocess` in the stamp and "
        "in `ckpt.bin`."
    )


def baseline(inputs: PlanInputs) -> str:
    return (
        f"{code(inputs.baseline.command)}: frozen encoder, linear head, the same normalization "
        f"({code(inputs.backbone['normalization'])}), resolution and images, config_hash "
        f"`{inputs.baseline.config_hash[:16]}`. `task=report` joins a finetune to it by "
        "comparability key, model, weights, features, precision and resolution and prints the "
        "paired difference; "
        "`sweep=baselines` runs the same probe for every backbone."
    )
