import numpy as np
import pytest

from molspectra.errors import NotFoundError
from molspectra.spectra.modality import IR, MODALITIES, RAMAN, UV_VIS, modality


@pytest.mark.parametrize(
    ("kind", "points", "patches", "first", "second", "last"),
    [
        (UV_VIS, 701, 69, 1.0, 1.02, 15.0),
        (IR, 3501, 139, 500.0, 501.0, 4000.0),
        (RAMAN, 3501, 139, 500.0, 501.0, 4000.0),
    ],
)
def test_axes_and_patches_are_the_published_ones(kind, points, patches, first, second, last):
    axis = kind.axis()
    assert (kind.points, kind.patches) == (points, patches)
    assert axis.shape == (points,)
    assert axis.dtype == np.float64
    assert axis[[0, 1, -1]] == pytest.approx([first, second, last], rel=1e-14)
    assert np.diff(axis) == pytest.approx(kind.step, rel=1e-9)


def test_the_patches_together_make_347_tokens_and_stay_inside_the_axis():
    assert list(MODALITIES) == ["uv_vis", "ir", "raman", "dos_occupied", "dos_virtual"]
    assert sum(MODALITIES[name].patches for name in ("uv_vis", "ir", "raman")) == 347
    for kind in MODALITIES.values():
        last = (kind.patches - 1) * kind.stride + kind.patch
        assert kind.points - kind.stride < last <= kind.points


def test_modalities_are_found_by_name():
    assert modality("ir") is IR
    assert MODALITIES["raman"] is RAMAN


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("UV-Vis", "did you mean 'uv_vis'"),
        ("ramen", "did you mean 'raman'"),
        ("IR", "did you mean 'ir'"),
        ("nmr", "known: uv_vis, ir, raman"),
    ],
)
def test_an_unknown_name_gets_a_hint(name, hint):
    with pytest.raises(NotFoundError, match=hint):
        modality(name)
