"""Geometry optimisation: quasi-Newton steps in Cartesian coordinates from a model Hessian. Atomic units."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt

from molspectra.errors import SimulationError

Array = npt.NDArray[np.float64]

MAX_STEPS = 400
GRADIENT_TOLERANCE = 5e-6
"""Largest component of the gradient at convergence, Hartree/bohr."""

# Lindh et al., Chem. Phys. Lett. 241 (1995) 423: rho = exp(alpha (r_ref² − r²)) by rows of the periodic table
_ALPHA = np.array([[1.0, 0.3949, 0.3949], [0.3949, 0.28, 0.28], [0.3949, 0.28, 0.28]])
_REFERENCE = np.array([[1.35, 2.10, 2.53], [2.10, 2.87, 3.40], [2.53, 3.40, 3.40]])
_STRETCH, _BEND, _TORSION = 0.45, 0.15, 0.005
_FLOOR = 0.003  # curvature of directions that no coordinate of the model covers, Hartree/bohr²
_CUT = 1e-4  # product of rho below which a coordinate is left out


def model_hessian(numbers: npt.NDArray[np.int64], positions: Array) -> Array:
    """Return Lindh's model Hessian [3N, 3N] (Hartree/bohr²), from distances only.

    Args:
        numbers: atomic numbers [N].
        positions: coordinates [N, 3], bohr.
    """
    n = len(numbers)
    row = np.digitize(numbers, [3, 11])
    offset = positions[:, None] - positions[None, :]
    square = (offset**2).sum(-1)
    rho = np.exp(_ALPHA[row[:, None], row] * (_REFERENCE[row[:, None], row] ** 2 - square))
    np.fill_diagonal(rho, 0.0)
    rho = np.minimum(rho, 2.0)
    vectors: list[Array] = []
    unit = offset / np.sqrt(square + np.eye(n))[:, :, None]

    def add(weight: float, atoms: tuple[int, ...], parts: tuple[Array, ...]) -> None:
        vector = np.zeros((n, 3))
        for atom, part in zip(atoms, parts, strict=True):
            vector[atom] += part
        vectors.append(np.sqrt(weight) * vector.ravel())

    for i, j in combinations(range(n), 2):
        if rho[i, j] > _CUT:
            add(_STRETCH * rho[i, j], (i, j), (unit[i, j], -unit[i, j]))
    for j in range(n):
        near = np.flatnonzero(rho[j] > 1e-2).tolist()
        for i, k in combinations(near, 2):
            strength = rho[i, j] * rho[j, k]
            if strength > _CUT * 10:
                for bend in bend_vectors(offset[i, j], offset[k, j]):
                    add(_BEND * strength, (i, j, k), bend)
    for j, k in combinations(range(n), 2):
        if rho[j, k] < 0.3:
            continue
        for i in np.flatnonzero(rho[j] > 0.3).tolist():
            for m in np.flatnonzero(rho[k] > 0.3).tolist():
                if i in (j, k) or m in (j, k) or i == m:
                    continue
                torsion = torsion_vector(offset[i, j], offset[k, j], offset[m, k])
                if torsion is not None:
                    add(_TORSION * rho[i, j] * rho[j, k] * rho[k, m], (i, j, k, m), torsion)
    matrix = np.array(vectors).reshape(-1, 3 * n)
    return matrix.T @ matrix + _FLOOR * np.eye(3 * n)


def positive(hessian: Array, floor: float = 1e-5) -> Array:
    """Return the Hessian with absolute eigenvalues of at least `floor` (Hartree/bohr²), to leave a saddle."""
    values, vectors = np.linalg.eigh(hessian)
    return np.asarray((vectors * np.maximum(np.abs(values), floor)) @ vectors.T, dtype=np.float64)


def bend_vectors(first: Array, second: Array) -> list[tuple[Array, Array, Array]]:
    """Return derivatives of the angle between two vectors from its apex; two perpendicular ones if linear."""
    r1, r2 = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    e1, e2 = first / r1, second / r2
    cosine = float(e1 @ e2)
    if abs(cosine) < 0.99:
        sine = np.sqrt(1 - cosine**2)
        a, c = (cosine * e1 - e2) / (r1 * sine), (cosine * e2 - e1) / (r2 * sine)
        return [(a, -a - c, c)]
    helper = np.eye(3)[int(np.argmin(np.abs(e1)))]
    normal = np.cross(e1, helper)
    normal /= np.linalg.norm(normal)
    sides = (normal, np.cross(e1, normal))
    sign = np.sign(cosine)
    return [(u / r1, -u / r1 + sign * u / r2, -sign * u / r2) for u in sides]


def torsion_vector(ij: Array, kj: Array, mk: Array) -> tuple[Array, Array, Array, Array] | None:
    """Return the derivatives of the dihedral i-j-k-m from r_i − r_j, r_k − r_j, r_m − r_k.

    None if three of the atoms are collinear.
    """
    length = float(np.linalg.norm(kj))
    a, b = np.cross(ij, kj), np.cross(mk, kj)
    aa, bb = float(a @ a), float(b @ b)
    if aa < 0.05 * float(ij @ ij) * length**2 or bb < 0.05 * float(mk @ mk) * length**2:
        return None
    di, dm = length / aa * a, -length / bb * b
    s, t = float(ij @ kj) / length**2, float(mk @ kj) / length**2
    dj = (s - 1) * di + t * dm
    dk = -s * di - (1 + t) * dm
    return di, dj, dk, dm


def minimise(
    function: Callable[[Array], tuple[float, Array]],
    positions: Array,
    start: Array,
    tolerance: float = GRADIENT_TOLERANCE,
    noise: float = 1e-8,
) -> Array:
    """Minimise an energy by rational-function steps with BFGS updates and a trust radius.

    Args:
        function: positions [N, 3] (bohr) → energy (Hartree), gradient [N, 3].
        positions: start [N, 3], bohr.
        start: initial Hessian [3N, 3N], Hartree/bohr².
        tolerance: largest gradient component at convergence, Hartree/bohr.
        noise: rise of the energy that a good step may show, Hartree: that of the SCF, or of a gradient that
            is not quite the energy's.

    Returns:
        The positions of the minimum [N, 3], bohr.

    Raises:
        SimulationError: no convergence in `MAX_STEPS` steps.
    """

    def flat(x: Array) -> tuple[float, Array]:
        energy, gradient = function(x.reshape(positions.shape))
        return energy, gradient.ravel()

    x, matrix, trust = positions.ravel().copy(), start.copy(), 0.4
    energy, gradient = flat(x)
    for _ in range(MAX_STEPS):
        if np.abs(gradient).max() < tolerance:
            return x.reshape(positions.shape)
        step = _rational_step(matrix, gradient, trust)
        new_energy, new_gradient = flat(x + step)
        predicted = gradient @ step + 0.5 * step @ matrix @ step
        change = new_energy - energy
        matrix = _bfgs(matrix, step, new_gradient - gradient)
        if change > noise:
            trust = 0.25 * float(np.linalg.norm(step))
            if trust > 1e-4:
                continue
        elif change < 0.75 * predicted and np.linalg.norm(step) > 0.8 * trust:
            trust = min(2 * trust, 0.8)
        trust = max(trust, 1e-3)
        x, energy, gradient = x + step, new_energy, new_gradient
    raise SimulationError(
        f"geometry optimisation did not converge in {MAX_STEPS} steps "
        f"(gradient {np.abs(gradient).max():.1e} Hartree/bohr)"
    )


def _rational_step(matrix: Array, gradient: Array, trust: float) -> Array:
    """Return the rational-function step, at most `trust` long (Banerjee et al., J. Phys. Chem. 1985, 89)."""
    values, vectors = np.linalg.eigh(matrix)
    slopes = vectors.T @ gradient
    size = len(values)
    augmented = np.zeros((size + 1, size + 1))
    augmented[np.arange(size), np.arange(size)] = values
    augmented[:size, size] = augmented[size, :size] = slopes
    shift = np.linalg.eigvalsh(augmented)[0]
    step: Array = -(vectors @ (slopes / np.maximum(values - shift, 1e-8)))
    length = float(np.linalg.norm(step))
    return step * min(1.0, trust / length)


def _bfgs(matrix: Array, step: Array, change: Array) -> Array:
    """Return the Hessian after a BFGS update, unchanged if the curvature along the step is not positive."""
    curvature = float(step @ change)
    if curvature < 1e-12:
        return matrix
    image = matrix @ step
    return matrix + np.outer(change, change) / curvature - np.outer(image, image) / float(step @ image)
