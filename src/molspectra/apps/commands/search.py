"""`molspectra search`: the molecules of an index that fit the spectra of a sample."""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import InputError, SettingError, hint
from molspectra.printable import say
from molspectra.spectra.modality import DOS, MODALITIES

MEASURED = {name: kind for name, kind in MODALITIES.items() if name not in DOS}
"""Modalities that a sample can have; nothing measures a density of states."""

_TOP, _TOP_OF_EACH = 25, 3  # answers; and those of each of several samples that are shown


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SettingError as error:
        if "required: DIR" not in str(error):
            raise
        raise SettingError("name the index before the spectra: molspectra search DIR --ir FILE") from None
    files = {name: getattr(options, name) for name in MEASURED if getattr(options, name) is not None}
    if not files:
        raise SettingError(f"give at least one spectrum: {', '.join(map(_option, MEASURED))}")
    if len(set(map(len, files.values()))) > 1:
        counts = ", ".join(f"{_option(name)} has {len(paths)}" for name, paths in files.items())
        raise SettingError(f"every sample needs a file of each kind, but the numbers differ: {counts}")
    if options.mixture is None and options.among is not None:
        raise SettingError("--among names what a mixture may be made of; give --mixture too")
    given = [f"--{name}" for name in ("by", "weights", "top", "approximate") if getattr(options, name)]
    if options.mixture is not None and given:
        raise SettingError(
            f"{given[0]} is not for a --mixture, which is fitted by shape and shown as a whole"
        )
    samples = _names(next(iter(files.values())))

    from molspectra.data.output import free_path
    from molspectra.search.hits import SUFFIXES, Hits, of_samples
    from molspectra.search.library import Library
    from molspectra.search.mixture import mixture
    from molspectra.search.pipeline import Pipeline
    from molspectra.search.query import read_query

    if options.out is not None:
        free_path(options.out, SUFFIXES, overwrite=options.overwrite)
    by = _scores(options.by, options.weights)
    units = _by_modality(options.unit, "--unit")
    quantities = _by_modality(options.quantity, "--quantity")
    pipeline = Pipeline(
        choice=options.pipeline,
        scale=options.scale,
        baseline=options.baseline,
        smooth=options.smooth,
        window=_ranges(options.range, files),
    )
    filters = {
        "pipeline": pipeline,
        **{name: getattr(options, name) for name in ("formula", "mass", "within", "elements", "contains")},
    }
    ranking = {
        "by": by,
        "top": _TOP if options.top is None else options.top,
        "approximate": options.approximate,
    }
    failures: dict[str, InputError] = {}
    prepared = {}
    for number, sample in enumerate(samples):
        try:
            prepared[sample] = {
                name: read_query(
                    paths[number],
                    name,
                    unit=units.get(name),
                    quantity=quantities.get(name),
                    reflectance=options.reflectance,
                    pipeline=pipeline,
                )
                for name, paths in files.items()
            }
        except InputError as error:
            failures[sample] = error
    found: dict[str, Hits] = {}
    if prepared:
        library = Library(options.index, options.model, device=options.device)
        for sample, spectra in prepared.items():
            try:
                found[sample] = (
                    library.search(spectra, **ranking, **filters)
                    if options.mixture is None
                    else mixture(library, spectra, components=options.mixture, among=options.among, **filters)
                )
            except InputError as error:
                failures[sample] = error
    _tell(failures, samples)
    if not found:
        return 2
    hits = of_samples(found) if len(samples) > 1 else found[samples[0]]
    for remark in hits.remarks:
        say(f"molspectra: {remark}", error=True)
    if options.out is not None:
        hits.write(options.out, overwrite=options.overwrite)
    say(hits.text(_TOP_OF_EACH if len(samples) > 1 and options.top is None else None))
    of = f"of {hits.candidates} candidates, from {hits.library} molecules in {options.index}"
    say(f"{len(hits)} {of}" if len(samples) == 1 else f"{len(found)} of {len(samples)} samples; answers {of}")
    return 2 if failures else 0


