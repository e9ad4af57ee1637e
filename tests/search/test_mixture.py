"""The components of mixtures, and how many there are."""

import csv

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from molspectra.apps.cli import main
from molspectra.errors import NotFoundError, SettingError, ValueRangeError
from molspectra.search.library import Library
from molspectra.search.mixture import _Fit, mixture
from molspectra.search.query import Prepared
from molspectra.spectra.modality import IR

EVERYWHERE = np.ones(IR.points, bool)


@pytest.fixture(scope="module")
def library(made):
    return Library(made)


def spectrum(signed):
    return {"ir": Prepared(np.maximum(signed, 0), signed, EVERYWHERE, EVERYWHERE, False)}


def total(small, shares):
    """Sum [points] of spectra of rows, with these shares of the area and a largest value of 1."""
    parts = {row: small.spectrum(row, "ir").broadened().values for row in shares}
    values = sum(share * parts[row] / parts[row].sum() for row, share in shares.items())
    return values / values.max()


@settings(deadline=None, max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.integers(0, 59), min_size=2, max_size=2, unique=True),
    st.floats(0.3, 0.5),
    st.sampled_from((0.98, 1.0, 1.01)),
)
def test_a_sum_gives_its_parts_back(library, small, rows, first, scale):
    weights = [first] + [(1 - first) / (len(rows) - 1)] * (len(rows) - 1)
    axis = IR.axis()
    moved = np.interp(axis / scale, axis, total(small, dict(zip(rows, weights, strict=True))))
    found = mixture(library, spectrum(moved), components=len(rows))
    shares = {each["row"]: each["share"] for each in found}
    assert set(shares) == set(rows)
    np.testing.assert_allclose([shares[row] for row in rows], weights, atol=0.06)
    assert sum(shares.values()) == pytest.approx(1)
    assert sorted(shares.values(), reverse=True) == list(shares.values())


def test_shares_uncertainties_and_the_number(library, small):
    found = mixture(library, spectrum(total(small, {4: 0.3, 11: 0.7})), components=4)
    assert [each["row"] for each in found] == [11, 4]
    assert [each["share"] for each in found] == pytest.approx([0.7, 0.3], abs=0.02)
    assert all(each["uncertainty"] < 0.02 and each["residual"] < 0.05 for each in found)
    assert any("no further component" in remark for remark in found.remarks)
    assert any("not of moles" in remark for remark in found.remarks)
    three = spectrum(total(small, {4: 0.3, 11: 0.4, 20: 0.3}))
    assert any("one more component" in remark for remark in mixture(library, three, components=2).remarks)


def test_a_residual_bears_wrong_intensities():
    fit = _Fit(np.array([[0.5, 0.5]]), np.array([0]), np.array([1.0, 0.2]), np.array([1.0, 1.0]))
    assert fit.residual([0], fit.solved([0])[0]) == pytest.approx(1 / 3)


def test_candidates_without_a_band_in_common(library):
    signed = np.exp(-(((IR.axis() - 2500) / 15) ** 2)) - 0.05  # below zero where the candidates' bands are
    with pytest.raises(NotFoundError, match="no candidate has a band"):
        mixture(library, spectrum(signed), components=2)


def test_a_pure_substance_is_one(library, small):
    for row in (4, 30):
        (one,) = mixture(library, spectrum(total(small, {row: 1.0})))
        assert (one["row"], one["share"], one["uncertainty"]) == (row, 1, pytest.approx(0, abs=1e-9))


def test_filters_and_molecules_to_choose_from(library, small):
    query = spectrum(total(small, {4: 0.5, 11: 0.5}))
    table = library.table.select(["identity", "smiles", "name"]).to_pylist()
    offered = [table[row]["smiles"] for row in (4, 11, 20, 30)]
    found = mixture(library, query, among=offered)
    assert {each["row"] for each in found} == {4, 11}
    assert found.candidates == 4
    (named,) = [row for row in range(60) if table[row]["name"]][:1]
    (only,) = mixture(library, query, among=[table[named]["name"].upper()])
    assert only["row"] == named
    carbon = mixture(library, query, elements=["C", "H"])
    assert all(set(each["formula"]) <= set("CH0123456789") for each in carbon)
    with pytest.raises(NotFoundError, match="candidate"):
        mixture(library, query, formula="C60")
    wrong = table[named]["name"][:-1] + "x"
    with pytest.raises(NotFoundError, match=f"{wrong}.*did you mean '{table[named]['name']}'"):
        mixture(library, query, among=[wrong])


def test_what_is_no_mixture(library, small):
    noise = np.random.default_rng(0).normal(0, 0.3, IR.points)
    with pytest.raises(ValueRangeError, match="noise"):
        mixture(library, spectrum(noise))
    query = spectrum(total(small, {4: 1.0}))
    with pytest.raises(ValueRangeError, match="6"):
        mixture(library, query, components=6)
    with pytest.raises(SettingError, match="2"):
        mixture(library, query | {"raman": small.spectrum(4, "raman")})


def test_the_command(made, small, tmp_path, capsys):
    points = np.column_stack([IR.axis(), total(small, {4: 0.4, 11: 0.6})])
    for name in ("a.csv", "b.csv"):
        np.savetxt(tmp_path / name, points, delimiter=",", header="cm-1,absorbance", comments="")
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    query = ["search", str(made), "--pipeline", "none", "--mixture", "3", "--ir"]
    assert main([*query, files[0], "--out", str(tmp_path / "one.csv")]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == [
        *("rank", "share", "uncertainty", "residual", "formula", "name", "smiles")
    ]
    assert "no further component" in said.err
    with open(tmp_path / "one.csv", newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["11", "4"]
    assert main([*query, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["a.csv"] * 2 + ["b.csv"] * 2
    for wrong in (["--among", "nosuchmolecule"], ["--top", "3"], ["--mixture", "9"]):
        assert main([*query, files[0], *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert wrong[0].removeprefix("--") in line or wrong[1] in line
    assert main(["search", str(made), "--ir", files[0], "--among", "CCO"]) == 2
    assert "--mixture" in capsys.readouterr().err
