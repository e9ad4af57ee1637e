"""`molspectra audit-splits`: which test molecules occur in pre-training sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import SettingError
from molspectra.printable import say

if TYPE_CHECKING:
    from molspectra.training.config import DataConfig


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or with --strict 1 if test molecules were seen or may have been."""
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
            choices=("all", "identity", "scaffold", "column", "reference"),
            default=default,
            help=f"how the {what} are split; all: every row counts",
        )
        parser.add_argument(f"--{prefix}split-seed", type=int, default=0, help="seed of that split")
        parser.add_argument(
            f"--{prefix}fractions", default="0.8,0.1,0.1", help="shares of an identity or scaffold split"
        )
        parser.add_argument(f"--{prefix}split-column", default="", help="column of a column split")
        parser.add_argument(
            f"--{prefix}sizes", default="", help="rows of a reference split, for example 110000,10000"
        )
    parser.add_argument("--out", default=None, help="report to write: .json (all) or .csv (the molecules)")
    parser.add_shared("--overwrite")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where molecules were seen")
    options = parser.parse_args(arguments)

    from molspectra.apps.audit import SUFFIXES, audit
    from molspectra.data.output import free_path

    if options.out is not None:
        free_path(options.out, SUFFIXES, overwrite=options.overwrite)
    result = audit(
        options.test,
        options.pretrain,
        _split(vars(options), ""),
        _split(vars(options), "pretrain_"),
    )
    if options.out is not None:
        result.write(Path(options.out))
    say(result.table())
    return int(options.strict and result.has_overlap)


def _split(options: dict[str, Any], prefix: str) -> DataConfig | None:
    """Return the settings of a split from the options with a prefix; None for all rows."""
    from molspectra.training.config import DataConfig
    from molspectra.training.settings import from_dict

    kind = options[f"{prefix}split"]
    if kind == "all":
        return None
    values = {"split": kind, "split_seed": options[f"{prefix}split_seed"]}
    values["sizes"] = _numbers(options[f"{prefix}sizes"])
    values["split_column"] = options[f"{prefix}split_column"]
    if kind in ("identity", "scaffold"):
        values["fractions"] = _numbers(options[f"{prefix}fractions"])
    return from_dict(DataConfig, values, "audit-splits")


def _numbers(text: str) -> list[object]:
    """Return the values of a comma-separated list; the settings check their types."""
    import yaml

    from molspectra.training.settings import load_yaml

    try:
        return list(load_yaml(f"[{text}]"))
    except yaml.YAMLError as error:
        raise SettingError(f"{text!r}: expected numbers with commas between them") from error
