import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from crispseg import record
from crispseg.nn import BatchNorm2d, Tap, average_bins, resize


def fill(norm: nn.BatchNorm2d) -> None:
    """Statistics and affine parameters that are not those of initialisation."""
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)


def test_one_value_per_channel_is_normalised_with_running_statistics() -> None:
    norm = BatchNorm2d(4, eps=0.1)
    fill(norm)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(1, 4, 1, 1, requires_grad=True)
    out = norm.train()(x)
    deviation = (norm.running_var + norm.eps).sqrt()
    expected = (x[0, :, 0, 0] - norm.running_mean) / deviation * norm.weight + norm.bias
    torch.testing.assert_close(out[0, :, 0, 0], expected)
    out.sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0, 0], norm.weight.detach() / deviation)
    assert norm.weight.grad.any()
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (1, 4, 1, 2), (1, 4, 2, 1)])
def test_more_values_are_normalised_as_ever(shape: tuple[int, ...], training: bool) -> None:
    ours, plain = BatchNorm2d(4), nn.BatchNorm2d(4)
    fill(ours)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    assert torch.equal(ours.train(training)(x), plain.train(training)(x))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in ours.state_dict().items())
    assert (ours.num_batches_tracked > 0) == training


def test_resize_is_bilinear_and_free_where_nothing_changes() -> None:
    x = torch.randn(2, 3, 5, 7)
    for size in ((9, 16), [3, 2], torch.Size([5, 6]), (4, 7)):
        for align_corners in (False, True):
            expected = F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
            assert torch.equal(resize(x, size, align_corners=align_corners), expected)
    for size in ((5, 7), [5, 7], torch.Size([5, 7])):
        assert resize(x, size, align_corners=False) is x


class Doubled(nn.Module):
    def __init__(self, taps: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.twice: nn.Module = Tap() if taps else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.scale * x) + 1


def test_a_tap_is_invisible() -> None:
    x = torch.randn(3)
    assert Tap()(x) is x
    assert Doubled().state_dict().keys() == Doubled(taps=False).state_dict().keys()
    with_tap, without = (torch.export.export(Doubled(taps), (x,)).graph for taps in (True, False))
    assert [node.target for node in with_tap.nodes] == [node.target for node in without.nodes]


def test_record_keeps_the_latest_pass_by_the_tap_s_path() -> None:
    model = nn.Sequential(Doubled(), nn.ModuleDict({"deep": Doubled()})["deep"])
    with record(model) as seen:
        model(torch.ones(3))
        assert seen["0.twice"].tolist() == [2, 2, 2]
        model(torch.zeros(2))
    assert seen.keys() == {"0.twice", "1.twice"}
    assert seen["0.twice"].tolist() == [0, 0]
    assert seen["1.twice"].tolist() == [2, 2]
    assert not seen["0.twice"].requires_grad


def test_record_lets_go_on_an_error() -> None:
    model = Doubled()
    with pytest.raises(KeyboardInterrupt), record(model) as seen:
        model(torch.ones(1))
        raise KeyboardInterrupt
    model(torch.zeros(1))
    assert seen["twice"].item() == 2
    assert not any(module._forward_hooks for module in model.modules())


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 8))
def test_averages_are_those_of_adaptive_pooling(height: int, width: int, size: int) -> None:
    feature = torch.randn(2, 3, height, width)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        averages = average_bins(feature.to(memory_format=memory_format), size)
        torch.testing.assert_close(averages, F.adaptive_avg_pool2d(feature, size), atol=1e-6, rtol=1e-5)


def test_bfloat16_averages_are_as_exact_as_bfloat16_is() -> None:
    feature = (torch.randn(2, 3, 33, 47) + 10).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        averages = average_bins(feature, 3)
    assert averages.dtype == torch.bfloat16
    expected = F.adaptive_avg_pool2d(feature.float(), 3)
    torch.testing.assert_close(averages.float(), expected, atol=0, rtol=3 * 2**-8)  # roundings of two sums and the mean
    assert (average_bins(torch.full((1, 1, 7, 11), 3.0).bfloat16(), 6) == 3).all()
