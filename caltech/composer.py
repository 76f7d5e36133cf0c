"""Hydra's loader of configs, with two promises: mistakes are told in our words (vocabulary.py),
and a config file does no harm (trust.py).

Every config passes here before anything is written or called: of a run, of a sweep, of each of its
jobs wherever that runs, of a report and of an audit.
"""

import re
from collections.abc import Sequence
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig

from caltech.errors import CaltechError, InputError
from caltech.settings import CONF, ROOT, options, require_places
from caltech.trust import require_harmless
from caltech.vocabulary import Vocabulary
from caltech.words import NOTHING, Word, is_of_its_type


class Composer(ConfigLoaderImpl):
    """Jobs in other processes bring it with them."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._of_options: dict[tuple[str | None, ...], DictConfig] = {}

    def parse_overrides(
        self, config_name: str | None, overrides: list[str], alias_start: int = 0
    ) -> list[Override]:
        try:
            return super().parse_overrides(config_name, overrides, alias_start)
        except OverrideParseException as error:
            raise self._explained(config_name, overrides, None, error) from error

    def _load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, **details: Any
    ) -> DictConfig:
        try:
            cfg = super()._load_configuration(config_name, overrides, run_mode, **details)
        except CaltechError:
            raise
        except Exception as error:  # whatever it is, what was typed brought it about
            raise self._explained(config_name, overrides, run_mode, error) from error
        sweeps = run_mode == RunMode.MULTIRUN
        if doubtful := [word for word in overrides if _is_doubtful(word, sweeps, cfg)]:
            self.vocabulary(config_name, overrides, run_mode).require(doubtful)
        if details["from_shell"]:
            _require_one_option(overrides, cfg.hydra.runtime.choices)
        require_places(cfg)
        return cfg

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        for word in sweep_overrides:
            if re.match(r"[+~]*hydra\b", word):
                raise InputError(
                    f"{word} is one of a job's words, and jobs of a sweep do not change Hydra's "
                    "own settings. Type it beside --multirun."
                )
        return super().load_sweep_config(master_config, sweep_overrides)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        if not _is_ours(result, default.config_path):
            require_harmless(result.config, _file(result, default.config_path))
        return result

    def _process_config_searchpath(
        self, config_name: str | None, parsed: list[Override], repo: CachingConfigRepository
    ) -> None:
        primary = repo.load_config(config_name) if config_name is not None else None
        if primary is not None and not _is_ours(primary, config_name):  # it may name packages
            require_harmless(primary.config, _file(primary, config_name))
        super()._process_config_searchpath(config_name, parsed, repo)

    def vocabulary(
        self, config_name: str | None, words: Sequence[str], run_mode: RunMode | None
    ) -> Vocabulary:
        """What these words are compared with."""

        choices = dict(self._loaded(config_name).hydra.runtime.choices)
        hydra_groups = [f"hydra/{name}" for name in self.list_groups("hydra")]
        names = [*choices, *hydra_groups, "hydra/sweeper/sampler"]
        groups = {name: self._options(name.split("@")[0]) for name in names}
        chosen = [word for word in map(Word.of, words) if word.key in groups]
        firsts = [f"{word.key}={(word.value or '').split(',')[0]}" for word in chosen]
        known = [text for text in firsts if Word.of(text).value in groups[Word.of(text).key]]
        sweeps = None if run_mode is None else run_mode == RunMode.MULTIRUN
        return Vocabulary(self._loaded(config_name, *known), choices, groups, sweeps)

    def _loaded(self, config_name: str | None, *options: str) -> DictConfig:
        """The config of these options and no other word, once for all jobs of a sweep."""
        place = (config_name, *options)
        if place not in self._of_options:
            self._of_options[place] = super()._load_configuration(
                config_name, [*options], RunMode.RUN, from_shell=False, skip_missing_defaults=True,
                validate_sweep_overrides=False, activate_config_repository=False,
            )  # fmt: skip
        return self._of_options[place]

    def _options(self, group: str) -> list[str]:
        """A group's options, those in folders of its own by their paths."""
        own = self.get_group_options(group, ObjectType.CONFIG)
        if group.startswith("hydra/"):
            return own
        folders = self.get_group_options(group, ObjectType.GROUP)
        return own + [
            f"{each}/{name}" for each in folders for name in self._options(f"{group}/{each}")
        ]

    def _explained(
        self,
        config_name: str | None,
        words: Sequence[str],
        run_mode: RunMode | None,
        error: Exception,
    ) -> InputError:
        """Hydra's error as the first word that explains it, or else as its first line."""
        try:
            self.vocabulary(config_name, words, run_mode).require(words)
        except InputError as explained:
            return explained
        except Exception as of_file:  # the options that were typed make no config by themselves
            error = of_file
        cause = error.__cause__ if str(error) in ("", "None") and error.__cause__ else error
        said = " ".join(str(cause).split("full_key")[0].split()) or type(cause).__name__
        named = [f"{word.key}={word.value}" for word in map(Word.of, words) if _is_group(word.key)]
        return InputError(
            f"No config can be made of {' '.join(named) or 'what was typed'}: "
            f"{said[:300].rstrip('. ')}. Type --info defaults to see which files it is made of."
        )


