"""No function that a pickle names is ever called: only tensors and plain values are read."""

import argparse
import builtins
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from fgvc.model.backbone import weights
from fgvc.types import UserError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def _touch(trace):
    return Calls(os.system, f"touch {trace}")


HOSTILE = {
    "os.system": _touch,
    "eval": lambda trace: Calls(eval, f"open({str(trace)!r}, 'w')"),
    "nested": lambda trace: {"x": [(Calls(list, (_touch(trace),)),)]},
    "builtins.getattr": lambda trace: Calls(builtins.getattr, STATE["b"], "numpy"),
    "torch.hub.load": lambda trace: Calls(torch.hub.load, "a/b", "c"),
    "torch.load": lambda trace: Calls(torch.load, str(trace)),
    "add_safe_globals": lambda trace: Calls(torch.serialization.add_safe_globals, [os.system]),
    "torch.jit.load": lambda trace: Calls(torch.jit.load, str(trace)),
    "open": lambda trace: Calls(open, str(trace), "w"),
    "array": lambda trace: np.array([1.0, 2.0]),
    "array of objects": lambda trace: np.array([_touch(trace)], dtype=object),
    "module": lambda trace: torch.nn.Linear(2, 2),
    "partial": lambda trace: Calls(__import__("functools").partial, os.system, f"touch {trace}"),
    "defaultdict": lambda trace: defaultdict(list),
    "state": lambda trace: Calls(OrderedDict, state={"x": _touch(trace)}),
    "namespace": lambda trace: argparse.Namespace(lr=_touch(trace)),
}


def _save(content, path, form):
    if form == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif form == "protocol 4":
        torch.save(content, path, pickle_protocol=4)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.fault(10)
@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 4", "plain"])
@pytest.mark.parametrize("name", HOSTILE)
def test_any_other_call_refuses_the_file(tmp_path, name, form):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    _save({**STATE, "x": HOSTILE[name](trace)}, path, form)
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(UserError) as error:
        weights.read(path)
    assert "refused, and nothing in the file was run" in str(error.value)
    assert "\n" not in str(error.value)
    assert not trace.exists()
    assert set(torch.serialization.get_safe_globals()) == before


def test_the_message_names_the_refused_class(tmp_path):
    torch.save({**STATE, "x": torch.nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"they name torch.nn.modules.linear.Linear\)"):
        weights.read(tmp_path / "w.pth")


def test_what_another_library_declared_safe_is_not_safe_here(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"model": STATE, "x": _touch(trace)}, tmp_path / "w.pth")
    declared = [Calls, (os.system, "posix.system")]
    with torch.serialization.safe_globals(declared):
        with pytest.raises(UserError, match="refused"):
            weights.read(tmp_path / "w.pth")
        assert set(declared) <= set(torch.serialization.get_safe_globals())
    assert not trace.exists()


def _global(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


NAMESPACE = _global("argparse", "Namespace") + b")\x81"
BY_HAND = {  # opcodes of protocol 2
    "setstate of a namespace": (
        b"\x80\x02}"
        + _text("x")
        + NAMESPACE
        + b"}"
        + _text("__setstate__")
        + _global("posix", "system")
        + b"sb"
        + _text("id")
        + b"bs."
    ),
    "class of a namespace": (
        b"\x80\x02}"
        + _text("x")
        + NAMESPACE
        + b"}"
        + _text("__class__")
        + _global("subprocess", "Popen")
        + b"sbs."
    ),
    "dotted name": b"\x80\x02"
    + _global("torch", "serialization.os.system")
    + _text("id")
    + b"\x85R.",
    "stack global": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + _text("id") + b"\x85R.",
    "dotted stack global": (
        b"\x80\x04" + _text("torch._utils") + _text("os.system") + b"\x93" + _text("id") + b"\x85R."
    ),
    "instance": b"(ios\nsystem\n.",
    "object": b"\x80\x02(" + _global("os", "system") + _text("id") + b"o.",
    "persistent id": b"\x80\x02(" + _text("module") + _text("os") + b"tQ.",
    "persistent name": b"Pos.system\n.",
    "extension": b"\x80\x02\x82\x01.",
    "call of a dtype": b"\x80\x02" + _global("torch", "float32") + _text("id") + b"\x85R.",
}


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("form", ["plain", "zip"])
def test_opcodes_by_hand_are_refused(tmp_path, name, form):
    path = tmp_path / "w.pth"
    if form == "plain":
        path.write_bytes(BY_HAND[name])
    else:
        torch.save(STATE, tmp_path / "sound.pth")
        with zipfile.ZipFile(tmp_path / "sound.pth") as sound, zipfile.ZipFile(path, "w") as wrong:
            for item in sound.namelist():
                pickled = BY_HAND[name] if item.endswith("data.pkl") else sound.read(item)
                wrong.writestr(item, pickled)
    with pytest.raises(UserError) as error:
        weights.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_options_and_scalars_of_a_training_are_placeholders(tmp_path, legacy):
    namespace = argparse.Namespace(lr=0.1, names=["a"], best=np.float32(1.5))
    content = {
        "model": STATE,
        "args": namespace,
        "best": np.float64(71.2),
        "step": np.int64(3),
        "flag": np.bool_(True),
        "numbers": {1, 2},
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    read = weights.read(tmp_path / "w.pth")
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    ("alien", "kind"), [(argparse.Namespace(a=1), "Namespace"), (np.float64(2.0), "NumpyScalar")]
)
def test_a_placeholder_inside_the_state_dict_is_refused(tmp_path, alien, kind):
    torch.save({"model": {**STATE, "n": alien}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"a {kind} at 'n', where a tensor should be"):
        weights.read(tmp_path / "w.pth")


# --- TorchScript archives: the modules are read, the code is not ---


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        self.scale = torch.nn.Parameter(torch.tensor(2.5))
        self.low = torch.nn.Linear(4, 2)
        self.register_buffer("size", torch.tensor(224))
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4).T[1:])
        self.plain = torch.ones(3)  # in the archive, but no part of a state dict
        self.tied = self.layers[0]
        self.names = ["a", "b"]
        self.sizes = [1, 2]

    def forward(self, x):
        return self.low(self.layers(x)) * self.scale + self.plain.sum()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "net.pt"
    net = Net()
    net.low.half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), path)
        expected = torch.jit.load(path).state_dict()
    return path, expected


