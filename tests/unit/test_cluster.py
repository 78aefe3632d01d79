"""What jobs ask of SLURM and how their processes start; the real cluster is in tests/slurm."""

import pytest
import torch

from mdm import cli
from mdm.config import ResourceConfig, StudyError, TrainingResources
from mdm.files.atomic import ArtifactError
from mdm.study.run.cluster import asks, processes, spread
from mdm.train import slurm
from mdm.train.attempts import Attempts
from mdm.train.machine import nccl_settings


def test_one_process_asks_for_gpus_of_a_node_and_nothing_else():
    assert asks(TrainingResources(gpus=1)) == {"gres": "gpu:1", "mpi": None, "tasks": None, "tasks_per_gpu": None}
    assert set(asks(ResourceConfig()).values()) == {None}


@pytest.mark.parametrize(("nodes", "gpus", "count"), [(1, 8, 8), (2, 8, 16), (2, 1, 2), (3, 0, 3), (1, 0, 1)])
def test_one_process_for_each_gpu(nodes, gpus, count):
    assert processes(nodes, gpus) == count
    wanted = asks(TrainingResources(nodes=nodes, gpus=gpus))
    assert wanted["tasks"] == (count if count > 1 else None)
    assert wanted["gres"] == (f"gpu:{gpus}" if gpus else None)


def test_only_training_spreads():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        ResourceConfig(gpus=2)


def test_a_job_of_slurm_starts_its_processes_by_srun():
    command = spread(["train", "recipe.json"], nodes=2, gpus=4, cpus=6, environment={"SLURM_JOB_ID": "7"})
    assert command[0] == "srun" and command[-2:] == ["train", "recipe.json"]
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=6", "--gres=gpu:4"} < set(command)


def test_one_machine_starts_its_processes_by_torchrun_and_two_need_slurm():
    command = spread(["train", "recipe.json"], nodes=1, gpus=4, cpus=6, environment={})
    assert "torch.distributed.run" in command and "--nproc-per-node=4" in command
    with pytest.raises(StudyError, match="2 nodes are started by SLURM"):
        spread(["train"], nodes=2, gpus=4, cpus=6, environment={})


def test_a_single_process_is_not_started_anew(capsys, monkeypatch):
    monkeypatch.setenv("MDM_GPUS", "0")  # `spread` sets it: later tests must not see that
    assert cli.main(["spread", "--nodes", "1", "--gpus", "1", "--cpus", "1", "check", "--study", "quick"]) == 0
    assert "every recipe is valid" in capsys.readouterr().out


def test_outside_slurm_nothing_is_queued(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.run_again(images_gained=16) is None


def test_without_a_scheduler_to_ask_the_reason_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no scontrol on PATH" in slurm.run_again(images_gained=16)


def test_what_a_site_chose_for_nccl_is_recorded_and_no_host():
    chosen = {"NCCL_ALGO": "Ring", "NCCL_SOCKET_IFNAME": "eth0", "NCCL_COMM_ID": "10.0.0.1:9", "PATH": "/bin"}
    assert nccl_settings(chosen) == {"ALGO": "Ring"}
    assert nccl_settings({}) == {}


def fail(folder, error, attempt=1):
    with pytest.raises(type(error)), Attempts(folder).errors(attempt):
        raise error


def test_an_error_of_ours_is_not_tried_again_by_the_next_attempt(tmp_path):
    fail(tmp_path, RuntimeError("a bug"))
    with pytest.raises(ArtifactError, match="RuntimeError: a bug"), Attempts(tmp_path).errors(attempt=2):
        raise AssertionError("this must not run")
    assert len(Attempts(tmp_path).lines()) == 1


def test_a_person_who_starts_again_after_an_error_is_obeyed(tmp_path):
    fail(tmp_path, RuntimeError("a bug"))
    with Attempts(tmp_path).errors(attempt=1):
        Attempts(tmp_path).begin(0, 64)
    assert [sorted(line)[1] for line in Attempts(tmp_path).lines()] == ["comes_again", "begin"]


@pytest.mark.parametrize("error", [torch.AcceleratorError("a broken GPU"), torch.distributed.DistError("no answer")])
def test_an_error_of_the_machine_is_tried_again(tmp_path, error):
    fail(tmp_path, error)
    with Attempts(tmp_path).errors(attempt=2):
        pass


LOST = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_a_lost_process_is_no_error_of_ours_and_the_first_cause_counts(tmp_path):
    fail(tmp_path, LOST)
    with Attempts(tmp_path).errors(attempt=2):
        pass
    fail(tmp_path, RuntimeError("a bug of one process"))
    fail(tmp_path, LOST)  # of its peer
    with pytest.raises(ArtifactError, match="a bug of one process"), Attempts(tmp_path).errors(attempt=2):
        raise AssertionError("this must not run")


def test_a_journal_that_cannot_be_written_hides_no_error(tmp_path, capsys):
    with pytest.raises(ArtifactError, match="the disk is full"), Attempts(tmp_path).errors(1):
        (tmp_path / "attempts.jsonl").mkdir()
        raise ArtifactError("the disk is full")
    assert "attempts.jsonl cannot be written: Is a directory" in capsys.readouterr().out
    with pytest.raises(ArtifactError, match=r"attempts\.jsonl cannot be written"):
        Attempts(tmp_path).begin(0, 64)


def test_part_of_a_line_counts_as_none(tmp_path):
    journal = Attempts(tmp_path)
    journal.begin(0, 64)
    with (tmp_path / "attempts.jsonl").open("a") as stream:
        stream.write('{"end": 3')
    journal.begin(32, 64)
    assert [line["begin"] for line in journal.lines()] == [0, 32]
