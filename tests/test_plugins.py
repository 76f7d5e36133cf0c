"""Code of one's own: only what was typed, said when it does not fit, and in a run's provenance."""

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from caltech import plugins, probes
from caltech.config import build, register
from caltech.errors import InputError
from caltech.inference.predictor import Predictor, _tell_other_code
from caltech.runs.checkpoint import read_weights
from caltech.runs.directory import RunDirectory
from caltech.runs.provenance import code_version
from caltech.settings import CONF
from caltech.train import train
from tests.observers import TINY


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported; its name is no other test's."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(text: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        return name

    return written


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("gone_plugin", None, "cannot be imported: ModuleNotFoundError"),
     ("torn_plugin", "def", "cannot be imported: SyntaxError"),
     ("raising_plugin", "raise ValueError('x')", "cannot be imported: ValueError: x"),
     ("leaving_plugin", "raise SystemExit", "cannot be imported: SystemExit"),
     ("bare_plugin", "import os\nfrom os import system\n_x = print", "adds nothing"),
     ("subprocess", None, "is no code of your own"),
     ("caltech.files", None, "is no code of your own")],
)  # fmt: skip
def test_a_plugin_that_is_none_is_one_message(module, configure, name, text, said):
    if text is not None:
        module(text, name)
    with pytest.raises(InputError, match=said):
        train(configure(*TINY, f"plugins=[{name}]"))


def test_a_module_is_found_where_the_command_is_typed(tmp_path, monkeypatch):
    """Also by the command caltech, whose own folder is the first that Python looks in."""
    (tmp_path / "typed_here.py").write_text("def part():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", ".")])
    plugins.load(["typed_here"])
    assert plugins.adds("typed_here.part")


def test_what_a_plugin_imports_cannot_be_named(module, configure):
    plugins.load([module("import os\nfrom shutil import rmtree\ndef f(): pass", "careful_plugin")])
    assert plugins.adds("careful_plugin.f")
    for target in ("careful_plugin.os.system", "careful_plugin.rmtree", "careful_plugin.g"):
        assert not plugins.adds(target)
        with pytest.raises(InputError, match=r"whitelist.*plugins=\[MODULE\]"):
            build(configure(f"loss._target_={target}").loss)


@pytest.mark.parametrize("group", sorted(plugins.WANTED))
def test_a_part_that_gives_another_thing_is_one_message(module, configure, group):
    name = module("def wrong(*given, **named):\n    return 7", f"wrong_{group}")
    cfg = configure(*TINY, f"plugins=[{name}]", f"{group}._target_={name}.wrong")
    cfg[group] = {"_target_": f"{name}.wrong"}
    with pytest.raises(InputError, match=rf"wrong gives int for {group}.*It is to give"):
        train(cfg)
    assert not Path(cfg.directory).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("def f(a):\n    return print", r"f\(a\) does not take what it is given"),
     ("def f():\n    raise KeyError('x')", "f failed: KeyError: 'x'"),
     ("def f():\n    return lambda logits, labels: logits", "is no loss of logits"),
     ("def f():\n    return lambda logits, labels: 0.5", "is no loss of logits"),
     ("import torch\nclass f(torch.nn.Module):\n    def __init__(self):\n"
      "        super().__init__()\n        self.weight = 0.5\n"
      "    def forward(self, logits, labels):\n        return logits.logsumexp(1).mean()",
      r"an attribute weight.*\(5,\).*Give it another name")],
)  # fmt: skip
def test_a_loss_that_is_none_is_one_message(module, configure, text, said):
    name = module(text, f"loss_{abs(hash(text))}")
    cfg = configure(*TINY, f"plugins=[{name}]")
    cfg.loss = {"_target_": f"{name}.f"}
    with pytest.raises(InputError, match=said):
        train(cfg)


