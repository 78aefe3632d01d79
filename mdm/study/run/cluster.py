"""Where the processes of a training run: what its job asks of SLURM, and the command that starts them. No torch."""

import sys
from collections.abc import Mapping

from mdm.config import ResourceConfig, StudyError

# When one process has ended, the others have so long to write what they hold; then srun ends them.
SECONDS_FOR_THE_REST = 300


def processes(nodes: int, gpus: int) -> int:
    """Count the processes: one for each GPU; on nodes without, one for each node."""
    return nodes * max(1, gpus)


def asks(wanted: ResourceConfig) -> dict[str, int | str | None]:
    """Describe a job's shape as resources of Snakemake's SLURM executor; None leaves one unset."""
    count = processes(wanted.nodes, wanted.gpus)
    return {
        # Of each node: a total (--gpus) would also be met by halves of two busy nodes.
        "gres": f"gpu:{wanted.gpus}" if wanted.gpus else None,
        # Several processes: the executor starts the job once, and the job calls srun itself.
        "mpi": "srun" if count > 1 else None,
        "tasks": count if count > 1 else None,
        # Unless this is 0, the executor asks for `tasks` tasks of every GPU.
        "tasks_per_gpu": 0 if count > 1 else None,
    }


def spread(arguments: list[str], nodes: int, gpus: int, cpus: int, environment: Mapping[str, str]) -> list[str]:
    """Return the command that starts `mdm ARGUMENTS` once per GPU: srun inside a job of SLURM, else torchrun."""
    count = processes(nodes, gpus)
    if "SLURM_JOB_ID" in environment:
        shape = [f"--nodes={nodes}", f"--ntasks={count}", f"--ntasks-per-node={count // nodes}"]
        shape += [f"--cpus-per-task={cpus}", f"--wait={SECONDS_FOR_THE_REST}"]
        shape += [f"--gres=gpu:{gpus}"] if gpus else []
        return ["srun", *shape, sys.executable, "-m", "mdm", *arguments]
    if nodes > 1:
        raise StudyError(
            f"{nodes} nodes are started by SLURM, and this is no job of it; write `snakemake --profile slurm`, "
            "or resources: {nodes: 1} for one machine"
        )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [*torchrun, "-m", "mdm", *arguments]
