/** The pages of a lead: settling, inviting, revoking. */

import {post} from './api.js';
import {Form} from './form.js';

const status = document.getElementById('status');

/** Sends something once: the button that was pressed is locked meanwhile. */
async function submit(element, path, body, onDone) {
  const button = element.closest('button') ?? element.querySelector('button');
  button.disabled = true;
  try {
    onDone(await post(path, body));
    status.textContent = '';
  } catch (error) {
    status.textContent = error.message;
    status.dataset.tone = 'error';
    status.scrollIntoView({block: 'nearest'});
  } finally {
    button.disabled = false;
  }
}

for (const element of document.querySelectorAll('form.settle')) {
  const done = element.querySelector('.done');
  const form = new Form(element, () => {
    done.textContent = '';
  });
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    const {task} = element.dataset;
    submit(element, '/api/settle', {task, ...form.answer}, () => {
      done.textContent = 'Settled.';
      done.dataset.tone = 'good';
    });
  });
}

document.getElementById('invite')?.addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target;
  const {name, role} = Object.fromEntries(new FormData(form));
  submit(form, '/api/invite', {name, role}, ({path}) => {
    document.getElementById('link').textContent =
      `The link of ${name}, shown only now: ${new URL(path, location)}`;
    form.reset();
  });
});

for (const button of document.querySelectorAll('[data-revoke]')) {
  button.addEventListener('click', () => {
    const {revoke, name} = button.dataset;
    if (!confirm(`Revoke all links of ${name}?`)) return;
    submit(button, '/api/revoke', {person: Number(revoke)}, () => {
      location.reload();
    });
  });
}