def install() -> None:
    """Have Hydra compose by this loader; its own main() takes the name from here."""
    hydra._internal.hydra.ConfigLoaderImpl = Composer


def _is_doubtful(text: str, sweeps: bool, cfg: DictConfig) -> bool:
    """Whether Hydra may take a word and fail at it late: it is looked at before anything else.

    To look takes three times as long as to compose (`cfg`), so what is plainly right is let pass.
    """
    word = Word.of(text)
    root = re.split(r"[.@/\[]", word.key)[0]
    if word.prefix and (root == word.key or root not in {*ROOT, "hydra"}):
        return True
    value = word.value or ""
    is_group = _is_group(word.key)
    if is_group and (value.startswith("[") or value.endswith((".yaml", ".yml"))):
        return True
    is_right = _is_number(word) or (not word.prefix and is_of_its_type(cfg, word.key))
    if word.key != root and _is_group(root) and word.prefix != "~" and not is_right:
        return True
    is_nothing = value == "" or (value.casefold() in NOTHING and not is_group)
    return word.prefix != "~" and (is_nothing or (sweeps and re.search("[,(]", value) is not None))


def _is_number(word: Word) -> bool:
    """Whether a group's key is given a number where its options have one: nothing to look at."""
    group, _, name = word.key.partition(".")
    there = [option.get(name) for of, option in options() if of == group and name in option]
    is_number = re.fullmatch(r"-?[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?", word.value or "") is not None
    return is_number and all(type(each) in (int, float) for each in there) and bool(there)


def _is_group(key: str) -> bool:
    return key != "" and (CONF / key).is_dir()


def _require_one_option(words: Sequence[str], groups: Sequence[str]) -> None:
    """Raise InputError for two options of one group, of which Hydra takes the last."""
    typed: dict[str, str] = {}
    for word in map(Word.of, words):
        before = typed.setdefault(word.key, str(word)) if word.key in groups else str(word)
        if before != str(word):
            raise InputError(f"{before} and {word} cannot both be. Type {before} or {word}.")


def _is_ours(result: ConfigResult, name: str | None) -> bool:
    """Whether a config is part of the program: Hydra's and its plugins', or our own defaults."""
    if result.path.startswith(("pkg://", "structured://")):
        return "searchpath" not in result.provider
    ours = name in ("train", "report", "tell") or str(name).startswith("hydra/")
    return ours and result.path == f"file://{CONF}"


def _file(result: ConfigResult, name: str | None) -> str:
    return f"{result.path.removeprefix('file://')}/{str(name).removesuffix('.yaml')}.yaml"
