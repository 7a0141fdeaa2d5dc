"""The libraries that build backbones, and the arguments with which they may build a custom model.

No list of arguments contains one that opens, fetches or executes something (checkpoint_path,
pretrained_cfg, hf_model_name): see fgvc.config.schema.architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number within inclusive bounds. whole: an integer. null: None is legal too."""

    low: float
    high: float
    whole: bool = True
    null: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type and is within the bounds."""
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


@dataclass(frozen=True)
class LibrarySpec:
    """A library that builds backbones.

    Attributes:
        module: of fgvc/model/backbone; its `build` makes a backbone.
        architecture: the arguments of a custom model -> their rules.
        features: the legal values of backbone.features; `projected` needs a text tower.
        position_resizes: the legal values of backbone.position_resize, the default first.
        prefix: tokens before the patches, in a new row of checkpoints.
        weight_files: file names of weights, first choice first.
        companions: files that state what the weights expect, in a repository of the hub.
        tower: start of the names of the image tower's tensors, in a whole model.
        package: the one that computes an image feature. text_packages: a text feature.
        reads_tokenizer: whether the tokenizer is a file beside the weights.
    """

    module: str
    architecture: Rules
    features: tuple[str, ...]
    position_resizes: tuple[str, ...]
    prefix: int = 1
    weight_files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    companions: tuple[str, ...] = ("config.json", "preprocessor_config.json")
    tower: str = ""
    package: str = ""
    text_packages: tuple[str, ...] = ()
    reads_tokenizer: bool = False


LIBRARIES = {
    "timm": LibrarySpec(
        "timm_vit",
        TIMM,
        features=("cls", "patch_mean", "cls_patch_mean"),
        position_resizes=("timm", "zoom"),
        package="timm",
    ),
    "open_clip": LibrarySpec(
        "clip",
        OPEN_CLIP,
        features=("cls", "patch_mean", "cls_patch_mean", "projected"),
        position_resizes=("open_clip",),
        weight_files=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        companions=("open_clip_config.json", "config.json", "preprocessor_config.json"),
        tower="visual.",
        package="open_clip_torch",
        text_packages=("open_clip_torch", "ftfy", "regex"),
    ),
    "transformers": LibrarySpec(
        "siglip2",
        TRANSFORMERS,
        features=("map", "patch_mean", "projected"),
        position_resizes=("transformers",),
        prefix=0,
        tower="vision_model.",
        package="transformers",
        text_packages=("transformers", "tokenizers"),
        reads_tokenizer=True,
    ),
}
FEATURES = dict.fromkeys(name for spec in LIBRARIES.values() for name in spec.features)
POSITION_RESIZES = dict.fromkeys(
    name for spec in LIBRARIES.values() for name in spec.position_resizes
)
