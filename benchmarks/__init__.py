"""What measures this package; its modules run from the repository root: `python -m benchmarks.steps --help`.

`python -m benchmarks` measures everything about speed and writes one page. The scripts about datasets stand
alone: `python benchmarks/prepare_qm9.py`.
"""
