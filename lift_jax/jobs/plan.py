"""Compiles a job for absent devices and estimates its memory and step time.

usage: lift plan --config=FILE.py[:variant] --topology=TOPOLOGY
                 [--job=align|train_critic|sample|score] [--json]
                 [--config.SECTION.FIELD=VALUE ...]

TOPOLOGY is v5p:4x4x4 (TPU chips along each side of a slice), 2*v5p:4x4x4
(slices), h100:2x8 (hosts x GPUs per host) or cpu:8. The default job is align.
It is compiled as the job itself would compile it, on the mesh of the config; no
data and no weights are needed. For each of its programs this prints memory per
device, FLOPs, communication between devices, and the resulting bounds on the
time of a step. Nothing is measured.

A training step is one program for each bucket, with its batch size. For align
they are the buckets of data.cache, if it has been prepared; else each of
data.sizes at data.max_frames.

TPUs need libtpu (pip install 'lift_jax[tpu]'), GPUs JAX's CUDA plugin
(pip install 'lift_jax[cuda]'). lift sample and lift score run on each host
separately, so they are planned for one host. What the compilers print is in
lift_plan_*.log of the temporary folder.

example: lift plan --config=configs/align_sample.py:smoke --topology=cpu:8
"""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from absl import flags

from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.planning import compiler_log
from lift_jax.planning import topology as topology_lib

JOBS = ('align', 'train_critic', 'sample', 'score')
_ON_ONE_HOST = ('sample', 'score')


def main(argv: list[str]) -> int:
  values = flags.FlagValues()
  flags.DEFINE_string('config', None, 'Config file.', flag_values=values)
  flags.DEFINE_string('topology', None, 'Devices.', flag_values=values)
  flags.DEFINE_enum('job', JOBS[0], JOBS, 'The job.', flag_values=values)
  flags.DEFINE_bool('json', False, 'Print JSON.', flag_values=values)
  overrides = job_flags.parse_flags(
    argv, values, 'plan', {'config': 'FILE.py', 'topology': 'TOPOLOGY'}
  )
  topology = topology_lib.parse(values.topology)
  job = values.job
  if job in _ON_ONE_HOST:
    topology = topology.one_host
  topology_lib.prepare(topology)  # before JAX initialises its backends
  with compiler_log.redirected():
    found = plan(job, values.config, overrides, topology)
  if values.json:
    print(json.dumps(found.to_json(), indent=1))
  else:
    print('\n'.join(found.lines()))
  return 0


@dataclasses.dataclass(frozen=True)
class Plan:
  """The reports on a job for some devices.

  Attributes:
    job: name of the job.
    topology: the devices.
    mesh: description of the mesh.
    attention: the kernel, and why if it is not the configured one.
    reports: one for each program.
    knobs: settings to change if a program does not fit.
  """

  job: str
  topology: topology_lib.Topology
  mesh: str
  attention: str
  reports: tuple[Any, ...]
  knobs: tuple[str, ...]

  def lines(self) -> list[str]:
    from lift_jax.planning import report

    found = [f'lift {self.job} on {self.topology}: {self.mesh}']
    found.append(f'attention: {self.attention}')
    for one in self.reports:
      found += ['', *report.lines(one)]
    if len(self.reports) > 1:
      found += ['', report.most_memory(self.reports)]
    if self.knobs:
      found += ['', 'It does not fit. What would help:']
      found += [f'  {knob}' for knob in self.knobs]
    return found

  def to_json(self) -> dict[str, Any]:
    return {
      'job': self.job,
      'topology': str(self.topology),
      'mesh': self.mesh,
      'attention': self.attention,
      'programs': [
        dataclasses.asdict(one) | {'fits': one.fits} for one in self.reports
      ],
      'knobs': list(self.knobs),
    }


# Substring of the compiled custom call of each attention kernel.
_KERNELS = {'splash': 'tpu_custom_call', 'cudnn': 'fmha'}


def plan(
  job: str,
  config_file: str,
  overrides: list[str],
  topology: topology_lib.Topology,
) -> Plan:
  """Compiles every program of a job.

  Raises:
    UserError: the config is not one of the job, or does not fit the devices.
  """
  # Imported late: they may use JAX's backends, which `prepare` configures.
  import jax

  from lift_jax import partitioning
  from lift_jax.planning import job_programs, report

  config_class, make_programs = job_programs.JOBS[job]
  config, _ = job_flags.read_config(config_file, overrides, config_class)
  devices = topology_lib.devices(topology)
  attention = config.model.attention
  programs = make_programs(config, devices)
  try:
    reports = [report.make(program, topology) for program in programs]
  except RuntimeError as error:
    # A missing cuDNN is reported by the compiler, or by JAX itself as a plain
    # RuntimeError.
    if 'cudnn' not in str(error).lower() or attention == 'xla':
      if not isinstance(error, jax.errors.JaxRuntimeError):
        raise
      raise UserError(
        f'--topology={topology}: {str(error).strip().splitlines()[0]}'
      ) from error
    # cuDNN must be installed to select its kernels.
    model = dataclasses.replace(config.model, attention='xla')
    config = dataclasses.replace(config, model=model)
    attention = (
      'xla in place of cudnn, as cuDNN is not installed: memory and traffic '
      'are overestimated'
    )
    programs = make_programs(config, devices)
    reports = [report.make(program, topology) for program in programs]
  else:
    attention = _chosen(attention, reports)
  fits = all(one.fits for one in reports)
  return Plan(
    job,
    topology,
    partitioning.describe(programs[0].mesh),
    attention,
    tuple(reports),
    () if fits else tuple(job_programs.knobs(job, config, programs[0].mesh)),
  )


def _chosen(configured: str, reports: Sequence[Any]) -> str:
  """The attention kernel, according to the custom calls of the programs."""
  if any(one.memory is None for one in reports):
    return configured  # unknown if the compiler rejected a program
  names = {name for one in reports for name in one.kernels}
  found = {
    kernel
    for kernel, target in _KERNELS.items()
    if any(target in name for name in names)
  }
  chosen = ', '.join(sorted(found)) or 'xla'
  if chosen == configured:
    return chosen
  return f'{chosen} (configured: {configured})'
