"""Words that cannot be meant: what is wrong with them, and what to type instead."""

import dataclasses
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st

from caltech.config import register
from caltech.errors import InputError
from caltech.flags import require_flags
from caltech.settings import CONF, ROOT
from caltech.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """Of a single run."""
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        return GlobalHydra.instance().hydra.config_loader.vocabulary("train", [], RunMode.RUN)


def told(vocabulary: Vocabulary, words: list[str]) -> str:
    with pytest.raises(InputError) as refused:
        vocabulary.require(words)
    return str(refused.value)


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["lr=1e-1,", "1e-2"], "--multirun lr=1e-1,1e-2"), (["lr", "=", "0.1"], "lr=0.1"),
        (["lr", "0.1"], "lr=0.1"), (["lr=", "0.1"], "lr=0.1"), (["lr=0.1", "0.2"],
        "--multirun lr=0.1,0.2"), (["lr=[0.1,0.2]"], "--multirun lr=0.1,0.2"),
        (["num_epochs=ten"], "num_epochs=30"), (["num_epochs=3.0"], "num_epochs=3"),
        (["num_epoch=1"], "num_epochs=1"), (["optimiser=adam"], "optimizer=adam"),
        (["model=alexnett"], "model=alexnet"), (["model=Alexnet"], "model=alexnet"),
        (["precision=fp16"], "precision=amp"), (["precision=Mixed"], "precision=amp"),
        (["Model=alexnet"], "model=alexnet"), (["LR=0.1"], "lr=0.1"),
        (["learning_rate=0.1"], "lr=0.1"), (["batch-size=8"], "batch_size=8"),
        (["experiment=model3"], "experiment=scratch/model3, or experiment=transfer/model3"),
        (["experiment=scratch/base.yaml"], "experiment=scratch/base"),
        (["conf/experiment/scratch/base.yaml"], "experiment=scratch/base"),
        (["alexnet"], "model=alexnet"), (["model.weights=none"], "model.weights=null"),
        (["weights=none"], "model.weights=null"), (["freeze=None"], "freeze=none"),
        (["start=None"], "start=null"), (["lr=-1"], "lr=1e-2"), (["lr="], "lr=1e-2"),
        (["lr==0.1"], "lr=0.1"), (["lr:0.1"], "lr=0.1"), (["+lr=0.1"], "lr=0.1"),
        (["optimizer.momentun=0.9"], "optimizer.momentum=0.9"),
        (["optimizer.nesterov=true"], "+optimizer.nesterov=true"),
        (["data.rezise=128"], "data.resize=128"), (["model.name=vit"], "model=torchvision "
        "model.name=vit"), (["lr=0.1,"], "lr=0.1"), (["lr='0.1"], "\"lr='0.1'\""),
        (["lr=[0.1"], "lr=0.1"), (["lr=\N{LEFT DOUBLE QUOTATION MARK}0.1"], "lr=0.1"),
        (["lr\N{FULLWIDTH EQUALS SIGN}0.1"], "lr=0.1"), (["study=\N{GREEK SMALL LETTER PI}"],
        "\"study='\N{GREEK SMALL LETTER PI}'\""), (["data.root=~/x"], "\"data.root='~/x'\""),
        (["study=a b,'c&d'"], "--multirun \"study=a b,'c&d'\", or \"study='a b,c&d'\""),
        (["lr=0,1"], "--multirun lr=0,1, or lr=0.1"), (["freeze=[none,head]"],
        "--multirun freeze=none,head"), (["hydra.job.env_set.A=b"], "+hydra.job.env_set.A=b"),
        (["eed=."], "seed=0"), (["lr=chioce(1,2)"], '--multirun "lr=choice(1,2)"'),
        (["lr=\N{FULLWIDTH DIGIT ZERO}.\N{FULLWIDTH DIGIT ONE}"], "lr=0.1"),
        (["lr=\N{EN DASH}1"], "lr=1e-2"), (["lr=,"], "lr=1e-2"), (["lr=choice()"], "lr=1e-2"),
        (["data=cifar-10"], "data=torchvision data.name=CIFAR10"), (["data=/tmp"],
        "data=folder data.root=/tmp"), (["model=vit_b_16"], "model=torchvision "
        "model.name=vit_b_16"), (["hydra/launcher=zzz"], "hydra/launcher=basic"),
        (["hydra.sweeper.max_batch_siz=1"], "hydra.sweeper.max_batch_size=1"),
        (["max_batch_size=1"], "hydra.sweeper.max_batch_size=1"),
    ],
)  # fmt: skip
def test_the_nearest_right_thing(vocabulary, words, instead):
    message = told(vocabulary, words)
    assert message.endswith(f" Type {instead}."), message
    assert words[0].split("=")[0] in message


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("dry_run", "dry_run=true"), ("rerun", "rerun=true"),
        ("+optimizer.nesterov=no", "+optimizer.nesterov=false"),
        ("optimizer.nesterov=yes", "+optimizer.nesterov=true"),
        ("+optimizer.nesterov=f", "+optimizer.nesterov=false"),
        ("data.cache_pixels=off", "data.cache_pixels=false"),
        ("data.cache_pixels=maybe", "data.cache_pixels=true"),
        ("data.cache_pixels=null", "data.cache_pixels=true"),
        ("data.download=no", "data.download=false"),
        ("data=folder data.upright=yes", "data.upright=true"),
        ("precision.loss_scaling=no", "precision.loss_scaling=false"),
        ("optimizer.momentum=5", "optimizer.momentum=0.9"),
        ("optimizer.momentum=abc", "optimizer.momentum=0.9"),
        ("++optimizer.lr=-1", "optimizer.lr=0.1"), ("schedule.step_size=0",
        "schedule.step_size=15"), ("loss.label_smoothing=abc", "loss.label_smoothing=0.0"),
        ("schedule=cosine schedule.warmup_epochs=abc", "schedule.warmup_epochs=1"),
        ("split=fraction split.train_share=abc", "split.train_share=0.5"),
        ("hydra/sweeper=optuna hydra.sweeper.n_trails=2", "hydra.sweeper.n_trials=2"),
        ("hydra/launcher=parallel hydra.launcher.n_job=2", "hydra.launcher.n_jobs=2"),
        ("optimizer=adam optimizer.momentum=0.5", "optimizer=sgd optimizer.momentum=0.5"),
        ("optimizer=adam optimizer.betas=0.5", '"optimizer.betas=[0.9,0.999]"'),
        ("optimizer=adam optimizer.betas=[0.5]", '"optimizer.betas=[0.9,0.999]"'),
        ("optimizer=adam optimizer.betas=[0.5,a]", '"optimizer.betas=[0.9,0.999]"'),
        ("optimizer=adam optimizer.betas=[0.5,1.5]", '"optimizer.betas=[0.9,0.999]"'),
        ("+optimizer.dampening=abc", "+optimizer.dampening=abc out"),
        ("+hydra.x=1", "+hydra.x=1 out"), ("study=${key}", "study=first_try"),
        ("lr=${nope}", "lr=1e-2"), ("output=C:\\x", "output=multirun"),
        ("hydra/launcher=joblib", "hydra/launcher=parallel"),
        ("split=fraction split.group='['", "split.group=null"),
        ("augment.train=plain", "\"augment.train=['plain']\""),
        ("augment.test=7", "\"augment.test=['plain']\""),
        ("freeze.stages=7", "\"freeze.stages=['backbone']\""),
        (r"split=fraction split.group=(\w+)_", "\"split.group='(\\w+)_'\""),
        ("tracking.experiment=a'b", "\"tracking.experiment='a\\'b'\""),
        ("data.split=fraction", "split=fraction"),
        ("optimizer=RAdam", "optimizer=torch optimizer.name=RAdam"),
        ("optimizer=Lamb", "optimizer=timm optimizer.name=lamb"),
        ("freeze.at=layer4", "freeze=until freeze.at=layer4"),
        ("data=digits data.root=/x", "data=folder data.root=/x"),
        ("freeze=until freeze.at=None", "freeze.at=VALUE"), ("experiment=null",
        "experiment=null out"), ("freeze=until freeze.at=NULL", "freeze.at=VALUE"),
        ("data.group=x", "--cfg job to see what is there"),
        ("data.path=/x", "--cfg job to see what is there"),
        ('hydra.sweeper.params={lr:"0.1,0.2"}', "--multirun lr=0.1,0.2"),
    ],
)  # fmt: skip
def test_values_and_keys_within_a_group(vocabulary, composed_once, text, instead):
    """As composed: these words are looked at before Hydra takes them."""
    words = text.split()
    with initialize_config_dir(config_dir=str(CONF)), pytest.raises(InputError) as refused:
        compose("train", words)
    verb = "Leave" if instead.endswith(" out") else "Type"
    assert str(refused.value).endswith(f" {verb} {instead}."), refused.value
    assert "struct" not in str(refused.value)


