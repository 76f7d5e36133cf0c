"""A small problem to learn, without images."""

import pytest
import torch
from torch import nn

from caltech.training.average import Last
from caltech.training.epoch import Batches, Learner
from caltech.training.loss import cross_entropy
from caltech.training.precision import Precision
from caltech.training.schedule import constant


class Rows:
    """Inputs that are rows of a table."""

    def __init__(self, table):
        self.table = table

    def training(self, indices):
        return self.table[indices]

    def evaluation(self, indices):
        return [self.table[indices]]


def learner(network: nn.Module, **parts) -> Learner:
    """With torch's own SGD and no schedule; `parts` replace what they name."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    precision = parts.get("precision", Precision("float32", False))
    given = {"network": network, "trainable": network, "loss": cross_entropy(0.0)}
    given |= {"optimizer": optimizer, "schedule": constant(optimizer), "average": Last(network)}
    given |= {"scaler": precision.scaler(torch.device("cpu")), "precision": precision}
    return Learner(**given | parts)


@pytest.fixture
def problem() -> tuple[nn.Module, Batches]:
    """A network and 30 rows of 6 numbers in 4 classes, 8 at a time."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    table, labels = torch.randn(30, 6), torch.randint(4, (30,))
    return network, Batches(inputs=Rows(table), labels=labels, size=8)
