"""A real Slurm on one machine for tests, from Debian's packages `slurm-wlm` and `munge`.

    python tests/train/launch/slurm_cluster.py  # prints what is missing, or starts it to try out

Nothing is written outside its directory. munge, slurmctld and slurmd have their own socket and
ports, and end with the process that started them, however it ends.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PROGRAMS = (
    "setpriv",
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "scancel",
)
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdTimeout=10
KillWait=30
MinJobAge=600
JobRequeue=1
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:{share}
"""


def missing() -> str:
    """Why no Slurm can be started here; empty if one can."""
    absent = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "not root: slurmd starts jobs as their user"
    return ""


class Cluster:
    """A running Slurm.

    Attributes:
      directory: the directory of its files.
      environment: the environment in which commands find it.
    """

    def __init__(self, directory: Path, share: int = 1, settings: tuple[str, ...] = ()):
        """Writes the configuration.

        `share` jobs may run on one CPU, `settings` are further lines.
        """
        self.directory = directory
        self._daemons: dict[str, subprocess.Popen] = {}
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(directory / "slurm.conf"),
            "PATH": _PATH,
        }
        for name in ("state", "spool"):
            (directory / name).mkdir()
        (directory / "munge.key").write_bytes(os.urandom(128))
        (directory / "munge.key").chmod(0o400)
        host, cpus = socket.gethostname().split(".")[0], os.cpu_count()
        values = {
            "host": host,
            "cpus": cpus,
            "directory": directory,
            "share": share,
            "ports": _free_ports(),
        }
        (directory / "slurm.conf").write_text(
            _CONFIG.format(**values) + "".join(f"{line}\n" for line in settings)
        )

    def start(self) -> None:
        """Starts munge, the controller and the node daemon, and waits until the node takes jobs."""
        files = [
            f"--{name}-file={self.directory}/munge.{name}" for name in ("key", "pid", "log", "seed")
        ]
        listening = self.directory / "munge.socket"
        self._start("munged", "--foreground", "--force", f"--socket={listening}", *files)
        self.wait(listening.exists, 60)
        self._start("slurmctld", "-D", "-c")
        self.start_node()

    def _start(self, *command: str) -> None:
        tied = ["setpriv", "--pdeathsig", "TERM", *command]
        quiet = subprocess.DEVNULL  # they write their own logs
        self._daemons[command[0]] = subprocess.Popen(
            tied, env=self.environment, stdout=quiet, stderr=quiet
        )

    def start_node(self) -> None:
        """Starts the node daemon and waits until the node takes jobs.

        If a job ended while the daemon was dead, the node takes no jobs until the controller asks
        again, after a minute.
        """
        self._start("slurmd", "-D")
        self.wait(self._takes_jobs, 180)

    def _takes_jobs(self) -> bool:
        try:
            return self.run("sinfo", "--noheader", "--format=%T").strip() in (
                "idle",
                "mixed",
                "allocated",
            )
        except subprocess.CalledProcessError:  # the controller is not running yet
            return False

    def kill_node(self) -> None:
        """Kills the node daemon as `kill -9` does; the job steps continue without it."""
        self._daemons["slurmd"].kill()
        self._daemons["slurmd"].wait()

    def stop(self) -> None:
        """Cancels every job and ends all daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")
            self.wait(lambda: not self.run("squeue", "--noheader").strip(), 60)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait(60)

    def run(self, *command: str) -> str:
        """The output of a Slurm command."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def wait(self, condition, seconds: float) -> None:
        """Waits for a condition; if it fails, shows the end of the daemons' logs."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                logs = [path.read_text()[-1500:] for path in self.directory.glob("slurm*.log")]
                raise TimeoutError("\n".join([f"waited {seconds} s", *logs]))
            time.sleep(0.5)


def _free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def cluster(*settings: str, share: int = 1) -> Iterator[Cluster]:
    """A Slurm for the length of a `with` block.

    `settings` are further lines of its configuration.
    """
    with tempfile.TemporaryDirectory(
        prefix="slurm-"
    ) as directory:  # a short path: sockets have 108 characters
        made = Cluster(Path(directory), share, settings)
        try:
            made.start()
            yield made
        finally:
            made.stop()


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(reason)
    with cluster() as running:
        print(running.run("sinfo"))
        print(running.run("srun", "hostname"))