PARTS = {
    "model": ("def f(num_classes, size=None):\n    return 7",
              "does not take what it is given.*'load'"),
    "data": ("class f:\n    def __getattr__(self, name): return 1",
             "its option has no crop and no resize"),
    "optimizer": ("from torch.optim import SGD\nclass f(SGD):\n    def __init__(self, params):\n"
                  "        super().__init__(params, 0.1)\n    def step(self, closure): closure()",
                  "cannot be stepped here: .*closure"),
}  # fmt: skip
OWN = """
from torch.optim import SGD
def halves(params, lr=0.1):
    weights = [weight for group in params for weight in group["params"]]
    return SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": lr / 2}], lr)
def left_out(params, lr=0.1):
    return SGD(params[0]["params"][:1], lr)
class Untrue:
    param_groups, defaults = [], {}
    def __init__(self, params, lr=0.1): pass
    def step(self): pass
    def zero_grad(self): pass
    def state_dict(self): return {}
"""


def test_an_optimizer_s_own_groups_are_left_as_they_are(module, configure):
    name = module(OWN, "own_groups")
    cfg = configure(*TINY, f"plugins=[{name}]", "schedule=constant", "freeze=none")
    for part, said in (("left_out", "trains 1 of the"), ("Untrue", r"no torch\.optim\.Optimizer")):
        cfg.optimizer = {"_target_": f"{name}.{part}"}
        with pytest.raises(InputError, match=said):
            train(cfg)
    cfg.optimizer = {"_target_": f"{name}.halves", "backbone_lr": 0.5, "norm_decay": False}
    with pytest.raises(InputError, match=r"makes 2 groups of its own.*norm_decay"):
        train(cfg)
    cfg.optimizer = {"_target_": f"{name}.halves"}
    assert train(cfg).status == "finished"


@pytest.mark.parametrize("group", PARTS)
def test_what_would_fail_later_is_one_message_before_any_work(module, configure, group):
    """At the first step, or when the finished run is asked."""
    text, said = PARTS[group]
    name = module(text, f"late_{group}")
    cfg = configure(*TINY, f"plugins=[{name}]")
    cfg[group] = {"_target_": f"{name}.f"}
    with pytest.raises(InputError, match=said):
        train(cfg)
    assert not Path(cfg.directory, "last.safetensors").exists()


STATEFUL = """
import torch
class f(torch.nn.CrossEntropyLoss):
    def __init__(self, learns, counts):
        super().__init__()
        self.fixed = torch.nn.Buffer(torch.ones(2))
        self.seen = torch.nn.Buffer(torch.zeros(()))
        self.counts = counts
        if learns:
            self.scale = torch.nn.Parameter(torch.ones(()))
    def forward(self, logits, labels):
        self.seen += self.counts
        return super().forward(logits, labels)
"""


