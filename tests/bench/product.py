"""The product's own parts, put together as caltech.train.train does it, for timing one of them."""

from typing import Any

import torch

from caltech.config import build
from caltech.data.dataset import Dataset
from caltech.models.classifier import Classifier
from caltech.models.freeze import split_frozen
from caltech.training.device import choose_device
from caltech.training.epoch import Batches, Learner
from caltech.training.features import Images
from caltech.training.fit import learner_of


def model_of(cfg: Any, num_classes: int, device: str | torch.device = "cpu") -> Classifier:
    """Built, frozen and in the memory format of a run."""
    model = build(cfg.model, num_classes=num_classes)
    build(cfg.freeze, model)
    return model.to(device, memory_format=torch.channels_last)


def parts_of(cfg: Any, data: Dataset) -> tuple[Classifier, Learner, Batches]:
    """What train_epoch works with, without cached features; sets the process up as a run does."""
    device = choose_device(cfg.device)
    torch.manual_seed(cfg.seed)
    model = model_of(cfg, len(data.classes), device)
    _, trainable = split_frozen(model)
    learner = learner_of(cfg, model, trainable, dict, device)
    inputs = Images(data, build(cfg.augment), device)
    labels = data.labels.to(device)
    return model, learner, Batches(inputs=inputs, labels=labels, size=cfg.batch_size)
