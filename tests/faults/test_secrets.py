"""Content of a record from checkout and machine: code, but no secret and no private name."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shlex
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fgvc.record import env_stamp, privacy
from fgvc.record import run_dir as run_folder
from fgvc.report.audit import pull_request_block
from fgvc.run import main
from fgvc.types import UserError

TOKEN = "hf_" + "Xq7" * 11
PASSWORD = "correct-horse-Battery9"  # has no form that could be recognized


@pytest.fixture(autouse=True)
def clean_home(monkeypatch, tmp_path):
    """Only the Git configuration that a test writes."""
    (tmp_path / "home").mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def written(folder: Path, name: str | bytes, data: bytes | str) -> Path:
    file = folder / os.fsdecode(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with a program, its tests and a tracked file with the name of a secret."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    written(folder, "fgvc/a.py", "".join(f"line {n}\n" for n in range(9)))
    written(folder, "fgvc/old name.py", "moved\n" * 9)
    written(folder, "fgvc/gone.py", "gone\n")
    written(folder, "fgvc/picture.png", bytes(range(256)) * 4)
    written(folder, "conf/task/secrets.yaml", "token: none\n")
    written(folder, ".env.example", "PASSWORD=\n")
    written(folder, "settings.py", f"KEY = '{TOKEN}'\n")
    written(folder, ".gitignore", "ignored*\n")
    git(folder, "add", "-Af")
    git(folder, "commit", "-qm", "first")
    return folder


def record_of(code: env_stamp.GitState) -> bytes:
    """Every byte that a record keeps of a checkout."""
    return (code.patch or b"") + json.dumps(code.listing).encode() + repr(code.notes).encode()


SECRET_FILES = (
    ".env .env.local prod.env conf/.env fgvc/.env.py secrets.py my_secret.yaml fgvc/api_token.py "
    "tokens.yml hfToken.py credentials.yaml gcp-credentials.py server.pem tls.key id_rsa "
    "id_ed25519.py .netrc _netrc .npmrc .pypirc kaggle.json vault.kdbx .aws/config.py "
    ".ssh/config.yaml password.py passwords.yaml API_KEY.py service-account.yaml .git-credentials "
    "ignored.py fgvc/ignored.py notes.txt data.json deploy.sh run.cfg"
)


@pytest.mark.fault(54)
@pytest.mark.parametrize("file", SECRET_FILES.split())
def test_a_file_with_the_name_of_a_secret_or_no_source_is_not_copied(checkout, file):
    written(checkout, file, f"x = '{PASSWORD}'\n")
    written(checkout, "fgvc/new.py", "y = 1\n")
    code = env_stamp.git_state(checkout)
    assert code.dirty is True
    assert b"+y = 1" in (code.patch or b"")
    assert PASSWORD.encode() not in record_of(code)


TOKENS = [
    TOKEN,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2_" * 9,
    "AKIA" + "ABCD1234" * 2,
    "sk-ant-api03-" + "aB3-" * 8,
    "sk-proj-" + "aB3_" * 8,
    "xoxb-1234567890-abcdef",
    "https://alice:" + "hunter2@example.org/a.git",
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxIn0wMDAw.abcdefghijk",
    'password: "' + 'hunter2"',
    'aws_secret_access_key = "' + 'wJalrXUtnFEMI/K7MDENG/bPx"',
    "WANDB_API_KEY=" + "0123456789abcdef" * 2 + "01234567",
    PASSWORD,  # as the value of a variable of the environment
]


@pytest.mark.fault(54)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_source_with_a_token_is_copied_tracked_or_not(checkout, monkeypatch, encoding):
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    for number, token in enumerate(TOKENS):
        written(checkout, f"fgvc/new{number}.py", f"# {token}\n".encode(encoding))
        written(checkout, f"tracked{number}.md", "")
    git(checkout, "add", "tracked*")
    git(checkout, "commit", "-qm", "more")
    for number, token in enumerate(TOKENS):
        written(checkout, f"tracked{number}.md", f"# {token}\n".encode(encoding))
    written(checkout, "settings.py", "KEY = None\n")  # the token is in the commit only
    written(checkout, ".env.example", f"PASSWORD={TOKEN}\n")
    written(checkout, "fgvc/a.py", "other\n")
    code = env_stamp.git_state(checkout)
    assert b"+other" in (code.patch or b""), code.error
    assert not [token for token in TOKENS if token.encode() in record_of(code)]
    assert not [token for token in TOKENS if token.encode("utf-16-le") in record_of(code)]
    left_out = {file.path for file in code.withheld}
    assert {"settings.py", ".env.example"} < left_out
    assert len(left_out) == 2 * len(TOKENS) + 2
    assert "code.patch leaves out '.env.example'" in code.notes[0]


NAMES = [b"fgvc/new.py", b"conf/x y.yaml", b"fgvc/a\nb.py", b'fgvc/"q\\".py', b"fgvc/t\tb.py"]
NAMES += ["fgvc/größe.py".encode(), b"fgvc/\xff.py", b"fgvc/deep/er/x.pyi", b"fgvc/-n.py"]


@pytest.mark.fault(54, 36)
def test_the_patch_repeats_all_changes_under_any_git_configuration(checkout, tmp_path):
    written(checkout, "fgvc/a.py", (checkout / "fgvc/a.py").read_bytes() + b"line 9")
    (checkout / "fgvc/old name.py").rename(checkout / "fgvc/new name.py")
    (checkout / "fgvc/gone.py").unlink()
    written(checkout, "fgvc/picture.png", bytes(range(255, -1, -1)) * 4)
    (checkout / "settings.py").chmod(0o755)
    for number, name in enumerate(NAMES):
        written(checkout, name, ["", "one", "one\n", "1\r\n2\r\n"][number % 4])
    (checkout / "fgvc/new.py").chmod(0o755)
    before = env_stamp.git_state(checkout)
    (tmp_path / "order").write_text("*.png\n")
    (checkout / ".git/info/attributes").write_text("*.py diff=mine\n*.png diff=mine\n")
    for key, value in {
        "diff.external": "touch external; true",
        "diff.mine.command": "touch driver; true",
        "diff.mine.textconv": "touch textconv; cat",
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "diff.renames": "copies",
        "diff.context": "0",
        "diff.algorithm": "histogram",
        "diff.orderFile": str(tmp_path / "order"),
        "color.ui": "always",
        "core.fsmonitor": "touch fsmonitor; true",
        "core.abbrev": "5",
    }.items():
        git(checkout, "config", key, value)
    code = env_stamp.git_state(checkout)
    assert code.patch == before.patch
    started = {"external", "driver", "textconv", "fsmonitor"}
    assert not started & {path.name for path in checkout.iterdir()}
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(checkout), str(copy)], check=True)
    subprocess.run(["git", "-C", str(copy), "apply", "-"], input=code.patch, check=True)
    for path in checkout.rglob("*"):
        if path.is_file() and ".git" not in path.parts and path.name != "settings.py":
            there = copy / path.relative_to(checkout)
            assert there.read_bytes() == path.read_bytes()
            assert os.access(there, os.X_OK) == os.access(path, os.X_OK)
    assert not (copy / "fgvc/gone.py").exists()
    assert not (copy / "fgvc/old name.py").exists()


@pytest.mark.fault(54)
def test_what_is_no_plain_file_is_named_and_never_waited_for(checkout, tmp_path):
    outside = written(tmp_path, "outside.py", f"x = '{PASSWORD}'\n")
    (checkout / "fgvc/link.py").symlink_to(outside)
    (checkout / "fgvc/nowhere.py").symlink_to(tmp_path / "nothing")
    (checkout / "loop.py").symlink_to("/dev/zero")
    (checkout / "fgvc/old name.py").unlink()
    (checkout / "fgvc/old name.py").symlink_to("x" * 300)  # a name that no file can have
    os.mkfifo(checkout / "fgvc/pipe.py")
    (checkout / "fgvc/gone.py").unlink()
    os.mkfifo(checkout / "fgvc/gone.py")
    with written(checkout, "fgvc/large.py", "x").open("r+b") as file:
        file.truncate(64 << 20)
    written(checkout, "fgvc/binary.py", b"\0\1\2")
    nested = checkout / "vendored"
    nested.mkdir()
    git(nested, "init", "-q")
    written(nested, "inside.py", PASSWORD)
    git(nested, "add", "-A")
    git(nested, "commit", "-qm", "one")
    code = env_stamp.git_state(checkout)
    assert PASSWORD.encode() not in record_of(code)
    assert b"x" * 300 in (code.patch or b"")
    assert len(code.patch or b"") < 1 << 20, code.error
    reasons = {file.path: file.reason for file in (*code.withheld, *code.untracked)}
    assert reasons["fgvc/link.py"] == "is a link"
    assert reasons["fgvc/gone.py"].startswith("is a pipe")
    assert reasons["fgvc/nowhere.py"] == "is a link; leads nowhere"
    assert "too large" in reasons["fgvc/large.py"]
    assert reasons["fgvc/binary.py"] == "is binary"
    assert reasons["vendored/"] == "is a repository of its own"


@pytest.mark.fault(36)
def test_the_digest_moves_with_all_that_can_change_a_number_and_with_nothing_else(checkout):
    def identity() -> str | None:
        return env_stamp.git_state(checkout).patch_sha256

    assert identity() is None
    written(checkout, "notes.txt", "one")
    assert env_stamp.git_state(checkout).dirty is True
    assert identity() is None
    digests = set()
    for file in ("conf/task/secrets.yaml", "fgvc/ignored.py", "fgvc/table.bin", "x/new.py"):
        for text in ("1", "2"):
            written(checkout, file, text)
            digests.add(identity())
    assert len(digests) == 8
    (listed,) = env_stamp.git_state(checkout).untracked
    assert (listed.path, listed.size, len(listed.sha256 or "")) == ("notes.txt", 3, 64)


@pytest.mark.fault(36)
def test_another_repository_in_the_environment_is_not_mistaken_for_the_checkout(
    checkout, tmp_path, monkeypatch
):
    commit = git(checkout, "rev-parse", "HEAD").decode().strip()
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as Git sets it for a hook
    assert env_stamp.git_state(checkout).commit == commit


def test_the_code_of_this_checkout_is_copied_when_it_changes():
    """Only one file of the program looks like a secret, and its name is known."""
    listed = git(env_stamp.CODE, "ls-files", "-z", "--", "fgvc", "conf").split(b"\0")[:-1]
    files = [os.fsdecode(name) for name in listed]
    assert len(files) > 300
    assert not [name for name in files if privacy.is_secret_name(name)]
    code_files = [file for name in files if (file := env_stamp.CODE / name).is_file()]
    assert not [file for file in code_files if privacy.holds_secret(file.read_bytes())]


# --- commands, logs and errors ---


@pytest.mark.fault(54)
@pytest.mark.parametrize("secret", [TOKEN, "https://alice:" + "hunter2@example.org/cub", PASSWORD])
@pytest.mark.parametrize("word", ["dataset.root={}/cub", "runtime.run_id={}", "-m", "task=audit"])
def test_a_command_with_a_secret_is_refused_before_any_file(
    secret, word, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("MY_PASSWORD", PASSWORD)
    arguments = [word.format(secret), f"+note={secret}"]
    assert main([*arguments, f"runtime.output_root={tmp_path / 'outputs'}"]) == 2
    captured = capfd.readouterr()
    assert secret not in captured.out + captured.err
    assert "***" in captured.err
    assert "holds a password or token" in captured.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.fault(54)
@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_is_configured_to_ignore_is_no_clean_tree(checkout, flag):
    git(checkout, "update-index", flag, "fgvc/a.py")
    assert not env_stamp.git_state(checkout).dirty
    written(checkout, "fgvc/a.py", "other\n")
    code = env_stamp.git_state(checkout)
    assert code.dirty
    assert [file.path for file in code.withheld] == ["fgvc/a.py"]
    assert "fgvc/a.py" in " ".join(code.notes)
    (checkout / "fgvc/a.py").unlink()  # as in a sparse checkout
    assert flag == "--assume-unchanged" or not env_stamp.git_state(checkout).withheld


@pytest.mark.fault(54)
def test_a_compiled_module_that_git_ignores_is_no_clean_tree(checkout):
    written(checkout, ".gitignore", "*.so\n")
    git(checkout, "add", ".gitignore")
    git(checkout, "commit", "-qm", "ignore")
    before = env_stamp.git_state(checkout)
    written(checkout, "fgvc/a.cpython-311-x86_64-linux-gnu.so", "x")
    code = env_stamp.git_state(checkout)
    assert code.patch_sha256 != before.patch_sha256
    assert [file.path for file in code.withheld if file.path.endswith(".so")]


# values of variables that occur in ordinary text, and what ordinary text they occur in
COMMON = {"SECRET": "production", "API_KEY": "undefined", "TOKEN": "00000000", "DB_KEY": "e4553569"}
ORDINARY = [
    "dataset.root=/data/production/birds",
    f"backbone.weights_sha256=ab{'00000000' * 2}{'e4553569' * 4}",
    "ValueError: undefined label",
    "runtime.output_root=/x/token_merging/secret_garden",
    "runtime.output_root=/x/token_merging=16/vit_base_patch16_224",
    "dataset.root=/x/secret_garden=birds_of_the_world_2011/CUB_200_2011/images",
    "runtime.run_id=sk_learn_logistic_regression_v2",
    "runtime.output_root=/x/hf_visiontransformers2023",
    "dataset.root='/x/basic vit_tiny_patch16_224_birds'",
    "dataset.card.source=https://user@example.org/birds",
    "dataset.card.approval=birds@example.org",
    "dataset.root=/x/password=none/a@b:c",
    '"token": "vit_tiny_patch16_224"',
]


@pytest.mark.fault(54)
@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_no_secret(text, monkeypatch):
    for name, value in COMMON.items():
        monkeypatch.setenv(name, value)
    assert privacy.masked(text) == text
    assert not privacy.holds_secret(text.encode())


@pytest.mark.fault(54)
@pytest.mark.parametrize("words", ["sk_a_b_c_", "token=a_b_c_", "secret_x=vit_tiny_patch_"])
def test_words_before_a_secret_do_not_hide_it(words):
    assert TOKEN[3:] + "1" not in privacy.masked(words + TOKEN[3:] + "1")


@pytest.mark.fault(54)
@pytest.mark.parametrize("piece", ["token_x=", "sk-", "token=a1", "password="])
def test_a_long_line_is_searched_in_linear_time(piece):
    """A quadratic search of these 400,000 characters takes minutes."""
    text = piece * (400_000 // len(piece)) + "("
    assert privacy.masked(text) == text


@pytest.mark.fault(54)
@pytest.mark.parametrize("name", ["token_merging.py", "cls_token.py", "tokenizer.py"])
def test_code_on_the_tokens_of_an_image_is_copied(name):
    assert not privacy.is_secret_name(f"fgvc/model/{name}")


@pytest.mark.fault(54)
def test_a_config_with_a_secret_is_refused_and_errors_and_logs_are_masked(tmp_path):
    texts = {"config.yaml": f"a: 1\nroot: /x/{TOKEN}\n"}
    with (
        pytest.raises(UserError, match=r"^config\.yaml: root: /x/\*\*\*: holds a password"),
        run_folder.open_run(tmp_path / "outputs", "r", "f" * 64, texts),
    ):
        pass
    assert not (tmp_path / "outputs").exists()

    def fail() -> None:
        with run_folder.open_run(tmp_path / "outputs", "r", "f" * 64, {}):
            run_folder.log.warning("sent with Bearer %s", TOKEN)
            raise ValueError(f"https://alice:hunter2@example.org answers 401 to {TOKEN}")

    with pytest.raises(ValueError, match="https"):
        fail()
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert TOKEN not in file.read_text()
        assert "hunter2" not in file.read_text()
    (log,) = tmp_path.rglob("run.log")
    assert "sent with Bearer ***" in log.read_text()


# --- what leaves the machine ---


@pytest.mark.fault(54)
def test_a_command_for_another_machine_names_no_place_and_works_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "quentin")
    words = ["python", "-m", "fgvc.run", f"runtime.data_root={tmp_path}", "dataset.root='/a b/c'"]
    words += ["dataset.root=~/birds", "hydra.searchpath=[file:///srv/quentin/conf]", "seed=1"]
    portable = privacy.portable_command(shlex.join(words))
    assert not re.search(r"quentin|/a b|birds|tmp", portable)
    script = f"DATA_ROOT=/d DATASET_ROOT='/my birds' HYDRA_SEARCHPATH=/x; printf '%s\\n' {portable}"
    out = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[3:6:2] == ['runtime.data_root="/d"', 'dataset.root="/my birds"']
    assert out.splitlines()[-1] == "seed=1"


def inside(data: bytes, depth: int = 2) -> Iterator[bytes]:
    """The bytes, and the decoded base64 and zlib streams in them."""
    yield data
    if not depth:
        return
    for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        try:
            stream = memoryview(data)[start.start() :]
            yield from inside(zlib.decompressobj().decompress(stream, 1 << 22), depth - 1)
        except zlib.error:
            continue
    for encoded in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", data):
        try:
            yield from inside(base64.b64decode(encoded[: len(encoded) // 4 * 4]), depth - 1)
        except binascii.Error:
            continue


def texts_of(file: Path) -> bytes:
    if file.suffix in (".bin", ".onnx"):  # nothing in them is compressed
        return file.read_bytes()
    if file.suffix != ".parquet":
        return b"\0".join(inside(file.read_bytes()))
    table = pq.read_table(file)
    return repr((table.to_pydict(), table.schema.metadata)).encode()


LOCAL = {"command.txt", "config.yaml"}  # and TensorBoard's copy of both


@pytest.mark.fault(54)
def test_what_leaves_the_machine_names_no_user_no_host_and_no_secret(
    small_probe, tmp_path, monkeypatch, capfd
):
    names = {"HOME": "home-of-quentinzz", "USER": "quentinzz", "LOGNAME": "quentinzz"}
    home = tmp_path / "quentinzz" / names["HOME"]
    home.mkdir(parents=True)
    for name, value in {**names, "HOME": str(home), "HF_TOKEN": TOKEN, "MY_KEY": PASSWORD}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: "hostzz.example.org")
    roots = ("data", "cache", "output", "multirun", "weights")
    places = [f"runtime.{name}_root={home / name}" for name in roots]
    assert main([*small_probe, *places, "runtime.run_id=r"]) == 0
    (checkpoint,) = home.glob("output/r/*/*/ckpt.bin")
    run = checkpoint.parent
    (birds,) = (home / "data").glob("synthetic*")
    sent = home / "sent"
    card = f"task.output={sent / 'export'}"
    assert main(["task=export", f"checkpoint={run}", f"dataset.root={birds}", card, *places]) == 0
    capfd.readouterr()
    audit = ["task=audit", f"run={run}", f"task.output={sent / 'audit.json'}"]
    assert main([*audit, *places]) == 0
    assert main(["task=report", *places]) == 0
    output = capfd.readouterr().out
    block = output[output.index("### Commands") : output.index(pull_request_block.AGAIN)]
    assert not re.search(r"quentinzz|hostzz", block)
    places_of = re.compile(b"quentinzz|hostzz")
    secrets = re.compile(re.escape(TOKEN).encode() + b"|" + re.escape(PASSWORD).encode())
    outputs = [path for path in (home / "output").rglob("*") if path.is_file()]
    files = [path for path in (*outputs, *sent.rglob("*")) if path.is_file()]
    assert len(files) > 30
    assert not [file for file in files if places_of.search(file.name.encode())]
    text_of = {file: texts_of(file) for file in files}
    leaks = {file for file, text in text_of.items() if places_of.search(text)}
    assert {file.name for file in leaks if "lock" not in file.name} - LOCAL <= {
        file.name for file in run.glob("tb/events*")
    }
    assert not [file for file, text in text_of.items() if secrets.search(text)]
    page = (run / "report.html").read_text()
    assert "OUTPUT_ROOT" in page
