"""Accuracy and F1 of a critic against the human labels.

D resamples, V videos, N ratings, K classes. A confusion matrix [K, K + 1] has
human classes along the first axis and the critic's along the second, whose last
column counts ratings without an answer; these are wrong.
"""

import numpy as np

from lift_jax.evaluation import bootstrap
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate, ratio
from lift_jax.evaluation.comparison import Table


def confusion(table: Table) -> np.ndarray:
  """Counts [K, K + 1]."""
  k = table.num_classes
  return _cells(table).sum(axis=0).astype(int).reshape(k, k + 1)


def _cells(table: Table) -> np.ndarray:
  """The cell [N, K (K + 1)] of each rating."""
  k = table.num_classes
  # -1 is the last column.
  column_n = np.where(table.answer_n < 0, k, table.answer_n)
  return np.eye(k * (k + 1))[table.human_n * (k + 1) + column_n]


def majority(table: Table) -> int:
  """The most frequent human class."""
  return int(np.bincount(table.human_n, minlength=table.num_classes).argmax())


def accuracy(confusion_dkc: np.ndarray) -> np.ndarray:
  """The fraction of ratings where the critic gives the human label, [D]."""
  right_d = np.trace(confusion_dkc[:, :, :-1], axis1=1, axis2=2)
  return ratio(right_d, confusion_dkc.sum(axis=(1, 2)))


def macro_f1(confusion_dkc: np.ndarray) -> np.ndarray:
  """F1 = 2 TP / (2 TP + FP + FN), averaged over classes, [D].

  A class that neither annotators nor critic ever choose is skipped; one that
  only one side chooses has an F1 of 0.
  """
  right_dk = np.diagonal(confusion_dkc[:, :, :-1], axis1=1, axis2=2)
  predicted_dk = confusion_dkc[:, :, :-1].sum(axis=1)
  true_dk = confusion_dkc.sum(axis=2)
  f1_dk = ratio(2 * right_dk, predicted_dk + true_dk)
  is_present_dk = np.isfinite(f1_dk)
  sum_d = np.where(is_present_dk, f1_dk, 0).sum(axis=1)
  return ratio(sum_d, is_present_dk.sum(axis=1).astype(float))


def agreement(table: Table, config: BootstrapConfig) -> dict[str, Estimate]:
  """Accuracy and macro-F1, next to those of a majority-class baseline.

  `gain` is the accuracy above the baseline, whose class is the same in all
  resamples.
  """
  cells_vc = bootstrap.per_video(_cells(table), table.video_n, table.num_videos)
  majority_class, k = majority(table), table.num_classes

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    confusion_dkc = (weights_dv @ cells_vc).reshape(-1, k, k + 1)
    constant_dkc = np.zeros_like(confusion_dkc)
    constant_dkc[:, :, majority_class] = confusion_dkc.sum(axis=2)
    accuracy_d, baseline_d = accuracy(confusion_dkc), accuracy(constant_dkc)
    return {
      'accuracy': accuracy_d,
      'macro_f1': macro_f1(confusion_dkc),
      'baseline_accuracy': baseline_d,
      'baseline_macro_f1': macro_f1(constant_dkc),
      'gain': accuracy_d - baseline_d,
    }

  return bootstrap.estimates(
    metrics, table.num_videos, cells_vc.shape[1], config
  )


def accuracy_by_dimension(table: Table, config: BootstrapConfig) -> Estimate:
  """The mean over dimensions of the accuracy in each."""
  k = table.num_classes
  parts = [
    bootstrap.per_video(_cells(part), part.video_n, part.num_videos)
    for name in np.unique(table.dimension_n)
    for part in (table.select(table.dimension_n == name),)
  ]

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    by_dimension = [
      accuracy((weights_dv @ cells_vc).reshape(-1, k, k + 1))
      for cells_vc in parts
    ]
    return {'accuracy': np.mean(by_dimension, axis=0)}

  return bootstrap.estimates(
    metrics, table.num_videos, parts[0].shape[1], config
  )['accuracy']
