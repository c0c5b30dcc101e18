/** The page on which people rate clips, or compare two of them. */

import {Refused, persist} from './api.js';
import {Form, draftOf, forgetDraft, keepDraft} from './form.js';
import {connectKeys} from './keys.js';
import {deliver, deliverUnsent} from './outbox.js';
import {Player} from './player.js';
import {Stopwatch} from './stopwatch.js';
import * as storage from './storage.js';

const GONE = 'The clip could not be found any more: it was skipped, and the lead '
  + 'will see that.';

const part = (id) => document.getElementById(id);

const player = new Player(part('player'), whenBroken);
const forms = {
  clip: new Form(part('clip-form'), whenChanged),
  pair: new Form(part('pair-form'), whenChanged),
};
const stopwatch = new Stopwatch();

let task = null;      // what is shown
let form = forms.clip;  // of the task
let waiting = [];     // tasks that come next
let earlier = [];     // answers given, newest first, while going back
let position = -1;    // of the shown one among them; -1: a new task
let busy = false;
let fading = 0;       // timer that takes good news away

function say(message, tone = 'plain') {
  const status = part('status');
  status.textContent = message;
  status.dataset.tone = tone;
  clearTimeout(fading);
  if (tone === 'good') fading = setTimeout(() => say(''), 5000);
}

function show(next) {
  task = next;
  const correcting = position >= 0;
  part('work').hidden = task === null;
  part('finished').hidden = task !== null;
  part('correcting').hidden = !correcting;
  if (task === null) {
    player.clear();
    part('finished').querySelector('h1').focus();
    return;
  }
  form = forms[task.kind];
  for (const each of Object.values(forms)) each.hidden = each !== form;
  form.element.querySelector('.skip').hidden = correcting;
  form.element.querySelector('.main').textContent =
    correcting ? 'Save correction' : 'Save and next';
  part('work').classList.toggle('stacked', task.kind === 'pair');
  const draft = correcting
    ? {...earlier[position].answer, seconds: 0}
    : draftOf(task.id);
  form.answer = draft;
  part('caption').textContent = task.caption;
  player.show(task.clips);
  if (waiting.length) player.prepare(waiting[0].clips);
  stopwatch.restart(draft.seconds);
}

function whenChanged() {
  if (!task || position >= 0) return;
  keepDraft(task.id, {...form.answer, seconds: stopwatch.seconds});
}

/** Asks the server for something, again and again if need be. */
async function load(path) {
  let waited = false;
  const reply = await persist(path, {}, (message) => {
    waited = true;
    say(`${message} Trying again …`, 'error');
  });
  if (waited) say('');
  return reply;
}

function drawPace({answered, left, seconds_per_task: seconds}) {
  part('bar').max = Math.max(answered + left, 1);
  part('bar').value = answered;
  const pace = seconds === null ? '' : ` · ${Math.round(seconds)} s each`;
  part('pace').textContent = `${answered} done, ${left} left${pace}`;
}

async function next() {
  position = -1;
  const {tasks, pace} = await load('/api/tasks');
  waiting = tasks;
  drawPace(pace);
  show(waiting.shift() ?? null);
}

function lock(locked) {
  document.querySelector('main').setAttribute('aria-busy', locked);
  for (const each of Object.values(forms)) each.disable(locked);
}

/** Runs an action with the form locked, so that nothing is sent twice. */
async function exclusively(action) {
  if (busy) return;
  busy = true;
  lock(true);
  try {
    await action();
  } catch (error) {
    say(error.message, 'error');
    if (!(error instanceof Refused)) throw error;
    if (error.status === 409) {
      forgetDraft(task.id);
      await next();
    }
  } finally {
    busy = false;
    lock(false);
    if (task) form.focus(form.currentRow);
  }
}

function whenNotSent(message) {
  say(`Not saved yet: ${message} Your answer is kept in this browser, and sent `
    + 'again and again.', 'error');
}

function save() {
  if (!task) return;
  const open = form.firstOpenRow;
  if (open) {
    say('Every row needs a label.', 'error');
    form.focus(open);
    return;
  }
  exclusively(async () => {
    const correcting = position >= 0;
    say('Saving …');
    await deliver({
      id: storage.randomId(), task: task.id, ...form.answer,
      seconds: stopwatch.seconds, skip: '',
      replaces: correcting ? earlier[position].answer.id : '',
    }, whenNotSent);
    forgetDraft(task.id);
    form.rememberReasons();
    say(correcting ? 'Correction saved.' : 'Saved.', 'good');
    await next();
  });
}

function skip(cause, message = 'Skipped.') {
  exclusively(async () => {
    say('Saving …');
    await deliver({
      id: storage.randomId(), task: task.id, labels: {}, reasons: {},
      seconds: stopwatch.seconds, skip: cause, replaces: '',
    }, whenNotSent);
    forgetDraft(task.id);
    await next();
    say(message, 'good');
  });
}

function askForCause() {
  if (task && position < 0) part('causes').showModal();
}

/** Shows an answer given before: the last one, then those before it. */
function back(steps) {
  exclusively(async () => {
    if (position < 0) {
      whenChanged();
      earlier = (await load('/api/recent')).answers;
    }
    const target = position + steps;
    if (target >= earlier.length) {
      say('There is no earlier answer.');
    } else if (target < 0) {
      say('');
      await next();
    } else {
      say('');
      position = target;
      show(earlier[position].task);
    }
  });
}

/** A clip does not play: has it disappeared, or only the connection? */
async function whenBroken(video) {
  const broken = task;
  let status;
  try {
    ({status} = await fetch(video.getAttribute('src'), {method: 'HEAD'}));
  } catch {
    say('The clip cannot be loaded: there is no connection to the server.',
      'error');
    window.addEventListener('online', () => video.load(), {once: true});
    return;
  }
  if (task !== broken) return;
  if (status !== 404) {
    say('This browser cannot play the clip. You may skip it as a broken clip.',
      'error');
  } else if (position >= 0) {
    say('The clip could not be found any more.', 'error');
  } else {
    skip('broken clip', GONE);
  }
}

for (const {element} of Object.values(forms)) {
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    save();
  });
}
for (const button of document.querySelectorAll('.back')) {
  button.addEventListener('click', () => back(1));
}
part('leave').addEventListener('click', () => back(-position - 1));
for (const button of document.querySelectorAll('[data-cause]')) {
  button.addEventListener('click', () => {
    part('causes').close();
    skip(button.dataset.cause);
  });
}
for (const button of document.querySelectorAll('.skip')) {
  button.addEventListener('click', askForCause);
}
part('show-keys').addEventListener('click', () => part('keys').showModal());
for (const button of document.querySelectorAll('[data-close]')) {
  button.addEventListener('click', () => button.closest('dialog').close());
}
document.addEventListener('visibilitychange', whenChanged);

connectKeys({
  player,
  form: () => form,
  save,
  back: () => back(1),
  forward: () => position >= 0 && back(-1),
  skip: askForCause,
  help: () => part('keys').showModal(),
});

exclusively(async () => {
  const count = await deliverUnsent(whenNotSent);
  await next();
  if (count) say('The answer that was still here has been saved.', 'good');
});
