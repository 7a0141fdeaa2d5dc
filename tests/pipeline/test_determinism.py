"""matmul_precision= -> the precision of every float32 product and convolution, and its record."""

from __future__ import annotations

import json
import warnings
from operator import attrgetter

import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.pipeline.determinism import seed_everything, set_up_process

FLAGS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")


@pytest.fixture(autouse=True)
def _restored():
    yield
    seed_everything(typed(composed([*SMALL, "backbone.pretrained=false"])))


def flags():
    return {name: attrgetter(f"{name}.fp32_precision")(torch.backends) for name in FLAGS}


def conf_with(precision):
    overrides = ("backbone.pretrained=false", f"matmul_precision={precision}", "runtime.device=cpu")
    return typed(composed([*SMALL, *overrides]))


@pytest.mark.parametrize("begin", [seed_everything, set_up_process], ids=["process", "rank"])
def test_every_process_sets_convolutions_with_products_and_resets_them(begin):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for precision in ("highest", "high", "medium", "highest"):
            begin(conf_with(precision))
            precisions = flags()
            assert torch.get_float32_matmul_precision() == precision
            if precision == "highest":
                assert set(precisions.values()) == {"ieee"}
            else:
                products = precisions.pop("mkldnn.matmul")  # oneDNN's medium products are bfloat16
                assert products == {"high": "tf32", "medium": "bf16"}[precision]
                assert set(precisions.values()) == {"tf32"}
            # the old names can still be read: libraries do, and torch refuses a contradiction
            allowed = precision != "highest"
            assert torch.backends.cudnn.allow_tf32 == allowed
            assert torch.backends.cuda.matmul.allow_tf32 == allowed
            with torch.backends.cudnn.flags(enabled=True):
                pass
            assert (flags()["cudnn.conv"] == "tf32") == allowed


def test_the_flags_are_stamped_as_they_are_and_a_later_run_sets_its_own(run):
    attrgetter("cudnn.conv")(torch.backends).fp32_precision = "tf32"  # as torch starts
    for precision, expected in (("highest", "ieee"), ("high", "tf32"), ("highest", "ieee")):
        ran = run(*SMALL, "head=knn", "head.k=3", f"matmul_precision={precision}")
        assert ran.code == 0, ran.err
        stamp = json.loads((ran.folder / "env_stamp.json").read_text())
        assert stamp["matmul_precision"] == precision
        assert stamp["fp32_precision"] == dict.fromkeys(FLAGS, expected)
        page = (ran.folder / "report.html").read_text()
        assert f"convolutions {expected}" in page
