"""What is refused of a question before any of its runs begins, though each run alone is valid."""

from catnet.config import ModelSettings
from catnet.data.card import Card
from catnet.errors import UserError
from catnet.question import Question, Variant, describe
from catnet.runs import RunFolder

CMAT = (
    *("position", "attention", "attention_options", "cross_attention", "cross_attention_options"),
    *("ffn", "mlp_ratio", "mask_on", "mask_how", "direction", "share_streams", "keep_threshold"),
)
IDLE = (  # where a setting of CAT-Net has these values, those others change nothing
    ("rounds", (0,), CMAT, "without a round there is no CMAT"),
    ("rounds", (0, 1), ("share_rounds",), "there is no second round to share with"),
    ("mask_on", ("queries", "none"), ("mask_how",), "mask_how is about a mask on the keys"),
    ("mask_on", ("none",), ("keep_threshold",), "without a mask there is nothing to keep"),
)


def check_plan(question: Question, folders: tuple[RunFolder, ...]) -> None:
    """Raise `UserError`, which names the file, where the runs cannot answer the question.

    Refused: no question; a fold or an organ group that the card lacks; variants that are the same
    network; protocols that only some variants have. `folders` are those of the variants.
    """
    if not question.text.strip():
        raise UserError(
            f"{question.source}: asks nothing; add a line such as "
            "`question: How many rounds does the Dice need?`"
        )
    for folder in folders:
        check_card(folder.card, folder, source=question.source)
    check_protocols(question)
    check_networks(question, folders)


def check_card(card: Card, folder: RunFolder, *, source: str) -> None:
    """The card has the fold and the group; how many cases a fold has is known when it is opened."""
    data = folder.run.data
    count = card.folds if isinstance(card.folds, int) else len(card.folds)
    if data.fold >= count:
        raise UserError(
            f"{source}: data.fold {data.fold} is not there; card {card.name} has 0 to {count - 1}"
        )
    try:
        card.tested_organs(data.group)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def check_protocols(question: Question) -> None:
    """All variants have the same protocols, in whatever order."""
    first = question.variants[0]
    for variant in question.variants:
        if set(variant.run.evaluate.protocols) != set(first.run.evaluate.protocols):
            raise UserError(
                f"{question.source}: {describe(first)} and {describe(variant)} have other "
                "protocols, which no table sets beside each other; give all the same "
                "evaluate.protocols"
            )


def check_networks(question: Question, folders: tuple[RunFolder, ...]) -> None:
    """No two variants are one network under two names."""
    seen: dict[tuple[str, str], Variant] = {}
    for variant, folder in zip(question.variants, folders, strict=True):
        run = variant.run
        bare = run.model_copy(update={"model": stripped(run.model)})
        key = (bare.identity(folder.card.identity()), run.evaluate.name())
        same = seen.setdefault(key, variant)
        if same.run.model != run.model:
            raise UserError(
                f"{question.source}: {describe(same)} and {describe(variant)} are the same "
                f"network, since {why(same.run.model, run.model)}; leave one of them out (vary may "
                "be a list of grids)"
            )


def stripped(model: ModelSettings) -> ModelSettings:
    """The settings, with those that change nothing at their defaults."""
    rules = [rule for rule in IDLE if model.name == "catnet" and holds(rule, model)]
    idle = {name for _, _, names, _ in rules for name in names}
    return model.model_copy(update={name: type(model).model_fields[name].default for name in idle})


def holds(rule: tuple[str, tuple, tuple[str, ...], str], model: ModelSettings) -> bool:
    """Whether a line of `IDLE` is about a model."""
    setting, values, *_ = rule
    return getattr(model, setting) in values


def why(one: ModelSettings, other: ModelSettings) -> str:
    """Why the settings in which two models differ change nothing."""
    return " and ".join(
        rule[3]
        for rule in IDLE
        if holds(rule, one)
        and holds(rule, other)
        and any(getattr(one, name) != getattr(other, name) for name in rule[2])
    )
