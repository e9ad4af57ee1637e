"""Make datasets/bundled/molecules.csv: the known molecules, then molecules grown from them.

The known part is scripts/known_molecules.txt. The generated part starts from it and applies small edits
(add an atom or a nitro group, exchange an atom, change a bond, close a ring) for a few rounds. A result is
kept when each of its atoms has surroundings that occur in a known molecule, no unwanted pattern occurs, and
RDKit finds a conformer. The choice is stratified by number of heavy atoms and by formula, several isomers of
each. Everything follows from the fixed seed: `python scripts/make_molecule_list.py` writes the same file
(with the same RDKit release; the conformers that fix the stereo marks may differ between releases).
"""

import argparse
import csv
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, rdDistGeom
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ROOT / "scripts" / "known_molecules.txt"
OUTPUT = ROOT / "datasets" / "bundled" / "molecules.csv"
SEED = 20
TOTAL = 2400
MAX_HEAVY = 7
ROUNDS = 3
PARENTS_PER_ROUND = 2000
SHARE = {3: 0.01, 4: 0.05, 5: 0.15, 6: 0.33, 7: 0.46}  # of the generated part, by heavy atoms
ISOMERS = 14  # at most this many generated molecules of one formula

SINGLE, DOUBLE, TRIPLE = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE
ORDERS = (SINGLE, DOUBLE, TRIPLE)

# Patterns that no generated molecule may hold; the known ones are exempt.
UNWANTED = {
    name: Chem.MolFromSmarts(smarts)
    for name, smarts in {
        "enol, enethiol, enamine": "[CX3;!$(C=[O,S,N])]=[CX3]-[OX2H,SX2H,NX3H2,NX3H1]",
        "ynol, ynamine": "[CX2]#[CX2]-[O,N,S]",
        "imidic acid": "[OX2H,SX2H][CX3]=[NX2;!$(N-[OX2,NX3])]",
        "geminal diol, hemiaminal": "[OX2H,SX2H,NX3H2][CX4][OX2H,SX2H,NX3;!$(N-C=O)]",
        "hemiacetal": "[OX2H][CX4][OX2,SX2]",
        "alpha-halo alcohol, amine, thiol": "[F,Cl][CX4][OX2H,NX3;!$(N-C=O),SX2H]",
        "two different leaving groups": "[Cl][CX4][OX2,SX2]",
        "halogen on a heteroatom": "[F,Cl]-[O,N]",
        "peroxide": "[OX2]-[OX2]",
        "three heteroatoms in a row": "[OX2,SX2,NX3,NX2]~[OX2,SX2,NX3,NX2]~[OX2,SX2,NX3,NX2;A]",
        "sulfenyl": "[SX2]-[OX2,Cl,F,NX3,NX2;A]",
        "C-nitroso": "[#6]-[NX2]=O",
        "nitrite": "[OX2]-[NX2]=O",
        "cumulene": "[CX2](=[*])=[CX2]=[*]",
        "allene or ketene with a heteroatom": "[*]=[CX2]=[CX3]-[!#6]",
        "ketenimine": "[CX3]=[CX2]=[NX2]",
        "three-membered ring with a double bond": "[r3]=[r3]",
        "three-membered ring with an exocyclic heteroatom": "[r3]=[!#6]",
        "cyclobutadiene": "C1=CC=C1",
        "1,2-diazete": "N1=NCC1",
        "linear atom in a ring": "[R]#[*;R]",
        "allene in a ring": "[R]=[C;R]=[*]",
        "thiocarbonyl without nitrogen": "[CX3;!$(C-[NX3])]=S",
        "acid halide next to an acid proton": "[F,Cl]C(=O)[OX2H,NX3,SX2]",
        "two halogens and a carbonyl on one atom": "[Cl]C(=O)[Cl,F]",
        "cyanate": "[OX2]C#N",
        "acyl cyanide": "O=CC#N",
        "carbamic or carbonic acid": "[OX2H]C(=O)[N,O,S]",
        "beta-keto acid": "[OX2H]C(=O)C(=[O,N])[CX4,N]",
        "N-hydroxymethyl": "[OX2H][CX4][nX3,$(N-C=O)]",
        "imine with a free N-H": "[NX2H]=[CX3;!$(C-[NX3])]",
        "methylidene imine": "[CX3H2]=[NX2;!$(N-[O,N])]",
        "amine next to an aldehyde": "[NX3H2,NX3H1;!$(N-C=O)][CX4][CX3H1]=O",
        "persulfide": "[SX2H]-[SX2]",
        "fluoroalkyne": "[F]-[CX2]",
        "vinyl hydroxylamine": "[CX3]=[CX3]-[OX2,NX3]-[OX2,NX3;!$(N=O)]",
        "carbodiimide with a hydrogen or heteroatom": "[NX2;H,$(N-[O,N,S])]=C=N",
        "two fused three-membered rings": "[*]1~[*]2~[*]~[*]12",
        "four-membered ring enol ether": "[O,N,S;r4]-[C;r4]=[C;r4]",
        "hydrazine with a hydrogen on a ring of three": "[r3]-[NX3]-[NX3]",
        "aminal": "[NX3H2,NX3H1;!$(N-C=O)]-[CX4H2]-[OX2,SX2;!R]",
    }.items()
}
CUMULENE_CENTRE = Chem.MolFromSmarts("[*;R;X2;$([*](=*)=*),$([*]#*)]")


