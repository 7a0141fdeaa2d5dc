"""A row of backbone.checkpoints from any source -> safe names and architecture arguments.

A row may come from a checkpoint of another person. It may only name a model of the chosen library
and give the arguments listed here, each of its type and within its bounds. No list contains an
argument that opens, fetches or executes something (checkpoint_path, pretrained_cfg, hf_model_name),
so a checkpoint cannot cause access to a file, a URL or an import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.schema.backbone import Backbone, Checkpoint, chosen_checkpoint, row_key
from fgvc.untrusted.escape import one_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a model or of a tag
REPO = re.compile(r"([A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?)?")
REVISION = re.compile(r"(\w[\w.-]{0,95}(/\w[\w.-]{0,95}){0,4})?")
LARGEST = 2_500_000_000  # parameters of a custom model


@dataclass(frozen=True)
class Number:
    """A number within inclusive bounds. whole: an integer. null: None is legal too."""

    low: float
    high: float
    whole: bool = True
    null: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type and lies within the bounds."""
        if value is None:
            return self.null
        types = int if self.whole else (int, float)
        is_number = isinstance(value, types) and type(value) is not bool
        return is_number and self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}{' or null' if self.null else ''}"


@dataclass(frozen=True)
class OneOf:
    """A closed list of values."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        """Whether a value is in the list; true is not 1."""
        return any(type(value) is type(legal) and value == legal for legal in self.values)

    def __str__(self) -> str:
        names = {True: "true", False: "false", None: "null"}
        return f"one of {', '.join(str(names.get(legal, legal)) for legal in self.values)}"


FLAG, FLAG_OR_NULL = OneOf((False, True)), OneOf((False, True, None))
WIDTH, LAYERS, HEADS = Number(8, 8192), Number(1, 128), Number(1, 256)
PATCH, SIDE, TOKENS = Number(2, 128), Number(8, 2048), Number(0, 64)
RATIO, SHARE = Number(0.1, 16, whole=False), Number(0, 1, whole=False)
SCALE = Number(0, 100, whole=False, null=True)
VOCABULARY, LENGTH = Number(2, 1_000_000), Number(1, 8192)
ID = Number(0, 1_000_000, null=True)
ROW: Mapping[str, Number] = {
    "patch": PATCH,
    "prefix": TOKENS,
    "width": WIDTH,
    "native": SIDE,
    "heads": Number(1, 256, null=True),
    "blocks": Number(1, 128, null=True),
    "embedding": Number(1, 8192, null=True),
}
ACTIVATIONS = OneOf(("gelu", "gelu_tanh", "quick_gelu", "silu", "swish", "relu", None))
NORMS = OneOf(("layernorm", "rmsnorm", "simplenorm", "layernormfp32", None))
TIMM_FLAGS = """
class_token no_embed_class pre_norm final_norm pool_include_prefix qkv_bias qkv_fused qk_norm
proj_bias swiglu_mlp scale_mlp scale_attn_norm scale_mlp_norm scale_attn_inner attn_only_layer_scale
use_abs_pos_emb use_rot_pos_emb use_post_norm use_pre_transformer_norm rope_rotate_half
"""
CLIP_FLAGS = """
final_ln_after_pool output_tokens qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn
scale_fc
"""
Rules = Mapping[str, Any]
TIMM: Rules = {
    "embed_dim": WIDTH,
    "depth": LAYERS,
    "num_heads": HEADS,
    "num_kv_heads": Number(1, 256, null=True),
    "mlp_ratio": RATIO,
    "patch_size": PATCH,
    "reg_tokens": TOKENS,
    "num_reg_tokens": TOKENS,
    "init_values": SCALE,
    "global_pool": OneOf(("token", "avg", "avgmax", "max", "map", "")),
    "pos_embed": OneOf(("learn", "none", "")),
    "attn_type": OneOf(("eva", "rope")),
    "rope_type": OneOf(("cat", "mixed", "dinov3", None)),
    "rope_grid_indexing": OneOf(("ij", "xy")),
    "rope_grid_offset": SHARE,
    "rope_temperature": Number(1, 1e6, whole=False),
    "swiglu_align_to": Number(0, 1024),
    "ref_feat_shape": Number(1, 1024, null=True),
    "act_layer": ACTIVATIONS,
    "norm_layer": NORMS,
    "embed_norm_layer": NORMS,
    **dict.fromkeys(("use_post_transformer_norm", "use_fc_norm", "fc_norm"), FLAG_OR_NULL),
    **dict.fromkeys(TIMM_FLAGS.split(), FLAG),
}
CLIP_TOWER: Rules = {
    "width": WIDTH,
    "layers": LAYERS,
    "mlp_ratio": RATIO,
    "ls_init_value": SCALE,
    "act_kwargs": {"approximate": OneOf(("none", "tanh"))},
    "norm_kwargs": {"eps": SHARE},
    "pool_type": OneOf(("tok", "avg", "argmax", "eos", "first", "last", "none")),
    **dict.fromkeys(CLIP_FLAGS.split(), FLAG),
}
OPEN_CLIP: Rules = {
    "embed_dim": WIDTH,
    "quick_gelu": FLAG,
    "init_logit_scale": SCALE,
    "init_logit_bias": Number(-100, 100, whole=False, null=True),
    "nonscalar_logit_scale": FLAG,
    "custom_text": OneOf((False, None)),
    "vision_cfg": {
        **CLIP_TOWER,
        "head_width": WIDTH,
        "patch_size": PATCH,
        "image_size": SIDE,
        "patch_dropout": SHARE,
        "attentional_pool": OneOf((False,)),
        "no_ln_pre": FLAG,
        "pos_embed_type": OneOf(("learnable", "sin_cos_2d")),
    },
    "text_cfg": {
        **CLIP_TOWER,
        "heads": HEADS,
        "context_length": LENGTH,
        "vocab_size": VOCABULARY,
        "embed_cls": FLAG,
        "no_causal_mask": FLAG,
        "pad_id": ID,
        "eos_id": ID,
        "proj_bias": FLAG,
        "proj_type": OneOf(("linear", "mlp", "none")),
    },
}
SIGLIP_TOWER: Rules = {
    "hidden_size": WIDTH,
    "intermediate_size": Number(8, 65_536),
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": OneOf(("gelu", "gelu_pytorch_tanh", "quick_gelu")),
    "layer_norm_eps": SHARE,
    "attention_dropout": SHARE,
    "model_type": OneOf(("siglip_vision_model", "siglip_text_model")),
}
TRANSFORMERS: Rules = {
    "model_type": OneOf(("siglip",)),
    "vision_config": {
        **SIGLIP_TOWER,
        "patch_size": PATCH,
        "image_size": SIDE,
        "num_channels": OneOf((3,)),
        "vision_use_head": FLAG,
    },
    "text_config": {
        **SIGLIP_TOWER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "projection_size": WIDTH,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ID),
    },
}
ARGUMENTS: Mapping[str, Rules] = {
    "timm": TIMM,
    "open_clip": OPEN_CLIP,
    "transformers": TRANSFORMERS,
}


def check_chosen(backbone: Backbone) -> None:
    """Check the row of the chosen checkpoint, without building, opening or fetching anything.

    Raises:
        ConfigError: as `check_row`.
    """
    check_row(backbone.library, chosen_checkpoint(backbone), row_key(backbone))


def check_row(library: str, row: Checkpoint, key: str) -> None:
    """Check the names, numbers and architecture of a row.

    Args:
        key: dotted key of the row, for messages.

    Raises:
        ConfigError: one line that begins with the key.
    """
    patterns = (("model", NAME), ("tag", NAME), ("repo", REPO), ("revision", REVISION))
    for field, pattern in patterns:
        value = getattr(row, field)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ConfigError(
                f"{key}.{field}={_short(value)}: must be a name of letters, digits, '.', '_' and "
                "'-', not a path or an address. Give local weights by backbone.weights=PATH, and "
                "a repository by backbone.weights=hf-hub:ORG/REPO"
            )
    for field, number in ROW.items():
        if not number.accepts(getattr(row, field)):
            raise ConfigError(f"{key}.{field}={_short(getattr(row, field))}: must be {number}")
    check_architecture(library, row.architecture, f"{key}.architecture")


def check_architecture(library: str, arguments: Any, key: str) -> None:
    """Check the arguments from which a library builds a model.

    Args:
        library: timm, open_clip or transformers.
        arguments: by name; nested for open_clip and transformers, as in their model configs.
        key: dotted key of the arguments, for messages.

    Raises:
        ConfigError: an unlisted argument, a value of another type or out of bounds; one line that
            begins with the key.
    """
    if library not in ARGUMENTS:
        raise ConfigError(f"backbone.library={_short(library)}: not one of {', '.join(ARGUMENTS)}")
    _check(arguments, ARGUMENTS[library], key)


def check_size(parameters: int, key: str) -> None:
    """Refuse a model larger than any published model of its kind, before it is allocated.

    Args:
        parameters: counted on the meta device.
        key: dotted key that determines the size, for the message.

    Raises:
        ConfigError: more than LARGEST.
    """
    if parameters > LARGEST:
        raise ConfigError(
            f"{key}: makes a model of {parameters:,} parameters, more than {LARGEST:,}. Give a "
            "smaller width or depth"
        )


def _short(value: Any) -> str:
    return one_line(value, 60)


def _check(arguments: Any, rules: Rules, key: str) -> None:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"{key}={_short(arguments)}: must be a mapping of arguments")
    for name, value in arguments.items():
        place = f"{key}.{_short(name)}"
        if name not in rules:
            raise ConfigError(
                f"{place}={_short(value)}: not an argument that fgvc passes to the library"
                f"{nearest(_short(name), list(rules))}. It passes {', '.join(rules)}"
            )
        rule = rules[name]
        if isinstance(rule, Mapping):
            if value is not None:
                _check(value, rule, place)
        elif not rule.accepts(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(f"{place}={_short(value)}: must be {rule}")
