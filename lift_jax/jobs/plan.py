"""Compiles a job for devices that are not here, and says what it will cost.

usage: lift plan --config=FILE.py[:variant] --topology=TOPOLOGY
                 [--job=align|train_critic|sample|score] [--json]
                 [--config.SECTION.FIELD=VALUE ...]

TOPOLOGY is v5p:4x4x4 (TPU chips along each side of a slice), 2*v5p:4x4x4
(slices), h100:2x8 (hosts x GPUs of a host) or cpu:8. The job is align unless
told otherwise. It is compiled as the job itself would compile it, on the mesh
of the config; no data and no weights are needed. For each of its programs this
prints the memory that a device needs, FLOPs, what is sent between devices, and
from these between which bounds the time of a step lies. Nothing is measured.

TPUs need libtpu (pip install 'lift_jax[tpu]'), GPUs JAX's CUDA plugin
(pip install 'lift_jax[cuda]'). lift sample and lift score work on each host by
itself, so they are planned for one host.

example: lift plan --config=configs/align_sample.py:smoke --topology=cpu:8
"""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from absl import flags

from lift_jax.cli import job_flags
from lift_jax.errors import UserError
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
  topology = topology_lib.parse(values['topology'].value)
  job = values['job'].value
  if job in _ON_ONE_HOST:
    topology = topology.one_host
  topology_lib.prepare(topology)  # before JAX looks for devices
  found = plan(job, values['config'].value, overrides, topology)
  if values['json'].value:
    print(json.dumps(found.to_json(), indent=1))
  else:
    print('\n'.join(found.lines()))
  return 0


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is known of a job on some devices.

  Attributes:
    job: its name.
    topology: the devices.
    mesh: how they are laid out, in words.
    attention: the kernel, and why where it is not the one asked for.
    reports: of each program.
    knobs: what would help where one does not fit.
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


# What compilers call each kernel of attention.
_KERNELS = {'splash': 'tpu_custom_call', 'cudnn': 'fmha'}


def plan(
  job: str,
  config_file: str,
  overrides: list[str],
  topology: topology_lib.Topology,
) -> Plan:
  """Compiles every program of a job.

  Raises:
    UserError: the config is not one of the job, or does not suit the devices.
  """
  # Imports JAX's compilers, after `prepare` has told them what to look for.
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
    # That cuDNN is missing is found by the compiler or, as a plain
    # RuntimeError, by JAX before.
    if 'cudnn' not in str(error).lower() or attention == 'xla':
      if not isinstance(error, jax.errors.JaxRuntimeError):
        raise
      raise UserError(
        f'--topology={topology}: {str(error).strip().splitlines()[0]}'
      ) from error
    # Its kernels are chosen by the library itself, which is not here.
    model = dataclasses.replace(config.model, attention='xla')
    config = dataclasses.replace(config, model=model)
    attention = (
      'xla in place of cudnn, as cuDNN is not installed: more memory and more '
      'traffic than there will be'
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


def _chosen(asked: str, reports: Sequence[Any]) -> str:
  """The kernel that attention became, by what the programs call."""
  if any(one.memory is None for one in reports):
    return asked  # a program that the compiler refused tells nothing
  called = {name for one in reports for name in one.kernels}
  found = {
    kernel
    for kernel, target in _KERNELS.items()
    if any(target in name for name in called)
  }
  chosen = ', '.join(sorted(found)) or 'xla'
  return chosen if asked == chosen else f'{chosen} (asked for: {asked})'
