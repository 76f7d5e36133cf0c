"""Hydra's loader of configs, with two promises: mistakes are told in our words (vocabulary.py),
and a config file does no harm (trust.py).

Every config passes here before anything is written or called: of a run, of a sweep, of each of its
jobs wherever that runs, of a report and of an audit.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from caltech.errors import CaltechError, InputError
from caltech.settings import CONF, ROOT, options, require_places
from caltech.trust import file_of, is_ours, require_harmless, require_one_file
from caltech.vocabulary import Vocabulary
from caltech.words import NOTHING, Word, is_of_its_type

# Hydra's own launchers, and ours that build on them.
LAUNCHERS = {"joblib": "parallel", "submitit_slurm": "slurm"}


class Composer(ConfigLoaderImpl):
    """Jobs in other processes bring it with them."""

    _composes_job = False

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
        self._require_launcher(overrides)
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
            for said in () if self._composes_job else _idle(overrides, cfg):
                print(f"warning: {said}", file=sys.stderr)
        require_places(cfg)
        _expand_home(cfg)
        if not sweeps:
            _require_leading(overrides, cfg)
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
        self._composes_job = True
        try:
            return super().load_sweep_config(master_config, sweep_overrides)
        finally:
            self._composes_job = False

    def _require_launcher(self, words: Sequence[str]) -> None:
        """Raise InputError for a launcher of Hydra's in whose place is one of ours."""
        for word in map(Word.of, words):
            own = LAUNCHERS.get(word.value or "") if word.key == "hydra/launcher" else None
            if word.key == "hydra/launcher" and (word.value or "").startswith("ray"):
                if "ray" not in self.get_group_options("hydra/launcher"):
                    raise InputError(f"{word} needs Ray. Type: pip install 'caltech[ray]'")
            elif own:
                raise InputError(
                    f"{word} is Hydra's, and knows nothing of cores and GPUs. Type "
                    f"hydra/launcher={own}."
                )

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        require_one_file(result, default.config_path, repo)
        if not is_ours(result, default.config_path):
            file, group = (
                file_of(result, default.config_path),
                str(default.config_path).split("/")[0],
            )
            if group in ("experiment", "sweep") and default.package not in ("", "_global_"):
                raise InputError(
                    f"{file}: its values would be those of {default.package}, which nothing "
                    "reads. Type # @package _global_ as its first line."
                )
            require_harmless(result.config, file)
        return result

    def _process_config_searchpath(
        self, config_name: str | None, parsed: list[Override], repo: CachingConfigRepository
    ) -> None:
        primary = repo.load_config(config_name) if config_name is not None else None
        if primary is not None and not is_ours(primary, config_name):  # it may name packages
            require_harmless(primary.config, file_of(primary, config_name))
        super()._process_config_searchpath(config_name, parsed, repo)
        self.repository = repo.delegate  # vocabulary() is to know options of hydra.searchpath, too

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
        if group == "hydra/launcher":
            unfit = {*LAUNCHERS, *({"ray_cluster"} if "ray" not in own else ())}
            return [each for each in own if each not in unfit]
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
        if isinstance(error, MissingConfigException) and error.missing_cfg_file == config_name:
            return InputError(
                f"There is no {config_name}.yaml among the configs. Leave --config-name and "
                "--config-path out; --config-dir FOLDER adds a folder of experiments of your own."
            )
        try:
            self.vocabulary(config_name, words, run_mode).require(words)
        except InputError as explained:
            return explained
        except Exception as of_file:  # the options that were typed make no config by themselves
            error = of_file
        cause = error.__cause__ if str(error) in ("", "None") and error.__cause__ else error
        said = " ".join(str(cause).split("full_key")[0].split()) or type(cause).__name__
        if "Sweeping over Hydra" in said:
            swept = [w for w in words if w.lstrip("+").startswith("hydra.") and "," in w]
            said = "Hydra's own settings are the same for all jobs. Type one value"
            return InputError(f"{' '.join(swept) or 'hydra.*'} is not allowed: {said}.")
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
    if word.prefix and (root == word.key or root not in ROOT):
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


def _expand_home(cfg: DictConfig) -> None:
    """Where runs are written, whoever reads it: Hydra would make a folder of the name ~."""
    for name in ("output", "directory"):
        place = cfg._get_node(name)._value() if name in cfg.keys() else None  # noqa: SIM118
        if isinstance(place, str) and place.startswith("~"):
            cfg[name] = str(Path(place).expanduser())


def _is_group(key: str) -> bool:
    return key != "" and (CONF / key).is_dir()


def _require_one_option(words: Sequence[str], groups: Sequence[str]) -> None:
    """Raise InputError for two options of one group, of which Hydra takes the last."""
    typed: dict[str, str] = {}
    for word in map(Word.of, words):
        before = typed.setdefault(word.key, str(word)) if word.key in groups else str(word)
        if before != str(word):
            raise InputError(f"{before} and {word} cannot both be. Type {before} or {word}.")


def _require_leading(words: Sequence[str], cfg: DictConfig) -> None:
    """Raise InputError for a reference that was typed and leads nowhere, or to itself."""
    for word in map(Word.of, words):
        if "${" not in (word.value or "") or word.key not in ROOT:
            continue  # within a group it is told by the run (settings.require_resolved)
        try:
            OmegaConf.select(cfg, word.key)
        except (OmegaConfBaseException, RecursionError) as error:
            is_itself = isinstance(error, RecursionError) or "ecursi" in str(error)
            said = "it refers to itself" if is_itself else str(error).splitlines()[0].rstrip(".")
            example = ROOT[word.key].example
            raise InputError(
                f"{word} is not allowed: {said}. Type {word.key}={example or 'VALUE'}."
            ) from error


def _idle(words: Sequence[str], cfg: DictConfig) -> Iterator[str]:
    """What is typed and does nothing, as step_size does to a constant schedule."""
    last = {Word.of(word).key: word for word in words}
    for word in words:
        if (later := last[Word.of(word).key]) != word:
            yield f"{word} does nothing here: {later} is typed after it."
    choices = cfg.hydra.runtime.choices
    if any(Word.of(word).key in choices and "," in word for word in words):
        return  # some of the options may read it
    read = str(OmegaConf.to_container(cfg, resolve=False))
    for word in map(Word.of, words):
        if word.key in ROOT and ROOT[word.key].decides is None and f"${{{word.key}}}" not in read:
            readers = {group for group, option in options() if f"${{{word.key}}}" in str(option)}
            shown = " and ".join(f"{group}={choices[group]}" for group in sorted(readers))
            yield f"{word} does nothing here: {shown} does not use it."
    typed = f"{last.get('micro_batch')}{last.get('batch_size')}"
    if "micro_batch" not in last or re.search("[,($]", typed):
        return  # swept over, or computed
    part, whole = cfg.micro_batch, cfg.batch_size
    if part is not None and part >= whole:
        yield f"micro_batch={part} does nothing here: a step has {whole} images (batch_size)."
