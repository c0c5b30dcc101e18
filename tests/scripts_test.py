"""The launch scripts: syntax, help, dry runs and runs.

No cloud or cluster is used: fake programs named gcloud, xpk, sbatch and so on
come first on the PATH. They record their arguments, and gcloud runs the
commands of a worker on this machine.
"""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

from absl.testing import parameterized
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / 'scripts'
LAUNCHERS = ('tpu_pod.sh', 'gke_xpk.sh', 'slurm.sh', 'local_gpus.sh')
FILES = (*LAUNCHERS, 'slurm_job.sh', 'common.sh')

# Required flags of each script, before the job.
FLAGS = {
  'tpu_pod.sh': ['--tpu=pod', '--zone=zone-a'],
  'gke_xpk.sh': ['--workload=first', '--cluster=tpus', '--tpu_type=v5p-128'],
  'slurm.sh': ['--nodes=2', '--gpus_per_node=4'],
  'local_gpus.sh': [],
}
# With characters that a shell would interpret.
JOB = [
  'align', '--config=a.py:smoke', '--workdir=/mnt/all runs',
  "--config.prompts=it's $HOME",
]  # fmt: skip
QUOTED = (
  "align --config=a.py:smoke '--workdir=/mnt/all runs' "
  "'--config.prompts=it'\\''s $HOME'"
)

