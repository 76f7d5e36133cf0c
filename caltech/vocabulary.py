"""What can be typed: whether a word is right, and the nearest words that are.

No list of mistakes: a word is right if Hydra can read it, its key or option is there and its value
fits. What to type instead is the nearest word that is right by the same test.
"""

import copy
import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType, ValidationError

from caltech import likeness, words
from caltech.errors import InputError
from caltech.settings import COMPUTED, ROOT, kind, refusal
from caltech.words import NOTHING, Word, argument, is_nothing, paths, plain, shell

SWEPT = 1000  # so many values of a sweep are looked at


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What words are compared with.

    Attributes:
        cfg: composed from the groups that were typed, without any other word.
        choices: the option of each group that the config is made of.
        groups: the options of every group that can be typed.
        sweeps: whether a word may have several values; None while that is not known.
    """

    cfg: DictConfig
    choices: Mapping[str, Any]
    groups: Mapping[str, Sequence[str]]
    sweeps: bool | None

    def require(self, texts: Sequence[str]) -> None:
        """Raise InputError for the first word that cannot be meant."""
        for position, text in enumerate(texts):
            torn = self._torn(texts[position:])
            reason = f"{torn[0]} is torn apart by spaces." if torn else self.problem(text)
            if reason:
                message = f"{reason} {self._advice(torn[1] if torn else text)}"
                raise InputError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))

    def problem(self, text: str) -> str | None:
        """Why a word cannot be meant, as a sentence; None if it is right."""
        word = Word.of(text)
        if word.prefix != "~" and (word.value is None or not word.key):
            return f"{text} is not of the form KEY=VALUE."
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except (HydraException, ValueError):
            return words.unreadable(text)
        if word.value == "" and word.prefix != "~":
            return f"{text} has no value."
        if override.is_sweep_override() and self.sweeps is False:
            return f"{text} has several values, and this command is one run: caltech sweep is many."
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            is_group = word.key in self.groups
            return None if is_group else f"{text}: glob() is of groups, and {word.key} is none."
        if override.value_type is ValueType.INTERVAL_SWEEP:
            return self._key_problem(word) or self._space_problem(word, override.value())
        if word.key in self.groups:
            return self._option_problem(word, override)
        return self._key_problem(word) or self._value_problem(word, override)

    def nearest(self, text: str) -> list[str]:
        """Words that are right and near to what was typed, the nearest first."""
        text = text if "=" in text else plain(text).replace(":", "=", 1)
        alone, swept = (dataclasses.replace(self, sweeps=sweeps) for sweeps in (False, True))
        typed = Word.of(text)
        for candidates in self._candidates(typed):
            found: dict[str, str] = {}  # one for each meaning
            for each in dict.fromkeys(candidates):
                is_option = Word.of(each).key in self.groups
                if alone.problem(each) is None:
                    found.setdefault(each.replace("'", "") if is_option else "", shell(each))
                    if is_option and Word.of(each).value == typed.value:
                        break
                elif swept.problem(each) is None:
                    found.setdefault("-m", "--multirun " * (not self.sweeps) + shell(each))
            if found:
                return list(found.values())[:3]
        return []

    def _advice(self, text: str) -> str:
        word = Word.of(text)
        if word.prefix == "~":
            return f"Leave {text} out."
        if word.key in self.groups and word.key not in ROOT and is_nothing(word.value):
            return f"Leave {text} out."  # no experiment is typed by typing none
        if swept := likeness.swept(word):
            return f"Type --multirun {swept}."
        if word.key in self.groups and (of_library := likeness.library(word, self.groups)):
            return f"Type {of_library}."
        there, _, missing = words.deepest(self.cfg, word.key)
        is_there = missing is None or argument(self.cfg, word.key)
        group = word.key.rpartition(".")[2]  # data.split=rule
        # tracking.experiment is no group, and data.split refers to one.
        holds_text = isinstance(there._value(), str) and not there._is_interpolation()
        if "." in word.key and group in self.groups and word.value and not holds_text:
            return f"Type {', or '.join(self.nearest(f'{group}={word.value}'))}."
        exact, close = ("" if is_there else likeness.elsewhere(word, like) for like in (1.0, 0.75))
        if near := [exact] if exact else self.nearest(text) or [*filter(None, [close])]:
            return f"Type {', or '.join(near)}."
        if word.prefix:
            return f"Leave {text} out."
        if "." in word.key and is_there and (not word.value or is_nothing(word.value)):
            return f"Type {word.key}=VALUE."
        if "." in word.key or missing is None:
            shown = "hydra" if word.key.startswith("hydra") else "job"
            return f"Type --cfg {shown} to see what is there."
        scalars = [key for key in self.cfg if key not in {*self.choices, *COMPUTED, "hydra"}]
        groups = [each for each in reversed(self.choices) if not each.startswith("hydra/")]
        return f"Keys are {', '.join([*groups, *scalars])}. Type --help to see them."

    def _torn(self, texts: Sequence[str]) -> tuple[str, str] | None:
        """What spaces made several words, and as one: `lr = 0.1`, `lr=1e-1, 1e-2`, `lr 0.1`."""
        rest: list[str] = []
        for text in texts[1:]:
            if Word.of(text).value is not None and not text.startswith("="):
                break
            rest.append(text)
        first = Word.of(texts[0])
        if not rest or first.prefix == "~" or rest[0].startswith(("~", "--")):
            return None
        goes_on = texts[0].endswith((",", "=")) or rest[0].startswith((",", "="))
        if first.value is not None and not goes_on and self.problem(f"{first.key}={rest[0]}"):
            return None
        if first.value is None and not self._keys_like(first.key):
            return None
        return " ".join([texts[0], *rest]), likeness.joined([texts[0], *rest])

    def _option_problem(self, word: Word, override: Override) -> str | None:
        known = self.groups[word.key]
        if override.is_delete():
            return f"{word} is not allowed: no group can be removed."
        if override.is_add() and self.choices.get(word.key) is not None:
            return f"{word} is not allowed: {word.key} is there already, and needs no +."
        if override.is_sweep_override():
            given = [each.strip("'\"") for each in override.sweep_string_iterator()]
        else:
            value = override.value()
            given = value if isinstance(value, list) and word.key not in ROOT else [value]
        for option in given:
            if option not in known:
                shown = (word.value or "null") if option is None else option
                return f"{word.key}={shown} is no option: it is one of {', '.join(known)}."
        return None

    def _key_problem(self, word: Word) -> str | None:
        if re.split(r"[.@/\[]", word.key)[0] not in self.cfg or word.key == "hydra":
            return (
                f"{word.key} is no key of the config"
                + ", and none can be added" * bool(word.prefix)
                + "."
            )
        if words.deepest(self.cfg, word.key)[1:] == ("hydra", word.key[6:]):
            return f"{word.key} is no key of Hydra's."
        if word.prefix == "~" and word.key in self.cfg:
            return f"{word} is not allowed: no key can be removed."
        takes_text = word.key in ROOT and ROOT[word.key].type is str
        if not takes_text and (word.value or "").casefold() in NOTHING:
            return f"{word} is not allowed: nothing is typed as null."
        return None

    def _space_problem(self, word: Word, space: Any) -> str | None:
        if word.key in self.groups:
            return f"{word} is not allowed: {word.key} has options, and no interval."
        if reason := words.empty_space(space):
            return f"{word} {reason}."
        low, high = space.start, space.end
        inner = 0 if isinstance(low, int) and isinstance(high, int) else (high - low) * 1e-9
        for end in (low + inner, high - inner):  # an end itself is hardly ever tried
            text = f"{word.prefix}{word.key}={end}"
            (one,) = OverridesParser.create().parse_overrides([text])
            if self._value_problem(Word.of(text), one):
                return f"{word} is not allowed: {kind(word.key) or 'its ends do not fit'}."
        return None

    def _value_problem(self, word: Word, override: Override) -> str | None:
        each = [override]
        if override.is_sweep_override():
            try:
                values = [*itertools.islice(override.sweep_string_iterator(), SWEPT)]
            except ValueError as error:  # a range of step 0
                return f"{word} has no values: {error}."
            if not values:
                return f"{word} has no values."
            texts = [f"{word.prefix}{word.key}={value}" for value in values]
            each = OverridesParser.create().parse_overrides(texts)
        cfg = copy.deepcopy(self.cfg)
        node = OmegaConf.select(cfg, word.key, default=None, throw_on_resolution_failure=False)
        if isinstance(node, DictConfig) and isinstance(override.value(), (str, int, float)):
            return f"{word} is not allowed: {word.key} is no single value."
        for one in each:
            if not one.is_delete() and (reason := words.misfit(self.cfg, word.key, one.value())):
                return f"{Word.of(one.input_line)} is not allowed: {reason}."
            try:
                ConfigLoaderImpl._apply_overrides_to_config([one], cfg)
            except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
                return self._refused(Word.of(one.input_line), error.__cause__ or error)
            # A job of a sweep may fail by itself, unless it were to lie somewhere else.
            is_told = word.key in ("study", "output") or (len(each) == 1 and word.key in ROOT)
            if is_told and (reason := refusal(word.key, cfg)):
                return reason
        return None

    def _refused(self, word: Word, error: BaseException) -> str:
        """Why the config does not take a value, by the error's type."""
        said = str(error).splitlines()[0].rstrip(".")
        if isinstance(error, (ValidationError, UnsupportedValueType)):
            return f"{word} is not allowed: {kind(word.key) or said}."
        node, path, missing = words.deepest(self.cfg, word.key)
        if missing is None:
            there = f"{word.key} is there already, and needs no +"
            said = re.sub("^Key '(.*)' is not in struct$", r"it has no \1 within", said)
            return f"{word} is not allowed: {there if word.prefix == '+' else said}."
        if not path:
            return f"{word.key} is no key of the config."
        is_open = isinstance(node, DictConfig) and not node._is_none()
        names = ", ".join(name for name in node if name[0] != "_") if is_open else ""
        option = self.cfg.hydra.runtime.choices.get(path.replace(".", "/"))
        owner = f"{path}={option}" if option else path
        return f"{word.key} is no key: {owner} has {names or 'nothing within'}."

    def _candidates(self, word: Word) -> Iterator[list[str]]:
        """Words like this one, the nearest first: of one key, then of another."""
        is_there = word.key in self.groups or words.deepest(self.cfg, word.key)[2] is None
        if not is_there and (argument(self.cfg, word.key) or words.is_open(self.cfg, word.key)):
            values = [] if word.value is None else likeness.values_like(word.value)
            yield [f"+{word.key}={value}" for value in values]
        others = [] if is_there else self._keys_like(word.key)
        for key in dict.fromkeys([word.key, *others]):
            values = [] if word.value is None else likeness.values_like(word.value)
            if key in self.groups:
                given = (word.value or "").split(",")
                wrong = next((one for one in given if one not in self.groups[key]), given[0])
                like = likeness.options_like(key, self.groups[key], wrong)
                values += [(word.value or "").replace(wrong, each) or each for each in like]
            for prefix in dict.fromkeys([word.prefix, ""]):
                yield [f"{prefix}{key}={value}" for value in values]
            example = self._example(key)
            if isinstance(example, bool):
                example = str(example or word.value is None).lower()
            yield [f"{key}={example}"]
        if word.value is None:  # an option, or its file, without its group
            for group in self.groups:
                yield [
                    f"{group}={each}"
                    for each in likeness.options_like(group, self.groups[group], word.key, 0.9)
                ]

    def _keys_like(self, key: str) -> list[str]:
        """Keys that are there, by their whole names or the last parts of those."""
        key = plain(key).partition("@")[0].strip("-+~ '\"").casefold().replace("-", "_")
        there = [*self.groups, *paths(self.cfg, key.startswith("hydra"))]
        _, within, missing = words.deepest(self.cfg, key)
        if within and missing:  # it is in there, if anywhere
            there = [path for path in there if path.startswith(f"{within}.")]
            return likeness.near_names(
                missing, {path.rpartition(".")[2]: path for path in reversed(there)}
            )
        named = {path.casefold().rpartition(".")[2]: path for path in reversed(there)}
        named |= {path.casefold(): path for path in there}
        told = [each for each in ROOT if len(key) > 4 and key.replace("_", " ") in ROOT[each].rule]
        searches = [f"hydra.sweeper.{key}"] if key in self.cfg.hydra.sweeper else []
        near = difflib.get_close_matches(key, named, n=3, cutoff=0.65)
        return told or searches or [named[each] for each in near]

    def _example(self, key: str) -> Any:
        if key in self.groups:
            return self.choices.get(key) or next(iter(self.groups[key]), "")
        if key in ROOT and ROOT[key].example:
            return ROOT[key].example
        value = OmegaConf.select(self.cfg, key, default="", throw_on_missing=False)
        if isinstance(value, ListConfig):
            return str(OmegaConf.to_container(value, resolve=True)).replace(" ", "")
        return "null" if value is None else "" if isinstance(value, Container) else value
