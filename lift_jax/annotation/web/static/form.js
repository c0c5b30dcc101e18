/** The form of one task: a row for each dimension, with a label and a reason. */

import * as storage from './storage.js';

export class Form {
  constructor(element, onChange) {
    this.element = element;
    this.rows = [...element.querySelectorAll('.row')];
    element.addEventListener('input', () => {
      this.#offerReasons();
      onChange();
    });
  }

  set hidden(hidden) {
    this.element.hidden = hidden;
  }

  /** Labels chosen so far and reasons, each by dimension. */
  get answer() {
    const labels = {}, reasons = {};
    for (const row of this.rows) {
      const {dimension} = row.dataset;
      const chosen = row.querySelector('input:checked');
      if (chosen) labels[dimension] = chosen.value;
      reasons[dimension] = reasonOf(row).value.trim();
    }
    return {labels, reasons};
  }

  set answer({labels, reasons}) {
    for (const row of this.rows) {
      const {dimension} = row.dataset;
      for (const radio of radiosOf(row)) {
        radio.checked = radio.value === labels[dimension];
      }
      reasonOf(row).value = reasons[dimension] ?? '';
    }
    this.#offerReasons();
  }

  get firstOpenRow() {
    return this.rows.find((row) => !row.querySelector('input:checked'));
  }

  /** The row that the keyboard acts on. */
  get currentRow() {
    const row = this.rows.find((row) => row.contains(document.activeElement));
    return row ?? this.firstOpenRow ?? this.rows[0];
  }

  choose(index) {
    const row = this.currentRow;
    const radio = radiosOf(row)[index];
    if (!radio || radio.disabled) return;
    radio.checked = true;
    radio.focus();
    this.element.dispatchEvent(new Event('input'));
  }

  focus(row) {
    const radio = row.querySelector('input:checked') ?? radiosOf(row)[0];
    radio.focus({preventScroll: true});
    row.scrollIntoView({block: 'nearest'});
  }

  focusReason() {
    reasonOf(this.currentRow).focus();
  }

  /** The row after (or before) the current one, if there is one. */
  neighbour(offset) {
    return this.rows[this.rows.indexOf(this.currentRow) + offset];
  }

  disable(disabled) {
    for (const control of this.element.querySelectorAll('input, button')) {
      control.disabled = disabled;
    }
  }

  /** Offers the reasons of this task from now on. */
  rememberReasons() {
    for (const row of this.rows) {
      const {list, value} = reasonOf(row);
      const known = [...list.options].some((option) => option.value === value);
      if (value.trim() && !known) {
        const option = document.createElement('option');
        option.value = value;
        list.prepend(option);
      }
    }
  }

  /** Each label has reasons of its own. */
  #offerReasons() {
    for (const row of this.rows) {
      const list = row.querySelector('input:checked')?.dataset.reasons;
      if (list) reasonOf(row).setAttribute('list', list);
    }
  }
}

function radiosOf(row) {
  return [...row.querySelectorAll('input[type=radio]')];
}

function reasonOf(row) {
  return row.querySelector('input[type=text]');
}

/** What somebody has filled in of a task but not saved; survives a reload. */
export function draftOf(task) {
  return storage.read(`draft/${task}`)
    ?? {labels: {}, reasons: {}, seconds: 0};
}

export function keepDraft(task, draft) {
  storage.write(`draft/${task}`, draft);
}

export function forgetDraft(task) {
  storage.remove(`draft/${task}`);
}
