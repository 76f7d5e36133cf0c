"""What is like what was typed: values, options, keys, the words of another group."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from caltech.overrides import quoted, unquoted
from caltech.settings import CONF, ROOT
from caltech.words import FUNCTIONS, NOTHING, SWITCHES, Word, is_nothing, plain, shell, truth

PAIR = r"([\w./]+)\s*:\s*(?:[\"']([^\"']*)[\"']|([^,}]+))"  # of {name:value, name:value}

# What options are called elsewhere; by spelling fp16 would be like bf16.
ELSEWHERE = {"precision": {"fp16": "amp", "float16": "amp", "half": "amp", "mixed": "amp",
    "16-mixed": "amp", "bfloat16": "bf16", "float32": "fp32"}}  # fmt: skip


def options_like(group: str, options: Sequence[str], value: str, cutoff: float = 0.6) -> list[str]:
    """Of a group's options, those like a value: by the last part of their names, too."""
    path = re.sub(r"\.ya?ml$", "", plain(value).strip("'\"/ ").replace("\\", "/"))
    name = path.rpartition(f"{group}/")[2].casefold()
    name = ELSEWHERE.get(group, {}).get(name, name)
    by_name = {option.casefold(): [option] for option in options}
    for option in options:
        by_name.setdefault(option.casefold().rpartition("/")[2], []).append(option)
    near = difflib.get_close_matches(name, by_name, n=3, cutoff=cutoff)
    close = [name] if name in by_name else near
    return [option for each in close for option in by_name[each]]


def values_like(value: str) -> list[str]:
    """Values like one that was typed: as it is, tidied, and as text."""
    tidy = plain(value).strip(" ,;=")
    bare = tidy.strip("'\"[](){} ,;")
    point = bare.replace(",", ".") if bare.count(",") == 1 else bare
    nothing = ["null"] if bare.casefold() in NOTHING else []
    number = re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9])?", bare)
    whole = [str(int(float(bare)))] if number and float(bare).is_integer() else []
    text = ",".join(map(unquoted, value.strip().split(","))).strip("'\"")
    as_text = [quoted(text)] if text and not is_nothing(text) else []
    spaced = bare.replace(" ", ",")
    switch = [truth(bare)] if bare.casefold() in SWITCHES else []
    name, called, rest = value.partition("(")
    meant = difflib.get_close_matches(name, FUNCTIONS, n=1) if called else []
    turned = [re.sub(r"(interval\()([^,()]+),([^,()]+)", r"\1\3,\2", value)] if called else []
    turned += [f"{each}({rest}" for each in meant] + [f"int({value})"] * (name == "interval")
    first = [tidy] if tidy.isascii() and not value.isascii() else []
    like = [*turned, *nothing, *switch, *first, *as_text, tidy, point, *whole]
    return [value, *like, bare, bare.casefold(), spaced]


def library(word: Word, groups: Mapping[str, Sequence[str]]) -> str:
    """The words for what a library has, or one's own folder, that was typed as a group's option.

    Empty if it is none.
    """
    value = (word.value or "").strip("'\"")
    if value.casefold() in groups[word.key]:
        return ""
    if word.key == "data":
        from torchvision import datasets

        if Path(value).expanduser().is_dir():
            return f"data=folder {shell(f'data.root={Path(value).expanduser().absolute()}')}"
        named = {each.casefold(): each for each in datasets.__all__}
        found = named.get(re.sub("[-_ ]", "", value.casefold()))
        return f"data=torchvision data.name={found}" if found else ""
    if word.key == "model":
        import timm
        from torchvision import models

        if value.casefold() in models.list_models(module=models):
            return f"model=torchvision model.name={value.casefold()}"
        if timm.is_model(value.partition(".")[0]):
            return f"model=timm model.name={value.partition('.')[0]}"
    if word.key == "optimizer":
        from timm.optim import list_optimizers
        from torch import optim

        named = {each.casefold(): each for each in dir(optim) if each[0].isupper()}
        if found := named.get(value.casefold()):
            return f"optimizer=torch optimizer.name={found}"
        if value.casefold() in list_optimizers():
            return f"optimizer=timm optimizer.name={value.casefold()}"
    return ""


def elsewhere(word: Word, cutoff: float) -> str:
    """The option of a word's group that has its key, or one like it; empty if none has.

    One that needs a value there goes before one that has its own.
    """
    group, _, name = word.key.rpartition(".")
    found: dict[bool, str] = {}
    for path in sorted((CONF / group).glob("*.yaml")) if group in ROOT else ():
        option = OmegaConf.to_container(OmegaConf.load(path))
        for close in difflib.get_close_matches(name, option, n=1, cutoff=cutoff):
            needs = option[close] in (None, "???")
            typed = f"{group}={path.stem} {shell(f'{group}.{close}={word.value}')}"
            if group != "optimizer" or path.stem not in ("torch", "timm"):  # these need a name, too
                found[needs] = typed
    return found.get(True) or found.get(False) or ""


def swept(word: Word) -> str:
    """The words of a sweep that were given as one, {lr:"0.1,0.2"}; empty if that is none."""
    pairs = re.findall(PAIR, word.value or "") if word.key == "hydra.sweeper.params" else ()
    return " ".join(shell(f"{key}={quoted or bare}") for key, quoted, bare in pairs)


def joined(texts: Sequence[str]) -> str:
    """KEY=VALUE of words that spaces made of it."""
    word = re.sub(r"\s*([,=])\s*", r"\1", " ".join(texts)).rstrip(",")
    key, _, value = word.partition("=") if "=" in word else word.partition(" ")
    return f"{key}={value}"


def near_names(name: str, named: Mapping[str, str]) -> list[str]:
    """Of keys in one place by their names, those like a name."""
    mixed = [each for each in named if sorted(each) == sorted(name)]
    near = difflib.get_close_matches(name, named, n=3, cutoff=0.7)
    longer = [each for each in named if len(name) > 3 and (name in each or each in name)]
    return [named[each] for each in dict.fromkeys([*mixed, *near, *longer])][:3]
