"""Batches of the training task."""

import torch

from crispseg.training.task import exchanged


def test_crops_exchange_cells_with_their_labels() -> None:
    torch.manual_seed(0)
    labels = torch.arange(6).view(6, 1, 1).repeat(1, 40, 50)  # the number of the image
    targets = labels + 10
    images = labels.float().unsqueeze(1).repeat(1, 3, 1, 1)
    mixed, mixed_labels, mixed_targets = exchanged([images, labels, targets], 16)
    assert torch.equal(mixed, mixed_labels.float().unsqueeze(1).repeat(1, 3, 1, 1))
    assert torch.equal(mixed_targets, mixed_labels + 10)
    for row in range(0, 40, 16):
        for column in range(0, 50, 16):
            cell = mixed_labels[:, row : row + 16, column : column + 16].flatten(1)
            assert (cell == cell[:, :1]).all()  # of one image
            assert sorted(cell[:, 0].tolist()) == [*range(6)]  # each image's cell is used once
    assert len(mixed_labels[0].unique()) > 1
