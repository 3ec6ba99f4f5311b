"""Give HaleBrain thousands of damaged inputs, and count those that do not end as promised.

    python benchmarks/fuzz.py -n 10000 --seed 0 [--jobs 2] [--kinds nifti,bundle]
    python benchmarks/fuzz.py --seed 0 --only 4711 --keep DIR

Every input must be accepted, or refused by a `HalebrainError`: one line that says what to do, with an exit code that is
documented. A traceback, other words on stderr, a wait, a demand for more memory than the limit, a file half written, or
a result that cannot be right is a fault. The same seed and number are the same input, whatever `-n`.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import fuzzing
from fuzzing.base import KINDS
from fuzzing.judge import Judge, Outcome

_CHUNK = 25


def run_numbers(numbers: Iterable[int], judge: Judge, *, current: Path | None = None) -> list[Outcome]:
    """Return how the inputs of these numbers end, in this process.

    Args:
        numbers: Of the inputs.
        judge: Judges them.
        current: Folder in which the number that is tried is kept, for whoever finds this process dead.
    """
    outcomes = []
    with judge:
        for number in numbers:
            if current is not None:
                (current / multiprocessing.current_process().name).write_text(str(number))
            outcomes.append(judge.judge(number))
    return outcomes


def run_all(options: argparse.Namespace, judge: Judge) -> Iterator[Outcome]:
    """Yield how every input ends, tried in processes of their own."""
    chunks = [range(a, min(a + _CHUNK, options.n)) for a in range(0, options.n, _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        run = partial(run_numbers, judge=judge, current=Path(folder))
        try:
            with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_quiet) as pool:
                for outcomes in pool.map(run, chunks):
                    yield from outcomes
        except BrokenProcessPool:
            tried = sorted(int(path.read_text()) for path in Path(folder).iterdir())
            yield Outcome(tried[0], "?", f"one of {tried}", fault="a process died", detail="try each with --only")


def _quiet() -> None:
    """Do what the command line does once in a process."""
    import torch

    from halebrain.core.progress import SETTINGS

    SETTINGS.enabled = False
    torch.set_num_threads(1)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return kind, inputs, accepted, refused and faults, a line each, and what was refused how often."""
    lines = [f"{'kind':12}{'inputs':>8}{'accepted':>10}{'refused':>9}{'faults':>8}"]
    for name in [*sorted({one.kind for one in outcomes}), ""]:
        own = [one for one in outcomes if name in ("", one.kind)]
        faults = sum(bool(one.fault) for one in own)
        refused = sum(bool(one.rule) and not one.fault for one in own)
        counts = f"{len(own):8}{len(own) - faults - refused:10}{refused:9}{faults:8}"
        lines.append(f"{name or 'all':12}{counts}")
    return "\n".join(lines)


def rules(outcomes: Sequence[Outcome]) -> str:
    """Return how many inputs of each kind each rule refused, most first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in outcomes:
        if one.rule and not one.fault:
            counts[one.kind][one.rule] += 1
    lines = []
    for name in sorted(counts):
        lines.append(f"{name}: {len(counts[name])} rules")
        lines += [f"  {count:5}  {rule}" for rule, count in counts[name].most_common()]
    return "\n".join(lines)


def faults(outcomes: Sequence[Outcome], seed: int) -> str:
    """Return every kind of fault with its count and the first input that shows it."""
    found: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.fault:
            found[one.kind, one.fault].append(one)
    lines = []
    for (name, fault), some in sorted(found.items(), key=lambda item: -len(item[1])):
        last = some[0].detail.strip().splitlines()[-1:] or [""]
        lines.append(f"{len(some):5}  {name}: {fault}")
        lines.append(f"       --seed {seed} --only {some[0].number}   {some[0].about[:100]!r}")
        lines.append(f"       {last[0][:160]}")
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000, help="inputs (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--kinds", default="", help=f"only these, with commas: {', '.join(sorted(KINDS))}")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input alone, with the traceback of its fault")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the files of --only in DIR/NUMBER")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest that an input may take (60)")
    parser.add_argument("--memory-mib", type=int, default=1024, help="most memory that an input may ask for (1024)")
    options = parser.parse_args(arguments)
    options.kinds = tuple(name for name in options.kinds.split(",") if name)
    if unknown := set(options.kinds) - KINDS.keys():
        parser.error(f"--kinds knows {', '.join(sorted(KINDS))}, not {', '.join(sorted(unknown))}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and return 1 where there are faults."""
    options = _options(arguments)
    keep = options.keep if options.only is not None else None
    how = {"seconds": options.seconds, "memory_mib": options.memory_mib, "only": options.kinds, "keep": keep}
    judge = Judge(options.seed, **how)
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    if options.only is not None:
        _quiet()
        outcomes = run_numbers([options.only], judge)
        for one in outcomes:
            print(f"{one.kind}: {one.about}\n{one.detail or one.rule or 'accepted'}")
    else:
        for one in run_all(options, judge):
            outcomes.append(one)
            if len(outcomes) % 1000 == 0:
                wrong = sum(bool(some.fault) for some in outcomes)
                print(f"{len(outcomes)} inputs, {wrong} faults, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    seconds = time.perf_counter() - start
    told = faults(outcomes, options.seed)
    print(table(outcomes), rules(outcomes), told or "no fault", sep="\n\n")
    print(
        f"\n{len(outcomes)} inputs in {seconds:.0f} s: {len(outcomes) / seconds:.1f}/s with {options.jobs} process(es)"
    )
    return 1 if told else 0


__all__ = ["fuzzing", "main", "run_numbers"]

if __name__ == "__main__":
    sys.exit(main())
