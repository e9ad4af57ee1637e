import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from molspectra.compiled import use
from molspectra.errors import SettingError, ValueRangeError
from molspectra.spectra.broadening import SHAPES, broaden
from molspectra.spectra.modality import IR, MODALITIES, RAMAN, UV_VIS


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def direct(position, intensity, modality, shape, fwhm):
    """The sum in float64, written down as in the textbook."""
    delta = modality.axis() - np.asarray(position, dtype=np.float64)[:, None]
    if shape == "lorentzian":
        profile = fwhm / (2 * math.pi) / (delta**2 + fwhm**2 / 4)
    else:
        profile = math.sqrt(4 * math.log(2) / math.pi) / fwhm * np.exp(-4 * math.log(2) * (delta / fwhm) ** 2)
    return np.asarray(intensity, dtype=np.float64) @ profile


def peak(spectrum, intensity, shape, fwhm):
    """What the error is measured by: the highest sample, or for a Gaussian at least the highest line.

    The tail of a Gaussian outside the axis may be smaller than any float32.
    """
    height = math.sqrt(4 * math.log(2) / math.pi) / fwhm * max(intensity, default=0.0)
    return max(spectrum.max(), height if shape == "gaussian" else 0.0)


def ragged(molecules):
    position = torch.tensor([p for lines in molecules for p, _ in lines], dtype=torch.float64)
    intensity = torch.tensor([i for lines in molecules for _, i in lines], dtype=torch.float64)
    offsets = torch.tensor([0, *np.cumsum([len(lines) for lines in molecules])], dtype=torch.int64)
    return position, intensity, offsets


def check(molecules, modality, shape, fwhm, tolerance=1e-5):
    for kernels in ("plain", "compiled") if shape == "lorentzian" else ("plain",):
        with use(kernels):
            spectra = broaden(*ragged(molecules), modality, shape=shape, fwhm=fwhm)
        compare(spectra, molecules, modality, shape, fwhm, tolerance)


def compare(spectra, molecules, modality, shape, fwhm, tolerance):
    assert spectra.shape == (len(molecules), modality.points)
    assert spectra.dtype == torch.float32
    assert not (spectra < 0).any()
    for lines, found in zip(molecules, spectra.double().numpy(), strict=True):
        position, intensity = ([line[k] for line in lines] for k in (0, 1))
        expected = direct(position, intensity, modality, shape, fwhm)
        assert np.abs(found - expected).max() <= tolerance * peak(expected, intensity, shape, fwhm)


INTENSITY = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
VIBRATION = st.one_of(
    st.floats(-500.0, 6000.0),  # imaginary modes and overtones lie outside the axis
    st.integers(500, 4000).map(float),  # on a point
    st.integers(500, 3999).map(lambda x: x + 0.5),  # between two
    st.sampled_from([500.0, 4000.0, 499.999, 4000.001, 563.9999, 564.0, 436.0, 435.9999]),
)
EXCITATION = st.one_of(st.floats(0.1, 40.0), st.integers(0, 700).map(lambda k: 1.0 + 0.02 * k))
BATCHES = st.lists(st.lists(st.tuples(VIBRATION, INTENSITY), max_size=12), max_size=4)


@settings(max_examples=50)
@given(molecules=BATCHES, shape=st.sampled_from(SHAPES), fwhm=st.floats(1.0, 100.0))
@example([[(435.9999, 1.0)]], "lorentzian", 1.0)  # the nearest line that is interpolated on the whole axis
@example([[(435.9999, 1.0)]], "lorentzian", 100.0)
@example([[(1000.0, 1.0)]], "gaussian", 38.0)  # steepest on the first interpolated block
@example([[(563.9999, 1.0), (564.0, 1.0)]], "gaussian", 60.0)
@example([[(1000.0 + 1e-7, 1.0)]], "lorentzian", 1.0)
@example([[], [(700.0, 1.0)], []], "lorentzian", 12.0)
@example([], "lorentzian", 12.0)
@example([[(1.0e6, 1.0)]], "lorentzian", 12.0)
def test_equal_to_the_direct_sum(molecules, shape, fwhm):
    check(molecules, IR, shape, fwhm)


@settings(max_examples=40)
@given(
    molecules=st.lists(st.lists(st.tuples(EXCITATION, INTENSITY), max_size=12), max_size=4),
    shape=st.sampled_from(SHAPES),
    fwhm=st.floats(0.02, 2.0),
)
def test_equal_to_the_direct_sum_for_excitations(molecules, shape, fwhm):
    check(molecules, UV_VIS, shape, fwhm)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fwhm", [1.0, 3.0, 12.0, 38.0, 60.0, 100.0])
def test_equal_to_the_direct_sum_wherever_a_line_lies_in_a_block(shape, fwhm):
    check([[(x, 1.0)] for x in np.linspace(366.0, 630.0, 67)], RAMAN, shape, fwhm)


