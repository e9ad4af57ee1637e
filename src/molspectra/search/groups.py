"""Functional groups and the ranges of their infrared bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GroupEvidence:
    """What a spectrum says about one functional group of a candidate.

    Attributes:
        group: its name.
        present: whether the candidate has it.
        low: of the range looked at, cm⁻¹.
        high: of the range looked at, cm⁻¹.
        verdict: "supported", the candidate has it and a band is there; "contradicted", its band is always
            strong and nothing is measured there, or a strong band asks for it and the candidate lacks it;
            "open", all else.
        reason: a short sentence.
    """

    group: str
    present: bool
    low: float
    high: float
    verdict: Literal["supported", "contradicted", "open"]
    reason: str