# Records its name and its arguments.
_RECORD = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" >> "$RECORD"
printf '\\n' >> "$RECORD"
"""

_GCLOUD = """
for word; do
  case $word in
    --command=*)
      cd "$WORKER" && HOME=$WORKER bash -c "${word#*=}"
      exit
      ;;
    build/*.tar.gz) cp "$word" "$WORKER/lift_jax.tar.gz" ;;
    describe) echo "${STATE:-}" ;;
  esac
done
"""

# A job that prints its arguments. It ends at once, unless a file `endless`
# exists: then it waits for SIGTERM. Of two jobs the second ends at once.
_LIFT = """#!/usr/bin/env bash
trap 'echo saved | tee -a "$HOME/saved"; exit 0' TERM
printf '%s\\n' "$PWD" "$@"
[ "$1" = align ] || exit 3
while [ -e "$HOME/endless" ] && [ ! -e "$HOME/saved" ]; do sleep 0.05; done
"""


def _program(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


class _ScriptTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _world(self, tmp_path):
    self.folder = tmp_path
    self.worker = tmp_path / 'worker'
    self.worker.mkdir()
    self.record = tmp_path / 'record'
    self.repository = tmp_path / 'repository'
    shutil.copytree(SCRIPTS, self.repository / 'scripts')
    for name in ('xpk', 'sbatch', 'scontrol', 'python3'):
      self.stand_in(name)
    self.stand_in('gcloud', _GCLOUD)

  def stand_in(self, name: str, more: str = '') -> None:
    _program(self.folder / 'bin' / name, _RECORD + more)

  def environment(self, **more: str) -> dict[str, str]:
    return {
      'PATH': f'{self.folder / "bin"}:{os.environ["PATH"]}',
      'HOME': str(self.folder),
      'RECORD': str(self.record),
      'WORKER': str(self.worker),
      'GIT_CONFIG_NOSYSTEM': '1',
    } | more

  def call(
    self, name: str, *args: str, **environment: str
  ) -> subprocess.CompletedProcess:
    return subprocess.run(
      [self.repository / 'scripts' / name, *args],
      cwd=self.folder, env=self.environment(**environment), text=True,
      capture_output=True, timeout=60, check=False,
    )  # fmt: skip

  def calls(self) -> list[list[str]]:
    """The recorded calls of the fake programs; clears the record."""
    lines = self.record.read_text().split('\0\n')[:-1]
    self.record.unlink()
    return [line.split('\0') for line in lines]

  def dry_run(self, name: str, *flags: str, **environment: str) -> list[str]:
    """The lines of a dry run, which calls nothing."""
    outcome = self.call(
      name, *FLAGS[name], *flags, '--dry_run', '--', *JOB, **environment
    )
    self.assertEqual((outcome.returncode, outcome.stderr), (0, ''))
    self.assertFalse(self.record.exists())
    self.assertFalse((self.repository / 'build').exists())
    return outcome.stdout.splitlines()


class _TrackedTest(_ScriptTest):
  """In a repository of one commit."""

  def setUp(self):
    super().setUp()
    (self.repository / 'code.py').write_text('old')
    who = ['-c', 'user.name=A', '-c', 'user.email=a@b.c']
    for args in (
      ['init', '--quiet'],
      ['add', '.'],
      [*who, 'commit', '--quiet', '--message=first'],
    ):
      subprocess.run(
        ['git', *args],
        cwd=self.repository,
        env=self.environment(),
        check=True,
      )


class SyntaxTest(parameterized.TestCase):
  @parameterized.parameters(*FILES, '../.ci/run')
  def test_parses(self, name):
    subprocess.run(['bash', '-n', SCRIPTS / name], check=True)

  @parameterized.parameters(*FILES, '../.ci/run')
  def test_shellcheck(self, name):
    if not shutil.which('shellcheck'):
      self.skipTest('shellcheck is not installed')
    outcome = subprocess.run(
      ['shellcheck', '--external-sources', SCRIPTS / name],
      cwd=REPOSITORY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    self.assertEqual(outcome.stdout, '')

  def test_all_are_here(self):
    names = {path.name for path in SCRIPTS.iterdir()}
    self.assertEqual(names, set(FILES))
    for name in names - {'common.sh'}:
      self.assertTrue(os.access(SCRIPTS / name, os.X_OK), name)


class FlagsTest(_ScriptTest):
  @parameterized.parameters(*LAUNCHERS)
  def test_help(self, name):
    outcome = self.call(name, '--help')
    self.assertEqual((outcome.returncode, outcome.stderr), (0, ''))
    lines = outcome.stdout.splitlines()
    self.assertStartsWith(lines[0], 'Runs' if name != 'slurm.sh' else 'Submits')
    self.assertStartsWith(lines[2], f'usage: scripts/{name}')
    self.assertNotIn('#', outcome.stdout)
    self.assertNotIn('set -euo', outcome.stdout)

  @parameterized.parameters(
    ('tpu_pod.sh', ['--zone=z', '--', *JOB], '--tpu=NAME is missing'),
    ('tpu_pod.sh', ['--tpu=t', '--', *JOB], '--zone=ZONE is missing'),
    (
      'tpu_pod.sh', ['--tpu=t', '--zone=z', '--spot', '--', *JOB],
      '--spot needs --create=TYPE',
    ),
    (
      'tpu_pod.sh', ['--tpu=t', '--zone=z', '--create=h100', '--', *JOB],
      '--create=h100: known are v2, v3, v4, v5litepod, v5p and v6e',
    ),
    (
      'gke_xpk.sh', ['--workload=w', '--tpu_type=t', '--', *JOB],
      '--cluster=CLUSTER is missing',
    ),
    (
      'gke_xpk.sh', ['--cluster=c', '--tpu_type=t', '--', *JOB],
      '--workload=NAME is missing',
    ),
    (
      'gke_xpk.sh', ['--cluster=c', '--workload=w', '--', *JOB],
      '--tpu_type=TYPE is missing',
    ),
    (
      'slurm.sh', ['--gpus_per_node=4', '--', *JOB],
      '--nodes=N is missing or wrong',
    ),
    (
      'slurm.sh', ['--nodes=2', '--gpus_per_node=all', '--', *JOB],
      '--gpus_per_node=N is missing or wrong',
    ),
    ('local_gpus.sh', [], 'the job is missing: write -- JOB and its flags'),
    (
      'local_gpus.sh', ['--', '--workdir=a', 'align'],
      "'--workdir=a' is not a job: write -- JOB",
    ),
  )  # fmt: skip
  def test_misuse(self, name, args, message):
    outcome = self.call(name, *args)
    self.assertEqual(
      (outcome.returncode, outcome.stdout, outcome.stderr),
      (2, '', f'{name}: {message}; see scripts/{name} --help\n'),
    )
    self.assertFalse(self.record.exists())

  @parameterized.product(
    name=LAUNCHERS,
    case=(
      (['--wrong'], ['align'], "there is no flag '--wrong'"),
      (['align'], [], "there is no flag 'align'"),
    ),
  )
  def test_misuse_of_all(self, name, case):
    flags, job, message = case
    outcome = self.call(name, *FLAGS[name], *flags, '--', *job)
    self.assertEqual((outcome.returncode, outcome.stdout), (2, ''))
    self.assertStartsWith(outcome.stderr, f'{name}: {message}')
    self.assertFalse(self.record.exists())


_SSH = 'gcloud compute tpus tpu-vm ssh pod --worker=all '
_END = (
  "'--command=if [ -f lift.pid ]; then pkill -TERM -f -F lift.pid "
  'lift_venv/bin/lift; while pgrep -f -F lift.pid lift_venv/bin/lift '
  "> /dev/null; do sleep 1; done; fi'"
)


class TpuPodTest(_TrackedTest):
  def launch(self, *flags: str, job=JOB, **environment: str):
    return self.call(
      'tpu_pod.sh', *FLAGS['tpu_pod.sh'], *flags, '--', *job, **environment
    )

  def setUp(self):
    super().setUp()
    _program(self.worker / 'lift_venv' / 'bin' / 'lift', _LIFT)

  def test_dry_run(self):
    lines = self.dry_run('tpu_pod.sh', '--project=p', '--create=v5p-128')
    where = ' --zone=zone-a --project=p'
    install = shlex.quote(
      '--command=rm -rf lift_jax && mkdir lift_jax && '
      'tar -xzf lift_jax.tar.gz -C lift_jax && cd lift_jax && '
      'python3 -m pip install --quiet --user uv && '
      'python3 -m uv venv --quiet --allow-existing --python=3.11 ~/lift_venv '
      '&& python3 -m uv pip install --quiet --python ~/lift_venv/bin/python '
      "-c constraints.txt -e '.[tpu,gcs]'"
    ).replace("'\"'\"'", "'\\''")
    job = (
      '--command=cd lift_jax; : > ~/lift.log; '
      f'nohup ~/lift_venv/bin/lift {QUOTED} --multihost '
      '>> ~/lift.log 2>&1 < /dev/null & echo $! > ~/lift.pid; '
      'tail -n +1 -f --pid=$! ~/lift.log; wait $!'
    ).replace("'", "'\\''")
    tpu_vm = 'gcloud compute tpus tpu-vm'
    self.assertEqual(
      lines,
      [
        f'{tpu_vm} create pod --accelerator-type=v5p-128 '
        f'--version=v2-alpha-tpuv5{where}',
        'mkdir -p build/launch',
        'git archive --format=tar.gz --output=build/launch/pod.tar.gz HEAD',
        f'{tpu_vm} scp build/launch/pod.tar.gz pod:lift_jax.tar.gz '
        f'--worker=all{where}',
        _SSH + _END + where,
        _SSH + install + where,
        f"{_SSH}'{job}'{where}",
      ],
    )

  @parameterized.parameters(
    ('v6e-16', 'v2-alpha-tpuv6e'), ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v4-32', 'tpu-ubuntu2204-base'),
  )  # fmt: skip
  def test_software(self, kind, version):
    create, *_ = self.dry_run('tpu_pod.sh', f'--create={kind}', '--spot')
    self.assertEndsWith(
      create,
      f' --accelerator-type={kind} --version={version} --spot --zone=zone-a',
    )

  def test_runs_what_it_prints(self):
    lines = self.dry_run('tpu_pod.sh')
    outcome = self.launch()
    self.assertEqual(outcome.returncode, 0, outcome.stderr)
    calls = [call for call in self.calls() if call[0] == 'gcloud']
    printed = [line for line in lines if line.startswith('gcloud')]
    self.assertEqual(calls, list(map(shlex.split, printed)))
    self.assertEqual(
      outcome.stdout.splitlines(),
      [str(self.worker / 'lift_jax'), *JOB, '--multihost'],
    )

  def test_status_of_the_job(self):
    self.assertEqual(self.launch(job=['sample']).returncode, 3)

  def test_copies_what_git_tracks_as_it_is(self):
    (self.repository / 'code.py').write_text('new')
    (self.repository / 'untracked.py').write_text('')
    self.assertEqual(self.launch().returncode, 0)
    unpacked = self.worker / 'lift_jax'
    self.assertEqual((unpacked / 'code.py').read_text(), 'new')
    names = {path.name for path in unpacked.iterdir()}
    self.assertEqual(names, {'scripts', 'code.py'})
    self.assertEqual((self.repository / 'code.py').read_text(), 'new')

  @parameterized.parameters(
    ('READY', []), ('', ['create']), ('PREEMPTED', ['delete', 'create'])
  )
  def test_create(self, state, expected):
    outcome = self.launch('--create=v5p-8', STATE=state)
    self.assertEqual(outcome.returncode, 0, outcome.stderr)
    verbs = [call[4] for call in self.calls() if call[0] == 'gcloud']
    self.assertEqual(verbs, ['describe', *expected, 'scp', 'ssh', 'ssh', 'ssh'])

  def test_again_while_it_runs(self):
    """It survives a lost connection; the same command stops it first."""
    (self.worker / 'endless').touch()
    # Under nohup the tests would ignore the signal. Not with a preexec_fn: that
    # forks, which JAX warns about.
    heed = (
      'import os, signal, sys\n'
      'signal.signal(signal.SIGHUP, signal.SIG_DFL)\n'
      'os.execv(sys.argv[1], sys.argv[1:])\n'
    )
    command = [
      sys.executable, '-c', heed,
      self.repository / 'scripts' / 'tpu_pod.sh', *FLAGS['tpu_pod.sh'], '--',
      *JOB,
    ]  # fmt: skip
    first = subprocess.Popen(
      command, cwd=self.folder, env=self.environment(), text=True,
      stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    self.assertEqual(first.stdout.readline(), f'{self.worker / "lift_jax"}\n')
    os.killpg(first.pid, signal.SIGHUP)
    first.stdout.close()
    first.wait(timeout=60)
    os.kill(int((self.worker / 'lift.pid').read_text()), 0)
    saved = self.worker / 'saved'
    self.assertFalse(saved.exists())
    outcome = self.launch()
    self.assertEqual(outcome.returncode, 0, outcome.stderr)
    self.assertEqual(saved.read_text(), 'saved\n')

  def test_stop(self):
    """Ends the job, but no other process with its pid."""
    log = self.folder / 'log'
    (self.worker / 'endless').touch()
    with log.open('w') as file:
      job, other = (
        subprocess.Popen(
          command, env=self.environment(HOME=str(self.worker)), stdout=file
        )
        for command in (
          [self.worker / 'lift_venv' / 'bin' / 'lift', 'align'],
          ['sleep', '60'],
        )
      )
    for process in (job, other):
      self.addCleanup(process.wait)
      self.addCleanup(process.kill)
    while 'align' not in log.read_text():
      time.sleep(0.01)
    for process in (other, job):
      (self.worker / 'lift.pid').write_text(f'{process.pid}\n')
      # Its parent reaps it, as the shell on a worker does.
      with subprocess.Popen(
        [self.repository / 'scripts' / 'tpu_pod.sh', *FLAGS['tpu_pod.sh'],
         '--stop'],
        env=self.environment(),
      ) as stop:  # fmt: skip
        while stop.poll() is None:
          job.poll(), other.poll()
          time.sleep(0.01)
      self.assertEqual(stop.returncode, 0)
      self.assertIsNone(other.poll())
      self.assertEqual(job.poll(), None if process is other else 0)
    self.assertIn('saved', log.read_text())
    self.assertEqual(
      self.calls()[0], shlex.split(_SSH + _END + ' --zone=zone-a')
    )


class GkeTest(_TrackedTest):
  def test_dry_run(self):
    folder = 'build/launch/first'
    command = (
      "--command=pip install --quiet -c constraints.txt -e '.[tpu,gcs]' && "
      f'exec lift {QUOTED} --multihost'
    ).replace("'", "'\\''")
    create = (
      'xpk workload create --workload=first --cluster=tpus --tpu-type=v5p-128 '
      f'%s--base-docker-image=python:3.11 --script-dir={folder} '
      '--max-restarts=50 --termination-grace-period-seconds=300 '
      f"'{command}'"
    )
    lines = [
      'mkdir -p build/launch',
      f'git archive --format=tar.gz --output={folder}.tar.gz HEAD',
      f'rm -rf {folder}',
      f'mkdir {folder}',
      f'tar -xzf {folder}.tar.gz -C {folder}',
    ]
    self.assertEqual(self.dry_run('gke_xpk.sh'), [*lines, create % ''])
    flags = '--zone=z --project=p --storage=s'
    self.assertEqual(
      self.dry_run('gke_xpk.sh', *flags.split()), [*lines, create % f'{flags} ']
    )

  def test_runs_what_it_prints(self):
    *_, line = self.dry_run('gke_xpk.sh')
    for text in ('old', 'new'):
      (self.repository / 'code.py').write_text(text)
      outcome = self.call('gke_xpk.sh', *FLAGS['gke_xpk.sh'], '--', *JOB)
      self.assertEqual(outcome.returncode, 0, outcome.stderr)
      self.assertEqual(self.calls(), [shlex.split(line)])
      image = self.repository / 'build' / 'launch' / 'first'
      self.assertEqual((image / 'code.py').read_text(), text)

  def test_a_file_is_touched(self):
    """Its timestamp changed, its content did not."""
    os.utime(self.repository / 'code.py', (1e9, 1e9))
    outcome = self.call('gke_xpk.sh', *FLAGS['gke_xpk.sh'], '--', *JOB)
    self.assertEqual(outcome.returncode, 0, outcome.stderr)

  def test_signals_reach_the_job(self):
    """In xpk's shell, which signals the process that it started."""
    *_, line = self.dry_run('gke_xpk.sh')
    command = shlex.split(line)[-1].removeprefix('--command=')
    self.stand_in('pip')
    _program(self.folder / 'bin' / 'lift', _LIFT)
    (self.folder / 'endless').touch()
    shell = subprocess.Popen(
      # Not to the file of the job, which may write first.
      ['bash', '-c', f'({command}) & echo $! >&2; wait $!'],
      env=self.environment(), text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with shell:
      pid = int(shell.stderr.readline())
      while shell.stdout.readline() != '--multihost\n':
        pass
      os.kill(pid, signal.SIGTERM)
      self.assertEqual(shell.stdout.read(), 'saved\n')
    self.assertEqual(shell.returncode, 0)


class SlurmTest(_ScriptTest):
  def line(self, more: str, tasks: int, devices: str) -> str:
    scripts = self.repository / 'scripts'
    return (
      f'sbatch --job-name=lift-align --nodes=2 --ntasks-per-node={tasks} '
      f'--gpus-per-node=4 --exclusive --mem=0 {more}--signal=B:USR1@300 '
      f'--requeue --open-mode=append {scripts}/slurm_job.sh '
      f'srun --kill-on-bad-exit=1 --cpu-bind=none {devices}'
      f'{scripts}/local_gpus.sh -- {QUOTED} --multihost'
    )

  def test_dry_run(self):
    devices = 'env JAX_LOCAL_DEVICE_IDS=0,1,2,3 '
    self.assertEqual(self.dry_run('slurm.sh'), [self.line('', 1, devices)])
    flags = '--time=1-00:00:00 --partition=a100 --account=us'
    self.assertEqual(
      self.dry_run('slurm.sh', *flags.split(), '--process_per_gpu'),
      [self.line(f'{flags} ', 4, '')],
    )

  def test_runs_what_it_prints(self):
    (line,) = self.dry_run('slurm.sh')
    outcome = self.call('slurm.sh', *FLAGS['slurm.sh'], '--', *JOB)
    self.assertEqual((outcome.returncode, outcome.stderr), (0, ''))
    self.assertEqual(self.calls(), [shlex.split(line)])

  @parameterized.parameters(0, 2)
  def test_job_that_ends(self, status):
    """It is not requeued, whatever its status."""
    self.stand_in('srun', f'exit {status}\n')
    outcome = self.call('slurm_job.sh', 'srun', *JOB, SLURM_JOB_ID='7')
    self.assertEqual(outcome.returncode, status)
    self.assertEqual(self.calls(), [['srun', *JOB]])

  def test_out_of_time(self):
    """The step gets SIGTERM, and the job is requeued after its end."""
    self.stand_in(
      'srun', 'echo $$ > "$HOME/pid"\ntrap "sleep 0.3; exit 0" TERM\n'
      'while true; do sleep 0.05; done\n',
    )  # fmt: skip
    self.stand_in('scancel', 'kill -TERM "$(cat "$HOME/pid")"\n')
    self.stand_in(
      'scontrol',
      'kill -0 "$(cat "$HOME/pid")" 2> /dev/null && exit 9\nexit 0\n',
    )
    job = subprocess.Popen(
      [self.repository / 'scripts' / 'slurm_job.sh', 'srun', *JOB],
      env=self.environment(SLURM_JOB_ID='7'),
    )
    while not (pid := self.folder / 'pid').exists() or not pid.read_text():
      time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    self.assertEqual(job.wait(timeout=60), 0)
    self.assertEqual(
      self.calls(),
      [
        ['srun', *JOB],
        ['scancel', '--signal=TERM', '7.0'],
        ['scontrol', 'requeue', '7'],
      ],
    )


class LocalGpusTest(_ScriptTest):
  def test_dry_run(self):
    overlap = '--xla_gpu_enable_latency_hiding_scheduler=true'
    self.assertEqual(
      self.dry_run('local_gpus.sh'),
      [
        'env JAX_PLATFORMS=cuda XLA_CLIENT_MEM_FRACTION=0.9 '
        f'XLA_FLAGS={overlap} lift {QUOTED}'
      ],
    )
    self.assertEqual(
      self.dry_run(
        'local_gpus.sh', '--gpus=0,1', XLA_FLAGS='--a --b',
        XLA_CLIENT_MEM_FRACTION='0.5',
      ),
      [
        'env JAX_PLATFORMS=cuda XLA_CLIENT_MEM_FRACTION=0.5 '
        f"'XLA_FLAGS={overlap} --a --b' CUDA_VISIBLE_DEVICES=0,1 lift {QUOTED}"
      ],
    )  # fmt: skip

  def test_runs_what_it_prints(self):
    self.stand_in('lift', 'echo "$JAX_PLATFORMS $XLA_FLAGS"; exit 3\n')
    (line,) = self.dry_run('local_gpus.sh')
    outcome = self.call('local_gpus.sh', '--', *JOB)
    self.assertEqual(
      (outcome.returncode, outcome.stdout),
      (3, 'cuda --xla_gpu_enable_latency_hiding_scheduler=true\n'),
    )
    self.assertEqual(self.calls(), [['lift', *JOB]])
    self.assertEqual(shlex.split(line)[-len(JOB) - 1 :], ['lift', *JOB])