def test_more_lines_than_are_worked_on_at_once():
    rng = np.random.default_rng(0)
    molecules = [
        list(zip(rng.uniform(50, 4000, n), rng.uniform(0, 9, n), strict=True)) for n in (700, 3, 0, 900)
    ]
    check(molecules, IR, "lorentzian", 12.0)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_spectrum_does_not_depend_on_its_batch_nor_on_the_order_of_its_lines(seed):
    rng = np.random.default_rng(seed)
    molecules = [
        list(zip(rng.uniform(0, 4500, n), rng.uniform(0, 9, n), strict=True)) for n in rng.integers(0, 40, 5)
    ]
    together = broaden(*ragged(molecules), IR)
    for lines, spectrum in zip(molecules, together, strict=True):
        alone = broaden(*ragged([list(reversed(lines))]), IR)[0]
        assert torch.allclose(alone, spectrum, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MODALITIES)
def test_the_default_shape_and_width_are_those_of_the_modality(name):
    kind = MODALITIES[name]
    lines = [[(kind.start + 100 * kind.step, 1.0)]]
    default = broaden(*ragged(lines), kind)
    assert torch.equal(default, broaden(*ragged(lines), kind, shape=kind.shape, fwhm=kind.fwhm, scale=1.0))
    height = math.sqrt(math.log(2) / math.pi) if kind.shape == "gaussian" else 1 / math.pi
    assert float(default.max()) == pytest.approx(2 * height / kind.fwhm, rel=1e-4)


def test_single_precision_and_integer_offsets_are_taken():
    position, intensity, offsets = ragged([[(1000.25, 1.0)], [(2000.0, 3.0)]])
    low = broaden(position.float(), intensity.float(), offsets.int(), IR)
    assert torch.equal(low, broaden(position, intensity, offsets, IR))


@pytest.mark.parametrize("kernels", ["plain", "compiled"])
def test_a_line_that_is_not_a_number_stays_in_its_molecule(kernels):
    lines = [[(1000.0, 1.0)], [(math.nan, 1.0)], [(1000.0, math.nan)], [(900.0, 1.0)]]
    with use(kernels):
        spectra = broaden(*ragged(lines), IR)
    assert spectra.isnan().any(dim=1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_compiled_kernel_equals_plain_torch_for_any_number_of_threads(threads, restored_threads):
    rng = np.random.default_rng(0)
    molecules = [
        list(zip(rng.uniform(-500, 6000, n), rng.uniform(0, 9, n), strict=True))
        for n in rng.integers(0, 60, 9)
    ]
    lines = ragged([*molecules, [(1.0e9, 1.0)], [(math.inf, 1.0)], [(-1.0e300, 1.0)]])
    torch.set_num_threads(threads)
    for modality in (IR, UV_VIS):
        with use("plain"):
            plain = broaden(*lines, modality)
        with use("compiled"):
            compiled = broaden(*lines, modality)
            torch.set_num_threads(1)
            assert torch.equal(compiled, broaden(*lines, modality))
        assert torch.allclose(compiled, plain, rtol=2e-6, atol=1e-6 * float(plain.max()))


@pytest.mark.parametrize("kernels", ["plain", "compiled"])
@pytest.mark.parametrize("offsets", [[0, 1, 3], [1, 1, 2], [0, 50, 2]])
def test_offsets_that_do_not_fit_are_refused(kernels, offsets):
    position, intensity, _ = ragged([[(1000.0, 1.0)], [(1000.0, 1.0)]])
    with use(kernels), pytest.raises(ValueError, match="do not ascend from 0 to 2 lines"):
        broaden(position, intensity, torch.tensor(offsets), IR)


@pytest.mark.parametrize("kernels", ["plain", "compiled"])
def test_every_line_has_an_intensity(kernels):
    position, intensity, offsets = ragged([[(1000.0, 1.0)], [(1000.0, 1.0)]])
    with use(kernels), pytest.raises(ValueError, match="1 intensities of 2 lines"):
        broaden(position, intensity[:1], offsets, IR)


def test_gradients_are_not_followed():
    position, intensity, offsets = ragged([[(1000.0, 1.0)]])
    assert not broaden(position.requires_grad_(), intensity.requires_grad_(), offsets, IR).requires_grad


@pytest.mark.parametrize(
    ("options", "message", "error"),
    [
        ({"shape": "voigt"}, "unknown line shape 'voigt'; known: lorentzian, gaussian", SettingError),
        ({"fwhm": 0.0}, "fwhm must be a positive number, not 0.0", ValueRangeError),
        ({"fwhm": -1.0}, "fwhm must be", ValueRangeError),
        ({"fwhm": math.nan}, "fwhm must be", ValueRangeError),
        ({"scale": math.inf}, "frequency scale must be", ValueRangeError),
        ({"scale": 0.0}, "frequency scale must be", ValueRangeError),
    ],
)
def test_bad_options_are_refused(options, message, error):
    with pytest.raises(error, match=message):
        broaden(*ragged([[(1000.0, 1.0)]]), IR, **options)