def read_known() -> list[tuple[str, str]]:
    """Return the lines of known_molecules.txt as (SMILES, name)."""
    lines = KNOWN.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def key_of(mol: Chem.Mol) -> str:
    """Return the first block of the InChIKey."""
    return str(Chem.MolToInchiKey(mol))[:14]


def surroundings(mol: Chem.Mol) -> set[tuple[object, ...]]:
    """Return one entry per atom: element, hydrogens, charge, ring size, and bonds with their other atoms."""
    environments = set()
    rings = mol.GetRingInfo()
    for atom in mol.GetAtoms():
        size = min(
            (n for n in (3, 4, 5) if rings.IsAtomInRingOfSize(atom.GetIdx(), n)), default=6 * atom.IsInRing()
        )
        bonds = sorted(
            (str(b.GetBondType()), b.GetOtherAtom(atom).GetSymbol(), b.GetOtherAtom(atom).GetFormalCharge())
            for b in atom.GetBonds()
        )
        ring = size if size in (3, 4) else bool(size)
        environments.add((atom.GetSymbol(), atom.GetTotalNumHs(), atom.GetFormalCharge(), ring, *bonds))
    return environments


def sane(mol: Chem.Mol, known: set[tuple[object, ...]]) -> bool:
    """Whether a generated molecule looks like something that can be kept in a bottle or a cold matrix."""
    if any(mol.HasSubstructMatch(p) for p in UNWANTED.values()) or mol.HasSubstructMatch(CUMULENE_CENTRE):
        return False
    rings = mol.GetRingInfo()
    if rings.NumRings() > 2 or sum(len(r) < 5 for r in rings.AtomRings()) > 1 + (mol.GetNumHeavyAtoms() > 5):
        return False
    for atom in mol.GetAtoms():  # anti-Bredt, and double bonds at the fusion of small rings
        double = any(b.GetBondType() != SINGLE for b in atom.GetBonds())
        if rings.NumAtomRings(atom.GetIdx()) > 1 and (double or atom.GetSymbol() != "C"):
            return False
    hetero = sum(a.GetSymbol() != "C" for a in mol.GetAtoms())
    if hetero > mol.GetNumHeavyAtoms() * 0.6:
        return False
    return surroundings(mol) <= known


def free_valence(atom: Chem.Atom) -> int:
    """Return the number of hydrogens that a bond can replace; 0 for charged atoms."""
    return 0 if atom.GetFormalCharge() else atom.GetTotalNumHs()


