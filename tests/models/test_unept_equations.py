"""UN-EPT's encoder and decoder against §3.1 and §4.2 written out, in float64; attentions have tests of their own."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from crispseg import SegmentationModel, create_model, record
from crispseg.models.unept import EPT, FeedForward, Residual, sine_positions
from crispseg.nn import DeformableAttention

WIDTH, DROPOUT = 16, 0.25
SIZES = ((6, 8), (3, 4), (2, 2))


def lively(**options: Any) -> SegmentationModel:
    """With parameters of the decoder none of which is zero, one, or without effect."""
    options = {"backbone": "test_efficientnet", "width": WIDTH, "points": 4, "dropout": DROPOUT, **options}
    model = create_model("unept", num_classes=3, **options).double().eval()
    for parameter in model.decoder.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.3)
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            nn.init.normal_(module.sampling_offsets.weight, std=0.5)
            nn.init.normal_(module.attention_weights.weight, std=0.5)
    return model.requires_grad_(False)


def centres(height: int, width: int) -> Tensor:
    return torch.tensor([((x + 0.5) / width, (y + 0.5) / height) for y in range(height) for x in range(width)])


def added(x: Tensor, change: Tensor, part: Residual) -> Tensor:
    """§4.2: the residual, with dropout as `weakened` has it, and layer norm."""
    total = x + DROPOUT * change
    centred = total - total.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * part.norm.weight + part.norm.bias


def fed(x: Tensor, part: FeedForward) -> Tensor:
    """§4.2: two linear layers, with dropout after both."""
    first, last = (layer for layer in part.layers if isinstance(layer, nn.Linear))
    hidden = DROPOUT * (x @ first.weight.T + first.bias).clamp(min=0)
    return added(x, hidden @ last.weight.T + last.bias, part.residual)


def written_out(part: EPT, features: list[Tensor], context: Tensor, to_queries: bool) -> Tensor:
    """Eq. 5: Φ_dec(Φ_enc(X_ms), C), with encodings on queries (§3.1) or on features (§4.2)."""
    sizes = [tuple(feature.shape[-2:]) for feature in features]
    x = torch.cat(
        [
            feature.flatten(2).mT @ lateral.weight[:, :, 0, 0].T + lateral.bias
            for feature, lateral in zip(features, part.laterals, strict=True)
        ],
        dim=1,
    )
    encodings = torch.cat([sine_positions(size, WIDTH) + part.scales[index] for index, size in enumerate(sizes)])
    x, of_queries = (x, encodings) if to_queries else (x + encodings, torch.zeros(()))
    reference = torch.cat([centres(*size) for size in sizes])
    for layer in part.encoder:
        x = added(x, layer.attention(x + of_queries, reference, x, sizes), layer.residual)
        x = fed(x, layer.feed)

    size = tuple(context.shape[-2:])
    y, positions = context.flatten(2).mT, sine_positions(size, WIDTH)
    y, of_queries = (y, positions) if to_queries else (y + positions, torch.zeros(()))
    for layer in part.decoder:
        y = added(y, layer.self_attention(y + of_queries, centres(*size), y, [size]), layer.self_residual)
        y = added(y, layer.cross_attention(y + of_queries, centres(*size), x, sizes), layer.cross_residual)
        y = fed(y, layer.feed)
    return y.mT.reshape(len(y), WIDTH, *size)


@pytest.fixture
def weakened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout that multiplies by its share, to see where it is."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: self.p * x)


@pytest.mark.usefixtures("weakened")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encodings": "features"},
        {"self_attention": "full"},
        {"encodings": "features", "self_attention": "full"},
        {"levels": 1, "queries": "naive"},
    ],
)
def test_encoder_and_decoder_are_those_of_the_paper(options: dict[str, Any]) -> None:
    model = lively(**options)
    part = model.decoder
    channels = model.backbone.channels
    features = [torch.randn(2, width, *size).double() for width, size in zip(channels, SIZES, strict=False)]
    with record(model) as seen, patch.object(model.backbone, "forward", lambda _images: features):
        found = model.coarse_logits(torch.randn(2, 3, 41, 57, dtype=torch.float64))
    context = seen["decoder.context_queries"]
    assert context.shape == (2, WIDTH, 6, 8)
    if options.get("queries") == "naive":
        expected = nn.functional.interpolate(part.learned, (6, 8), mode="bilinear").expand(2, -1, -1, -1)
        torch.testing.assert_close(context, expected)
    decoded = written_out(part, features, context, options.get("encodings") != "features")
    assert decoded.std() > 0.1
    # positions and reference points are float32
    torch.testing.assert_close(found, model.classifier(decoded), atol=1e-5, rtol=0)
