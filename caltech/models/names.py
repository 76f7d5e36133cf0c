"""Names of architectures and weights as they are typed: known, taken apart, or the nearest right.

Nothing here builds a network or reads a file.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caltech.errors import InputError

NO_WEIGHTS = ("none", "no", "false", "scratch", "random")  # what people type who mean null


@dataclass(frozen=True)
class TimmName:
    """What timm is asked for.

    `created` is what timm.create_model takes: NAME, NAME.TAG or hf-hub:OWNER/REPOSITORY.
    """

    created: str
    is_pretrained: bool

    def identity(self, source: Mapping[str, Any]) -> str:
        """What a run records of its weights; timm's description has the tag if none was given."""
        if self.created.startswith("hf-hub:"):
            return self.created
        return f"timm {self.created.partition('.')[0]}.{source['tag']}"


def timm_name(name: object, weights: object) -> TimmName:
    """Take NAME, NAME.TAG, timm/NAME.TAG and hf-hub:OWNER/REPOSITORY apart.

    Raises:
        InputError: for an unknown name or tag, for weights that contradict a tag in the name, and
            for an architecture that timm has no weights for.
    """
    import timm

    typed = str(name)
    prefix, _, rest = typed.partition(":")
    is_hub = prefix.lower() in ("hf-hub", "hf_hub") and "/" in rest
    owner, _, repository = (rest if is_hub else typed).rpartition("/")
    if is_hub and owner != "timm":
        _require_agreement(typed, rest, typed, weights)
        return TimmName(f"hf-hub:{rest}", True)
    architecture, _, tag = (repository if owner in ("", "timm") else typed).partition(".")
    require_known("model.name", architecture, timm.list_models(), "torchvision")
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{architecture}.*")]
    if not tags and (tag or weights is not None):
        raise InputError(
            f"timm has no weights for model.name={architecture}. Type model.weights=null to train "
            "it from scratch, or another model."
        )
    if tag:
        require_known("model.name", f"{architecture}.{tag}", [f"{architecture}.{t}" for t in tags])
        _require_agreement(typed, tag, architecture, weights)
        return TimmName(f"{architecture}.{tag}", True)
    if weights is None:
        return TimmName(architecture, False)
    if weights == "DEFAULT":
        return TimmName(architecture, True)
    stripped = str(weights).removeprefix("timm/").removeprefix(f"{architecture}.")
    require_known("model.weights", stripped, ["DEFAULT", *tags, None])
    return TimmName(f"{architecture}.{stripped}", True)


def _require_agreement(typed: str, tag: str, architecture: str, weights: object) -> None:
    if weights in ("DEFAULT", tag):
        return
    given = "null" if weights is None else weights
    other = "another model" if architecture == typed else f"model.name={architecture}"
    raise InputError(
        f"model.name={typed} names the weights {tag}, and model.weights={given} asks for others. "
        f"Leave model.weights out, or type {other} with model.weights={given}."
    )


def require_known(key: str, given: object, known: Sequence, elsewhere: str | None = None) -> None:
    """Raise InputError with the nearest right ones unless `given` is among those known.

    Spelling counts as near: ResNet-50 is resnet50, and none is null where null is known.

    Args:
        elsewhere: the other library by whose models an unknown name is looked up, too.
    """
    if given in known:
        return
    names = {_plain(each): "null" if each is None else str(each) for each in reversed(known)}
    typed = _plain(given)
    begun = [names[each] for each in sorted(names, key=len) if typed and each.startswith(typed)]
    cutoff = 0.4 if len(names) <= 10 else 0.6  # of a thousand, one is always somewhat like it
    like = [names[each] for each in difflib.get_close_matches(typed, names, n=5, cutoff=cutoff)]
    close = list(dict.fromkeys([*begun[:5], *like]))[:8]
    if None in known and (given is None or str(given).lower() in NO_WEIGHTS):
        close = ["null"]
    elif typed in names:
        close = [names[typed]]
    elif elsewhere and typed in map(_plain, _models_of(elsewhere)):
        other = next(each for each in _models_of(elsewhere) if _plain(each) == typed)
        close = [f"model={elsewhere} {key}={other}", *(f"{key}={each}" for each in close[:3])]
    if not close:
        close = [each for each in ("resnet50", "resnet18") if each in known]
    if not close or len(names) <= 10:
        close += [each for each in reversed(names.values()) if each not in close][:10]
    first = close[0] if "=" in close[0] else f"{key}={close[0]}"
    raise InputError(f"{key}={given} is not known. Type {', or '.join([first, *close[1:]])}.")


def _plain(name: object) -> str:
    """Without case and separators, and without the enum before torchvision's weights."""
    last = str(name).rpartition("_Weights.")[2]
    return "".join(letter for letter in last.lower() if letter.isalnum())


def _models_of(library: str) -> list[str]:
    if library == "timm":
        import timm

        return timm.list_models()
    from torchvision import models

    return models.list_models(module=models)
