"""Numbers as text, and sentences about results, derived from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from molspectra.evaluation.metrics import mean_and_sd
from molspectra.evaluation.paired import CONFIDENCE, MoleculeInterval, SeedTest, seed_test
from molspectra.reporting.content import Arm, LossLine, ResultTable, RetrievalResult

FEW_SEEDS = 5
"""With fewer seeds the sentence states how often n equal signs occur by chance: 2 of 2ⁿ."""


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with that many significant digits; a dash for None or a value that is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}"
    if 1e-4 <= abs(value) < 1e6:
        exponent = int(text.partition("e")[2])  # after rounding: 0.9999 is 1.00
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Format a difference with its sign, three significant digits."""
    return number(value) if value <= 0 else f"+{number(value)}"


def duration(seconds: float | None) -> str:
    """Format a time in seconds as s, min or h; a dash where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def mean_sd(values: Sequence[float]) -> str:
    """Format mean ± sample standard deviation; only the mean for one value."""
    mean, sd = mean_and_sd(values)
    return number(mean) if math.isnan(sd) else f"{number(mean)} ± {number(sd, 2)}"


def comparisons(table: ResultTable) -> list[tuple[Arm, Arm]]:
    """Return the pairs to compare: every arm with scratch, and stage 2 (with spectra) with stage 1."""
    by_key = {arm.key: arm for arm in table.arms}
    pairs = []
    if "scratch" in by_key:
        pairs = [(arm, by_key["scratch"]) for arm in table.arms if arm.key != "scratch"]
    if "stage1" in by_key and "stage2" in by_key:
        pairs.append((by_key["stage2"], by_key["stage1"]))
    return pairs


def verdict(first: Arm, second: Arm) -> str:
    """Summarise the comparison of two arms in one sentence."""
    test = seed_test(first.mae, second.mae)
    if test is None:
        return f"{first.start} and {second.start} have no seed in common."
    n = len(test.seeds)
    share = _percentage(test, second)
    counts = f"lower in {test.lower}, higher in {test.higher} of {n} seed{'s' if n > 1 else ''}"
    mean = f", mean difference {share}" if share else ""
    return f"Error of {first.start} against {second.start}: {counts}{mean}."


def _percentage(test: SeedTest, second: Arm) -> str:
    """Return the mean difference as a percentage of the second arm's mean error; "" where that is 0."""
    base, _ = mean_and_sd([second.mae[seed] for seed in test.seeds])
    return f"{signed(100 * test.mean / base)}\u00a0%" if base > 0 else ""


def paired_sentence(first: Arm, second: Arm, unit: str) -> str:
    """State the differences of the mean absolute error by seed, and whether their sign is consistent."""
    test = seed_test(first.mae, second.mae)
    heading = f"{first.start} minus {second.start}"
    if test is None:
        return f"{heading}: no seed in common, so there is no paired comparison."
    pairs = zip(test.seeds, test.differences, strict=True)
    by_seed = ", ".join(f"seed {seed} {signed(value)}" for seed, value in pairs)
    n, share = len(test.seeds), _percentage(test, second)
    text = f"{heading}, {unit}: {by_seed}; mean {signed(test.mean)}{f' ({share})' if share else ''}. "
    if not test.lower and not test.higher:
        return text + "There is no difference in any seed."
    if n not in (test.lower, test.higher):
        return text + (
            f"The error is lower in {test.lower} and higher in {test.higher} of {n} seeds: "
            "the sign is not consistent, no difference is shown."
        )
    which = "lower" if test.lower else "higher"
    text += f"The error is {which} in {'the one seed' if n == 1 else f'all {n} seeds'}"
    if n == 1:
        return text + "; one seed says nothing about the spread between seeds."
    if n < FEW_SEEDS:
        chance = number(100 * test.smallest_p, 2)
        return f"{text}; with {n} seeds the same sign in all comes by chance in {chance}\u00a0% of cases."
    return text + "."


