"""UN-EPT with the attention of other papers in its encoder (Table 8): Longformer, Reformer and Sparse Transformer.

crispseg train unept/ade20k.yaml --plugins examples/unept_encoders.py --model unept_longformer --model.refine boundary

Longformer and Reformer are those of Hugging Face transformers, without Reformer's reversible layers. The paper does not
describe windows, buckets and strides. All pixels of all levels are one sequence, with encodings added to queries, keys
and values.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LongformerConfig, ReformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from crispseg.models import models
from crispseg.models.unept import HEADS, unept

WINDOW = 256  # pixels that one pixel sees (Longformer); the largest length of a chunk is half of it (Reformer)
STRIDE = 64  # neighbours in a block, and the distance between the pixels of a column (Sparse Transformer)


class SequenceAttention(nn.Module):
    """Base of attentions within one sequence, which is padded to a multiple of `WINDOW`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.output = nn.Linear(channels, channels)

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Attend like `crispseg.nn.DeformableAttention`; only the queries `(B, S, C)` are used."""
        length = query.shape[1]
        padded = F.pad(query, (0, 0, 0, -length % WINDOW))
        outside = (torch.arange(padded.shape[1], device=query.device) >= length).expand(len(query), -1)
        return self.output(self.attend(padded, outside)[:, :length])

    def attend(self, x: Tensor, outside: Tensor) -> Tensor:
        """Attend within `x` (B, S, C), but not to pixels that are `outside` (B, S)."""
        raise NotImplementedError


class Longformer(SequenceAttention):
    """Sliding windows (Beltagy et al., *Longformer*, 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        sizes: dict[str, Any] = {"hidden_size": channels, "num_attention_heads": HEADS, "attention_window": [WINDOW]}
        self.attention = LongformerSelfAttention(LongformerConfig(**sizes, attention_probs_dropout_prob=0.0), 0)
        for layer in (self.attention.query_global, self.attention.key_global, self.attention.value_global):
            layer.requires_grad_(False)  # no pixel is global

    def attend(self, x: Tensor, outside: Tensor) -> Tensor:
        return self.attention(x, outside * -10000.0, outside, torch.zeros_like(outside), False)[0]


class Reformer(SequenceAttention):
    """Locality-sensitive hashing (Kitaev et al., *Reformer*, ICLR 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        sizes: dict[str, Any] = {"hidden_size": channels, "num_attention_heads": HEADS}
        sizes |= {"attention_head_size": channels // HEADS, "lsh_attn_chunk_length": WINDOW // 2, "num_buckets": 128}
        self.attention = LSHSelfAttention(ReformerConfig(**sizes, lsh_attention_probs_dropout_prob=0.0))

    def attend(self, x: Tensor, outside: Tensor) -> Tensor:
        return self.attention(x, attention_mask=~outside).hidden_states


class SparseTransformer(SequenceAttention):
    """Strided attention (Child et al., *Generating Long Sequences with Sparse Transformers*, 2019, §4.3), both ways.

    Half of the heads attend to the pixel's block of `STRIDE` pixels, the other half to every `STRIDE`th pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.project = nn.Linear(channels, 3 * channels)

    def attend(self, x: Tensor, outside: Tensor) -> Tensor:
        # query, key and value as (B, heads, blocks, STRIDE, d)
        parts = torch.unflatten(self.project(x), 2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = torch.unflatten(parts, 3, (-1, STRIDE))
        seen = ~torch.unflatten(outside, 1, (-1, STRIDE))[:, None]  # (B, 1, blocks, STRIDE)
        half = HEADS // 2
        local = F.scaled_dot_product_attention(query[:, :half], key[:, :half], value[:, :half], inside(seen))
        columns = (part[:, half:].transpose(2, 3) for part in (query, key, value))
        strided = F.scaled_dot_product_attention(*columns, inside(seen.transpose(2, 3))).transpose(2, 3)
        return torch.cat([local, strided], dim=1).flatten(2, 3).transpose(1, 2).flatten(2)


def inside(seen: Tensor) -> Tensor:
    """Return the mask of keys for groups of pixels `(..., S)`; a group that is all outside sees itself."""
    return (seen | ~seen.any(-1, keepdim=True))[..., None, :]


def register(name: str, attention: Callable[[int], nn.Module]) -> None:
    """Register UN-EPT with another attention in its encoder as a model."""

    @wraps(unept)
    def build(*args: Any, **options: Any) -> nn.Module:
        model = unept(*args, **options)
        for layer in model.decoder.encoder:
            layer.attention = attention(model.decoder.width)
        return model

    models.register(name)(build)


register("unept_longformer", Longformer)
register("unept_reformer", Reformer)
register("unept_sparse", SparseTransformer)
