"""A classifier -> model.onnx, which computes the same from raw pixels; and a session that runs it.

Input `pixels`: uint8 RGB, B x 3 x R x R, resized and cropped; the normalization is in the graph, so
that nobody can forget it. Output `logits`: float32, B x K. The batch may have any size.

B batch, C 3 channels, H and W pixels, K classes, h heads, M query tokens, N key tokens, D width of
a head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fgvc.types import UserError

FILE = "model.onnx"
OPSET = 18  # the oldest that the exporter writes, for the most runtimes
MAX_INLINE_BYTES = 1 << 30  # larger weights are in a file beside it (protobuf is limited to 2 GB)
Normalize = Callable[[Tensor], Tensor]


class _NormalizedModel(nn.Module):
    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.model(self.normalize(pixels_BCHW))


def write(
    file: Path, model: nn.Module, normalize: Normalize, side: int, metadata: Mapping[str, str]
) -> None:
    """Write the graph; weights of more than a gigabyte are written to `<file>.data`.

    Equal weights give equal bytes, because the exporter's notes on source files are removed.

    Args:
        model: in evaluation mode, on the CPU: normalised pixels_BCHW -> logits_BK.
        metadata: for the graph's metadata_props, which any runtime can read.

    Raises:
        UserError: the exporter cannot express the model.
    """
    pixels_BCHW = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it logs every folding that it skips
    try:
        program = torch.onnx.export(
            _NormalizedModel(model, normalize).eval(),
            (pixels_BCHW,),
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            custom_translation_table={torch.ops.fgvc.attention_row.default: _attention_row},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = next(line for line in reversed(str(error).splitlines()) if line.strip())
        raise UserError(f"ONNX cannot express this model: {reason[:200]}") from error
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):
        raise UserError("ONNX cannot express this model: its graph would hold for one batch size")
    _strip_traces(program.model)
    program.model.metadata_props.update(sorted(metadata.items()))
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    program.save(file, external_data=size > MAX_INLINE_BYTES)


def load_session(file: Path, threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pixels_BCHW -> float32 logits_BK, as onnxruntime computes them on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        file, sess_options=options, providers=["CPUExecutionProvider"]
    )
    return lambda pixels_BCHW: np.asarray(session.run(["logits"], {"pixels": pixels_BCHW})[0])


def _strip_traces(model: Any) -> None:
    """Remove the paths and source lines of this machine that the exporter stores per node."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in graph.inputs:
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def _attention_row(row_BhM: Any, query_BhMD: Any, key_BhND: Any) -> Any:
    """fgvc::attention_row in ONNX's own operators: row @ softmax(q k^T / sqrt(D))."""
    import onnxscript

    op: Any = onnxscript.opset18
    width = op.CastLike(op.Shape(query_BhMD, start=3), row_BhM)
    product_BhMN = op.MatMul(query_BhMD, op.Transpose(key_BhND, perm=[0, 1, 3, 2]))
    map_BhMN = op.Softmax(op.Div(product_BhMN, op.Sqrt(width)), axis=-1)
    last = op.Constant(value_ints=[2])
    return op.Squeeze(op.MatMul(op.Unsqueeze(row_BhM, last), map_BhMN), last)