def table_sentences(table: ResultTable) -> list[str]:
    """Return sentences on a result table: comparisons, the constant, and pre-training."""
    sentences = [paired_sentence(first, second, table.unit) for first, second in comparisons(table)]
    constant = table.constant_mae
    if constant is not None and table.arms:
        worse = [
            f"{arm.start} seed {score.seed}"
            for arm in table.arms
            for score in arm.scores
            if score.mae >= constant
        ]
        text = (
            f"Predicting the median of the training molecules for all gives {number(constant)} {table.unit}"
        )
        sentences.append(
            f"{text}; no better than that: {', '.join(worse)}." if worse else f"{text}; every run is below."
        )
    sentences += [f"{arm.start}: {arm.pretraining}" for arm in table.arms if arm.pretraining]
    return sentences


def retrieval_sentences(result: RetrievalResult) -> list[str]:
    """Return sentences on a search, with the expectation for a random order."""
    figures, isomers = result.whole
    spectra = list(result.subsets)[-1].replace(" + ", ", ")
    parts = " and ".join(
        {"val": "validation", "train": "training"}.get(part, part) for part in result.gallery_parts
    )
    plural = "s" if len(result.gallery_parts) > 1 else ""
    sentences = [
        f"{figures.queries} molecules of the {result.part} part were searched by their spectra "
        f"({spectra}) among the clean structures of {result.gallery_size} different "
        f"molecules of the {parts} part{plural}: the right one came first for {percent(figures.recall[1])} "
        f"of them, where a random order gives {percent(figures.chance_recall[1])}."
    ]
    if isomers is not None:
        sentences.append(
            f"Among molecules of the same formula alone (on average {number(isomers.candidates)} candidates, "
            f"{isomers.queries} queries that have an isomer there), the right one came first for "
            f"{percent(isomers.recall[1])}; a random order gives {percent(isomers.chance_recall[1])}."
        )
    return sentences


def loss_sentences(losses: Sequence[LossLine]) -> list[str]:
    """Return a sentence that names the losses no better than those of a model without skill."""
    weak = [
        f"{line.run}: {line.name}"
        for line in losses
        if line.no_skill is not None and line.value >= line.no_skill
    ]
    return [f"No better than a model that has learnt nothing: {'; '.join(weak)}."] if weak else []


def percent(share: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * share:.1f}\u00a0%"


def conclusion(
    first: str, second: str, test: SeedTest, interval: MoleculeInterval | None, samples: str = "molecules"
) -> str:
    """State in plain words what a comparison of two named arms shows over seeds, and what it does not.

    The interval is over test samples, which are "molecules" or "frames"; None where their errors are unknown.
    """
    n, which, p = len(test.seeds), "lower" if test.mean < 0 else "higher", f"t-test p = {test.t_p:.2g}"
    if n == 1:
        text = (
            f"One seed: the error of {first} is {which} than that of {second}, and nothing can be said about "
            "whether another seed would show the same."
        )
    elif test.t_p < 1 - CONFIDENCE:
        text = f"Over {n} seeds the error of {first} is {which} than that of {second} ({p})."
    else:
        text = (
            f"Over {n} seeds no difference between {first} and {second} is shown ({p}); that is no proof "
            "that there is none."
        )
    if interval is None:
        return text
    which = "lower" if interval.difference < 0 else "higher"
    if interval.low > 0 or interval.high < 0:
        expected = f"would be expected to have the {which} error again"
    else:
        expected = "could as well come out the other way"
    return f"{text} On other test {samples} of this kind these very models of {first} {expected}."


def few_seeds(n: int) -> str:
    """State what n seeds cannot show; "" where the exact tests can reach the 5 % level."""
    if n == 1:
        return "One seed has no spread: differences over seeds cannot be tested."
    smallest = 2.0 ** (1 - n)
    if smallest <= 1 - CONFIDENCE:
        return ""
    return (
        f"With {n} seeds the exact tests cannot give a p below {smallest:.3g} and confirm nothing at the "
        "5 % level; the t-test assumes normally distributed differences and sees only large ones."
    )
