"""Time, memory and efficiency of whole steps at the paper's sizes.

    python -m benchmarks.steps --config qm9-stage1 --batch 128 --steps 10 --threads 2 --json
    python -m benchmarks.steps --config qm9-stage2 --batch 32 --compare plain
    python -m benchmarks.steps --config md17-finetune --profile

A step is all that the training loop does with a batch: gradients to zero, noise, neighbour list, forward,
backward, AdamW. Making the batch is timed apart. The last line is JSON (alone with --json); what its entries
mean, and the formula of `efficiency`, stand in docs/performance.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIGS = ("qm9-stage1", "qm9-stage2", "qm9-finetune", "md17-finetune", "qm9-inference", "md17-force")
WARM_UP = 2
"""Steps that do not count: the first compiles, and fills the allocator's pools."""


def positive(text: str) -> int:
    """A whole number above 0, of the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        "python -m benchmarks.steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--config", choices=CONFIGS, required=True, help="kind of step")
    found.add_argument("--batch", type=positive, help="molecules of a step; default 128, MD17 8, forces 1")
    found.add_argument("--steps", type=positive, default=10, help="steps that are timed")
    found.add_argument("--threads", type=positive, default=2, help="threads")
    found.add_argument("--mode", choices=("reference", "default"), default="reference", help="variants")
    found.add_argument("--precision", choices=("32-true", "bf16-mixed", "64-true"), default="32-true")
    found.add_argument("--kernels", choices=("auto", "plain", "compiled"), default="auto")
    found.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    found.add_argument(
        "--allocator",
        choices=("tuned", "default"),
        default="tuned",
        help="tuned: as the command line sets it",
    )
    found.add_argument("--compare", choices=("plain",), help="time plain torch and --kernels by turns")
    found.add_argument("--profile", action="store_true", help="show the largest operators of one step")
    found.add_argument("--tiny", action="store_true", help="a tiny model: a test of this program")
    found.add_argument("--json", action="store_true", help="print nothing but JSON")
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run a case; what is returned becomes the JSON."""
    import torch

    from benchmarks.cases import CASES, Options, Workload
    from benchmarks.machine import facts, peak_memory_gb, spread
    from molspectra import compiled

    torch.set_num_threads(options.threads)
    case = CASES[options.config]
    batch = options.batch or case.batch
    chosen = Options(batch, options.mode, options.precision, options.device, options.tiny)
    with tempfile.TemporaryDirectory() as folder, compiled.use(options.kernels):
        workload = Workload(options.config, chosen, Path(folder))
        turns = (options.compare, options.kernels) if options.compare else (options.kernels,)
        steps = run(workload, turns, options.steps)
        if options.profile:
            print(profile(workload), file=sys.stderr)
    mine = [step for step in steps if step["kernels"] == turns[-1]]
    times = [step["seconds"] for step in mine]
    median = statistics.median(times)
    sizes = mine[0]["sizes"]
    used = zip(*(step["usage"] for step in mine), strict=True)
    processor, system, faults = map(statistics.median, used)
    result = {
        "config": options.config,
        "mode": options.mode,
        "batch": batch,
        "steps": options.steps,
        "threads": options.threads,
        "precision": options.precision,
        "kernels": options.kernels,
        "numba_used": compiled.installed() and options.kernels != "plain" and options.device == "cpu",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "allocator": options.allocator,
        "atoms_per_molecule": round(sizes.atoms / sizes.molecules, 2),
        "edges_per_atom": round(sizes.edges / sizes.atoms, 2),
        "median_seconds": median,
        "spread": spread(times),
        "molecules_per_second": batch / median,
        "processor_seconds": processor,
        "system_seconds": system,
        "page_faults": faults,
        "peak_memory_gb": peak_memory_gb(),
        "batch_seconds": statistics.median(step["batch_seconds"] for step in mine),
        "flop": statistics.median(step["flop"] for step in mine),
        "matmul_gflops": statistics.median(step["rate"] for step in mine),
        "efficiency": statistics.median(step["flop"] / step["seconds"] / step["rate"] / 1e9 for step in mine),
        **facts(),
    }
    if options.device == "cuda":
        result["device_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    if options.compare:
        others = [step["seconds"] for step in steps if step["kernels"] != turns[-1]] or times
        result |= {
            "plain_median_seconds": statistics.median(others),
            "speedup": statistics.median(a / b for a, b in zip(others, times, strict=True)),
        }
    return result


def run(workload: Any, turns: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Time `count` steps with every choice of kernels, by turns, each on the same batch."""
    from benchmarks.machine import MatrixRate, seconds, usage
    from molspectra import compiled

    rate, device, inner = MatrixRate(workload.device), workload.device, workload.case.inner
    steps = []
    for number in range(-WARM_UP, count):
        made: list[Any] = []
        batch_seconds = seconds(lambda made=made, k=number: made.append(workload.prepare(k + WARM_UP)))
        micros = made[0]
        sizes = workload.sizes(micros[0].batch)
        for kernels in turns:
            before, used = rate(), usage()
            with compiled.use(kernels):
                time = seconds(lambda micros=micros: [workload.run(micros) for _ in range(inner)], device)
            used = [(now - then) / inner for now, then in zip(usage(), used, strict=True)]
            steps.append(
                {
                    "kernels": kernels,
                    "usage": used,
                    "seconds": time / inner,
                    "batch_seconds": batch_seconds,
                    "rate": (before + rate()) / 2,
                    "sizes": sizes,
                    "flop": workload.operations(sizes),
                }
            )
    return steps[WARM_UP * len(turns) :]


def profile(workload: Any, rows: int = 25) -> str:
    """A table of the operators that take most time of their own in one step."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = workload.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    micros = workload.prepare(0)
    with profile(activities=kinds) as profiler:
        workload.run(micros)
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=60)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    options = parser().parse_args(arguments)
    if options.allocator == "tuned":
        from molspectra.apps.process import prepare_process

        prepare_process()
    result = measure(options)
    if not options.json:
        for name, value in result.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
