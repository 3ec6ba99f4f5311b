"""A SLURM of one machine: `sbatch`, `srun`, `sacct` and `scancel`, as far as submitit needs them.

`sbatch` runs the tasks of an array one after the other in the background, and notes the state of each in a folder.
"""

import sys
from pathlib import Path

_SBATCH = """#!{python}
import os, re, subprocess, sys
from pathlib import Path
state, script = Path({state!r}), Path(sys.argv[1]).absolute()
number = 100 + len(list(state.glob("*.sh")))
text = script.read_text()
(state / f"{{number}}.sh").write_text(text)
found = re.search(r"^#SBATCH --array=0-(\\d+)", text, re.MULTILINE)
tasks = [None] if found is None else list(range(int(found[1]) + 1))
print(f"Submitted batch job {{number}}", flush=True)
if os.fork():
    sys.exit()
for stream in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
for task in tasks:
    name = str(number) if task is None else f"{{number}}_{{task}}"
    here = {{"SLURM_JOB_ID": name if task is None else str(number + 1000 + task), "SLURM_NTASKS": "1"}}
    here |= {{"SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}}
    if task is not None:
        here |= {{"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}}
    done = subprocess.run(["bash", str(script)], env=os.environ | here)
    (state / f"{{name}}.state").write_text("COMPLETED" if done.returncode == 0 else "FAILED")
"""
_SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1:] if "=" in words[0] or words[0] == "--unbuffered" else words[2:]
os.execvp(words[0], words)
"""
_SACCT = """#!{python}
from pathlib import Path
print("JobID|State|NodeList")
for path in Path({state!r}).glob("*.state"):
    print(f"{{path.stem}}|{{path.read_text()}}|here")
"""


def install_slurm(folder: Path) -> Path:
    """Write the four programs into `folder`, for the front of the `PATH`; return where `sbatch` keeps its scripts."""
    state = folder / "state"
    state.mkdir(parents=True)
    programs = {"sbatch": _SBATCH, "srun": _SRUN, "sacct": _SACCT, "scancel": "#!{python}\n"}
    for name, text in programs.items():
        path = folder / name
        path.write_text(text.format(python=sys.executable, state=str(state)))
        path.chmod(0o755)
    return state
