"""Direct preference optimisation of diffusion models, with a likelihood term.

A pair has a winner w and a loser l of one caption, at the same timestep and
with the same noise. With errors e of the policy and r of the reference,

  z     = (r_w - e_w) - (r_l - e_l)       by how much the policy prefers w
  logit = beta z      (convention 'full')
          beta z / 2  (convention 'half')

  L = mean over pairs [ f(logit) + sft_weight e_w ]
    + mean over real units [ real_weight e ]

both means divided by the number of all units. Diffusion-DPO (arXiv 2311.12908)
has f = -log sigmoid; its papers' betas belong to the convention 'half' with
errors that are means over the latents, as here. With both weights it is the
loss of Dual-IPO (arXiv 2502.02088). The other forms of f are `FORMS`.

B examples  U units of two, B = 2 U
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.training.objectives.objective import (
  Objective,
  effective_sample_share,
  group_mean,
)

CONVENTIONS = {'half': 0.5, 'full': 1.0}

# Losses of a pair by name. 'ipo' regresses z on 1 / (2 beta), so it is written
# in z and beta of the convention.
FORMS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
  'sigmoid': lambda z, beta: jax.nn.softplus(-beta * z),
  'hinge': lambda z, beta: jax.nn.relu(1 - beta * z),
  'ipo': lambda z, beta: jnp.square(z - 1 / (2 * beta)),
}


_ERRORS = (
  'winner_error',
  'loser_error',
  'winner_reference_error',
  'loser_reference_error',
)


@dataclasses.dataclass(frozen=True)
class DPO(Objective):
  """Loss of pairs and of real clips; see the module.

  Attributes:
    beta: strength of the comparison; larger keeps closer to the reference.
    convention: 'half' or 'full', the factor of beta in the logit.
    form: 'sigmoid', 'hinge' or 'ipo'.
    sft_weight: of the winner's error. It competes with a gradient of about
      beta / 4 (half) at the start, so 1 is next to nothing beside 500.
    real_weight: of the error of real clips.
  """

  beta: float
  convention: str
  form: str
  sft_weight: float
  real_weight: float

  unit = 'pair'
  columns = ('is_real',)
  needs_reference = True
  drift_metric = 'winner_change'

  def __post_init__(self):
    where = 'objective.dpo'
    config_lib.check_choice(f'{where}.convention', self.convention, CONVENTIONS)
    config_lib.check_choice(f'{where}.form', self.form, FORMS)
    if self.beta <= 0:
      raise UserError(f'{where}.beta must be above 0')
    if min(self.sft_weight, self.real_weight) < 0:
      raise UserError(
        f'{where}.sft_weight and {where}.real_weight must not be below 0'
      )

  def selects(self, reward, is_real):
    return self.real_weight > 0 or not is_real

  def values(self, predictions):
    errors = predictions.errors()
    policy, reference = errors['error'], errors['reference_error']
    by_role = policy[::2], policy[1::2], reference[::2], reference[1::2]
    return dict(zip(_ERRORS, by_role, strict=True)) | {
      'anchor_distance': errors['anchor_distance']
    }

  def loss(self, values, columns, statistics):
    is_real_u = columns['is_real'][::2]
    loss_u = FORMS[self.form](_preference(values), self._beta)
    loss_u += self.sft_weight * values['winner_error']
    real_u = (values['winner_error'] + values['loser_error']) / 2
    return jnp.mean(jnp.where(is_real_u, self.real_weight * real_u, loss_u))

  def metrics(self, values, columns):
    is_pair_u = ~columns['is_real'][::2]
    preference_u = _preference(values)
    logit_u = self._beta * preference_u
    # How strongly each pair pulls.
    slope_u = jax.vmap(jax.grad(FORMS[self.form]), (0, None))(
      preference_u, self._beta
    )
    terms = {
      'winner_change': values['winner_error']
      - values['winner_reference_error'],
      'loser_change': values['loser_error'] - values['loser_reference_error'],
      'preference': preference_u,
      'logit': logit_u,
      # The sign is 0 at a tie.
      'implicit_accuracy': (1 + jnp.sign(logit_u)) / 2,
      **{name: values[name] for name in _ERRORS},
    }
    metrics = super().metrics(values, columns) | {
      'max/logit_max': jnp.max(jnp.where(is_pair_u, logit_u, -jnp.inf)),
      'effective_sample_share': effective_sample_share(
        jnp.abs(slope_u), is_pair_u
      ),
    }
    for name, term_u in terms.items():
      metrics |= group_mean(name, term_u, is_pair_u)
    return metrics

  @property
  def _beta(self) -> float:
    return self.beta * CONVENTIONS[self.convention]


def _preference(values) -> jax.Array:
  """z of each unit."""
  winner_u = values['winner_reference_error'] - values['winner_error']
  loser_u = values['loser_reference_error'] - values['loser_error']
  return winner_u - loser_u
