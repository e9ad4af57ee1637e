"""`molspectra audit-splits`: which test molecules occur in pre-training sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import InputError

if TYPE_CHECKING:
    from molspectra.training.config import DataConfig


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 with --strict where molecules were seen or may have been."""
    parser = CommandParser(
        "audit-splits",
        description="Tell which test molecules occur in pre-training sets, with and without spectra.",
        epilog="Exit code 0; with --strict 1 if a test molecule was seen in training, or may have been.",
    )
    where = "store (.arrow), or run directory"
    parser.add_argument("--test", required=True, metavar="STORE", help=f"{where}, whose own split is taken")
    parser.add_argument(
        "--pretrain", required=True, nargs="+", action="extend", metavar="STORE", help=f"{where}; any number"
    )
    for prefix, what in (("", "test store"), ("pretrain-", "pre-training stores")):
        default = "identity" if not prefix else "all"
        parser.add_argument(
            f"--{prefix}split",
            choices=("all", "identity", "reference"),
            default=default,
            help=f"how the {what} are split; all: every row counts",
        )
        parser.add_argument(f"--{prefix}split-seed", type=int, default=0, help="seed of that split")
        parser.add_argument(f"--{prefix}fractions", default="0.8,0.1,0.1", help="shares of an identity split")
        parser.add_argument(
            f"--{prefix}sizes", default="", help="rows of a reference split, for example 110000,10000"
        )
    parser.add_argument("--out", default=None, help="report to write: .json (all) or .csv (the molecules)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where molecules were seen")
    given = parser.parse_args(arguments)
    out = None if given.out is None else Path(given.out)
    if out is not None and out.suffix not in (".json", ".csv"):
        raise InputError(f"--out {out}: reports end in .json or .csv")
    if out is not None and out.exists() and not given.overwrite:
        raise InputError(f"{out} exists already; choose another name or give --overwrite")

    from molspectra.apps.audit import audit

    found = audit(
        given.test,
        given.pretrain,
        _split(given.split, given.split_seed, given.fractions, given.sizes),
        _split(
            given.pretrain_split, given.pretrain_split_seed, given.pretrain_fractions, given.pretrain_sizes
        ),
    )
    if out is not None:
        found.write(out)
    print(found.table())
    return int(given.strict and found.has_overlap)


def _split(kind: str, seed: int, fractions: str, sizes: str) -> DataConfig | None:
    """The settings of a split from the command line; None for all rows."""
    from molspectra.training.config import DataConfig
    from molspectra.training.settings import from_dict

    if kind == "all":
        return None
    values = {"split": kind, "split_seed": seed, "sizes": _numbers(sizes)}
    if kind == "identity":
        values["fractions"] = _numbers(fractions)
    return from_dict(DataConfig, values, "audit-splits")


def _numbers(text: str) -> list[object]:
    """The values of a list with commas, which the settings check."""
    import yaml

    from molspectra.training.settings import load_yaml

    try:
        return list(load_yaml(f"[{text}]"))
    except yaml.YAMLError as error:
        raise InputError(f"{text!r}: expected numbers with commas between them") from error