def edits(mol: Chem.Mol) -> Iterator[Chem.RWMol]:
    """Yield all single edits of a Kekulé structure, not sanitised."""
    n = mol.GetNumAtoms()
    for i in range(n):
        atom = mol.GetAtomWithIdx(i)
        if free_valence(atom):
            for element in (6, 7, 8, 9, 16, 17) if n < MAX_HEAVY else ():
                new = Chem.RWMol(mol)
                new.AddBond(i, new.AddAtom(Chem.Atom(element)), SINGLE)
                yield new
            if n + 3 <= MAX_HEAVY and atom.GetSymbol() in "CN":
                new = Chem.RWMol(mol)
                nitrogen, oxide = Chem.Atom(7), Chem.Atom(8)
                nitrogen.SetFormalCharge(1)
                oxide.SetFormalCharge(-1)
                at = new.AddAtom(nitrogen)
                new.AddBond(i, at, SINGLE)
                new.AddBond(at, new.AddAtom(Chem.Atom(8)), DOUBLE)
                new.AddBond(at, new.AddAtom(oxide), SINGLE)
                yield new
        if not atom.GetFormalCharge():
            for element in (6, 7, 8, 9, 16, 17):
                if element != atom.GetAtomicNum():
                    new = Chem.RWMol(mol)
                    new.ReplaceAtom(i, Chem.Atom(element))
                    yield new
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        order = ORDERS.index(bond.GetBondType())
        if order < 2 and all(free_valence(a) for a in ends):
            new = Chem.RWMol(mol)
            new.GetBondWithIdx(bond.GetIdx()).SetBondType(ORDERS[order + 1])
            yield new
        if order > 0 and not any(a.GetFormalCharge() for a in ends):
            new = Chem.RWMol(mol)
            new.GetBondWithIdx(bond.GetIdx()).SetBondType(ORDERS[order - 1])
            yield new
    distance = Chem.GetDistanceMatrix(mol)
    for i in range(n):
        for j in range(i + 1, n):
            if (
                distance[i, j] > 1
                and free_valence(mol.GetAtomWithIdx(i))
                and free_valence(mol.GetAtomWithIdx(j))
            ):
                new = Chem.RWMol(mol)
                new.AddBond(i, j, SINGLE)
                yield new


def finish(new: Chem.RWMol) -> Chem.Mol | None:
    """Return the sanitised molecule; None unless it is neutral, closed-shell and one fragment."""
    for atom in new.GetAtoms():
        atom.SetNoImplicit(False)
        atom.SetNumExplicitHs(0)
    try:
        mol = Chem.MolFromSmiles(Chem.MolToSmiles(new))
    except (RuntimeError, ValueError):
        return None
    if (
        mol is None
        or mol.GetNumAtoms() > MAX_HEAVY
        or Chem.GetFormalCharge(mol)
        or len(Chem.GetMolFrags(mol)) > 1
    ):
        return None
    return None if any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()) else mol


def grow(seeds: list[Chem.Mol], rng: random.Random) -> dict[str, Chem.Mol]:
    """Return accepted molecules by key, without the seeds, after ROUNDS rounds of edits."""
    known = set().union(*(surroundings(m) for m in seeds))
    seen = {key_of(m) for m in seeds}
    pool: dict[str, Chem.Mol] = {}
    parents = seeds
    for _ in range(ROUNDS):
        children = []
        smiles_seen = set()
        for parent in parents:
            kekule = Chem.RWMol(Chem.MolFromSmiles(Chem.MolToSmiles(parent, isomericSmiles=False)))
            Chem.Kekulize(kekule, clearAromaticFlags=True)
            for new in edits(kekule):
                mol = finish(new)
                if mol is None or (smiles := Chem.MolToSmiles(mol)) in smiles_seen:
                    continue
                smiles_seen.add(smiles)
                if not sane(mol, known) or (key := key_of(mol)) in seen:
                    continue
                seen.add(key)
                pool[key] = mol
                children.append(mol)
        parents = rng.sample(children, min(PARENTS_PER_ROUND, len(children)))
    return pool