def test_each_value_of_a_sweep_is_looked_at(vocabulary):
    swept = dataclasses.replace(vocabulary, sweeps=True)
    assert "optimizer.momentum=5 is not" in told(swept, ["optimizer.momentum=0.5,5"])
    assert "loss.label_smoothing=abc is not" in told(swept, ["loss.label_smoothing=0,abc"])


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("lr=interval(0.1,0.001)", '"lr=interval(0.001,0.1)"'), ("lr=interval(-1,1)", "lr=1e-2"),
        ("lr=tag(log,interval(0,1))", "lr=1e-2"), ("lr=range(0,1,0)", "lr=1e-2"),
        ("num_epochs=interval(1,9)", '"num_epochs=int(interval(1,9))"'),
        ("lrr=interval(0.1,1)", '"lr=interval(0.1,1)"'), ("lr=glob(*)", "lr=1e-2"),
        ("model=interval(1,2)", "model=efficientnet_lite0"), ("lr=range(1,0)", "lr=1e-2"),
    ],
)  # fmt: skip
def test_spaces_have_values_that_fit(vocabulary, word, instead):
    swept = dataclasses.replace(vocabulary, sweeps=True)
    swept.require(["lr=tag(log,interval(0.001,1))", "lr=interval(0,0.1)", "seed=range(0,3)"])
    assert told(swept, [word]).endswith(f" Type {instead}.")


