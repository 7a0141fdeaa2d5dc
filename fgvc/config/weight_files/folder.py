"""A path given as backbone.weights -> the weights file at or in it, or an error about the path."""

from __future__ import annotations

import re
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files.hub_name import REPO
from fgvc.config.weight_files.run_folder import CHECKPOINT, checkpoint_in
from fgvc.config.weight_files.shards import ENDINGS, OTHER_LIBRARIES, SHARD, SHARDED, find_file
from fgvc.untrusted.file_format import safetensors_header
from fgvc.untrusted.shell import command, file_word

FILES = (*ENDINGS, ".h5", ".keras", ".msgpack", ".onnx", ".gguf", ".gz", ".zip", ".tgz")
ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")
ADAPTER = "adapter_config.json"  # of PEFT
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
MERGE = (
    "merge it into its model first, with PeftModel.from_pretrained(MODEL, ADAPTER)"
    ".merge_and_unload().save_pretrained(FOLDER), and name FOLDER"
)
DEPTH = 2  # levels of subfolders searched: snapshots/COMMIT of the hub's cache
MOST_NAMED = 3  # subfolders named in a message
STATE = re.compile(  # training state beside the weights
    r"(training_args|optimizer|scheduler|scaler|sampler|rng_state|random_states|"
    r"custom_checkpoint)(_\d+)*\.\w+"
)


def local_weights(value: str, library: str) -> Path:
    """The local file that `backbone.weights` names, or the one in the folder that it names.

    In a folder: the weights file, the index of shards or the checkpoint of fgvc. The path may have
    the prefix `local-dir:`, as in timm and open_clip.

    Raises:
        ConfigError: a URL, no such file, or a folder that holds no weights or two models.
    """
    if value.startswith(("http://", "https://")):
        repo = ADDRESS.match(value)
        advice = f"give hf-hub:{repo[1]}" if repo else "download it, and give its path"
        raise ConfigError(f"backbone.weights={value}: an address is not read; {advice}")
    path = Path(value.removeprefix("local-dir:").removeprefix("local_dir:")).expanduser()
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"backbone.weights={value}: a pipe or device, not a file. Save the weights as a file"
        )
    if not path.is_dir():
        is_file_name = value.startswith(".") or path.suffix.lower() in FILES
        is_repo = not is_file_name and value.count("/") == 1 and REPO.fullmatch(value)
        hint = f"; for a repository of the hub give hf-hub:{value}" if is_repo else ""
        raise ConfigError(
            f"backbone.weights={value}: no such file. Correct the path, or leave it out to take "
            f"the weights from the hub{hint}"
        )
    if (file := find_file(path, library)) is not None:
        checkpoint, adapter = path / CHECKPOINT, _adapter_in(path)
        if checkpoint.is_file() and safetensors_header(checkpoint) is not None:
            raise ConfigError(
                f"backbone.weights={value}: the folder holds {file.name} and {CHECKPOINT}, a "
                f"checkpoint of fgvc: name one of the two, {file} or {checkpoint}"
            )
        if adapter is not None:
            raise ConfigError(
                f"backbone.weights={value}: the folder holds {file.name} and {adapter}, a PEFT "
                f"adapter: name {file} for the model without the adapter, or {MERGE}"
            )
        return file
    if (file := checkpoint_in(path)) is None:
        raise ConfigError(f"backbone.weights={value}: {_reason(path, library)}")
    return file


def _reason(folder: Path, library: str) -> str:
    """Why no weights are found in a folder, and what to give instead."""

    def by_step(path: Path) -> str:  # checkpoint-500 before checkpoint-1000
        return re.sub(r"\d+", lambda number: number[0].zfill(20), str(path))

    subfolders: list[Path] = []
    for depth in range(1, DEPTH + 1):
        paths = [path for path in folder.glob("*/" * depth) if path.is_dir()]
        subfolders += sorted(paths, key=by_step)
    for subfolder in (folder, *subfolders):
        if (adapter := _adapter_in(subfolder)) is not None:
            name = (subfolder / adapter).relative_to(folder)
            return f"{name} is a PEFT adapter, not a whole model: {MERGE}"
    names = " or ".join(LIBRARIES[library].weight_files)
    message = f"the folder holds no {names}, as {library} saves them"
    if (advice := _advice(folder, names)) is not None:
        return f"{message}; {advice}"
    for subfolder in subfolders:
        if any(subfolder.glob("*.distcp")):
            return f"{message}; in {subfolder.relative_to(folder)}, {_advice(subfolder, names)}"
    matches = [path for path in subfolders if find_file(path, library) is not None]
    if not matches:
        return f"{message}; name the file itself"
    some = ", ".join(str(path.relative_to(folder)) for path in matches[:MOST_NAMED])
    more = f" and {len(matches) - MOST_NAMED} more" if len(matches) > MOST_NAMED else ""
    return f"{message}; its folders {some}{more} do: name one, such as {matches[-1]}"


def _advice(folder: Path, names: str) -> str | None:
    """What to do with the other files of a folder; None if none of them holds a model."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if any(name.endswith(".distcp") for name in files):
        convert = ("python", "-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch")
        run = f"{command(convert)} {file_word(folder)} FILE"
        return f"it holds a distributed checkpoint: run `{run}` and name FILE"
    if "zero_to_fp32.py" in files:
        return "run `python zero_to_fp32.py . pytorch_model.bin` there (DeepSpeed)"
    if shards := [name for name in files if SHARD.search(name)]:
        return f"{shards[0]} is a shard without {SHARDED[0]}: fetch the index too"
    if weights := [name for name in files if name.endswith(ENDINGS) and not STATE.fullmatch(name)]:
        some = ", ".join(weights[:3]) + (" ..." if len(weights) > 3 else "")
        return f"it holds {some}: name the file itself"
    for name in files:
        if (other := OTHER_LIBRARIES.get(Path(name).suffix)) is not None:
            return f"{name} is a file of {other}, which is not read: use {names} of the same model"
    return None


def _adapter_in(folder: Path) -> str | None:
    return next((name for name in (*ADAPTERS, ADAPTER) if (folder / name).is_file()), None)