def with_stereo(mol: Chem.Mol) -> str | None:
    """Return the SMILES if a conformer is found, else None.

    If double bonds or fused rings are unspecified, the SMILES is that of the conformer of lowest energy.
    """
    hydrogenated = Chem.AddHs(mol)
    if not rdDistGeom.EmbedMultipleConfs(hydrogenated, 6, randomSeed=SEED):
        return None
    rings = mol.GetRingInfo()
    fused = any(rings.NumAtomRings(i) > 1 for i in range(mol.GetNumAtoms()))
    open_bond = any(
        e.type == Chem.StereoType.Bond_Double and e.specified == Chem.StereoSpecified.Unspecified
        for e in Chem.FindPotentialStereo(mol)
    )
    if not (fused or open_bond) or not AllChem.MMFFHasAllMoleculeParams(hydrogenated):
        return str(Chem.MolToSmiles(mol))
    energies = [e for _, e in AllChem.MMFFOptimizeMoleculeConfs(hydrogenated, maxIters=2000)]
    Chem.AssignStereochemistryFrom3D(hydrogenated, energies.index(min(energies)))
    strip = Chem.RemoveHsParameters()
    strip.removeDefiningBondStereo = True  # the side of an imine's hydrogen stays open
    marked = Chem.RemoveHs(hydrogenated, strip)
    if not fused:  # keep only the double-bond marks; centres stay open as in the known part
        for atom in marked.GetAtoms():
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return str(Chem.MolToSmiles(marked))


def weight(formula: str) -> float:
    """Return the sampling weight of a formula: lower with halogens and sulfur than with C, H, N, O."""
    elements = set(re.findall("[A-Z][a-z]?", formula))
    return float(0.35 ** len(elements & {"S", "Cl"}) * 0.5 ** len(elements & {"F"}))


def choose(pool: dict[str, Chem.Mol], count: int, rng: random.Random) -> list[str]:
    """Return the stereo SMILES of `count` molecules of the pool, in random order."""
    chosen: list[str] = []
    by_size: dict[int, dict[str, list[Chem.Mol]]] = defaultdict(lambda: defaultdict(list))
    for key in sorted(pool):
        by_size[pool[key].GetNumAtoms()][CalcMolFormula(pool[key])].append(pool[key])
    target = 0.0
    for size in sorted(SHARE):  # the next larger size fills what a size lacks
        target += SHARE[size] * count
        groups = by_size[size]
        for group in groups.values():
            rng.shuffle(group)
        taken: Counter[str] = Counter()
        while len(chosen) < round(target):
            open_ones = [f for f in groups if groups[f] and taken[f] < ISOMERS]
            if not open_ones:
                break
            rates = [weight(f) * (len(groups[f]) + taken[f]) for f in open_ones]
            formula = rng.choices(open_ones, rates)[0]
            if smiles := with_stereo(groups[formula].pop()):
                chosen.append(smiles)
                taken[formula] += 1
    rng.shuffle(chosen)
    return chosen


def main() -> None:
    """Write the list and print its composition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--total", type=int, default=TOTAL)
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    rng = random.Random(SEED)
    known = read_known()
    seeds = [Chem.MolFromSmiles(smiles) for smiles, _ in known]
    rows = [(with_stereo(mol), name) for mol, (_, name) in zip(seeds, known, strict=True)]
    if missing := [name for smiles, name in rows if smiles is None]:
        raise SystemExit(f"no conformer for: {', '.join(missing)}")
    rng.shuffle(rows)
    pool = grow(seeds, rng)
    rows += [(smiles, "") for smiles in choose(pool, args.total - len(rows), rng)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("smiles", "name"))
        writer.writerows(rows)
    formulas = Counter(CalcMolFormula(Chem.MolFromSmiles(smiles)) for smiles, _ in rows)
    sizes = Counter(Chem.MolFromSmiles(smiles).GetNumAtoms() for smiles, _ in rows)
    print(f"{len(rows)} molecules, {len(known)} known, {len(pool)} candidates, {len(formulas)} formulas")
    print("by heavy atoms:", dict(sorted(sizes.items())), "| most isomers:", formulas.most_common(5))


if __name__ == "__main__":
    main()