DATA = """
import torch
from caltech.data.dataset import Dataset
def made(crop, resize, pixels="right", labels=0, overlap=0, twice=False):
    rows = torch.arange(30)
    right = torch.randint(0, 256, (30, 64, 64, 3), dtype=torch.uint8)
    wrong = {"right": right, "shares": right / 255, "first": right.permute(0, 3, 1, 2),
             "grey": right[..., :1], "list": [*right]}
    names = ("a", "a" if twice else "b", "c")
    parts = rows[:18], rows[18:24], rows[24 - overlap:]
    wanted = rows.remainder(3) + labels if labels != "list" else [0] * 30
    files = tuple(map(str, range(30)))
    return Dataset("made", lambda: wrong[pixels], 64, wanted, names, files, *parts, crop, "f" * 64)
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"pixels": "shares"}, r"pixels of torch.float32 \(30, 64, 64, 3\)"),
     ({"pixels": "first"}, r"pixels of torch.uint8 \(30, 3, 64, 64\)"),
     ({"pixels": "grey"}, r"\(30, 64, 64, 1\)"), ({"pixels": "list"}, "pixels of list"),
     ({"labels": -1}, "labels from -1 to 1. They are to be 0 to 2"),
     ({"labels": 1}, "labels from 1 to 3"), ({"labels": "list"}, "list as labels"),
     ({"twice": True}, "each once"),
     ({"crop": 65}, "images of 64 pixels and a crop of 65")],
)  # fmt: skip
def test_a_data_set_that_is_none_is_one_message(module, configure, changes, said):
    name = module(DATA, "made_data")
    cfg = configure(*TINY, f"plugins=[{name}]", "num_epochs=1")
    values = {"crop": 64, "resize": 64} | changes
    cfg.data = {"_target_": f"{name}.made"} | values
    with pytest.raises(InputError, match=said):
        train(cfg)
    assert not Path(cfg.directory, "result.json").exists()


def test_a_test_of_images_that_were_learned_is_told(module, configure, caplog):
    name = module(DATA, "overlapping_data")
    cfg = configure(*TINY, f"plugins=[{name}]", "num_epochs=1")
    cfg.data = {"_target_": f"{name}.made", "crop": 64, "resize": 64, "overlap": 2}
    assert train(cfg).status == "finished"
    assert "made gives 2 images of validation to the test, too" in caplog.text


@pytest.mark.parametrize(
    ("learns", "counts", "told"), [(True, 0, "scale"), (False, 1, "seen"), (False, 0, "")]
)
def test_a_loss_with_a_state_of_its_own_is_told(module, caplog, learns, counts, told):
    plugins.load([module(STATEFUL, "stateful_loss")])
    loss = plugins.call("loss", "stateful_loss.f", (), {"learns": learns, "counts": counts})
    probes.require_loss(loss, "stateful_loss.f", 3)
    assert (f"a state of its own ({told})" in caplog.text) is bool(told)
    assert "fixed" not in caplog.text


def test_answers_by_edited_code_of_a_plugin_are_told(module, caplog):
    plugins.load([module("def f():\n    return 1", "edited_since")])
    cfg = OmegaConf.create({"model": {"_target_": "edited_since.f"}})
    for digest in (plugins.digests(["edited_since.f"])["edited_since"], "0" * 16):
        told = {"code": {"plugins": {"edited_since": digest}}}
        _tell_other_code(RunDirectory("run"), told, cfg)
        assert ("was made with another edited_since" in caplog.text) is (digest == "0" * 16)
    _tell_other_code(RunDirectory("run"), {"code": {}}, cfg)  # of a run without plugins
    assert caplog.text.count("was made with another") == 1


def test_an_augmentation_of_another_size_is_one_message(module, configure):
    text = "class F:\n    test = ('plain',)\n    def __call__(self, p, i, size): return p[i]"
    name = module(text, "another_size")
    cfg = configure(*TINY, f"plugins=[{name}]")
    cfg.augment = {"_target_": f"{name}.F"}
    with pytest.raises(InputError, match=r"gives torch.uint8 \(2, 40, 40, 3\) for the pixels"):
        train(cfg)


@pytest.mark.parametrize("place", ["experiment", "loss"])
def test_a_file_does_not_say_which_code_is_executed(tmp_path, place):
    register()
    folder = tmp_path / place
    folder.mkdir()
    (folder / "sent.yaml").write_text("# @package _global_\nplugins: [evil]\n")
    with (
        initialize_config_dir(config_dir=str(CONF)),
        pytest.raises(InputError, match=r"may not set plugins\.0=evil.*type plugins=\[evil\]"),
    ):
        compose("train", [f"hydra.searchpath=[{tmp_path}]", f"{place}=sent"])


def test_the_environment_names_plugins_and_other_code_is_another_version(module, monkeypatch):
    name = module("def f(): pass", "versioned")
    monkeypatch.setenv("CALTECH_PLUGINS", f" {name}, ")
    plugins.load([])
    before = code_version(plugins.digests([f"{name}.f", "torch.optim.SGD"]))
    module("def f(): return 1", "versioned")
    plugins.load([])
    after = code_version(plugins.digests([f"{name}.f"]))
    assert before["plugins"].keys() == after["plugins"].keys() == {name}
    assert len({before["sha256"], after["sha256"], code_version()["sha256"]}) == 3


def test_code_that_was_changed_is_imported_again_and_recorded_as_it_is(module):
    """As between the cells of a notebook; what is recorded is what was executed."""
    name = module("def value(): return 1", "edited")
    plugins.load([name])
    (Path(sys.modules[name].__file__)).write_text("def value():\n    return 12345")
    before = plugins.digests([f"{name}.value"])
    assert plugins.call(None, f"{name}.value", (), {}) == 1
    plugins.load([name])
    assert plugins.call(None, f"{name}.value", (), {}) == 12345
    assert plugins.digests([f"{name}.value"]) != before


MODEL = """
import torch
from torch import nn
from caltech.models.classifier import cut

