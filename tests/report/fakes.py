"""Tidy rows with the columns of real ones, drawn from known means."""

import numpy as np
import pandas as pd

ORGANS = ("liver", "right kidney", "left kidney", "spleen")
FLOOR = {"copy": 35.0, "untrained": 10.0}


def fake_rows(
    variants,
    *,
    patients=4,
    folds=1,
    seeds=1,
    noise=1.0,
    organs=ORGANS,
    protocols=("EP1", "EP2"),
    column="model.rounds",
    costs=True,
    seed=0,
):
    """`variants`: label -> (value of `column`, mean Dice); `patients` in each fold.

    A patient has a level of his own, the same for all variants; EP2 lies 10 below EP1.
    """
    generator = np.random.default_rng(seed)
    levels = generator.normal(0, 8, (folds, patients, len(organs)))
    lines = []
    for variant, (value, mean) in variants.items():
        for fold in range(folds):
            for number in range(seeds):
                same = facts(variant, fold, number) | {column: value}
                lines += [
                    same | score | {"model": model}
                    for model in ("copy", "untrained", "catnet")
                    for score in scores(
                        FLOOR.get(model, mean) + levels[fold],
                        noise=0 if model == "copy" else noise,
                        fold=fold,
                        organs=organs,
                        protocols=protocols,
                        generator=generator,
                    )
                ]
                lines += cost_lines(same, float(len(str(variant)))) if costs else []
    return pd.DataFrame(lines)


def facts(variant, fold, seed):
    return {
        "variant": variant,
        "run": f"{variant}-f{fold}-s{seed}",
        "question": "rounds",
        "card": "chaos_t2",
        "fold": fold,
        "seed": seed,
        "setting": "1",
        "policy": "extra",
        "shots": 1,
    }


def scores(means, *, noise, fold, organs, protocols, generator):
    count = len(means)
    for protocol in protocols:
        for patient in range(count):
            for organ, mean in zip(organs, means[patient], strict=True):
                dice = mean - 10 * (protocol == "EP2") + noise * generator.normal()
                yield {
                    "support": f"{(fold + 1) * 100}",
                    "query": f"{fold * count + patient}",
                    "protocol": protocol,
                    "organ": organ,
                    "metric": "dice",
                    "value": float(np.clip(dice, 0, 100)),
                }


def cost_lines(same, seconds):
    empty = {"support": "", "query": "", "protocol": "", "organ": "", "model": "catnet"}
    values = {
        "episode_seconds": 0.02 * seconds,
        "memory_mib": 100 * seconds,
        "parameters": 1e6,
        "evaluation_seconds": 60,
    }
    return [same | empty | {"metric": name, "value": value} for name, value in values.items()]


def one_number(values, *, variant="a", model="catnet", organ="liver", **others):
    """Rows of one protocol and organ: (query, value) pairs."""
    return pd.DataFrame(
        [
            facts(variant, 0, 0)
            | {"support": "100", "query": query, "protocol": "EP1", "organ": organ}
            | {"metric": "dice", "value": float(value), "model": model}
            | others
            for query, value in values
        ]
    )
