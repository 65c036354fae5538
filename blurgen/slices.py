"""Which part of a run one job of a cluster makes: ``--shard 2/8``, or what SLURM says."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple


class Slice(NamedTuple):
    """Slice `number` of `count`, counted from 1; it makes shards number - 1, number - 1 + count, ..."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"slice {self.number}/{self.count}"

    @property
    def file_name(self) -> str:
        """What a file of this slice may be called."""
        return f"slice-{self.number}-of-{self.count}"

    def of(self, shards: int) -> range:
        """Return the shards of this slice, out of so many."""
        return range(self.number - 1, shards, self.count)


def parse_slice(text: str, environment: Mapping[str, str] = os.environ) -> Slice:
    """Return the slice that ``i/n`` names, or the one of this SLURM task for ``auto``.

    Raises
    ------
    ValueError
        Another form, a number beyond the count, or ``auto`` outside of SLURM.
    """
    if text == "auto":
        return _of_slurm(environment)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"shard must be i/n with i from 1 to n, such as 1/8 to 8/8, or auto, got {text!r}")
    return Slice(int(found[1]), int(found[2]))


def _of_slurm(environment: Mapping[str, str]) -> Slice:
    """Return the slice of a task of a job array, of one of many tasks of a step, or of both."""

    def number(name: str, otherwise: int) -> int:
        return int(environment.get(f"SLURM_{name}", otherwise))

    if not environment.keys() & {"SLURM_ARRAY_TASK_ID", "SLURM_PROCID"}:
        raise ValueError(
            "--shard auto asks SLURM_ARRAY_TASK_ID or SLURM_PROCID, and neither is set: run it by sbatch --array or "
            "srun, or give the slice as i/n"
        )
    first, last = number("ARRAY_TASK_MIN", 0), number("ARRAY_TASK_MAX", 0)
    members = number("ARRAY_TASK_COUNT", 1)
    step = (last - first) // (members - 1) if members > 1 else 1
    member, rest = divmod(number("ARRAY_TASK_ID", first) - first, step or 1)
    tasks, task = number("NTASKS", 1), number("PROCID", 0)
    if rest or not (0 <= member < members and 0 <= task < tasks):
        raise ValueError(
            "--shard auto needs an array in even steps, such as --array=0-7, and SLURM_PROCID below SLURM_NTASKS: "
            "else give the slice as i/n"
        )
    return Slice(member * tasks + task + 1, members * tasks)
