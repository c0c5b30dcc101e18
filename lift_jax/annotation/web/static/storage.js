/** What the page keeps in this browser, apart for each project and person. */

const {project, person} = document.body.dataset;
const prefix = `lift/${project}/${person}/`;

/** Without room or permission to keep things the page works all the same, but
 * forgets them when it is reloaded. */
function attempt(action, otherwise) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException) return otherwise;
    throw error;
  }
}

export function read(key) {
  return attempt(() => JSON.parse(localStorage.getItem(prefix + key)), null);
}

export function write(key, value) {
  attempt(() => localStorage.setItem(prefix + key, JSON.stringify(value)));
}

export function remove(key) {
  attempt(() => localStorage.removeItem(prefix + key));
}

export function keys(start) {
  return attempt(() => Object.keys(localStorage), [])
    .filter((key) => key.startsWith(prefix + start))
    .map((key) => key.slice(prefix.length));
}

/** 128 random bits; `crypto.randomUUID` would need HTTPS. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}
