"""model.onnx gives the logits of the classifier: each family and head, any batch size."""

from __future__ import annotations

import onnx
import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.data.preprocess import evaluation_transform
from fgvc.model import head_layers, onnx_export
from fgvc.model.backbone import weights
from fgvc.model.classifier import Classifier
from fgvc.model.part_attention.rollout import attention_row
from fgvc.pipeline.build_model import build_model

CLASSES, BANK = 6, 40
RANDOM = torch.Generator().manual_seed(0)


def linear(width):
    return head_layers.LinearHead(
        torch.randn(CLASSES, width, generator=RANDOM), torch.zeros(CLASSES)
    )


def text(width):
    return head_layers.TextHead(torch.randn(CLASSES, width, generator=RANDOM), 20.0)


def mlp(width):
    return head_layers.MlpHead(width, 16, CLASSES, 0.5, RANDOM)


def knn(width):
    """Neighbours with ties at the k-th place: each row of the bank occurs twice."""
    bank_ND = torch.randn(BANK // 2, width, generator=RANDOM).repeat(2, 1)
    return head_layers.KnnHead(bank_ND, torch.arange(BANK) % CLASSES, CLASSES, 5, 0.07)


CASES = {
    "vit": (64, linear, "off", ()),
    "dinov2": (56, knn, "transfg", ()),
    "clip": (64, text, "cls_topk", ("backbone.features=projected",)),
    "siglip2": (64, mlp, "cls_topk", ()),
}


@pytest.mark.parametrize(
    "family", ["vit", "dinov2", "clip", pytest.param("siglip2", marks=pytest.mark.slow)]
)
def test_the_graph_answers_as_the_classifier(family, tmp_path):
    side, head, part_attention, overrides = CASES[family]
    backbone_overrides = (f"backbone={family}", "backbone.size=mini", "backbone.pretrained=false")
    resolution_overrides = (
        f"resolution.side={side}",
        f"resolution.name=r{side}",
        f"part_attention={part_attention}",
    )
    conf = typed(composed([*backbone_overrides, *resolution_overrides, *overrides]))
    backbone, selector = build_model(conf, weights.find(conf.backbone))
    model = Classifier(backbone, head(backbone.feature_dim), selector).eval()
    transform = evaluation_transform(conf)
    file = tmp_path / "model.onnx"
    onnx_export.write(file, model, transform.normalize, side, {"fgvc.labels": '["ä"]'})

    run = onnx_export.load_session(file, 1)
    pixels_BCHW = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=RANDOM)
    with torch.inference_mode():
        expected_BK = model(transform.normalize(pixels_BCHW)).numpy()
    for batch in (1, 3, 5):
        found_BK = run(pixels_BCHW[:batch].numpy())
        assert found_BK.dtype == expected_BK.dtype
        assert found_BK == pytest.approx(expected_BK[:batch], abs=1e-4)
    assert expected_BK.std() > 1e-3  # or nothing was compared

    graph = onnx.load(file)
    onnx.checker.check_model(graph)
    assert [item.name for item in graph.graph.input] == ["pixels"]
    assert {item.key: item.value for item in graph.metadata_props} == {"fgvc.labels": '["ä"]'}
    assert b".py" not in file.read_bytes(), "where it was traced is told"


class Row(torch.nn.Module):
    """Attention between the rows of an image: no selection after it hides the values."""

    def forward(self, pixels_BCHW):
        query_BhMD, key_BhND = pixels_BCHW[:, :, :3] * 4, pixels_BCHW
        row_BhM = query_BhMD.softmax(2).mean(3)
        return attention_row(row_BhM, query_BhMD, key_BhND).flatten(1)


def test_the_row_of_part_attention_is_the_operators_own(tmp_path):
    file, side = tmp_path / "model.onnx", 16
    onnx_export.write(file, Row(), lambda pixels: pixels.float() / 255, side, {})
    pixels_BCHW = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=RANDOM)
    expected_BK = Row()(pixels_BCHW.float() / 255).numpy()
    assert onnx_export.load_session(file, 1)(pixels_BCHW.numpy()) == pytest.approx(
        expected_BK, abs=1e-6
    )
    assert expected_BK.std() > 1e-3