def _names(paths: Sequence[str]) -> list[str]:
    """Names of samples by their files: the ends of the paths that are long enough to differ.

    Raises:
        SettingError: a file is given twice.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for path, own in zip(paths, parts, strict=True):
        if parts.count(own) > 1:
            raise SettingError(f"{path}: given twice; each file is one sample")
    names = []
    for own in parts:
        same = [each for each in parts if each[-1] == own[-1]]
        length = next(n for n in range(1, len(own) + 1) if len({each[-n:] for each in same}) == len(same))
        names.append(str(Path(*own[-length:])))
    return names


def _tell(failures: Mapping[str, InputError], samples: Sequence[str]) -> None:
    """Print what is wrong with each sample; raise it where it is wrong with all, as with the only one."""
    reasons = [str(error) for error in failures.values()]
    if len(failures) == len(samples) and len(set(reasons)) == 1:
        raise next(iter(failures.values()))
    for sample, reason in zip(failures, reasons, strict=True):
        where = "" if sample in reason else f"{sample}: "
        say(f"molspectra: error: {where}{reason}", error=True)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "search",
        description="Rank the molecules of an index by spectra of a sample, or of several samples, each of "
        "which has one file of every kind. The index comes before the files.",
    )
    parser.add_argument("index", metavar="DIR", help="index that molspectra index made")
    for name, kind in MEASURED.items():
        parser.add_argument(
            _option(name),
            dest=name,
            nargs="+",
            metavar="FILE",
            help=f"{kind.title}: JCAMP-DX, text, file of an instrument, or output of a program",
        )
    parser.add_argument(
        "--by",
        nargs="+",
        help="ways to score: shape, embedding, learned, cosine, sid [shape; embedding without spectra]",
    )
    parser.add_argument("--weights", nargs="+", type=float, default=None, help="weight of each way")
    parser.add_argument("--formula", help="only this molecular formula")
    parser.add_argument("--mass", type=float, help="only this exact mass, in Da")
    parser.add_argument("--within", default="10ppm", help="tolerance of --mass, such as 10ppm or 0.01Da")
    parser.add_argument("--elements", nargs="+", help="no other elements than these")
    parser.add_argument("--contains", nargs="+", help="elements that must be there")
    parser.add_argument(
        "--top",
        type=int,
        help="number of answers for each sample [25; of several samples, 3 are shown and 25 written]",
    )
    parser.add_argument(
        "--mixture",
        type=int,
        choices=range(2, 6),
        help="fit the spectrum as a sum of those of at most so many molecules",
    )
    parser.add_argument(
        "--among", nargs="+", metavar="MOLECULE", help="names or SMILES that a mixture may be made of [all]"
    )
    parser.add_argument("--out", metavar="FILE", help="also write them: .csv, .parquet or .json")
    parser.add_shared("--overwrite")
    parser.add_argument(
        "--unit",
        nargs="+",
        default=[],
        help="axis of text files without one, for all or as ir=cm-1 uv-vis=nm",
    )
    parser.add_argument(
        "--quantity", nargs="+", default=[], help="values of text files, for all or as ir=transmittance"
    )
    parser.add_argument(
        "--reflectance",
        choices=("refuse", "log", "kubelka-munk"),
        default="refuse",
        help="how to convert one",
    )
    parser.add_argument(
        "--pipeline",
        choices=("auto", "measured", "none"),
        default="auto",
        help="steps for all spectra by what their files say, those of a measured one, or none [auto]",
    )
    parser.add_argument(
        "--scale",
        type=float,
        help="factor on the library's frequencies, such as 0.97 [shape: the best of 0.95 to 1.03]",
    )
    parser.add_argument(
        "--baseline",
        type=float,
        help="width of the baseline of measured spectra; 0 for none [40 line widths]",
    )
    parser.add_argument(
        "--smooth", type=float, default=0.0, help="window of a smoothing filter of measured spectra [none]"
    )
    parser.add_argument(
        "--range",
        nargs="+",
        default=[],
        metavar="LOW,HIGH",
        help="part that is compared, for all or as ir=600,3200",
    )
    parser.add_argument("--approximate", action="store_true", help="use the approximate index")
    parser.add_argument("--model", metavar="RUN", help="refuse an index that another model has made")
    parser.add_shared("--device")
    return parser


def _by_modality(words: Sequence[str], option: str) -> dict[str, str]:
    """Return values by modality, from words "modality=value", or "value" for all other modalities."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lower().replace("-", "_")
        if not equals:
            values = dict.fromkeys(MEASURED, word) | values
        elif key in MEASURED:
            values[key] = value
        else:
            raise SettingError(f"{option} {word}: {hint(key, MEASURED)}")
    return values


def _ranges(words: Sequence[str], files: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return ranges by modality, from words "modality=low,high", or "low,high" for all of the files."""
    ranges = {}
    for name, text in _by_modality(words, "--range").items():
        try:
            low, high = map(float, text.split(","))
        except ValueError:
            raise SettingError(f"--range {text}: two numbers are needed, such as 600,3200") from None
        if name in files:
            ranges[name] = low, high
    return ranges


def _scores(
    by: Sequence[str] | None, weights: Sequence[float] | None
) -> Sequence[str] | dict[str, float] | None:
    """Return the scores to rank by, with their weights if given."""
    if weights is None:
        return by
    if by is None:
        raise SettingError("--weights: name the ways they belong to with --by")
    if len(weights) != len(by) or len(set(by)) < len(by):
        raise SettingError(f"--weights: one for each of the {len(by)} ways of --by is needed, each way once")
    return dict(zip(by, weights, strict=True))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
