"""fleet.py on clusters whose tools answer little, nothing or in another encoding; and records that are not its own."""

import os
import pickle
from pathlib import Path

import pytest

from segbench.problem import Problem
from tools import fleet, fleet_jobs

RECORD = b'{"command": ["benchmark.py"], "shard": "1/2", "nodes": "zen4"}'


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a shell script on the PATH, which holds nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.fixture
def records(tmp_path) -> Path:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "7_0.json").write_bytes(RECORD)
    return tmp_path / "fleet"


def test_a_queue_that_says_nothing_is_a_line(tool, records):
    tool("squeue", "exit 1")
    with pytest.raises(Problem, match="squeue ends with 1: nothing was said"):
        fleet_jobs.of_folder(records.parent)


def test_a_queue_with_a_blank_line_and_latin_1(tool, records):
    tool("squeue", r"printf '\n9_0 RUNNING b\374ro\n7_0 RUNNING caf\351 4\n'")
    (job,) = fleet_jobs.of_folder(records.parent)
    assert job.alive and job.state.startswith("running caf") and job.state.endswith(" 4")


def test_tasks_of_an_array_in_brackets_wait(tool, records):
    """Else the same command would submit them again."""
    tool("squeue", "echo '7_[0,2-3%1] PENDING (Priority)'")
    assert [job.alive for job in fleet_jobs.of_folder(records.parent)] == [True]
    assert fleet_jobs.in_queue() == dict.fromkeys(("7_0", "7_2", "7_3"), "pending (priority)")


@pytest.mark.parametrize(
    ("text", "says"),
    [("#!/bin/sh\nwhile :; do :; done", "has not answered for 0.2 s"), ("#!/nowhere", "cannot be run: No such file")],
)
def test_a_tool_that_hangs_or_does_not_run(tool, records, monkeypatch, text, says):
    monkeypatch.setattr(fleet_jobs, "ANSWER_S", 0.2)
    tool("squeue", "")
    (records.parent / "bin" / "squeue").write_text(text)
    with pytest.raises(Problem, match=f"^squeue {says}"):
        fleet_jobs.of_folder(records.parent)


def test_records_that_are_no_files(tool, records):
    tool("squeue", "exit 0")
    for name in ("7_0.ended", "node-1"):
        (records / name).mkdir()
    os.mkfifo(records / "7_0_0_log.err")
    assert fleet_jobs.status([str(records.parent)]) == 0
    os.mkfifo(records / "8.json")
    with pytest.raises(Problem, match=r"8.json is no record of a job .*move it"):
        fleet_jobs.status([str(records.parent)])


@pytest.mark.parametrize(
    ("text", "said"), [("exit 3", "sbatch ends with 3: nothing was said"), ("echo no >&2; exit 1", "1: no")]
)
def test_a_trial_that_fails(tool, text, said):
    tool("srun", "")
    tool("sbatch", text)
    with pytest.raises(Problem, match=f"^--time=60: .*{said}$"):
        fleet.ask_cluster([{"time": "60"}])


def test_a_cluster_without_srun_is_named(tool):
    tool("sbatch", "exit 0")
    with pytest.raises(Problem, match="srun is not on the PATH"):
        fleet.ask_cluster([{"time": "60"}])


def test_a_submission_without_a_number_is_a_line(tool, tmp_path):
    (tmp_path / "other.py").write_text("print('3 runs to go')")
    tool("srun", "")
    tool("sbatch", "exit 0")
    with pytest.raises(Problem, match=r"^Could not make sense of sbatch output") as problem:
        fleet.main([str(tmp_path / "other.py"), "--out", str(tmp_path), "--threads", "1"])
    assert "\n" not in str(problem.value)


def test_what_others_wrote_is_not_run(tool, records, capsys):
    """Neither a pickle under submitit's names nor a record that is not one."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(records / "harm"),)

    for name in ("7_0_submitted.pkl", "7_0_result.pkl", "7_0_0_result.pkl"):
        (records / name).write_bytes(pickle.dumps(Harm()))
    tool("squeue", "exit 0")
    fleet_jobs.status([str(records.parent)])
    assert "job 7_0: shard 1/2, zen4: stopped without a result" in capsys.readouterr().out
    (records / "7_0.ended").write_text("failed, status 2: no such mode")
    fleet_jobs.status([str(records.parent)])
    assert "zen4: failed, status 2: no such mode, see 7_0_0_log.err" in capsys.readouterr().out
    for text in (b"", b"\xff", b"[1]", RECORD[:-5]):
        (records / "8.json").write_bytes(text)
        with pytest.raises(Problem, match=r"8.json is no record of a job .*move it"):
            fleet_jobs.status([str(records.parent)])
    assert not (records / "harm").exists()
