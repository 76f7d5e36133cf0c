"""The Tab key: `eval "$(caltech completion)"` in ~/.bashrc, for caltech and python -m caltech.X.

Words of train, sweep, report, sync and ui are completed by Hydra's own plugin, from conf/; its
script knows no `python -m`, and would start a whole training for each key, which takes seconds.
"""

import os
import sys
from collections.abc import Sequence

from caltech.__main__ import COMMANDS

# Which config the words of a command are of.
CONFIGS = {"train": "train", "sweep": "train", "report": "report", "sync": "tell", "ui": "tell"}
CONFIGS |= {"audit": "train", "verify": "train"}
SCRIPT = """\
_caltech() {
    local line=${COMP_LINE:0:COMP_POINT} words choice
    local IFS=$' \\t\\n'
    words=($line)
    case "${words[0]##*/} ${words[1]} ${words[2]}" in
        caltech\\ *|python*\\ -m\\ caltech*) ;;
        *) return ;;
    esac
    local word=${line##*[[:space:]]} cut=""
    # Where Bash takes = for the end of a word, it wants what comes after it.
    case "$COMP_WORDBREAKS" in *=*) cut=${word%"${word##*=}"} ;; esac
    COMPREPLY=()
    for choice in $(CALTECH_LINE=$line "PROGRAM" -m caltech.completion query 2>/dev/null); do
        case "$choice" in "$word"*) COMPREPLY+=("${choice#"$cut"}") ;; esac
    done
    case "${COMPREPLY[0]}" in *=|*.|*/) compopt -o nospace 2>/dev/null ;; esac
}
complete -o bashdefault -o default -F _caltech caltech python python3"""


EVAL = 'eval "$(caltech completion)"'


def main(words: Sequence[str]) -> None:
    """Print the script, or what a line may go on with."""
    if {"-h", "--help"} & set(words):
        print(
            f"usage: {EVAL}\n\nIn ~/.bashrc: the Tab key completes words of caltech, in Bash alone."
        )
    elif words and list(words) != ["query"]:
        sys.exit(f"error: {words[0]} is one word too many: completion is for Bash. Type {EVAL}")
    elif not words:
        print(SCRIPT.replace("PROGRAM", sys.executable))
    else:
        print(*choices(os.environ["CALTECH_LINE"]), sep="\n")


def choices(line: str) -> list[str]:
    """What the last word of a command line, as far as it is typed, may become."""
    typed = line.split()
    typed += [""] * line.endswith(" ")
    if typed[0].rpartition("/")[2] != "caltech":  # python -m caltech.train
        name = typed[2].partition(".")[2]
        typed = ["caltech", *([name] if name else []), *typed[3:]]
    if len(typed) <= 2:
        return [name for name in COMMANDS if name.startswith(typed[-1])]
    if typed[1] not in CONFIGS:
        return []
    return _of_config(CONFIGS[typed[1]], " ".join(typed[2:]))


def _of_config(config: str, line: str) -> list[str]:
    """By Hydra, from the groups, options and keys of a config."""
    from hydra import initialize_config_dir
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    from caltech.config import register
    from caltech.settings import CONF

    group, equals, begun = line.rpartition(" ")[2].partition("=")
    if equals and (CONF / group).is_dir() and not group.startswith("hydra"):
        files = (path.relative_to(CONF / group) for path in (CONF / group).rglob("*.yaml"))
        options = sorted(path.with_suffix("").as_posix() for path in files)  # Hydra: no folders'
        return [f"{group}={option}" for option in options if option.startswith(begun)]
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        loader = GlobalHydra.instance().config_loader()
        found = BashCompletion(loader)._query(config_name=config, line=line)
    return [each for each in found if "_target_" not in each]


if __name__ == "__main__":
    main(sys.argv[1:])