@pytest.mark.parametrize("word", ["+qqq=3", "~lr", "~freeze", "~optimizer.foo", "+a.b=1"])
def test_what_can_neither_be_added_nor_removed_is_left_out(vocabulary, word):
    assert told(vocabulary, [word]).endswith(f"Leave {word} out.")


@pytest.mark.parametrize("word", ["zzz=1", "=1", "@", "#", "x y=1"])
def test_where_nothing_is_near_the_keys_are_told(vocabulary, word):
    message = told(vocabulary, [word])
    assert "Keys are data, split, model, " in message and "lr, momentum" in message


@pytest.mark.parametrize(
    "word",
    [
        "lr=0.1", "lr= 0.1", "study=none", "study='my study'", "start=null",
        "model=alexnet", "+optimizer.nesterov=true", "++lr=0.1", "~model.weights", "rerun=yes",
        "hydra.run.dir=/tmp", "hydra/launcher=parallel", "+hydra.job.env_set.A=b",
        "optimizer.momentum=0.5", "optimizer.momentum=${momentum}", "schedule.step_size=5.0",
        "+optimizer.nesterov=1",
        "data.download=true", "data.train_files=null", "+optimizer.foreach=null",
        "hydra.verbose=true", "experiment=[scratch/base]",
    ],
)  # fmt: skip
def test_what_hydra_and_we_take_is_right(vocabulary, word):
    vocabulary.require([word])


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        ("--dry-run", "dry_run=true"), ("--dry_run", "dry_run=true"), ("--rerun", "rerun=true"),
        ("--dry-run lr=0.1", "dry_run=true"), ("--dry_run=false", "dry_run=false"),
        ("--dry-run=no", "dry_run=false"), ("-rerun", "rerun=true"), ("--runn", "--help"),
        ("--foo", "--help"), ("--inof", "--info"),
        ("--sweep lr=1,2", "--multirun"), ("--sweep", "--multirun"), ("--lr 0.1", "lr=0.1"),
        ("--sweep=search_head", "sweep=search_head"), ("--weight-decay", "weight_decay=VALUE"),
        ("--mutirun lr=1,2", "--multirun"), ("--batch=8", "batch_size=8"),
        ("--multirun=lr=0.1,0.2", "--multirun lr=0.1,0.2"), ("--cfg", "--cfg job"),
        ("--cfg jobs", "--cfg job"), ("--info zzz", "--info defaults"),
        ("--config-dir", "--config-dir VALUE"), ("--cfg job --package", "--package optimizer"),
        ("--cfg job --package zzz", "--package optimizer"),
        ("--cfg job --package optimizer.x", "--package optimizer"),
        ("--package lr", "--cfg job --package lr"), ("--multirun lr=1,2 --cfg job", "--cfg job "
        "alone, with caltech train"), ("--cfg job --info all", "--info all alone"),
        ("--resolve", "--cfg job --resolve"),
    ],
)  # fmt: skip
def test_what_is_no_flag(arguments, instead):
    with pytest.raises(InputError) as refused:
        require_flags(arguments.split())
    assert str(refused.value).endswith(f" Type {instead}."), refused.value


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([name for name in ROOT if ROOT[name].example]), st.integers(0, 20))
def test_what_is_advised_is_right_itself(vocabulary, name, place):
    """Words with a letter that is missing, doubled, or of the other case."""
    place %= len(name)
    for key in (name[:place] + name[place + 1 :], name[:place] + name[place] + name[place:],
                name[:place] + name[place].upper() + name[place + 1 :]):  # fmt: skip
        if key not in ROOT and key:
            for advised in vocabulary.nearest(f"{key}={ROOT[name].example}"):
                (word,) = shlex.split(advised.removeprefix("--multirun "))
                assert vocabulary.problem(word) is None, advised


def test_a_command_that_reads_what_trainings_left_is_no_multirun():
    with pytest.raises(InputError, match="--multirun is for trainings"):
        require_flags(["study=course", "--multirun"], sweeps=False)
    require_flags(["lr=0.1,0.2", "--multirun"])