class Tied(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale  # in no weight
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
    def forward(self, images):
        return self.second(self.first(images)).mean((2, 3)) * self.scale

def lazy(num_classes, load=True, size=None):
    half = (0.5, 0.5, 0.5)
    return cut(nn.Sequential(nn.Flatten()), nn.LazyLinear(num_classes), half, half, "none")

class Pair(nn.Module):
    def forward(self, images): return images, images

class First(nn.Module):
    def forward(self, given): return given[0]

def pair(num_classes, inside, load=True, size=None):
    half, linear = (0.5, 0.5, 0.5), nn.Linear(3 * 32 * 32, num_classes)
    first, last = ([Pair()], [First(), linear]) if inside else ([], [linear, Pair()])
    return cut(nn.Sequential(nn.Flatten(), *first), nn.Sequential(*last), half, half, "none")

class Noted(Tied):
    def get_extra_state(self):
        return {"scale": self.scale}
    def set_extra_state(self, state): pass

def small(num_classes, scale, noted=False, load=True, size=None):
    half = (0.5, 0.5, 0.5)
    network = (Noted if noted else Tied)(scale)
    return cut(network, nn.Linear(3, num_classes), half, half, "none")
"""


def test_values_of_a_model_that_are_in_no_weight_decide_its_features(module, configure):
    name = module(MODEL, "tied_model")
    results = {}
    for scale, way in ((1, "auto"), (9, "auto"), (9, "off")):
        cfg = configure(*TINY, f"plugins=[{name}]", "freeze=backbone", f"features={way}")
        cfg.model = {"_target_": f"{name}.small", "scale": scale}
        cfg.directory = f"{cfg.output}/{scale}-{way}"
        results[scale, way] = train(cfg).last["train/loss"]
    assert results[9, "auto"] == pytest.approx(results[9, "off"], rel=1e-4)
    assert results[9, "auto"] != pytest.approx(results[1, "auto"], rel=1e-4)


def test_weights_that_layers_share_are_kept(module, configure):
    name = module(MODEL, "shared_weights")
    cfg = configure(*TINY, f"plugins=[{name}]", "freeze=none")
    cfg.model = {"_target_": f"{name}.small", "scale": 1}
    train(cfg)
    first, second = (
        read_weights(RunDirectory(cfg.directory).weights("last"))[
            f"backbone.network.{layer}.weight"
        ]
        for layer in ("first", "second")
    )
    assert torch.equal(first, second)
    answered = Predictor.load(RunDirectory(cfg.directory), "last", "cpu")
    assert answered.network is not None


LOST = """
import torch
from torch import nn
from caltech.models.classifier import cut

class Drawn(nn.Module):
    def __init__(self, kept, draws):
        super().__init__()
        self.register_buffer("way", torch.randn(3, 3), persistent=kept)
        self.draws = draws
    def forward(self, images):
        drawn = torch.rand(3) if self.draws else torch.zeros(3)
        return images.mean((2, 3)) @ self.way + drawn

def drawn(num_classes, kept=True, draws=False, load=True, size=None):
    half = (0.5, 0.5, 0.5)
    return cut(Drawn(kept, draws), nn.Linear(3, num_classes), half, half, "none")
"""


@pytest.mark.parametrize("lost", [{"kept": False}, {"draws": True}])
def test_a_model_that_is_not_all_in_its_weights_is_told_before_any_work(module, configure, lost):
    name = module(LOST, "drawn_model")
    cfg = configure(*TINY, f"plugins=[{name}]")
    cfg.model = {"_target_": f"{name}.drawn"} | lost
    with pytest.raises(InputError, match=r"drawn is not all in its weights.*persistent=True"):
        train(cfg)
    cfg.model = {"_target_": f"{name}.drawn"}
    assert train(cfg).status == "finished"


COUNTING = """
from torch import nn
from caltech.models.classifier import cut
class Counting(nn.Module):
    def __init__(self, counts):
        super().__init__()
        self.seen, self.counts = 0.0, counts
    def forward(self, images):
        self.seen += self.counts * self.training
        return images.mean((2, 3)) * (1 + self.seen)
def counting(num_classes, counts=1.0, load=True, size=None):
    half = (0.5, 0.5, 0.5)
    return cut(Counting(counts), nn.Linear(3, num_classes), half, half, "none")
"""


@pytest.mark.parametrize("counts", [0.0, 1.0])
def test_what_was_learned_and_is_in_no_file_is_told(module, configure, caplog, counts):
    name = module(COUNTING, "counting_model")
    cfg = configure(*TINY, f"plugins=[{name}]", "freeze=none")
    cfg.model = {"_target_": f"{name}.counting", "counts": counts}
    train(cfg)
    assert ("the model answers otherwise than in its test" in caplog.text) == bool(counts)


def test_a_lazy_layer_is_trained(module, configure):
    name, weights = module(MODEL, "lazy_model"), []
    for lr in (1e-9, 0.05):
        cfg = configure(*TINY, f"plugins=[{name}]", f"lr={lr}", "num_epochs=1")
        cfg.model = {"_target_": f"{name}.lazy"}
        cfg.directory = f"{cfg.output}/{lr}"
        train(cfg)
        weights.append(read_weights(RunDirectory(cfg.directory).weights("last"))["linear.0.weight"])
    assert not torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize(
    ("inside", "said"),
    [(True, "a tuple in the part that is frozen"), (False, "model gives a tuple for one image")],
)
def test_a_model_that_gives_something_else_is_told(module, configure, inside, said):
    name = module(MODEL, "pair_model")
    cfg = configure(*TINY, f"plugins=[{name}]", "freeze=backbone")
    cfg.model = {"_target_": f"{name}.pair", "inside": inside}
    with pytest.raises(InputError, match=said):
        train(cfg)
    if inside:  # where nothing is kept of it, its own head may take a tuple
        cfg = configure(*TINY, f"plugins=[{name}]", "freeze=none", "num_epochs=1")
        cfg.model = {"_target_": f"{name}.pair", "inside": inside}
        assert train(cfg).status == "finished"


def test_what_is_frozen_is_asked_where_it_is(module):
    """On a GPU, for which the device without values stands here."""
    name, meta, asked = module(MODEL, "elsewhere"), torch.device("meta"), []
    plugins.load([name])
    frozen = torch.nn.Identity()
    frozen.register_forward_pre_hook(lambda _, given: asked.append(given[0].device))
    probes.require_features(frozen, f"{name}.small", 32, meta)
    assert asked == [meta]


def test_a_state_that_is_no_tensor_is_told_before_any_work(module, configure):
    name = module(MODEL, "noted_model")
    cfg = configure(*TINY, f"plugins=[{name}]", "freeze=none")
    cfg.model = {"_target_": f"{name}.small", "scale": 1, "noted": True}
    with pytest.raises(InputError, match=r"_extra_state in the model's state is of type dict"):
        train(cfg)