def test_a_torchscript_archive_gives_the_state_dict_of_its_module(archive):
    path, expected = archive
    read = weights.read(path)
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value), key
    assert read["low.weight"].dtype == torch.float16


def _rewritten(archive, path, pickled):
    with zipfile.ZipFile(archive) as sound, zipfile.ZipFile(path, "w") as wrong:
        for item in sound.namelist():
            data = sound.read(item)
            wrong.writestr(item, pickled(data) if item.endswith("/data.pkl") else data)


@pytest.mark.parametrize("name", [name for name in BY_HAND if name != "call of a dtype"])
def test_a_torchscript_archive_that_names_other_code_is_refused(archive, tmp_path, name):
    _rewritten(archive[0], tmp_path / "w.pt", lambda data: BY_HAND[name])
    with pytest.raises(UserError) as error:
        weights.read(tmp_path / "w.pt")
    assert "\n" not in str(error.value)


MODULE = _global("__torch__", "M") + b")\x81}"
REBUILD = _global("torch._utils", "_rebuild_tensor_v2")
STORAGE = (
    b"("
    + _text("storage")
    + _global("torch", "FloatStorage")
    + _text("0")
    + _text("cpu")
    + b"K\x01tQ"
)


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + _global("os", "system") + _text("touch TRACE") + b"\x85R.",
        b"\x80\x02"
        + MODULE
        + _text("x")
        + _global("posix", "system")
        + _text("touch TRACE")
        + b"\x85Rsb.",
        b"\x80\x02" + REBUILD + b"}" + _text("__defaults__") + b"]sb.",
        b"\x80\x02"
        + MODULE
        + _text("x")
        + REBUILD
        + b"("
        + STORAGE
        + b"K\x00(Jtttt"
        + b"t(K\x01t\x89)tRsb.",
        b"\x80\x02"
        + MODULE
        + _text("x")
        + REBUILD
        + b"("
        + STORAGE.replace(_text("0"), _text("../0"))
        + b"K\x00(K\x01t(K\x01t\x89)tRsb.",
    ],
    ids=["call", "call below a module", "change of a function", "beyond the storage", "other file"],
)
def test_a_hostile_torchscript_archive_is_refused(archive, tmp_path, pickled):
    trace = tmp_path / "trace"
    path = tmp_path / "w.pt"
    old, new = _text("touch TRACE"), _text(f"touch {trace}")
    _rewritten(archive[0], path, lambda data: pickled.replace(old, new))
    with pytest.raises(UserError) as error:
        weights.read(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


def test_modules_that_hold_each_other_end(archive, tmp_path):
    loop = b"\x80\x02" + _global("__torch__", "M") + b")\x81q\x00}" + _text("x") + b"h\x00sb."
    _rewritten(archive[0], tmp_path / "w.pt", lambda data: loop)
    with pytest.raises(UserError, match="hold each other"):
        weights.read(tmp_path / "w.pt")


def test_a_cut_archive_is_diagnosed(archive, tmp_path):
    (tmp_path / "w.pt").write_bytes(archive[0].read_bytes()[:-60])
    with pytest.raises(UserError, match="cannot be read"):
        weights.read(tmp_path / "w.pt")
